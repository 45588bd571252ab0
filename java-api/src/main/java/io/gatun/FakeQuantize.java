package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_fake_quantize_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Fake quantization, for training that is aware of quantization: {@code out = (clamp(rint(x / s) + z, least, most) - z) * s}, what
 * {@code x} would be after quantization to integers (Jacob et al. 2018, "Quantization and training of neural networks for
 * efficient integer-arithmetic-only inference", section 3), in FP32, ties to even, rounded once more to the type of
 * {@code out}. NaN stays NaN, and a scale of 0 gives 0. Immutable.
 *
 * <p>Its {@linkplain #gradient gradient} is the straight-through one (Bengio et al. 2013, "Estimating or propagating gradients
 * through stochastic neurons for conditional computation", section 3): that of {@code out} where {@code rint(x / s) + z} is
 * {@code least} to {@code most}, and 0 elsewhere, where {@code x} is NaN, and with a scale of 0.
 *
 * <p>The scales and zero points come with each run, as {@link Calibration} finds them: one for all of a tensor, or one for each
 * row or column.
 */
public final class FakeQuantize {
    private enum Granularity {
        TENSOR,
        ROW,
        COLUMN;

        int code() {
            return switch (this) {
                case TENSOR -> gatun_h.GTN_SCALE_OF_TENSOR();
                case ROW -> gatun_h.GTN_SCALE_OF_ROW();
                case COLUMN -> gatun_h.GTN_SCALE_OF_COLUMN();
            };
        }

        long[] shape(TensorSpec x) {
            return new long[] {
                switch (this) {
                    case TENSOR -> 1;
                    case ROW -> x.size(0);
                    case COLUMN -> x.size(1);
                }
            };
        }
    }

    private final int least;
    private final int most;
    private final boolean zeroPoints;
    private final Granularity granularity;
    private final boolean gradient;

    private FakeQuantize(int least, int most, boolean zeroPoints, Granularity granularity, boolean gradient) {
        this.least = least;
        this.most = most;
        this.zeroPoints = zeroPoints;
        this.granularity = granularity;
        this.gradient = gradient;
    }

    /**
     * Describes integers with sign and without zero points, such as -127 to 127, of one scale: see {@link
     * Calibration.Range#signed}.
     *
     * @param bits 2 to 8
     * @return the description
     * @throws IllegalArgumentException if bits is another number
     */
    public static FakeQuantize signed(int bits) {
        Calibration.checkBits(bits);
        int most = (1 << bits - 1) - 1;
        return new FakeQuantize(-most, most, false, Granularity.TENSOR, false);
    }

    /**
     * Describes integers without sign, such as 0 to 255, of one scale and one zero point: see {@link
     * Calibration.Range#unsigned}.
     *
     * @param bits 2 to 8
     * @return the description
     * @throws IllegalArgumentException if bits is another number
     */
    public static FakeQuantize unsigned(int bits) {
        Calibration.checkBits(bits);
        return new FakeQuantize(0, (1 << bits) - 1, true, Granularity.TENSOR, false);
    }

    /**
     * Gives each row a scale of its own, and a zero point where there are any.
     *
     * @return a description by rows
     */
    public FakeQuantize perRow() {
        return new FakeQuantize(least, most, zeroPoints, Granularity.ROW, gradient);
    }

    /**
     * Gives each column a scale of its own, and a zero point where there are any.
     *
     * @return a description by columns
     */
    public FakeQuantize perColumn() {
        return new FakeQuantize(least, most, zeroPoints, Granularity.COLUMN, gradient);
    }

    /**
     * Describes the gradient of {@code x} in place of the values.
     *
     * @return a description of the straight-through gradient
     */
    public FakeQuantize gradient() {
        return new FakeQuantize(least, most, zeroPoints, granularity, true);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32 or BF16 {@code [rows, n]}, unit stride in n; the rows are the most that a run may have
     * @param out F32 or BF16, the shape of {@code x}, unit stride in n
     * @return the plan
     * @throws IllegalArgumentException if a spec is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x, TensorSpec out) {
        Arguments.matrix("x", x);
        Arguments.matrix("out", out);
        Arguments.sameShape("out", out, "x", x);
        return new Plan(device, this, x, out);
    }

    /** A fake quantization made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;
        private final TensorSpec scales;
        private final @Nullable TensorSpec zeroPoints;
        private final @Nullable TensorSpec gradient;
        private final boolean perRow;

        private Plan(Device device, FakeQuantize operator, TensorSpec x, TensorSpec out) {
            // What is too large leaves no plan behind.
            long[] shape = operator.granularity.shape(x);
            TensorSpec scales = Arguments.dense("scales", DType.F32, shape);
            TensorSpec zeroPoints = operator.zeroPoints ? Arguments.dense("zeroPoints", DType.S32, shape) : null;
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype() + ", integers " + operator.least + " to " + operator.most,
                    arena -> {
                        MemorySegment desc = gtn_fake_quantize_desc.allocate(arena);
                        gtn_fake_quantize_desc.size(desc, (int) gtn_fake_quantize_desc.sizeof());
                        gtn_fake_quantize_desc.granularity(desc, operator.granularity.code());
                        gtn_fake_quantize_desc.least(desc, operator.least);
                        gtn_fake_quantize_desc.most(desc, operator.most);
                        x.write(gtn_fake_quantize_desc.x(desc));
                        out.write(gtn_fake_quantize_desc.out(desc));
                        gtn_fake_quantize_desc.has_zero_points(desc, operator.zeroPoints ? 1 : 0);
                        gtn_fake_quantize_desc.gradient(desc, operator.gradient ? 1 : 0);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_fake_quantize_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
            this.scales = scales;
            this.zeroPoints = zeroPoints;
            this.gradient = operator.gradient ? out : null;
            this.perRow = operator.granularity == Granularity.ROW;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the values, with at most the plan's rows
         * @param scales F32, dense: {@code [1]}, or {@code [rows]} as x has, or {@code [n]}
         * @param zeroPoints S32 likewise where the integers have no sign, else null
         * @param gradient that of the output, laid out and typed as the plan's {@code out}, where the plan is of the gradient,
         *     else null
         * @param out the output, or the gradient of {@code x}, with as many rows; it may be {@code x} where element type and
         *     strides are the same, or {@code gradient}, and overlaps nothing else
         */
        public void run(
                Stream stream,
                Tensor x,
                Tensor scales,
                @Nullable Tensor zeroPoints,
                @Nullable Tensor gradient,
                Tensor out) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long rows = x.spec.size(0);
            Arguments.rows("out", out, rows);
            int leading = perRow ? 1 : 0;
            Arguments.input(device, "scales", scales, this.scales, leading);
            if (perRow) {
                Arguments.rows("scales", scales, rows);
            }
            MemorySegment zeros = Arguments.optional(device, "zeroPoints", zeroPoints, this.zeroPoints, leading, rows);
            MemorySegment through = Arguments.optional(device, "gradient", gradient, this.gradient, 1, rows);
            int status = gatun_h.gtn_fake_quantize_run(
                    handle, stream.handle, rows, x.memory, scales.memory, zeros, through, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
