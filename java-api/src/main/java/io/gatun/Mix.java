package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_mix_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Gated sum: {@code out[t, h, :] = residual[t, h, :] + sum over parts p of f(gates[t, p, h]) * x_p[t, h, :]}, summed in
 * F32 in the order of parts, the residual last. It joins the branches of native sparse attention (Yuan et al. 2025,
 * equation 5: {@link #sigmoid}), adds gated cross-attention to a stream (Alayrac et al. 2022, Flamingo, section 2.2:
 * {@link #tanh}, one gate with strides of 0), and sums the rows of a token's experts ({@link #rowIndex}: the slots of
 * {@link Route}, one head). A gate that f makes 0 takes no part, whatever {@code x} holds. Immutable.
 */
public final class Mix {
    private final int gate;
    private final boolean residual;
    private final boolean rowIndex;

    private Mix(int gate, boolean residual, boolean rowIndex) {
        this.gate = gate;
        this.residual = residual;
        this.rowIndex = rowIndex;
    }

    /**
     * Describes a sum whose gates are the weights themselves.
     *
     * @return the description
     */
    public static Mix of() {
        return new Mix(gatun_h.GTN_GATE_NONE(), false, false);
    }

    /**
     * Describes a sum weighted by the sigmoids of the gates.
     *
     * @return the description
     */
    public static Mix sigmoid() {
        return new Mix(gatun_h.GTN_GATE_SIGMOID(), false, false);
    }

    /**
     * Describes a sum weighted by the hyperbolic tangents of the gates.
     *
     * @return the description
     */
    public static Mix tanh() {
        return new Mix(gatun_h.GTN_GATE_TANH(), false, false);
    }

    /**
     * Adds a residual.
     *
     * @return a description with a residual
     */
    public Mix residual() {
        return new Mix(gate, true, rowIndex);
    }

    /**
     * Takes the rows of {@code x} by number: part p of token t is row {@code rowIndex[t, p]}.
     *
     * @return a description with row numbers
     */
    public Mix rowIndex() {
        return new Mix(gate, residual, true);
    }

    /**
     * Makes a plan. Tokens are the most that a run may have, and so are rows of {@code x} that are taken by number.
     *
     * @param device where it will run
     * @param x F32, BF16 or F16 {@code [parts, tokens, heads, n]}, or {@code [rows, heads, n]} with row numbers, unit
     *     stride in n
     * @param gates F32 {@code [tokens, parts, heads]}, any strides, of 0 too
     * @param out F32, BF16 or F16 {@code [tokens, heads, n]}, heads and n 1 or more, unit stride in n; a residual has
     *     the same type and strides
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec gates, TensorSpec out) {
        int heads = rowIndex ? 1 : 2;
        Arguments.rank("x", x, heads + 2, rowIndex ? "[rows, heads, n]" : "[parts, tokens, heads, n]");
        Arguments.rank("gates", gates, 3, "[tokens, parts, heads]");
        Arguments.rank("out", out, 3, "[tokens, heads, n]");
        Arguments.type("x", x, DType.F32, DType.BF16, DType.F16);
        Arguments.type("gates", gates, DType.F32);
        Arguments.type("out", out, DType.F32, DType.BF16, DType.F16);
        Arguments.unitStride("x", x);
        Arguments.unitStride("out", out);
        for (int d = 1; d < 3; d++) {
            if (out.size(d) == 0) {
                throw Arguments.wrong("out", out, "1 or more in dimension " + d);
            }
        }
        Arguments.size("gates", gates, 0, out.size(0), "the tokens of out");
        Arguments.size("gates", gates, 2, out.size(1), "the heads of out");
        if (!rowIndex) {
            Arguments.size("x", x, 0, gates.size(1), "the parts of gates");
            Arguments.size("x", x, 1, out.size(0), "the tokens of out");
        }
        Arguments.size("x", x, heads, out.size(1), "the heads of out");
        Arguments.size("x", x, heads + 1, out.size(2), "the elements of a head of out");
        return new Plan(device, this, x, gates, out);
    }

    /** A gated sum made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec gates;
        private final TensorSpec out;
        private final @Nullable TensorSpec rowIndex;
        private final @Nullable TensorSpec residual;

        private Plan(Device device, Mix mix, TensorSpec x, TensorSpec gates, TensorSpec out) {
            // What this refuses leaves no plan behind.
            this.rowIndex = mix.rowIndex
                    ? Arguments.dense("gates", DType.S32, gates.size(0), gates.size(1))
                    : null;
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_mix_desc.allocate(arena);
                        gtn_mix_desc.size(desc, (int) gtn_mix_desc.sizeof());
                        gtn_mix_desc.gate(desc, mix.gate);
                        x.write(gtn_mix_desc.x(desc));
                        gates.write(gtn_mix_desc.gates(desc));
                        out.write(gtn_mix_desc.out(desc));
                        gtn_mix_desc.has_residual(desc, mix.residual ? 1 : 0);
                        gtn_mix_desc.has_row_index(desc, mix.rowIndex ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_mix_plan(device.handle, desc, plan, message));
            this.x = x;
            this.gates = gates;
            this.out = out;
            this.residual = mix.residual ? out : null;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call tokens may be fewer
         * than the plan's, and so may rows of {@code x} that are taken by number. A row number out of range is an
         * {@link IllegalArgumentException}, too, and leaves outputs untouched.
         *
         * @param stream a stream of the plan's device
         * @param x what is summed
         * @param gates the gates, with the tokens of {@code out}
         * @param rowIndex S32 {@code [tokens, parts]}, dense, where the plan takes rows by number, else null: 0 to the
         *     rows of {@code x} less 1, or -1 for no part
         * @param residual what is added where the plan has a residual, else null
         * @param out the output; it may be {@code residual}
         */
        public void run(
                Stream stream,
                Tensor x,
                Tensor gates,
                @Nullable Tensor rowIndex,
                @Nullable Tensor residual,
                Tensor out) {
            check(stream);
            boolean indexed = this.rowIndex != null;
            Arguments.input(device, "x", x, this.x, indexed ? 1 : 2);
            Arguments.input(device, "gates", gates, this.gates, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long tokens = out.spec.size(0);
            Arguments.size("gates", gates.spec, 0, tokens, "the tokens of out");
            if (!indexed) {
                Arguments.size("x", x.spec, 0, this.x.size(0), "the parts of the plan");
                Arguments.size("x", x.spec, 1, tokens, "the tokens of out");
            }
            MemorySegment rowMemory = Arguments.optional(device, "rowIndex", rowIndex, this.rowIndex, 1);
            if (rowIndex != null) {
                Arguments.size("rowIndex", rowIndex.spec, 0, tokens, "the tokens of out");
            }
            MemorySegment residualMemory = Arguments.optional(device, "residual", residual, this.residual, 1);
            if (residual != null) {
                Arguments.size("residual", residual.spec, 0, tokens, "the tokens of out");
            }
            int status = gatun_h.gtn_mix_run(
                    handle,
                    stream.handle,
                    tokens,
                    indexed ? x.spec.size(0) : 0,
                    x.memory,
                    gates.memory,
                    rowMemory,
                    residualMemory,
                    out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
