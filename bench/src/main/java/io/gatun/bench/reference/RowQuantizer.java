package io.gatun.bench.reference;

/**
 * The 8-bit quantization of one row of activations: q = clamp(rint(x / s) + z, 0, 255) with lo = min(0, min x),
 * hi = max(0, max x), s = (hi - lo) / 255 in FP32, z = rint(-lo / s), ties to even; s = 0 gives q = z = 0.
 *
 * <p>These are FP32 operations by definition, so the result is exact and the same everywhere.
 */
public final class RowQuantizer {
    private final int[] values;
    private float scale;
    private int zero;

    /** A quantizer of rows of {@code length} values. */
    public RowQuantizer(int length) {
        values = new int[length];
    }

    /**
     * Quantizes the row that starts at x[from].
     *
     * @return false when the row has no 8-bit form: a NaN, an infinity or a range that overflows
     */
    public boolean quantize(float[] x, int from) {
        float lo = 0;
        float hi = 0;
        boolean finite = true;
        for (int i = 0; i < values.length; i++) {
            float value = x[from + i];
            finite &= Float.isFinite(value);
            lo = Math.min(lo, value);
            hi = Math.max(hi, value);
        }
        scale = (hi - lo) / 255f;
        if (!finite || !Float.isFinite(hi - lo)) {
            return false;
        }
        zero = scale == 0 ? 0 : (int) Math.rint(-lo / scale);
        for (int i = 0; i < values.length; i++) {
            values[i] = scale == 0 ? 0 : (int) Math.clamp(Math.rint(x[from + i] / scale) + zero, 0, 255);
        }
        return true;
    }

    /** The quantized row, 0 to 255. */
    public int[] values() {
        return values;
    }

    /** s. */
    public float scale() {
        return scale;
    }

    /** z. */
    public int zero() {
        return zero;
    }
}
