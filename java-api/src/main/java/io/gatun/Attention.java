package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_attention_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Attention: {@code out = softmax(scale * q k^T over the visible keys) v}, for every sequence and head, without ever
 * holding the score matrix. Immutable.
 *
 * <p>Query i of a sequence with {@code len_q} queries and {@code len_k} keys sits at position
 * {@code p = i + len_k - len_q} and sees the keys j with {@code p - left <= j <= p + right}. A query that sees nothing
 * gives 0 and a log-sum-exp of -infinity. Query head h reads key and value head {@code h / (heads_q / heads_k)}.
 *
 * <p>Tensors come in two layouts. Batched: {@code [batch, length, heads, head size]}, with optional lengths. Packed:
 * {@code [tokens, heads, head size]}, where sequence b has the tokens {@code offsets[b]} to {@code offsets[b + 1] - 1};
 * it needs {@link #packed}. Other orders of the dimensions in memory are strides: {@link TensorSpec#transpose}.
 */
public final class Attention {
    private static final long UNLIMITED = -1;

    private final boolean causal;
    private final long left;
    private final long right;
    private final float scale; // NaN: 1 / sqrt(dk)
    private final long maxSequences; // 0: batched

    private Attention(boolean causal, long left, long right, float scale, long maxSequences) {
        this.causal = causal;
        this.left = left;
        this.right = right;
        this.scale = scale;
        this.maxSequences = maxSequences;
    }

    /**
     * Describes attention in which every query sees every key.
     *
     * @return the description
     */
    public static Attention dense() {
        return new Attention(false, UNLIMITED, UNLIMITED, Float.NaN, 0);
    }

    /**
     * Describes attention in which a query sees its own position and what is before it.
     *
     * @return the description
     */
    public static Attention causal() {
        return new Attention(true, UNLIMITED, 0, Float.NaN, 0);
    }

    /**
     * Limits how far back a query sees. A sliding window of W keys is {@code causal().window(W - 1)}.
     *
     * @param left the keys seen before the query's own position, 0 or more, or -1 for all
     * @return a description with that limit; how far ahead a query sees stays as it is
     * @throws IllegalArgumentException if {@code left} is less than -1
     */
    public Attention window(long left) {
        return window(left, right);
    }

    /**
     * Limits how far a query sees in both directions.
     *
     * @param left the keys seen before the query's own position, 0 or more, or -1 for all
     * @param right the keys seen after it, 0 or more, or -1 for all; 0 for causal attention
     * @return a description with these limits
     * @throws IllegalArgumentException if a limit is less than -1, or {@code right} is not 0 for causal attention
     */
    public Attention window(long left, long right) {
        if (left < UNLIMITED) {
            throw new IllegalArgumentException("left: " + left + ", expected 0 or more, or -1 for no limit");
        }
        if (right < UNLIMITED) {
            throw new IllegalArgumentException("right: " + right + ", expected 0 or more, or -1 for no limit");
        }
        if (causal && right != 0) {
            throw new IllegalArgumentException("right: " + right + ", expected 0 for causal attention");
        }
        return new Attention(causal, left, right, scale, maxSequences);
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
        return new Attention(causal, left, right, scale, maxSequences);
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
        return new Attention(causal, left, right, scale, maxSequences);
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
        if (v.rank() == q.rank()) {
            shape[shape.length - 1] = v.size(v.rank() - 1);
        }
        return plan(device, q, k, v, TensorSpec.of(q.dtype(), shape));
    }

    /**
     * Makes a plan. All specs have one element type, F32 or BF16, and unit stride in the head size. The sizes of the
     * batch and of the lengths or tokens are the most that a run may have.
     *
     * @param device where it will run
     * @param q {@code [batch, len_q, heads_q, dk]}, or {@code [tokens_q, heads_q, dk]} packed
     * @param k {@code [batch, len_k, heads_k, dk]}, or {@code [tokens_k, heads_k, dk]} packed; heads_k divides heads_q
     * @param v {@code [batch, len_k, heads_k, dv]}, or {@code [tokens_k, heads_k, dv]} packed
     * @param out {@code [batch, len_q, heads_q, dv]}, or {@code [tokens_q, heads_q, dv]} packed
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec q, TensorSpec k, TensorSpec v, TensorSpec out) {
        int rank = maxSequences > 0 ? 3 : 4;
        check("q", q, rank, q.dtype());
        check("k", k, rank, q.dtype());
        check("v", v, rank, q.dtype());
        check("out", out, rank, q.dtype());
        int heads = rank - 2;
        int head = rank - 1;
        if (rank == 4) {
            expect("k", k, 0, q.size(0), "the batch of q");
            expect("v", v, 0, q.size(0), "the batch of q");
            expect("out", out, 0, q.size(0), "the batch of q");
        }
        expect("v", v, heads - 1, k.size(heads - 1), "the length of k");
        expect("out", out, heads - 1, q.size(heads - 1), "the length of q");
        expect("k", k, head, q.size(head), "the head size of q");
        expect("out", out, head, v.size(head), "the head size of v");
        expect("v", v, heads, k.size(heads), "the heads of k");
        expect("out", out, heads, q.size(heads), "the heads of q");
        if (k.size(heads) == 0 ? q.size(heads) != 0 : q.size(heads) % k.size(heads) != 0) {
            throw Arguments.wrong("k", k, "a number of heads that divides the " + q.size(heads) + " of q");
        }
        return new Plan(device, this, q, k, v, out);
    }

    private void check(String name, TensorSpec spec, int rank, DType dtype) {
        if (spec.rank() != rank) {
            throw Arguments.wrong(
                    name,
                    spec,
                    rank == 4
                            ? "[batch, length, heads, head size], or packed(...) for [tokens, heads, head size]"
                            : "[tokens, heads, head size] for packed attention");
        }
        Arguments.floats(name, spec);
        if (spec.dtype() != dtype) {
            throw Arguments.wrong(name, spec, dtype + " as q has");
        }
    }

    private static void expect(String name, TensorSpec spec, int dim, long size, String what) {
        if (spec.size(dim) != size) {
            throw Arguments.wrong(name, spec, size + " in dimension " + dim + ", " + what);
        }
    }

    /** Attention made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec q;
        private final TensorSpec k;
        private final TensorSpec v;
        private final TensorSpec out;
        private final TensorSpec lse;
        private final TensorSpec index;
        private final boolean packed;

        private Plan(Device device, Attention attention, TensorSpec q, TensorSpec k, TensorSpec v, TensorSpec out) {
            super(
                    device,
                    arena -> {
                        MemorySegment desc = gtn_attention_desc.allocate(arena);
                        gtn_attention_desc.size(desc, (int) gtn_attention_desc.sizeof());
                        float scale = attention.scale;
                        if (Float.isNaN(scale)) {
                            scale = (float) (1 / Math.sqrt(Math.max(1, q.size(q.rank() - 1))));
                        }
                        gtn_attention_desc.scale(desc, scale);
                        q.write(gtn_attention_desc.q(desc));
                        k.write(gtn_attention_desc.k(desc));
                        v.write(gtn_attention_desc.v(desc));
                        out.write(gtn_attention_desc.out(desc));
                        gtn_attention_desc.window_left(desc, attention.left);
                        gtn_attention_desc.window_right(desc, attention.right);
                        gtn_attention_desc.max_sequences(desc, attention.maxSequences);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_attention_plan(device.handle, desc, plan, message));
            this.q = q;
            this.k = k;
            this.v = v;
            this.out = out;
            this.packed = attention.maxSequences > 0;
            this.lse = packed
                    ? TensorSpec.of(DType.F32, q.size(1), q.size(0))
                    : TensorSpec.of(DType.F32, q.size(0), q.size(2), q.size(1));
            this.index = TensorSpec.of(DType.S64, packed ? attention.maxSequences + 1 : q.size(0));
        }

        /**
         * Runs a batched plan in which all sequences have the lengths of {@code q} and {@code k}.
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
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call batch and lengths, or
         * tokens, may be smaller than the plan's; the strides stay the plan's.
         *
         * @param stream a stream of the plan's device
         * @param q the queries
         * @param k the keys; {@code q}, {@code k} and {@code v} may overlap
         * @param v the values
         * @param out the output; it overlaps nothing. Batched, rows beyond a sequence's length are not touched
         * @param qIndex S64. Batched: the lengths {@code [batch]}, each 0 to the length of {@code q}, or null when all
         *     have that length. Packed: the offsets {@code [sequences + 1]}, from 0, never falling, the last at most
         *     the tokens of {@code q}
         * @param kIndex the same for {@code k} and {@code v}
         * @param lse null, or where the natural logarithm of the sum of exponentials of the scaled scores goes: F32,
         *     dense, {@code [batch, heads_q, len_q]} with the plan's len_q, or {@code [heads_q, tokens_q]} packed with
         *     the plan's tokens_q
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
            check(stream);
            int leading = packed ? 1 : 2;
            Arguments.input("q", q, this.q, leading);
            Arguments.input("k", k, this.k, leading);
            Arguments.input("v", v, this.v, leading);
            Arguments.output("out", out, this.out, leading);
            int length = leading - 1;
            long lenQ = q.spec.size(length);
            long lenK = k.spec.size(length);
            same("out", out, length, lenQ, "the length of q");
            same("v", v, length, lenK, "the length of k");
            long sequences = packed ? offsets(qIndex, kIndex) : batch(q, k, v, out, qIndex, kIndex);
            MemorySegment qIndexMemory = qIndex == null ? MemorySegment.NULL : qIndex.memory;
            MemorySegment kIndexMemory = kIndex == null ? MemorySegment.NULL : kIndex.memory;
            MemorySegment lseMemory = MemorySegment.NULL;
            if (lse != null) {
                Arguments.output("lse", lse, this.lse, packed ? 0 : 1);
                if (!packed) {
                    same("lse", lse, 0, sequences, "the batch of q");
                }
                lseMemory = lse.memory;
            }
            int status = gatun_h.gtn_attention_run(
                    handle,
                    stream.handle,
                    sequences,
                    lenQ,
                    lenK,
                    qIndexMemory,
                    kIndexMemory,
                    q.memory,
                    k.memory,
                    v.memory,
                    out.memory,
                    lseMemory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        private long batch(
                Tensor q, Tensor k, Tensor v, Tensor out, @Nullable Tensor qIndex, @Nullable Tensor kIndex) {
            long batch = q.spec.size(0);
            same("k", k, 0, batch, "the batch of q");
            same("v", v, 0, batch, "the batch of q");
            same("out", out, 0, batch, "the batch of q");
            if (qIndex != null) {
                Arguments.input("qIndex", qIndex, index, 1);
                same("qIndex", qIndex, 0, batch, "the batch of q");
            }
            if (kIndex != null) {
                Arguments.input("kIndex", kIndex, index, 1);
                same("kIndex", kIndex, 0, batch, "the batch of q");
            }
            return batch;
        }

        private long offsets(@Nullable Tensor qIndex, @Nullable Tensor kIndex) {
            if (qIndex == null || kIndex == null) {
                throw new IllegalArgumentException((qIndex == null ? "qIndex" : "kIndex")
                        + ": null, expected S64 offsets [sequences + 1], because the plan is packed");
            }
            Arguments.input("qIndex", qIndex, index, 1);
            Arguments.input("kIndex", kIndex, index, 1);
            long offsets = qIndex.spec.size(0);
            if (offsets == 0) {
                throw Arguments.wrong("qIndex", qIndex.spec, "at least 1 offset");
            }
            same("kIndex", kIndex, 0, offsets, "the offsets of qIndex");
            return offsets - 1;
        }

        private static void same(String name, Tensor tensor, int dim, long size, String what) {
            if (tensor.spec.size(dim) != size) {
                throw Arguments.wrong(name, tensor.spec, size + " in dimension " + dim + ", " + what);
            }
        }
    }
}
