package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_softmax_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;

/**
 * Softmax over the last dimension: {@code out = exp(scale x - max) / sum}. A row of -infinity alone gives 0; a row with
 * a NaN or +infinity gives NaN. Immutable.
 */
public final class Softmax {
    private final float scale;

    private Softmax(float scale) {
        this.scale = scale;
    }

    /**
     * Describes a softmax with a scale of 1.
     *
     * @return the description
     */
    public static Softmax of() {
        return new Softmax(1);
    }

    /**
     * Describes a softmax of {@code scale * x}.
     *
     * @param scale a finite number
     * @return the description
     * @throws IllegalArgumentException if {@code scale} is not finite
     */
    public static Softmax scaled(float scale) {
        Arguments.finite("scale", scale);
        return new Softmax(scale);
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

    /** A softmax made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final TensorSpec out;

        private Plan(Device device, Softmax softmax, TensorSpec x, TensorSpec out) {
            super(
                    device,
                    "x " + x.dtype() + ", out " + out.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_softmax_desc.allocate(arena);
                        gtn_softmax_desc.size(desc, (int) gtn_softmax_desc.sizeof());
                        gtn_softmax_desc.scale(desc, softmax.scale);
                        x.write(gtn_softmax_desc.x(desc));
                        out.write(gtn_softmax_desc.out(desc));
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_softmax_plan(device.handle, desc, plan, message));
            this.x = x;
            this.out = out;
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown.
         *
         * @param stream a stream of the plan's device
         * @param x the input, with at most the plan's rows
         * @param out the output, with as many rows; it may be {@code x} where element type and strides are the same
         */
        public void run(Stream stream, Tensor x, Tensor out) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            Arguments.output(device, "out", out, this.out, 1);
            long rows = x.spec.size(0);
            Arguments.rows("out", out, rows);
            int status = gatun_h.gtn_softmax_run(handle, stream.handle, rows, x.memory, out.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
