package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_select_desc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.ref.Reference;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Finds which keys attention is to look at, from the queries and keys themselves. What it writes is what
 * {@link Attention} takes as lists of blocks, and for hashing as orders and documents; what they say is attended to
 * exactly. The same input and seed give the same lists. Immutable.
 *
 * <ul>
 *   <li>{@link #blocks} lists for each block of queries the most important blocks of keys.
 *   <li>{@link #lsh} sorts queries and keys by a hash, and lists blocks of keys that share it.
 *   <li>{@link #retrieval} gives each query a sample of the keys, with biases that make attention to it an estimate of
 *       attention to all.
 * </ul>
 *
 * <p>Tensors are batched, {@code [batch, length, heads, head size]}, or {@linkplain #packed packed},
 * {@code [tokens, heads, head size]}, as {@link Attention} has them. Where queries or keys are not finite, what is
 * chosen has no meaning, but it is valid.
 */
public final class Selection {
    private final Options options;

    /** How the keys of a block become one: see {@link Selection#pool}. */
    public enum Pool {
        /** Their mean. */
        MEAN,
        /** Their least and greatest elements, which bound every product with them. */
        BOUNDS;

        int code() {
            return switch (this) {
                case MEAN -> gatun_h.GTN_POOL_MEAN();
                case BOUNDS -> gatun_h.GTN_POOL_BOUNDS();
            };
        }
    }

    private enum Kind {
        BLOCKS,
        LSH,
        RETRIEVAL;

        int code() {
            return switch (this) {
                case BLOCKS -> gatun_h.GTN_SELECT_BLOCKS();
                case LSH -> gatun_h.GTN_SELECT_LSH();
                case RETRIEVAL -> gatun_h.GTN_SELECT_RETRIEVAL();
            };
        }
    }

    /** Written only before the description that owns it is made. */
    private static final class Options implements Cloneable {
        final Kind kind;
        final long blockQ;
        final long blockK;
        final long count;
        long first;
        long local;
        boolean causal;
        Pool pool = Pool.MEAN;
        float scale = Float.NaN; // 1 / sqrt(dk)
        long heads; // 0: those of the queries
        long buckets;
        long layers;
        long seed;
        long maxSequences; // 0: batched

        Options(Kind kind, long blockQ, long blockK, long count) {
            this.kind = kind;
            this.blockQ = blockQ;
            this.blockK = blockK;
            this.count = count;
        }

        @Override
        protected Options clone() {
            try {
                return (Options) super.clone();
            } catch (CloneNotSupportedException e) {
                throw new AssertionError(e);
            }
        }
    }

    private Selection(Options options) {
        this.options = options;
    }

    private Selection with(Consumer<Options> change) {
        Options changed = options.clone();
        change.accept(changed);
        return new Selection(changed);
    }

    /** The same where it is for one kind. */
    private Selection only(Kind kind, String name, Consumer<Options> change) {
        if (options.kind != kind) {
            throw new IllegalStateException(name + ": of " + options.kind + ", expected " + kind);
        }
        return with(change);
    }

    private static Options options(Kind kind, long blockQ, long blockK, long count) {
        Arguments.atLeast("blockQ", blockQ, 1);
        Arguments.atLeast("blockK", blockK, 1);
        Arguments.atLeast("count", count, 1);
        return new Options(kind, blockQ, blockK, count);
    }

    private static void range(String name, long value, long least, long most) {
        if (value < least || value > most) {
            throw new IllegalArgumentException(name + ": " + value + ", expected " + least + " to " + most);
        }
    }

    /**
     * Describes the choice of the most important blocks of keys for each block of queries (Yuan et al. 2025, Native
     * Sparse Attention, section 3.3.2): a query gives each block of keys the weight that a softmax over products with
     * pooled blocks says, and a block's importance is the sum of these over the queries of a block and the query heads
     * of a list.
     *
     * @param blockQ queries of a block, 1 or more
     * @param blockK keys of a block, 1 or more
     * @param count how many blocks of keys a list names, 1 or more
     * @return the description
     * @throws IllegalArgumentException if one of them is less than 1
     */
    public static Selection blocks(long blockQ, long blockK, long count) {
        return new Selection(options(Kind.BLOCKS, blockQ, blockK, count));
    }

    /**
     * Describes angular hashing by random rotations (Kitaev et al. 2020, Reformer, section 2): queries and keys get a
     * label in each layer, and are sorted by that of the last, then by position; queries, unless causal, by those of the
     * layers before in between, so that those which have seen the same keys lie together. A block of queries lists
     * blocks of keys that hold one of its labels, those nearest to its own place.
     *
     * <p>Attention then sees pairs of one label that no layer before has seen together: rounds with 1, 2, ... layers
     * and one seed {@linkplain Merge merge} to attention over their union.
     *
     * @param buckets how many labels there are: even, 2 to 65536
     * @param layers 1 to 64
     * @param seed of the rotations
     * @param blockQ queries of a block, 1 or more
     * @param blockK keys of a block, 1 or more
     * @param count how many blocks of keys a list names at most, 1 or more
     * @return the description
     * @throws IllegalArgumentException if one of them is none of these
     */
    public static Selection lsh(long buckets, long layers, long seed, long blockQ, long blockK, long count) {
        range("buckets", buckets, 2, 65536);
        if (buckets % 2 != 0) {
            throw new IllegalArgumentException("buckets: " + buckets + ", expected an even number");
        }
        range("layers", layers, 1, 64);
        Options options = options(Kind.LSH, blockQ, blockK, count);
        options.buckets = buckets;
        options.layers = layers;
        options.seed = seed;
        return new Selection(options);
    }

    /**
     * Describes a sample of the keys for each query (Chen et al. 2024, MagicPIG, section 4): keys and queries get a
     * code of {@code bits} bits in each of {@code tables} tables, and a query takes the keys that share its code in two
     * of them or more. A bias makes up for how likely that was. Lists are of single keys, and of single queries.
     *
     * @param bits of a code, 1 to 16
     * @param tables 2 to 1024
     * @param seed of the rotations
     * @param count how many keys a list names at most, 1 or more; of more, those that share the most codes stay
     * @return the description
     * @throws IllegalArgumentException if one of them is none of these
     */
    public static Selection retrieval(long bits, long tables, long seed, long count) {
        range("bits", bits, 1, 16);
        range("tables", tables, 2, 1024);
        Options options = options(Kind.RETRIEVAL, 1, 1, count);
        options.buckets = 1L << bits;
        options.layers = tables;
        options.seed = seed;
        return new Selection(options);
    }

    /**
     * Gives the first blocks of keys, or keys of {@link #retrieval}, a place in every list, whatever they hold.
     *
     * @param first how many, 0 or more, with {@link #local} at most the count
     * @return a description with that many
     * @throws IllegalArgumentException if there are more than fit, or less than 0
     * @throws IllegalStateException for {@link #lsh}
     */
    public Selection first(long first) {
        return places("first", first, options.local, o -> o.first = first);
    }

    /**
     * Gives the last blocks of keys, or keys, that the last query of a block may see, a place in every list.
     *
     * @param local how many, 0 or more, with {@link #first} at most the count
     * @return a description with that many
     * @throws IllegalArgumentException if there are more than fit, or less than 0
     * @throws IllegalStateException for {@link #lsh}
     */
    public Selection local(long local) {
        return places("local", local, options.first, o -> o.local = local);
    }

    private Selection places(String name, long places, long others, Consumer<Options> change) {
        if (options.kind == Kind.LSH) {
            throw new IllegalStateException(name + ": of LSH, expected BLOCKS or RETRIEVAL");
        }
        range(name, places, 0, options.count - others);
        return with(change);
    }

    /**
     * Sets how blocks of keys are pooled: {@link Pool#MEAN} unless it is set. {@link Pool#BOUNDS} gives what a product
     * with any key of the block can reach (Tang et al. 2024, Quest, section 3.3).
     *
     * @param pool how
     * @return a description with that
     * @throws IllegalStateException unless it is of {@link #blocks}
     */
    public Selection pool(Pool pool) {
        return only(Kind.BLOCKS, "pool", o -> o.pool = pool);
    }

    /**
     * Has queries see keys up to their own position alone, as {@link Attention#causal} does.
     *
     * @return a causal description
     */
    public Selection causal() {
        return with(o -> o.causal = true);
    }

    /**
     * Sets what products are multiplied by: {@code 1 / sqrt(head size)} unless it is set.
     *
     * @param scale a finite number
     * @return a description with that scale
     * @throws IllegalArgumentException if it is not finite
     * @throws IllegalStateException unless it is of {@link #blocks}
     */
    public Selection scale(float scale) {
        Arguments.finite("scale", scale);
        return only(Kind.BLOCKS, "scale", o -> o.scale = scale);
    }

    /**
     * Sets for how many heads there are lists: those of the queries unless it is set.
     *
     * @param heads the heads of the queries, or for {@link #blocks} those of the keys
     * @return a description with that many
     * @throws IllegalArgumentException if {@code heads} is less than 1
     * @throws IllegalStateException unless it is of {@link #blocks}
     */
    public Selection heads(long heads) {
        Arguments.atLeast("heads", heads, 1);
        return only(Kind.BLOCKS, "heads", o -> o.heads = heads);
    }

    /**
     * Has tensors packed: {@code [tokens, heads, head size]}, with offsets in each run.
     *
     * @param maxSequences the most sequences that a run may have, at least 1
     * @return a description of packed tensors
     * @throws IllegalArgumentException if {@code maxSequences} is less than 1
     */
    public Selection packed(long maxSequences) {
        Arguments.atLeast("maxSequences", maxSequences, 1);
        return with(o -> o.maxSequences = maxSequences);
    }

    /**
     * Makes a plan. The sizes of the batch and of the lengths or tokens are the most that a run may have.
     *
     * @param device where it will run
     * @param q F32, BF16 or F16 {@code [batch, len_q, heads_q, dk]}, or {@code [tokens_q, heads_q, dk]} packed, unit
     *     stride in dk
     * @param k of the same type, {@code [batch, len_k, heads_k, dk]}, or {@code [tokens_k, heads_k, dk]} packed;
     *     heads_k divides heads_q
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these, or does not go with this description
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec q, TensorSpec k) {
        boolean packed = options.maxSequences > 0;
        int rank = packed ? 3 : 4;
        String shape = packed ? "[tokens, heads, head size]" : "[batch, length, heads, head size]";
        Arguments.rank("q", q, rank, shape);
        Arguments.rank("k", k, rank, shape);
        Arguments.type("q", q, DType.F32, DType.BF16, DType.F16);
        Arguments.type("k", k, q.dtype());
        for (int d = rank - 2; d < rank; d++) {
            if (q.size(d) == 0) {
                throw Arguments.wrong("q", q, "1 or more in dimension " + d);
            }
        }
        Arguments.unitStride("q", q);
        Arguments.unitStride("k", k);
        if (!packed) {
            Arguments.size("k", k, 0, q.size(0), "the batch of q");
        }
        Arguments.size("k", k, rank - 1, q.size(rank - 1), "the head size of q");
        long headsQ = q.size(rank - 2);
        long headsK = k.size(rank - 2);
        if (headsK == 0 || headsQ % headsK != 0) {
            throw Arguments.wrong("k", k, "a number of heads that divides the " + headsQ + " of q");
        }
        long heads = options.heads == 0 ? headsQ : options.heads;
        if (heads != headsQ && heads != headsK) {
            throw new IllegalArgumentException(
                    "heads: " + heads + ", expected " + headsK + ", the heads of k, or " + headsQ + ", those of q");
        }
        return new Plan(device, options, q, k, heads);
    }

    /**
     * Where a run writes: tensors without gaps, each null exactly where the plan has none of it. It may be used for any
     * number of runs, so that they allocate nothing, by one thread at a time.
     */
    public static final class Lists {
        private @Nullable Tensor blockOffsets;
        private @Nullable Tensor blockColumns;
        private @Nullable Tensor blockBias;
        private @Nullable Tensor qOrder;
        private @Nullable Tensor kOrder;
        private @Nullable Tensor qDocuments;
        private @Nullable Tensor kDocuments;

        /** Makes one without tensors. */
        public Lists() {}

        /**
         * Sets where the offsets of the lists go.
         *
         * @param blockOffsets {@link Plan#blockOffsets}, of as many sequences as the run has
         * @return this
         */
        public Lists blockOffsets(@Nullable Tensor blockOffsets) {
            this.blockOffsets = blockOffsets;
            return this;
        }

        /**
         * Sets where the lists go.
         *
         * @param blockColumns {@link Plan#blockColumns}; what lies beyond the last offset is not written
         * @return this
         */
        public Lists blockColumns(@Nullable Tensor blockColumns) {
            this.blockColumns = blockColumns;
            return this;
        }

        /**
         * Sets where the biases of the entries go.
         *
         * @param blockBias {@link Plan#blockBias}
         * @return this
         */
        public Lists blockBias(@Nullable Tensor blockBias) {
            this.blockBias = blockBias;
            return this;
        }

        /**
         * Sets where the order of the queries goes.
         *
         * @param qOrder {@link Plan#qOrder}
         * @return this
         */
        public Lists qOrder(@Nullable Tensor qOrder) {
            this.qOrder = qOrder;
            return this;
        }

        /**
         * Sets where the order of the keys goes.
         *
         * @param kOrder {@link Plan#kOrder}
         * @return this
         */
        public Lists kOrder(@Nullable Tensor kOrder) {
            this.kOrder = kOrder;
            return this;
        }

        /**
         * Sets where the labels of the queries go.
         *
         * @param qDocuments {@link Plan#qDocuments}
         * @return this
         */
        public Lists qDocuments(@Nullable Tensor qDocuments) {
            this.qDocuments = qDocuments;
            return this;
        }

        /**
         * Sets where the labels of the keys go.
         *
         * @param kDocuments {@link Plan#kDocuments}
         * @return this
         */
        public Lists kDocuments(@Nullable Tensor kDocuments) {
            this.kDocuments = kDocuments;
            return this;
        }

        /**
         * Has runs of attention read what runs of the selection write: the same tensors, not copies.
         *
         * @param arrays those of a plan that {@link Plan#attention} described
         * @return {@code arrays}
         */
        public Attention.Arrays into(Attention.Arrays arrays) {
            return arrays.blockOffsets(blockOffsets)
                    .blockColumns(blockColumns)
                    .blockBias(blockBias)
                    .qOrder(qOrder)
                    .kOrder(kOrder)
                    .qDocuments(qDocuments)
                    .kDocuments(kDocuments);
        }
    }

    /** A selection made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final Options options;
        private final TensorSpec q;
        private final TensorSpec k;
        private final long heads;
        private final boolean packed;
        private final TensorSpec index;
        private final Attention.Array blockOffsets;
        private final Attention.Array blockColumns;
        private final Attention.Array blockBias;
        private final Attention.Array qOrder;
        private final Attention.Array kOrder;
        private final Attention.Array qDocuments;
        private final Attention.Array kDocuments;

        private Plan(Device device, Options options, TensorSpec q, TensorSpec k, long heads) {
            boolean packed = options.maxSequences > 0;
            int length = packed ? 0 : 1;
            long sequences = packed ? options.maxSequences : q.size(0);
            long lenQ = q.size(length);
            long lenK = k.size(length);
            long headsQ = q.size(length + 1);
            long blocks = Math.ceilDiv(lenQ, options.blockQ);
            // As a tensor of more dimensions first, which says so when it is too large.
            Arguments.dense("blockColumns", DType.S64, sequences, heads, blocks, options.count);
            Arguments.dense("blockOffsets", DType.S64, sequences + 1, heads, blocks + 1);
            long lists = heads * blocks;
            long entries = sequences * lists * options.count;
            boolean lsh = options.kind == Kind.LSH;
            Attention.Array blockOffsets = new Attention.Array(
                    "blockOffsets", TensorSpec.of(DType.S64, sequences * lists + 1), lists, 1);
            Attention.Array blockColumns = Attention.Array.whole("blockColumns", true, DType.S32, entries);
            Attention.Array blockBias =
                    Attention.Array.whole("blockBias", options.kind == Kind.RETRIEVAL, DType.F32, entries);
            Attention.Array qOrder =
                    Attention.Array.each("qOrder", lsh, !packed, sequences, DType.S32, headsQ, lenQ);
            Attention.Array kOrder =
                    Attention.Array.each("kOrder", lsh, !packed, sequences, DType.S32, headsQ, lenK);
            Attention.Array qDocuments = Attention.Array.each(
                    "qDocuments", lsh, !packed, sequences, DType.S32, options.layers, headsQ, lenQ);
            Attention.Array kDocuments = Attention.Array.each(
                    "kDocuments", lsh, !packed, sequences, DType.S32, options.layers, headsQ, lenK);
            super(
                    device,
                    "q " + q.dtype() + ", k " + k.dtype(),
                    arena -> describe(arena, options, q, k, heads),
                    (desc, plan, message) -> gatun_h.gtn_select_plan(device.handle, desc, plan, message));
            this.options = options;
            this.q = q;
            this.k = k;
            this.heads = heads;
            this.packed = packed;
            this.index = TensorSpec.of(DType.S64, packed ? sequences + 1 : sequences);
            this.blockOffsets = blockOffsets;
            this.blockColumns = blockColumns;
            this.blockBias = blockBias;
            this.qOrder = qOrder;
            this.kOrder = kOrder;
            this.qDocuments = qDocuments;
            this.kDocuments = kDocuments;
        }

        private static MemorySegment describe(
                SegmentAllocator arena, Options options, TensorSpec q, TensorSpec k, long heads) {
            MemorySegment desc = gtn_select_desc.allocate(arena);
            gtn_select_desc.size(desc, (int) gtn_select_desc.sizeof());
            gtn_select_desc.kind(desc, options.kind.code());
            q.write(gtn_select_desc.q(desc));
            k.write(gtn_select_desc.k(desc));
            gtn_select_desc.max_sequences(desc, options.maxSequences);
            gtn_select_desc.heads(desc, heads);
            gtn_select_desc.block_q(desc, options.blockQ);
            gtn_select_desc.block_k(desc, options.blockK);
            gtn_select_desc.count(desc, options.count);
            gtn_select_desc.first(desc, options.first);
            gtn_select_desc.local(desc, options.local);
            gtn_select_desc.causal(desc, options.causal ? 1 : 0);
            if (options.kind == Kind.BLOCKS) {
                gtn_select_desc.pool(desc, options.pool.code());
                gtn_select_desc.scale(desc, Float.isNaN(options.scale)
                        ? (float) (1 / Math.sqrt(q.size(q.rank() - 1)))
                        : options.scale);
            }
            gtn_select_desc.buckets(desc, options.buckets);
            gtn_select_desc.layers(desc, options.layers);
            gtn_select_desc.seed(desc, options.seed);
            return desc;
        }

        /**
         * Returns what the offsets of the lists need at most.
         *
         * @return S64 {@code [sequences * heads * ceil(len_q / blockQ) + 1]}
         */
        public TensorSpec blockOffsets() {
            return spec(blockOffsets);
        }

        /**
         * Returns what the lists need: also in runs of fewer sequences.
         *
         * @return S32, count times as many as there are lists
         */
        public TensorSpec blockColumns() {
            return spec(blockColumns);
        }

        /**
         * Returns what the biases need.
         *
         * @return F32, as many as {@link #blockColumns}, or null unless it is of {@link Selection#retrieval}
         */
        public @Nullable TensorSpec blockBias() {
            return blockBias.spec();
        }

        /**
         * Returns what the order of the queries needs at most.
         *
         * @return S32 {@code [batch, heads_q, len_q]}, or {@code [heads_q, tokens_q]} packed, or null unless it is of
         *     {@link Selection#lsh}
         */
        public @Nullable TensorSpec qOrder() {
            return qOrder.spec();
        }

        /**
         * Returns what the order of the keys needs at most.
         *
         * @return as {@link #qOrder}, with the length or tokens of the keys
         */
        public @Nullable TensorSpec kOrder() {
            return kOrder.spec();
        }

        /**
         * Returns what the labels of the queries need at most.
         *
         * @return S32 {@code [batch, layers, heads_q, len_q]}, or {@code [layers, heads_q, tokens_q]} packed, or null
         *     unless it is of {@link Selection#lsh}
         */
        public @Nullable TensorSpec qDocuments() {
            return qDocuments.spec();
        }

        /**
         * Returns what the labels of the keys need at most.
         *
         * @return as {@link #qDocuments}, with the length or tokens of the keys
         */
        public @Nullable TensorSpec kDocuments() {
            return kDocuments.spec();
        }

        private static TensorSpec spec(Attention.Array array) {
            TensorSpec spec = array.spec();
            if (spec == null) {
                throw new AssertionError(array.name());
            }
            return spec;
        }

        /**
         * Makes what runs of the plan's batch write to.
         *
         * @param allocator where the memory is taken from
         * @return all tensors that the plan has, at its maxima
         */
        public Lists lists(SegmentAllocator allocator) {
            return new Lists()
                    .blockOffsets(tensor(allocator, blockOffsets))
                    .blockColumns(tensor(allocator, blockColumns))
                    .blockBias(tensor(allocator, blockBias))
                    .qOrder(tensor(allocator, qOrder))
                    .kOrder(tensor(allocator, kOrder))
                    .qDocuments(tensor(allocator, qDocuments))
                    .kDocuments(tensor(allocator, kDocuments));
        }

        private static @Nullable Tensor tensor(SegmentAllocator allocator, Attention.Array array) {
            TensorSpec spec = array.spec();
            return spec == null ? null : Tensor.allocate(allocator, spec.dtype(), spec.shape());
        }

        /**
         * Describes attention to what this plan selects: its plan is for the same batch, lengths and heads.
         *
         * @param attention what else attention is, causal where the selection is
         * @return with the blocks, and where there are some the biases, documents and order, of {@link Lists}
         */
        public Attention attention(Attention attention) {
            Attention listed =
                    attention.blocks(options.blockQ, options.blockK, heads, spec(blockColumns).size(0));
            return switch (options.kind) {
                case BLOCKS -> listed;
                case LSH -> listed.documents(heads, options.layers).order(heads);
                case RETRIEVAL -> listed.blockBias();
            };
        }

        /**
         * Runs a batched plan in which all sequences have the lengths of {@code q} and {@code k}.
         *
         * @param stream a stream of the plan's device
         * @param q the queries
         * @param k the keys
         * @param out where the lists go
         */
        public void run(Stream stream, Tensor q, Tensor k, Lists out) {
            run(stream, q, k, null, null, out);
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call batch and lengths, or
         * tokens, may be smaller than the plan's. What a device finds wrong in the content of an index is an
         * {@link IllegalArgumentException}, too, and leaves outputs untouched.
         *
         * @param stream a stream of the plan's device
         * @param q the queries
         * @param k the keys, of the batch of {@code q}
         * @param qIndex batched: null, or the length of each sequence, S64 {@code [batch]}; packed: offsets, S64
         *     {@code [sequences + 1]}, from 0, never falling, the last at most the tokens
         * @param kIndex the same for the keys
         * @param out where the lists go
         */
        public void run(
                Stream stream, Tensor q, Tensor k, @Nullable Tensor qIndex, @Nullable Tensor kIndex, Lists out) {
            check(stream);
            int length = packed ? 0 : 1;
            Arguments.input(device, "q", q, this.q, length + 1);
            Arguments.input(device, "k", k, this.k, length + 1);
            long sequences = packed ? offsets(qIndex, kIndex) : q.spec.size(0);
            MemorySegment qIndexMemory = MemorySegment.NULL;
            MemorySegment kIndexMemory = MemorySegment.NULL;
            if (!packed) {
                Arguments.size("k", k.spec, 0, sequences, "the batch of q");
            }
            if (qIndex != null) {
                qIndexMemory = index("qIndex", qIndex, sequences);
            }
            if (kIndex != null) {
                kIndexMemory = index("kIndex", kIndex, sequences);
            }
            int status = gatun_h.gtn_select_run(
                    handle,
                    stream.handle,
                    sequences,
                    q.spec.size(length),
                    k.spec.size(length),
                    qIndexMemory,
                    kIndexMemory,
                    q.memory,
                    k.memory,
                    output(blockOffsets, out.blockOffsets, sequences),
                    output(blockColumns, out.blockColumns, sequences),
                    output(blockBias, out.blockBias, sequences),
                    output(qOrder, out.qOrder, sequences),
                    output(kOrder, out.kOrder, sequences),
                    output(qDocuments, out.qDocuments, sequences),
                    output(kDocuments, out.kDocuments, sequences));
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        private MemorySegment output(Attention.Array array, @Nullable Tensor tensor, long sequences) {
            MemorySegment memory = array.memory(device, tensor, sequences);
            if (tensor != null) {
                Arguments.writable(array.name(), memory);
            }
            return memory;
        }

        private MemorySegment index(String name, Tensor index, long sequences) {
            Arguments.input(device, name, index, this.index, 1);
            Arguments.size(name, index.spec, 0, packed ? sequences + 1 : sequences,
                    packed ? "the offsets of qIndex" : "the batch of q");
            return index.memory;
        }

        private static long offsets(@Nullable Tensor qIndex, @Nullable Tensor kIndex) {
            if (qIndex == null || kIndex == null) {
                throw new IllegalArgumentException((qIndex == null ? "qIndex" : "kIndex")
                        + ": null, expected S64 offsets [sequences + 1], because the plan is packed");
            }
            if (qIndex.spec.rank() != 1 || qIndex.spec.size(0) == 0) {
                throw Arguments.wrong("qIndex", qIndex.spec, "at least 1 offset");
            }
            return qIndex.spec.size(0) - 1;
        }
    }
}
