package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_merge_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Merges attention over parts of the keys by their log-sum-exps, exact up to rounding: attention over a shared prefix
 * and over each sequence's own keys merge to attention over both. {@code out} is the sum of {@code exp(lse_i) x_i} over
 * the sum of {@code exp(lse_i)}, and {@code lse} the logarithm of the latter, as an online softmax combines its blocks
 * (Dao et al. 2022, FlashAttention). A part whose log-sum-exp is -infinity has no share, whatever its {@code x} holds;
 * all -infinity gives 0 and -infinity; a NaN among the log-sum-exps gives NaN. Immutable.
 */
public final class Merge {
    private final boolean sinkLogits;

    private Merge(boolean sinkLogits) {
        this.sinkLogits = sinkLogits;
    }

    /**
     * Describes a merge.
     *
     * @return the description
     */
    public static Merge of() {
        return new Merge(false);
    }

    /**
     * Adds {@code exp(sink logit)} of the head to what {@code out} is divided by; {@code lse} leaves it out. What is
     * merged must not have it yet: see {@link Attention#sinkLogits}.
     *
     * @return a description with sink logits
     */
    public Merge sinkLogits() {
        return new Merge(true);
    }

    /**
     * Makes a plan. Parts, batch and length are the most that a run may have.
     *
     * @param device where it will run
     * @param x F32, BF16 or F16 {@code [parts, batch, length, heads, dv]}, unit stride in dv
     * @param xLse F32 {@code [parts, batch, heads, length]}, any strides
     * @param out F32, BF16 or F16 {@code [batch, length, heads, dv]}, unit stride in dv
     * @param lse F32 {@code [batch, heads, length]}, any strides; also where runs leave it out
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec xLse, TensorSpec out, TensorSpec lse) {
        Arguments.rank("x", x, 5, "[parts, batch, length, heads, head size]");
        Arguments.rank("xLse", xLse, 4, "[parts, batch, heads, length]");
        Arguments.rank("out", out, 4, "[batch, length, heads, head size]");
        Arguments.rank("lse", lse, 3, "[batch, heads, length]");
        for (int d = 3; d < 5; d++) {
            if (x.size(d) == 0) {
                throw Arguments.wrong("x", x, "1 or more in dimension " + d);
            }
        }
        Arguments.type("x", x, DType.F32, DType.BF16, DType.F16);
        Arguments.type("xLse", xLse, DType.F32);
        Arguments.type("out", out, DType.F32, DType.BF16, DType.F16);
        Arguments.type("lse", lse, DType.F32);
        Arguments.unitStride("x", x);
        Arguments.unitStride("out", out);
        Arguments.size("xLse", xLse, 0, x.size(0), "the parts of x");
        Arguments.size("out", out, 3, x.size(4), "the head size of x");
        sizes(x.size(1), x.size(2), x.size(3), xLse, out, lse);
        return new Plan(device, this, x, xLse, out, lse);
    }

    /** Batch, length and heads of all but x, which may have no lse in a run. */
    private static void sizes(
            long batch,
            long length,
            long heads,
            TensorSpec xLse,
            TensorSpec out,
            @Nullable TensorSpec lse) {
        Arguments.size("xLse", xLse, 1, batch, "the batch of x");
        Arguments.size("xLse", xLse, 2, heads, "the heads of x");
        Arguments.size("xLse", xLse, 3, length, "the length of x");
        Arguments.size("out", out, 0, batch, "the batch of x");
        Arguments.size("out", out, 1, length, "the length of x");
        Arguments.size("out", out, 2, heads, "the heads of x");
        if (lse != null) {
            Arguments.size("lse", lse, 0, batch, "the batch of x");
            Arguments.size("lse", lse, 1, heads, "the heads of x");
            Arguments.size("lse", lse, 2, length, "the length of x");
        }
    }

    /** A merge made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec xLse;
        private final TensorSpec out;
        private final TensorSpec lse;
        private final @Nullable TensorSpec sinkLogits;

        private Plan(Device device, Merge merge, TensorSpec x, TensorSpec xLse, TensorSpec out, TensorSpec lse) {
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_merge_desc.allocate(arena);
                        gtn_merge_desc.size(desc, (int) gtn_merge_desc.sizeof());
                        gtn_merge_desc.has_sink_logits(desc, merge.sinkLogits ? 1 : 0);
                        x.write(gtn_merge_desc.x(desc));
                        xLse.write(gtn_merge_desc.x_lse(desc));
                        out.write(gtn_merge_desc.out(desc));
                        lse.write(gtn_merge_desc.lse(desc));
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_merge_plan(device.handle, desc, plan, message));
            this.x = x;
            this.xLse = xLse;
            this.out = out;
            this.lse = lse;
            this.sinkLogits = merge.sinkLogits ? TensorSpec.of(DType.F32, x.size(3)) : null;
        }

        /**
         * Runs a plan without sink logits, and without the merged log-sum-exps.
         *
         * @param stream a stream of the plan's device
         * @param x see {@link #run(Stream, Tensor, Tensor, Tensor, Tensor, Tensor)}
         * @param xLse see there
         * @param out see there
         */
        public void run(Stream stream, Tensor x, Tensor xLse, Tensor out) {
            run(stream, x, xLse, null, out, null);
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call parts, batch and length
         * may be smaller than the plan's.
         *
         * @param stream a stream of the plan's device
         * @param x what attention gave for each part of the keys
         * @param xLse its log-sum-exps, with the parts, batch and length of {@code x}
         * @param sinkLogits F32 {@code [heads]} where the plan has them, else null
         * @param out the output, with the batch and length of {@code x}; it may be the first part of {@code x} where
         *     element type and strides are the same
         * @param lse null, or where the merged log-sum-exps go, with the batch and length of {@code x}; it may be the
         *     first part of {@code xLse} where the strides are the same
         */
        public void run(
                Stream stream,
                Tensor x,
                Tensor xLse,
                @Nullable Tensor sinkLogits,
                Tensor out,
                @Nullable Tensor lse) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 3);
            Arguments.input(device, "xLse", xLse, this.xLse, 4);
            Arguments.output(device, "out", out, this.out, 2);
            MemorySegment lseMemory = MemorySegment.NULL;
            if (lse != null) {
                Arguments.output(device, "lse", lse, this.lse, 3);
                lseMemory = lse.memory;
            }
            MemorySegment sinkMemory = Arguments.optional(device, "sinkLogits", sinkLogits, this.sinkLogits, 0);
            long parts = x.spec.size(0);
            long batch = x.spec.size(1);
            long length = x.spec.size(2);
            Arguments.size("xLse", xLse.spec, 0, parts, "the parts of x");
            sizes(batch, length, x.spec.size(3), xLse.spec, out.spec, lse == null ? null : lse.spec);
            int status = gatun_h.gtn_merge_run(
                    handle,
                    stream.handle,
                    parts,
                    batch,
                    length,
                    x.memory,
                    xLse.memory,
                    sinkMemory,
                    out.memory,
                    lseMemory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
