package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_attention_desc;
import io.gatun.bindings.c.gtn_attention_pattern;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.ref.Reference;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.ObjLongConsumer;
import java.util.function.ToLongFunction;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * Attention: {@code out = softmax(scores over the visible keys) v}, for every sequence and head, without ever holding
 * the matrix of scores (Dao et al. 2022, FlashAttention). Immutable.
 *
 * <p>Query i of a sequence with {@code len_q} queries and {@code len_k} keys sits at position
 * {@code p = i + len_k - len_q}. The score of key j is {@code scale * q.k}; then come, each where it is asked for, in
 * this order: {@link #softcap}, {@link #slopes}, {@link #bias}, {@link #blockBias} and {@link #selfBias}. A query that
 * sees nothing gives 0 and a log-sum-exp of -infinity. Query head h reads key and value head
 * {@code h / (heads_q / heads_k)}.
 *
 * <p>Visible is what every part of a head's pattern admits: the window, which {@link #sinks}, {@link #globals} and
 * {@link #prefix} lift, and {@link #documents()}, {@link #tree} and {@link #blocks(long, long, long) blocks}. All heads
 * have one pattern, or each {@linkplain #heads its own}.
 *
 * <p>Tensors come in two layouts. Batched: {@code [batch, length, heads, head size]}, with optional lengths. Packed:
 * {@code [tokens, heads, head size]}, where sequence b has the tokens {@code offsets[b]} to {@code offsets[b + 1] - 1};
 * it needs {@link #packed}. With either, keys and values may be {@linkplain #paged pages}. Other orders of the
 * dimensions in memory are strides: {@link TensorSpec#transpose}.
 *
 * <p>What a part of a pattern or a score needs besides is an array that each run brings: {@link Arrays}.
 */
public final class Attention {
    private static final long UNLIMITED = -1;
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};

    private final Options options;

    /** The parts of a pattern that have arrays. */
    private enum Mask {
        PREFIX,
        GLOBALS,
        DOCUMENTS,
        TREE,
        BLOCKS;

        int code() {
            return switch (this) {
                case PREFIX -> gatun_h.GTN_MASK_PREFIX();
                case GLOBALS -> gatun_h.GTN_MASK_GLOBALS();
                case DOCUMENTS -> gatun_h.GTN_MASK_DOCUMENTS();
                case TREE -> gatun_h.GTN_MASK_TREE();
                case BLOCKS -> gatun_h.GTN_MASK_BLOCKS();
            };
        }
    }

    /** What the queries of a head see. */
    private record Pattern(long left, long right, long dilation, long sinks, Set<Mask> masks) {
        Pattern with(Mask mask) {
            Set<Mask> more = EnumSet.of(mask);
            more.addAll(masks);
            return new Pattern(left, right, dilation, sinks, more);
        }

        void write(MemorySegment pattern) {
            int codes = 0;
            for (Mask mask : masks) {
                codes |= mask.code();
            }
            gtn_attention_pattern.size(pattern, (int) gtn_attention_pattern.sizeof());
            gtn_attention_pattern.masks(pattern, codes);
            gtn_attention_pattern.window_left(pattern, left);
            gtn_attention_pattern.window_right(pattern, right);
            gtn_attention_pattern.dilation(pattern, dilation);
            gtn_attention_pattern.sinks(pattern, sinks);
        }
    }

    /** How large the arrays of a mask are: heads with patterns of their own share them. */
    private record Width(String name, Mask mask, ToLongFunction<Options> get, ObjLongConsumer<Options> set) {
        static final List<Width> ALL = List.of(
                new Width("maxGlobals", Mask.GLOBALS, o -> o.maxGlobals, (o, n) -> o.maxGlobals = n),
                new Width("heads of documents", Mask.DOCUMENTS, o -> o.documentHeads, (o, n) -> o.documentHeads = n),
                new Width("layers of documents", Mask.DOCUMENTS, o -> o.documentLayers,
                        (o, n) -> o.documentLayers = n),
                new Width("maxTree", Mask.TREE, o -> o.maxTree, (o, n) -> o.maxTree = n),
                new Width("blockQ", Mask.BLOCKS, o -> o.blockQ, (o, n) -> o.blockQ = n),
                new Width("blockK", Mask.BLOCKS, o -> o.blockK, (o, n) -> o.blockK = n),
                new Width("heads of blocks", Mask.BLOCKS, o -> o.blockHeads, (o, n) -> o.blockHeads = n),
                new Width("maxBlocks", Mask.BLOCKS, o -> o.maxBlocks, (o, n) -> o.maxBlocks = n),
                new Width("maxMasks", Mask.BLOCKS, o -> o.maxBlockMasks, (o, n) -> o.maxBlockMasks = n),
                new Width("blockBias", Mask.BLOCKS, o -> o.blockBias ? 1 : 0, (o, n) -> o.blockBias = n == 1));
    }

    /** Written only before the description that owns it is made. */
    private static final class Options implements Cloneable {
        boolean causal;
        boolean eachHead;
        Pattern[] patterns;
        float scale = Float.NaN; // 1 / sqrt(dk)
        float softcap;
        float selfBias;
        boolean sinkLogits;
        boolean slopes;
        @Nullable TensorSpec bias;
        long maxSequences; // 0: batched
        long maxLenK = -1; // -1: not paged
        long maxGlobals;
        long documentHeads;
        long documentLayers;
        long maxTree;
        long blockQ;
        long blockK;
        long blockHeads;
        long maxBlocks;
        long maxBlockMasks;
        boolean blockBias;
        long orderHeads;

        Options(boolean causal, long right) {
            this.causal = causal;
            this.patterns = new Pattern[] {new Pattern(UNLIMITED, right, 1, 0, Set.of())};
        }

        @Override
        protected Options clone() {
            try {
                return (Options) super.clone();
            } catch (CloneNotSupportedException e) {
                throw new AssertionError(e);
            }
        }

        boolean has(Mask mask) {
            for (Pattern pattern : patterns) {
                if (pattern.masks.contains(mask)) {
                    return true;
                }
            }
            return false;
        }
    }

    private Attention(Options options) {
        this.options = options;
    }

    private Attention with(Consumer<Options> change) {
        Options changed = options.clone();
        change.accept(changed);
        return new Attention(changed);
    }

    /** Changes the pattern, of which there must be one. */
    private Attention pattern(String name, UnaryOperator<Pattern> change) {
        if (options.eachHead) {
            throw new IllegalStateException(name
                    + ": each head has a pattern of its own, expected it to be set there, before heads(...)");
        }
        return with(o -> o.patterns = new Pattern[] {change.apply(o.patterns[0])});
    }

    private Attention mask(String name, Mask mask, Consumer<Options> widths) {
        return pattern(name, pattern -> pattern.with(mask)).with(widths);
    }

    /**
     * Describes attention in which every query sees every key.
     *
     * @return the description
     */
    public static Attention dense() {
        return new Attention(new Options(false, UNLIMITED));
    }

    /**
     * Describes attention in which a query sees its own position and what is before it.
     *
     * @return the description
     */
    public static Attention causal() {
        return new Attention(new Options(true, 0));
    }

    /**
     * Describes attention in which each query head has a pattern of its own: the window, the dilation, the sinks, and
     * which of prefix, globals, documents, tree and blocks it uses. Only these are taken from each description. How
     * large the arrays are, {@link #globals} and {@link #blocks(long, long, long) blocks} say, must be the same for all
     * that use one. What else there is to set is set on the result.
     *
     * @param ofEachHead as many as the queries have heads, at least 1, none of which this method made
     * @return a description with these patterns
     * @throws IllegalArgumentException if there is none, one has patterns of its own, or two disagree on an array
     */
    public static Attention heads(Attention... ofEachHead) {
        if (ofEachHead.length == 0) {
            throw new IllegalArgumentException("ofEachHead: none, expected one for each head of the queries");
        }
        Options all = new Options(false, UNLIMITED);
        all.eachHead = true;
        all.patterns = new Pattern[ofEachHead.length];
        Set<Mask> seen = EnumSet.noneOf(Mask.class);
        for (int h = 0; h < ofEachHead.length; h++) {
            Options one = ofEachHead[h].options;
            if (one.eachHead) {
                throw new IllegalArgumentException("ofEachHead[" + h + "]: patterns for each of "
                        + one.patterns.length + " heads, expected one pattern");
            }
            all.patterns[h] = one.patterns[0];
            for (Width width : Width.ALL) {
                long value = width.get.applyAsLong(one);
                long others = width.get.applyAsLong(all);
                if (!all.patterns[h].masks.contains(width.mask)) {
                    continue;
                }
                if (seen.contains(width.mask) && value != others) {
                    throw new IllegalArgumentException("ofEachHead[" + h + "]: " + width.name + " " + value
                            + ", expected " + others + " as an earlier head has");
                }
                width.set.accept(all, value);
            }
            seen.addAll(all.patterns[h].masks);
        }
        return new Attention(all);
    }

    /**
     * Limits how far back a query sees. A sliding window of W keys is {@code causal().window(W - 1)} (Beltagy et al.
     * 2020, Longformer, section 3.1).
     *
     * @param left the keys seen before the query's own position, 0 or more, or -1 for all; with {@link #dilation} d
     *     these are every d-th
     * @return a description with that limit; how far ahead a query sees stays as it is
     * @throws IllegalArgumentException if {@code left} is less than -1
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention window(long left) {
        return window(left, options.patterns[0].right);
    }

    /**
     * Limits how far a query sees in both directions.
     *
     * @param left the keys seen before the query's own position, 0 or more, or -1 for all
     * @param right the keys seen after it, 0 or more, or -1 for all; 0 for causal attention
     * @return a description with these limits
     * @throws IllegalArgumentException if a limit is less than -1, or {@code right} is not 0 for causal attention
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention window(long left, long right) {
        if (left < UNLIMITED) {
            throw new IllegalArgumentException("left: " + left + ", expected 0 or more, or -1 for no limit");
        }
        if (right < UNLIMITED) {
            throw new IllegalArgumentException("right: " + right + ", expected 0 or more, or -1 for no limit");
        }
        if (options.causal && right != 0) {
            throw new IllegalArgumentException("right: " + right + ", expected 0 for causal attention");
        }
        return pattern("window", p -> new Pattern(left, right, p.dilation, p.sinks, p.masks));
    }

    /**
     * Has the window take every {@code dilation}-th key only, counted from the query's own position, so that it reaches
     * {@code dilation} times as far (Longformer, section 3.1).
     *
     * @param dilation 1 for every key, or more
     * @return a description with that dilation
     * @throws IllegalArgumentException if {@code dilation} is less than 1
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention dilation(long dilation) {
        Arguments.atLeast("dilation", dilation, 1);
        return pattern("dilation", p -> new Pattern(p.left, p.right, dilation, p.sinks, p.masks));
    }

    /**
     * Has every query see the first keys of its sequence, whatever the window; never against causality (Xiao et al.
     * 2023, Efficient Streaming Language Models with Attention Sinks).
     *
     * @param sinks how many keys, 0 or more
     * @return a description with that many
     * @throws IllegalArgumentException if {@code sinks} is negative
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention sinks(long sinks) {
        Arguments.atLeast("sinks", sinks, 0);
        return pattern("sinks", p -> new Pattern(p.left, p.right, p.dilation, sinks, p.masks));
    }

    /**
     * Has queries see a first part of the keys that is as long as each run says, {@link Arrays#prefixes}: it lifts the
     * right end of the window, causality too, for keys in that part.
     *
     * @return a description with prefixes
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention prefix() {
        return mask("prefix", Mask.PREFIX, o -> {});
    }

    /**
     * Makes some tokens global: they see all keys and are seen by all queries, whatever the window, but never against
     * causality (Longformer, section 3.1). Which, {@link Arrays#globals} says.
     *
     * @param maxGlobals the most global tokens that a sequence may have, at least 1
     * @return a description with global tokens
     * @throws IllegalArgumentException if {@code maxGlobals} is less than 1
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention globals(long maxGlobals) {
        Arguments.atLeast("maxGlobals", maxGlobals, 1);
        return mask("globals", Mask.GLOBALS, o -> o.maxGlobals = maxGlobals);
    }

    /**
     * Has queries see keys of their own document alone: the labels are {@link Arrays#qDocuments} and
     * {@link Arrays#kDocuments}, the same for all heads.
     *
     * @return a description with documents
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention documents() {
        return documents(1, 1);
    }

    /**
     * Has queries see keys of their own document alone, where heads may have labels of their own, and labels several
     * layers: those of query and key must be equal in the last one, and differ in each before. So buckets of several
     * rounds of hashing count no pair twice (Kitaev et al. 2020, Reformer).
     *
     * @param heads 1, the heads of the keys, or the heads of the queries: for how many there are labels
     * @param layers 1 or more
     * @return a description with documents
     * @throws IllegalArgumentException if a number is less than 1
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention documents(long heads, long layers) {
        Arguments.atLeast("heads", heads, 1);
        Arguments.atLeast("layers", layers, 1);
        return mask("documents", Mask.DOCUMENTS, o -> {
            o.documentHeads = heads;
            o.documentLayers = layers;
        });
    }

    /**
     * Says of the queries' own keys, which are the last {@code len_q} of a sequence, one by one which are seen, as
     * drafted tokens need that form a tree: {@link Arrays#tree}. All keys before those stay visible.
     *
     * @param maxTree the longest {@code len_q} of a sequence, at least 1
     * @return a description with trees
     * @throws IllegalArgumentException if {@code maxTree} is less than 1
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention tree(long maxTree) {
        Arguments.atLeast("maxTree", maxTree, 1);
        return mask("tree", Mask.TREE, o -> o.maxTree = maxTree);
    }

    /**
     * Has queries see the keys of listed blocks alone, by lists that all heads share.
     *
     * @param blockQ see {@link #blocks(long, long, long, long)}
     * @param blockK see there
     * @param maxBlocks see there
     * @return a description with blocks
     * @throws IllegalArgumentException as there
     * @throws IllegalStateException as there
     */
    public Attention blocks(long blockQ, long blockK, long maxBlocks) {
        return blocks(blockQ, blockK, 1, maxBlocks);
    }

    /**
     * Has queries see the keys of listed blocks alone: for each block of queries, {@link Arrays#blockOffsets} and
     * {@link Arrays#blockColumns} list blocks of keys, as rows of a sparse matrix in CSR form.
     *
     * @param blockQ queries of a block, 1 or more
     * @param blockK keys of a block, 1 or more
     * @param heads 1, the heads of the keys, or the heads of the queries: for how many there are lists
     * @param maxBlocks the most entries of all lists of a run together, 0 or more
     * @return a description with blocks
     * @throws IllegalArgumentException if a number is less than that
     * @throws IllegalStateException if each head has a pattern of its own
     */
    public Attention blocks(long blockQ, long blockK, long heads, long maxBlocks) {
        Arguments.atLeast("blockQ", blockQ, 1);
        Arguments.atLeast("blockK", blockK, 1);
        Arguments.atLeast("heads", heads, 1);
        Arguments.atLeast("maxBlocks", maxBlocks, 0);
        return mask("blocks", Mask.BLOCKS, o -> {
            o.blockQ = blockQ;
            o.blockK = blockK;
            o.blockHeads = heads;
            o.maxBlocks = maxBlocks;
        });
    }

    /**
     * Lets entries of {@link #blocks(long, long, long) blocks} have a mask, element by element:
     * {@link Arrays#blockMaskIndex} and {@link Arrays#blockMasks}.
     *
     * @param maxMasks the number of masks, which any number of entries may share; 0 when every entry is a full block
     * @return a description with masks of blocks
     * @throws IllegalArgumentException if {@code maxMasks} is negative
     */
    public Attention blockMasks(long maxMasks) {
        Arguments.atLeast("maxMasks", maxMasks, 0);
        return with(o -> o.maxBlockMasks = maxMasks);
    }

    /**
     * Adds a number to all scores of an entry of {@link #blocks(long, long, long) blocks}: {@link Arrays#blockBias}.
     *
     * @return a description with a bias for each entry
     */
    public Attention blockBias() {
        return with(o -> o.blockBias = true);
    }

    /**
     * Takes queries and keys in an order that each run gives, {@link Arrays#qOrder} and {@link Arrays#kOrder}, such as
     * that of their clusters: blocks count in this order, while positions stay the tokens' own.
     *
     * @param heads 1, the heads of the keys, or the heads of the queries: for how many there is an order
     * @return a description with orders
     * @throws IllegalArgumentException if {@code heads} is less than 1
     */
    public Attention order(long heads) {
        Arguments.atLeast("heads", heads, 1);
        return with(o -> o.orderHeads = heads);
    }

    /**
     * Sets what scores are multiplied by, which is {@code 1 / sqrt(dk)} otherwise.
     *
     * @param scale a finite number
     * @return a description with that scale
     * @throws IllegalArgumentException if {@code scale} is not finite
     */
    public Attention scale(float scale) {
        Arguments.finite("scale", scale);
        return with(o -> o.scale = scale);
    }

    /**
     * Bounds scores smoothly: {@code s} becomes {@code cap * tanh(s / cap)}.
     *
     * @param cap finite and greater than 0, or 0 for none
     * @return a description with that bound
     * @throws IllegalArgumentException if {@code cap} is not finite or negative
     */
    public Attention softcap(float cap) {
        if (!(cap >= 0 && cap <= Float.MAX_VALUE)) {
            throw new IllegalArgumentException(
                    "cap: " + cap + ", expected a finite number greater than 0, or 0 for none");
        }
        return with(o -> o.softcap = cap);
    }

    /**
     * Subtracts {@code slope * |p - j|} from scores, with a slope for each head: {@link Arrays#slopes} (Press et al.
     * 2022, ALiBi).
     *
     * @return a description with slopes
     */
    public Attention slopes() {
        return with(o -> o.slopes = true);
    }

    /**
     * Adds a bias to scores, {@link Arrays#bias}, in which -infinity masks.
     *
     * @param bias {@code [sequences, heads_q, len_q, len_k]}, F32 or of the queries' type. All but the heads may be
     *     smaller than the plan's; longer sequences are then refused by the run. A stride of 0 repeats what there is
     * @return a description with that bias
     */
    public Attention bias(TensorSpec bias) {
        if (bias == null) {
            throw new NullPointerException("bias");
        }
        return with(o -> o.bias = bias);
    }

    /**
     * Adds a number to the score of a query's own position, so that, where queries are their own keys, a token can be
     * kept from attending to itself unless it sees nothing else (Reformer, section 2).
     *
     * @param bias a finite number
     * @return a description with that bias
     * @throws IllegalArgumentException if {@code bias} is not finite
     */
    public Attention selfBias(float bias) {
        Arguments.finite("bias", bias);
        return with(o -> o.selfBias = bias);
    }

    /**
     * Adds a further column with no value to the softmax of each head: {@link Arrays#sinkLogits}. The log-sum-exps
     * leave it out.
     *
     * @return a description with sink logits
     */
    public Attention sinkLogits() {
        return with(o -> o.sinkLogits = true);
    }

    /**
     * Takes packed tensors, {@code [tokens, heads, head size]}.
     *
     * @param maxSequences the most sequences that a run may have, at least 1
     * @return a description for such tensors
     * @throws IllegalArgumentException if {@code maxSequences} is less than 1
     */
    public Attention packed(long maxSequences) {
        if (maxSequences < 1) {
            throw new IllegalArgumentException("maxSequences: " + maxSequences + ", expected at least 1");
        }
        return with(o -> o.maxSequences = maxSequences);
    }

    /**
     * Takes keys and values that are pages, {@code [pages, page size, heads_k, head size]}, with batched or packed
     * queries: key j of a sequence is row {@code j % page size} of the page that {@link Arrays#blockTable} names for
     * {@code j / page size} (Kwon et al. 2023, PagedAttention).
     *
     * @param maxLenK the most keys that a sequence may have, 0 or more
     * @return a description for such keys and values
     * @throws IllegalArgumentException if {@code maxLenK} is negative
     */
    public Attention paged(long maxLenK) {
        Arguments.atLeast("maxLenK", maxLenK, 0);
        return with(o -> o.maxLenK = maxLenK);
    }

    /**
     * Makes a plan whose output is dense, of the queries' element type.
     *
     * @param device where it will run
     * @param q see {@link #plan(Device, TensorSpec, TensorSpec, TensorSpec, TensorSpec)}
     * @param k see there
     * @param v see there
     * @return the plan
     * @throws IllegalArgumentException as there
     * @throws IllegalStateException as there
     * @throws UnsupportedOperationException as there
     */
    public Plan plan(Device device, TensorSpec q, TensorSpec k, TensorSpec v) {
        long[] shape = q.shape();
        shape[shape.length - 1] = v.size(v.rank() - 1);
        return plan(device, q, k, v, TensorSpec.of(q.dtype(), shape));
    }

    /**
     * Makes a plan. All specs have unit stride in the head size. The sizes of the batch and of the lengths or tokens
     * are the most that a run may have; those of pages are what each run has.
     *
     * @param device where it will run
     * @param q F32, BF16 or F16 {@code [batch, len_q, heads_q, dk]}, or {@code [tokens_q, heads_q, dk]} packed
     * @param k F32, BF16, F16, or S8 with {@link Arrays#kScales}: {@code [batch, len_k, heads_k, dk]}, or
     *     {@code [tokens_k, heads_k, dk]} packed, or {@code [pages, page size, heads_k, dk]}; heads_k divides heads_q
     * @param v as {@code k}, with a head size of its own, dv
     * @param out F32 or of the type of {@code q}, {@code [batch, len_q, heads_q, dv]}, or
     *     {@code [tokens_q, heads_q, dv]} packed
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these, or does not go with this description
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec q, TensorSpec k, TensorSpec v, TensorSpec out) {
        int rank = options.maxSequences > 0 ? 3 : 4;
        boolean paged = options.maxLenK >= 0;
        int rankK = paged ? 4 : rank;
        check("q", q, rank, false, FLOATS);
        check("k", k, rankK, paged, DType.F32, DType.BF16, DType.F16, DType.S8);
        check("v", v, rankK, paged, k.dtype());
        check("out", out, rank, false, DType.F32, q.dtype());
        if (rank == 4) {
            if (!paged) {
                Arguments.size("k", k, 0, q.size(0), "the batch of q");
            }
            Arguments.size("out", out, 0, q.size(0), "the batch of q");
        }
        if (rankK == 4) {
            Arguments.size("v", v, 0, k.size(0), paged ? "the pages of k" : "the batch of q");
        }
        Arguments.size("v", v, rankK - 3, k.size(rankK - 3), paged ? "the page size of k" : "the length of k");
        Arguments.size("out", out, rank - 3, q.size(rank - 3), "the length of q");
        Arguments.size("k", k, rankK - 1, q.size(rank - 1), "the head size of q");
        Arguments.size("out", out, rank - 1, v.size(rankK - 1), "the head size of v");
        Arguments.size("v", v, rankK - 2, k.size(rankK - 2), "the heads of k");
        Arguments.size("out", out, rank - 2, q.size(rank - 2), "the heads of q");
        long headsQ = q.size(rank - 2);
        long headsK = k.size(rankK - 2);
        if (headsK == 0 ? headsQ != 0 : headsQ % headsK != 0) {
            throw Arguments.wrong("k", k, "a number of heads that divides the " + headsQ + " of q");
        }
        if (paged && k.size(1) == 0) {
            throw Arguments.wrong("k", k, "a page size of 1 or more in dimension 1");
        }
        if (options.eachHead && options.patterns.length != headsQ) {
            throw Arguments.wrong("q", q, options.patterns.length + " heads, as many as heads(...) was given");
        }
        if (options.has(Mask.DOCUMENTS)) {
            checkHeads("documents", options.documentHeads, headsQ, headsK);
        }
        if (options.has(Mask.BLOCKS)) {
            checkHeads("blocks", options.blockHeads, headsQ, headsK);
        } else if (options.maxBlockMasks > 0 || options.blockBias) {
            throw new IllegalArgumentException((options.maxBlockMasks > 0
                            ? "blockMasks: " + options.maxBlockMasks
                            : "blockBias: set")
                    + ", expected blocks(...) too");
        }
        if (options.orderHeads > 0) {
            checkHeads("order", options.orderHeads, headsQ, headsK);
        }
        return new Plan(device, options, new Sizes(options, q, k), q, k, v, out);
    }

    private static void check(String name, TensorSpec spec, int rank, boolean pages, DType... types) {
        if (spec.rank() != rank) {
            throw Arguments.wrong(
                    name,
                    spec,
                    pages
                            ? "[pages, page size, heads, head size] for paged keys and values"
                            : rank == 4
                                    ? "[batch, length, heads, head size], or packed(...) for [tokens, heads, head size]"
                                    : "[tokens, heads, head size] for packed attention");
        }
        Arguments.type(name, spec, types);
        Arguments.unitStride(name, spec);
    }

    private static void checkHeads(String name, long heads, long headsQ, long headsK) {
        if (heads != 1 && heads != headsK && heads != headsQ) {
            throw new IllegalArgumentException(name + ": " + heads + " heads, expected 1, " + headsK
                    + " as the keys have, or " + headsQ + " as the queries have");
        }
    }

    /** The sizes that the arrays of runs are made of. */
    private record Sizes(
            boolean packed, boolean paged, long sequences, long lenQ, long lenK, long headsQ, long headsK) {
        Sizes(Options options, TensorSpec q, TensorSpec k) {
            this(
                    options.maxSequences > 0,
                    options.maxLenK >= 0,
                    options.maxSequences > 0 ? options.maxSequences : q.size(0),
                    q.size(q.rank() - 3),
                    options.maxLenK >= 0 ? options.maxLenK : k.size(k.rank() - 3),
                    q.size(q.rank() - 2),
                    k.size(k.rank() - 2));
        }
    }

    /**
     * An array of a run.
     *
     * @param spec what the plan expects, or null where it has no use for the array
     * @param perSequence indices of the first dimension for each sequence of a run, or 0 where the shape is the plan's
     * @param more indices beyond those
     */
    record Array(String name, @Nullable TensorSpec spec, long perSequence, long more) {
        /** An array whose shape is the plan's. */
        static Array whole(String name, boolean wanted, DType dtype, long... shape) {
            return new Array(name, wanted ? Arguments.dense(name, dtype, shape) : null, 0, 0);
        }

        /** An array with {@code shape} for each sequence, or for all tokens at once. */
        static Array each(String name, boolean wanted, boolean each, long sequences, DType dtype, long... shape) {
            if (!wanted || !each) {
                return whole(name, wanted, dtype, shape);
            }
            long[] all = new long[shape.length + 1];
            all[0] = sequences;
            System.arraycopy(shape, 0, all, 1, shape.length);
            return new Array(name, Arguments.dense(name, dtype, all), 1, 0);
        }

        /** The memory of one that is there exactly when the plan wants it. */
        MemorySegment memory(Device device, @Nullable Tensor tensor, long sequences) {
            MemorySegment memory = Arguments.optional(device, name, tensor, spec, perSequence > 0 ? 1 : 0);
            if (perSequence > 0 && tensor != null && tensor.spec.size(0) != sequences * perSequence + more) {
                throw Arguments.wrong(name, tensor.spec, sequences * perSequence + more
                        + " in dimension 0, for the run's " + sequences + " sequences");
            }
            return memory;
        }
    }

    /**
     * The tensors of a run, for plans that need more of them than {@link Plan#run(Stream, Tensor, Tensor, Tensor,
     * Tensor, Tensor, Tensor, Tensor)} takes. It may be used for any number of runs, so that they allocate nothing, by
     * one thread at a time. A run reads it, and keeps nothing of it.
     *
     * <p>LQ and LK are the plan's {@code len_q} and {@code len_k}: its tokens where packed, and LK is {@code maxLenK}
     * where paged. {@code [s, ...]} is {@code [sequences, ...]} batched, with as many sequences as the run has, and one
     * array for all tokens, {@code [...]}, where packed. All but q, k, v, out and bias are dense.
     */
    public static final class Arrays {
        private static final Arrays NONE = new Arrays();

        private @Nullable Tensor q;
        private @Nullable Tensor k;
        private @Nullable Tensor v;
        private @Nullable Tensor out;
        private @Nullable Tensor lse;
        private @Nullable Tensor qIndex;
        private @Nullable Tensor kIndex;
        private @Nullable Tensor kScales;
        private @Nullable Tensor vScales;
        private @Nullable Tensor blockTable;
        private @Nullable Tensor sinkLogits;
        private @Nullable Tensor slopes;
        private @Nullable Tensor bias;
        private @Nullable Tensor prefixes;
        private @Nullable Tensor globals;
        private @Nullable Tensor qDocuments;
        private @Nullable Tensor kDocuments;
        private @Nullable Tensor tree;
        private @Nullable Tensor blockOffsets;
        private @Nullable Tensor blockColumns;
        private @Nullable Tensor blockMaskIndex;
        private @Nullable Tensor blockMasks;
        private @Nullable Tensor blockBias;
        private @Nullable Tensor qOrder;
        private @Nullable Tensor kOrder;
        private long lenK = -1;

        /** Holds nothing yet. */
        public Arrays() {}

        /**
         * Sets the queries.
         *
         * @param q the queries, of the plan's spec; batch and length, or tokens, may be fewer
         * @return this
         */
        public Arrays q(@Nullable Tensor q) {
            this.q = q;
            return this;
        }

        /**
         * Sets the keys.
         *
         * @param k the keys; paged, of exactly the plan's spec. {@code q}, {@code k} and {@code v} may overlap
         * @return this
         */
        public Arrays k(@Nullable Tensor k) {
            this.k = k;
            return this;
        }

        /**
         * Sets the values.
         *
         * @param v the values, as many as keys
         * @return this
         */
        public Arrays v(@Nullable Tensor v) {
            this.v = v;
            return this;
        }

        /**
         * Sets the output.
         *
         * @param out the output, with the length of {@code q}; it overlaps nothing. Batched, rows beyond a sequence's
         *     length are not touched
         * @return this
         */
        public Arrays out(@Nullable Tensor out) {
            this.out = out;
            return this;
        }

        /**
         * Sets the log-sum-exps.
         *
         * @param lse null, or where the natural logarithm of the sum of exponentials of the scores goes: F32
         *     {@code [batch, heads_q, LQ]}, or {@code [heads_q, LQ]} packed
         * @return this
         */
        public Arrays lse(@Nullable Tensor lse) {
            this.lse = lse;
            return this;
        }

        /**
         * Sets the lengths or offsets of the queries.
         *
         * @param qIndex S64. Batched: the lengths {@code [sequences]}, each 0 to the length of {@code q}, or null when
         *     all have that length. Packed: the offsets {@code [sequences + 1]}, from 0, never falling, the last at
         *     most the tokens of {@code q}
         * @return this
         */
        public Arrays qIndex(@Nullable Tensor qIndex) {
            this.qIndex = qIndex;
            return this;
        }

        /**
         * Sets the lengths or offsets of the keys.
         *
         * @param kIndex the same for {@code k} and {@code v}; paged: the lengths {@code [sequences]}, each 0 to
         *     {@link #lenK}, never null, also where the queries are packed
         * @return this
         */
        public Arrays kIndex(@Nullable Tensor kIndex) {
            this.kIndex = kIndex;
            return this;
        }

        /**
         * Sets the scales of the keys.
         *
         * @param kScales for keys of S8: what each row is multiplied by, F32 {@code [s, LK, heads_k]}, or
         *     {@code [pages, page size, heads_k]} paged
         * @return this
         */
        public Arrays kScales(@Nullable Tensor kScales) {
            this.kScales = kScales;
            return this;
        }

        /**
         * Sets the scales of the values.
         *
         * @param vScales the same for the values
         * @return this
         */
        public Arrays vScales(@Nullable Tensor vScales) {
            this.vScales = vScales;
            return this;
        }

        /**
         * Sets the block table.
         *
         * @param blockTable {@link Attention#paged}: S32 {@code [sequences, ceil(LK / page size)]}, pages. Entries
         *     beyond a sequence's length are not read
         * @return this
         */
        public Arrays blockTable(@Nullable Tensor blockTable) {
            this.blockTable = blockTable;
            return this;
        }

        /**
         * Sets the sink logits.
         *
         * @param sinkLogits {@link Attention#sinkLogits()}: F32 {@code [heads_q]}
         * @return this
         */
        public Arrays sinkLogits(@Nullable Tensor sinkLogits) {
            this.sinkLogits = sinkLogits;
            return this;
        }

        /**
         * Sets the slopes.
         *
         * @param slopes {@link Attention#slopes()}: F32 {@code [heads_q]}
         * @return this
         */
        public Arrays slopes(@Nullable Tensor slopes) {
            this.slopes = slopes;
            return this;
        }

        /**
         * Sets the bias.
         *
         * @param bias {@link Attention#bias(TensorSpec)}: of the spec given there, for at least as many sequences as
         *     the run has
         * @return this
         */
        public Arrays bias(@Nullable Tensor bias) {
            this.bias = bias;
            return this;
        }

        /**
         * Sets the prefixes.
         *
         * @param prefixes {@link Attention#prefix}: lengths, S64 {@code [sequences]}, each 0 or more
         * @return this
         */
        public Arrays prefixes(@Nullable Tensor prefixes) {
            this.prefixes = prefixes;
            return this;
        }

        /**
         * Sets the global tokens.
         *
         * @param globals {@link Attention#globals(long)}: S32 {@code [sequences, maxGlobals]}: positions of global
         *     tokens in rising order, below the sequence's {@code len_k}; the unused rest is -1
         * @return this
         */
        public Arrays globals(@Nullable Tensor globals) {
            this.globals = globals;
            return this;
        }

        /**
         * Sets the labels of the queries.
         *
         * @param qDocuments {@link Attention#documents(long, long)}: labels, S32 {@code [s, layers, heads, LQ]},
         *     compared as they are
         * @return this
         */
        public Arrays qDocuments(@Nullable Tensor qDocuments) {
            this.qDocuments = qDocuments;
            return this;
        }

        /**
         * Sets the labels of the keys.
         *
         * @param kDocuments the same for the keys, {@code [s, layers, heads, LK]}; paged: {@code [sequences, ...]} also
         *     where the queries are packed
         * @return this
         */
        public Arrays kDocuments(@Nullable Tensor kDocuments) {
            this.kDocuments = kDocuments;
            return this;
        }

        /**
         * Sets the trees.
         *
         * @param tree {@link Attention#tree(long)}: U8 {@code [sequences, maxTree, maxTree]}: query i sees key
         *     {@code len_k - len_q + t} where element {@code [i][t]} is not 0
         * @return this
         */
        public Arrays tree(@Nullable Tensor tree) {
            this.tree = tree;
            return this;
        }

        /**
         * Sets the offsets of the lists of blocks.
         *
         * @param blockOffsets {@link Attention#blocks(long, long, long, long)}: where the list of a sequence, head and
         *     block of queries starts, S64 {@code [sequences * heads * ceil(LQ / blockQ) + 1]}, from 0, never falling,
         *     the last at most {@code maxBlocks}
         * @return this
         */
        public Arrays blockOffsets(@Nullable Tensor blockOffsets) {
            this.blockOffsets = blockOffsets;
            return this;
        }

        /**
         * Sets the lists of blocks.
         *
         * @param blockColumns as above: blocks of keys, S32 {@code [maxBlocks]}, rising within a list; those beyond a
         *     sequence's keys are not read
         * @return this
         */
        public Arrays blockColumns(@Nullable Tensor blockColumns) {
            this.blockColumns = blockColumns;
            return this;
        }

        /**
         * Sets the masks of the listed blocks.
         *
         * @param blockMaskIndex {@link Attention#blockMasks(long)}: the mask of an entry, S32 {@code [maxBlocks]}, or
         *     -1 for a full block
         * @return this
         */
        public Arrays blockMaskIndex(@Nullable Tensor blockMaskIndex) {
            this.blockMaskIndex = blockMaskIndex;
            return this;
        }

        /**
         * Sets the masks.
         *
         * @param blockMasks as above: U8 {@code [maxMasks, blockQ, blockK]}: what is not 0 is visible
         * @return this
         */
        public Arrays blockMasks(@Nullable Tensor blockMasks) {
            this.blockMasks = blockMasks;
            return this;
        }

        /**
         * Sets the biases of the listed blocks.
         *
         * @param blockBias {@link Attention#blockBias()}: F32 {@code [maxBlocks]}
         * @return this
         */
        public Arrays blockBias(@Nullable Tensor blockBias) {
            this.blockBias = blockBias;
            return this;
        }

        /**
         * Sets the order of the queries.
         *
         * @param qOrder {@link Attention#order}: S32 {@code [s, heads, LQ]}: queries of the sequence, each of them once
         * @return this
         */
        public Arrays qOrder(@Nullable Tensor qOrder) {
            this.qOrder = qOrder;
            return this;
        }

        /**
         * Sets the order of the keys.
         *
         * @param kOrder the same for the keys, {@code [s, heads, LK]}; keys may be left out, with -1 in their place,
         *     and are then not seen. Paged: {@code [sequences, ...]} also where the queries are packed
         * @return this
         */
        public Arrays kOrder(@Nullable Tensor kOrder) {
            this.kOrder = kOrder;
            return this;
        }

        /**
         * Sets the number of keys that no sequence of the run exceeds, where they are paged; else it is that of
         * {@code k}.
         *
         * @param lenK 0 to the plan's {@code maxLenK}, or -1, the default, for the latter
         * @return this
         */
        public Arrays lenK(long lenK) {
            this.lenK = lenK;
            return this;
        }
    }

    /** Attention made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec q;
        private final TensorSpec k;
        private final TensorSpec v;
        private final TensorSpec out;
        private final Sizes sizes;
        private final Further further;

        private Plan(
                Device device,
                Options options,
                Sizes sizes,
                TensorSpec q,
                TensorSpec k,
                TensorSpec v,
                TensorSpec out) {
            Further further = new Further(options, sizes, k); // what it refuses leaves no plan behind
            super(
                    device,
                    "q " + q.dtype() + ", k " + k.dtype() + ", v " + v.dtype() + ", out " + out.dtype(),
                    arena -> describe(arena, options, q, k, v, out),
                    (desc, plan, message) -> gatun_h.gtn_attention_plan(device.handle, desc, plan, message));
            this.q = q;
            this.k = k;
            this.v = v;
            this.out = out;
            this.sizes = sizes;
            this.further = further;
        }

        private static MemorySegment describe(
                SegmentAllocator arena, Options options, TensorSpec q, TensorSpec k, TensorSpec v, TensorSpec out) {
            MemorySegment patterns = gtn_attention_pattern.allocateArray(options.patterns.length, arena);
            for (int i = 0; i < options.patterns.length; i++) {
                options.patterns[i].write(gtn_attention_pattern.asSlice(patterns, i));
            }
            MemorySegment desc = gtn_attention_desc.allocate(arena);
            gtn_attention_desc.size(desc, (int) gtn_attention_desc.sizeof());
            float scale = options.scale;
            if (Float.isNaN(scale)) {
                scale = (float) (1 / Math.sqrt(Math.max(1, q.size(q.rank() - 1))));
            }
            gtn_attention_desc.scale(desc, scale);
            q.write(gtn_attention_desc.q(desc));
            k.write(gtn_attention_desc.k(desc));
            v.write(gtn_attention_desc.v(desc));
            out.write(gtn_attention_desc.out(desc));
            gtn_attention_desc.max_sequences(desc, options.maxSequences);
            gtn_attention_desc.patterns(desc, patterns);
            gtn_attention_desc.pattern_count(desc, options.patterns.length);
            gtn_attention_desc.softcap(desc, options.softcap);
            gtn_attention_desc.self_bias(desc, options.selfBias);
            gtn_attention_desc.has_sink_logits(desc, options.sinkLogits ? 1 : 0);
            gtn_attention_desc.has_slopes(desc, options.slopes ? 1 : 0);
            if (options.bias != null) {
                gtn_attention_desc.has_bias(desc, 1);
                options.bias.write(gtn_attention_desc.bias(desc));
            }
            if (options.maxLenK >= 0) {
                gtn_attention_desc.paged(desc, 1);
                gtn_attention_desc.max_len_k(desc, options.maxLenK);
            }
            gtn_attention_desc.max_globals(desc, options.maxGlobals);
            gtn_attention_desc.max_tree(desc, options.maxTree);
            gtn_attention_desc.document_heads(desc, options.documentHeads);
            gtn_attention_desc.document_layers(desc, options.documentLayers);
            gtn_attention_desc.block_q(desc, options.blockQ);
            gtn_attention_desc.block_k(desc, options.blockK);
            gtn_attention_desc.block_heads(desc, options.blockHeads);
            gtn_attention_desc.max_blocks(desc, options.maxBlocks);
            gtn_attention_desc.max_block_masks(desc, options.maxBlockMasks);
            gtn_attention_desc.has_block_bias(desc, options.blockBias ? 1 : 0);
            gtn_attention_desc.order_heads(desc, options.orderHeads);
            return desc;
        }

        /**
         * Runs a batched plan in which all sequences have the lengths of {@code q} and {@code k}, and which needs no
         * further array.
         *
         * @param stream a stream of the plan's device
         * @param q the queries
         * @param k the keys
         * @param v the values
         * @param out the output
         */
        public void run(Stream stream, Tensor q, Tensor k, Tensor v, Tensor out) {
            run(stream, q, k, v, out, null, null, null);
        }

        /**
         * Runs a plan that needs no further array: see {@link io.gatun.Plan} for what is checked and thrown. In this
         * call batch and lengths, or tokens, may be smaller than the plan's; the strides stay the plan's.
         *
         * @param stream a stream of the plan's device
         * @param q see {@link Arrays#q}
         * @param k see {@link Arrays#k}
         * @param v see {@link Arrays#v}
         * @param out see {@link Arrays#out}
         * @param qIndex see {@link Arrays#qIndex}
         * @param kIndex see {@link Arrays#kIndex}
         * @param lse see {@link Arrays#lse}
         */
        public void run(
                Stream stream,
                Tensor q,
                Tensor k,
                Tensor v,
                Tensor out,
                @Nullable Tensor qIndex,
                @Nullable Tensor kIndex,
                @Nullable Tensor lse) {
            run(stream, q, k, v, out, qIndex, kIndex, lse, -1, Arrays.NONE);
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call batch and lengths, or
         * tokens, may be smaller than the plan's; the strides stay the plan's. Each further array is there exactly when
         * the plan needs it. What a device finds wrong in the content of an array is an
         * {@link IllegalArgumentException}, too, and leaves outputs untouched.
         *
         * @param stream a stream of the plan's device
         * @param arrays the tensors; q, k, v and out are not null
         */
        public void run(Stream stream, Arrays arrays) {
            run(
                    stream,
                    required("q", arrays.q, q),
                    required("k", arrays.k, k),
                    required("v", arrays.v, v),
                    required("out", arrays.out, out),
                    arrays.qIndex,
                    arrays.kIndex,
                    arrays.lse,
                    arrays.lenK,
                    arrays);
        }

        private static Tensor required(String name, @Nullable Tensor tensor, TensorSpec planned) {
            if (tensor == null) {
                throw new IllegalArgumentException(name + ": null, expected " + planned + " as planned");
            }
            return tensor;
        }

        // Every field of `arrays` is read once: what was checked is what the kernel gets, whatever other threads do.
        private void run(
                Stream stream,
                Tensor q,
                Tensor k,
                Tensor v,
                Tensor out,
                @Nullable Tensor qIndex,
                @Nullable Tensor kIndex,
                @Nullable Tensor lse,
                long lenKGiven,
                Arrays arrays) {
            check(stream);
            int leading = sizes.packed ? 1 : 2;
            int leadingK = sizes.paged ? 0 : leading;
            Arguments.input(device, "q", q, this.q, leading);
            Arguments.input(device, "k", k, this.k, leadingK);
            Arguments.input(device, "v", v, this.v, leadingK);
            Arguments.output(device, "out", out, this.out, leading);
            int length = leading - 1;
            long lenQ = q.spec.size(length);
            Arguments.size("out", out.spec, length, lenQ, "the length of q");
            long lenK = lenK(lenKGiven, k, v, length);
            long sequences = sizes.packed ? offsets(qIndex, kIndex) : batch(q, k, v, out, qIndex, kIndex);
            MemorySegment qIndexMemory = qIndex == null ? MemorySegment.NULL : qIndex.memory;
            MemorySegment kIndexMemory = kIndex == null ? MemorySegment.NULL : kIndex.memory;
            MemorySegment lseMemory = MemorySegment.NULL;
            if (lse != null) {
                Arguments.output(device, "lse", lse, further.lse, sizes.packed ? 0 : 1);
                if (!sizes.packed) {
                    Arguments.size("lse", lse.spec, 0, sequences, "the batch of q");
                }
                lseMemory = lse.memory;
            }
            Further f = further;
            MemorySegment kScales = f.kScales.memory(device, arrays.kScales, sequences);
            MemorySegment vScales = f.vScales.memory(device, arrays.vScales, sequences);
            MemorySegment blockTable = f.blockTable.memory(device, arrays.blockTable, sequences);
            MemorySegment sinkLogits = f.sinkLogits.memory(device, arrays.sinkLogits, sequences);
            MemorySegment slopes = f.slopes.memory(device, arrays.slopes, sequences);
            MemorySegment bias = bias(arrays.bias, sequences);
            MemorySegment prefixes = f.prefixes.memory(device, arrays.prefixes, sequences);
            MemorySegment globals = f.globals.memory(device, arrays.globals, sequences);
            MemorySegment qDocuments = f.qDocuments.memory(device, arrays.qDocuments, sequences);
            MemorySegment kDocuments = f.kDocuments.memory(device, arrays.kDocuments, sequences);
            MemorySegment tree = f.tree.memory(device, arrays.tree, sequences);
            MemorySegment blockOffsets = f.blockOffsets.memory(device, arrays.blockOffsets, sequences);
            MemorySegment blockColumns = f.blockColumns.memory(device, arrays.blockColumns, sequences);
            MemorySegment blockMaskIndex = f.blockMaskIndex.memory(device, arrays.blockMaskIndex, sequences);
            MemorySegment blockMasks = f.blockMasks.memory(device, arrays.blockMasks, sequences);
            MemorySegment blockBias = f.blockBias.memory(device, arrays.blockBias, sequences);
            MemorySegment qOrder = f.qOrder.memory(device, arrays.qOrder, sequences);
            MemorySegment kOrder = f.kOrder.memory(device, arrays.kOrder, sequences);
            int status = f.none
                    ? gatun_h.gtn_attention_run(
                            handle, stream.handle, sequences, lenQ, lenK, qIndexMemory, kIndexMemory,
                            q.memory, k.memory, v.memory, out.memory, lseMemory)
                    : gatun_h.gtn_attention_run_with(
                            handle, stream.handle, sequences, lenQ, lenK, qIndexMemory, kIndexMemory,
                            q.memory, k.memory, v.memory, out.memory, lseMemory,
                            kScales, vScales, blockTable, sinkLogits, slopes, bias, prefixes, globals,
                            qDocuments, kDocuments, tree, blockOffsets, blockColumns, blockMaskIndex, blockMasks,
                            blockBias, qOrder, kOrder);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        private MemorySegment bias(@Nullable Tensor bias, long sequences) {
            MemorySegment memory = Arguments.optional(device, "bias", bias, further.bias, 1);
            if (bias != null && bias.spec.size(0) < sequences) {
                throw Arguments.wrong("bias", bias.spec,
                        sequences + " or more in dimension 0, for the run's " + sequences + " sequences");
            }
            return memory;
        }

        private long lenK(long given, Tensor k, Tensor v, int length) {
            if (!sizes.paged) {
                long lenK = k.spec.size(length);
                Arguments.size("v", v.spec, length, lenK, "the length of k");
                if (given != -1) {
                    throw new IllegalArgumentException("lenK: " + given + ", expected -1, because k is not paged");
                }
                return lenK;
            }
            if (given < -1 || given > sizes.lenK) {
                throw new IllegalArgumentException("lenK: " + given + ", expected 0 to " + sizes.lenK
                        + " as planned, or -1 for that");
            }
            return given == -1 ? sizes.lenK : given;
        }

        private long batch(
                Tensor q, Tensor k, Tensor v, Tensor out, @Nullable Tensor qIndex, @Nullable Tensor kIndex) {
            long batch = q.spec.size(0);
            if (!sizes.paged) {
                Arguments.size("k", k.spec, 0, batch, "the batch of q");
                Arguments.size("v", v.spec, 0, batch, "the batch of q");
            }
            Arguments.size("out", out.spec, 0, batch, "the batch of q");
            if (qIndex != null) {
                Arguments.input(device, "qIndex", qIndex, further.lengths, 1);
                Arguments.size("qIndex", qIndex.spec, 0, batch, "the batch of q");
            }
            if (kIndex != null) {
                Arguments.input(device, "kIndex", kIndex, further.lengths, 1);
                Arguments.size("kIndex", kIndex.spec, 0, batch, "the batch of q");
            } else if (sizes.paged) {
                throw new IllegalArgumentException(
                        "kIndex: null, expected S64 lengths [sequences], because the keys are paged");
            }
            return batch;
        }

        private long offsets(@Nullable Tensor qIndex, @Nullable Tensor kIndex) {
            if (qIndex == null || kIndex == null) {
                throw new IllegalArgumentException(qIndex != null && sizes.paged
                        ? "kIndex: null, expected S64 lengths [sequences], because the keys are paged"
                        : (qIndex == null ? "qIndex" : "kIndex")
                                + ": null, expected S64 offsets [sequences + 1], because the plan is packed");
            }
            Arguments.input(device, "qIndex", qIndex, further.offsets, 1);
            Arguments.input(device, "kIndex", kIndex, sizes.paged ? further.lengths : further.offsets, 1);
            long count = qIndex.spec.size(0);
            if (count == 0) {
                throw Arguments.wrong("qIndex", qIndex.spec, "at least 1 offset");
            }
            if (sizes.paged) {
                Arguments.size("kIndex", kIndex.spec, 0, count - 1, "one for each sequence of qIndex");
            } else {
                Arguments.size("kIndex", kIndex.spec, 0, count, "the offsets of qIndex");
            }
            return count - 1;
        }
    }

    /** The shapes of the arrays of runs, beyond those that the plan is made of. */
    private static final class Further {
        final TensorSpec lse;
        final TensorSpec lengths;
        final TensorSpec offsets;
        final Array kScales;
        final Array vScales;
        final Array blockTable;
        final Array sinkLogits;
        final Array slopes;
        final @Nullable TensorSpec bias;
        final Array prefixes;
        final Array globals;
        final Array qDocuments;
        final Array kDocuments;
        final Array tree;
        final Array blockOffsets;
        final Array blockColumns;
        final Array blockMaskIndex;
        final Array blockMasks;
        final Array blockBias;
        final Array qOrder;
        final Array kOrder;
        final boolean none;

        Further(Options o, Sizes sizes, TensorSpec k) {
            long sequences = sizes.sequences;
            long lenQ = sizes.lenQ;
            long lenK = sizes.lenK;
            lse = sizes.packed
                    ? Arguments.dense("lse", DType.F32, sizes.headsQ, lenQ)
                    : Arguments.dense("lse", DType.F32, sequences, sizes.headsQ, lenQ);
            lengths = Arguments.dense("maxSequences", DType.S64, sequences);
            offsets = Arguments.dense("maxSequences", DType.S64, sequences + 1);
            boolean eachQ = !sizes.packed;
            boolean eachK = !sizes.packed || sizes.paged;
            boolean scaled = k.dtype() == DType.S8;
            long page = sizes.paged ? k.size(1) : 1;
            if (sizes.paged) {
                kScales = Array.whole("kScales", scaled, DType.F32, k.size(0), page, sizes.headsK);
                vScales = Array.whole("vScales", scaled, DType.F32, k.size(0), page, sizes.headsK);
            } else {
                kScales = Array.each("kScales", scaled, eachQ, sequences, DType.F32, lenK, sizes.headsK);
                vScales = Array.each("vScales", scaled, eachQ, sequences, DType.F32, lenK, sizes.headsK);
            }
            blockTable = Array.each(
                    "blockTable", sizes.paged, true, sequences, DType.S32, Math.ceilDiv(lenK, page));
            sinkLogits = Array.whole("sinkLogits", o.sinkLogits, DType.F32, sizes.headsQ);
            slopes = Array.whole("slopes", o.slopes, DType.F32, sizes.headsQ);
            bias = o.bias;
            boolean prefix = o.has(Mask.PREFIX);
            prefixes = Array.each("prefixes", prefix, true, sequences, DType.S64);
            boolean global = o.has(Mask.GLOBALS);
            globals = Array.each("globals", global, true, sequences, DType.S32, o.maxGlobals);
            boolean documents = o.has(Mask.DOCUMENTS);
            qDocuments = Array.each("qDocuments", documents, eachQ, sequences, DType.S32,
                    o.documentLayers, o.documentHeads, lenQ);
            kDocuments = Array.each("kDocuments", documents, eachK, sequences, DType.S32,
                    o.documentLayers, o.documentHeads, lenK);
            boolean trees = o.has(Mask.TREE);
            tree = Array.each("tree", trees, true, sequences, DType.U8, o.maxTree, o.maxTree);
            boolean blocks = o.has(Mask.BLOCKS);
            boolean masked = blocks && o.maxBlockMasks > 0;
            if (blocks) {
                // As a tensor of three dimensions first, which says so when it is too large.
                Arguments.dense("blockOffsets", DType.S64, sequences, o.blockHeads, Math.ceilDiv(lenQ, o.blockQ));
                long lists = o.blockHeads * Math.ceilDiv(lenQ, o.blockQ);
                blockOffsets = new Array(
                        "blockOffsets", Arguments.dense("blockOffsets", DType.S64, sequences * lists + 1), lists, 1);
            } else {
                blockOffsets = new Array("blockOffsets", null, 0, 0);
            }
            blockColumns = Array.whole("blockColumns", blocks, DType.S32, o.maxBlocks);
            blockMaskIndex = Array.whole("blockMaskIndex", masked, DType.S32, o.maxBlocks);
            blockMasks = Array.whole("blockMasks", masked, DType.U8, o.maxBlockMasks, o.blockQ, o.blockK);
            blockBias = Array.whole("blockBias", blocks && o.blockBias, DType.F32, o.maxBlocks);
            boolean ordered = o.orderHeads > 0;
            qOrder = Array.each("qOrder", ordered, eachQ, sequences, DType.S32, o.orderHeads, lenQ);
            kOrder = Array.each("kOrder", ordered, eachK, sequences, DType.S32, o.orderHeads, lenK);
            none = !scaled && !sizes.paged && !o.sinkLogits && !o.slopes && o.bias == null && !prefix && !global
                    && !documents && !trees && !blocks && !ordered;
        }
    }
}
