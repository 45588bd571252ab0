package io.gatun.bench.reference;

import static io.gatun.bench.reference.Expected.FLUSH;
import static io.gatun.bench.reference.Expected.TINY;
import static io.gatun.bench.reference.Expected.U;

import io.gatun.Activation;
import io.gatun.DType;
import org.jspecify.annotations.Nullable;

/**
 * Convolution in three dimensions with a folded batch normalisation and its epilogue: out = f(&Sigma; w x + shift + bias)
 * + residual, or f(&Sigma; w x + shift + bias + residual).
 *
 * <p>A folded weight is rounded to FP32, u of each term, and the sum of k terms errs by at most k u &Sigma;|w x| + k
 * 2<sup>-149</sup>, so the product by (k + 1) u &Sigma;|w x| + k 2<sup>-149</sup>. The shift rounds once, and it, the
 * bias and the residual add one rounding of the sum each. BF16 rounds x and folded weights first, which is exact
 * arithmetic on known numbers and no error; an operand below 2<sup>-126</sup> may count as zero, so its products are
 * added whole. The activation passes the error on (see {@link ActivationReference}).
 */
public final class ConvReference {
    private ConvReference() {}

    /**
     * A convolution's sizes; those of dimensions that it lacks are 1, and their padding is 0.
     *
     * @param channels of x
     * @param columns channels of out
     * @param out sizes of the output
     */
    public record Shape(int batch, int channels, int columns, int groups, int[] size, int[] kernel, int[] stride,
            int[] dilation, int[] before, int[] out) {
        private int positions() {
            return kernel[0] * kernel[1] * kernel[2];
        }
    }

    /** A batch normalisation: an array has an element for each channel of out. */
    public record Norm(float[] gamma, float[] beta, float[] mean, float[] variance, float epsilon) {
        private double scale(int channel) {
            return gamma[channel] / Math.sqrt((double) variance[channel] + epsilon);
        }
    }

    /**
     * out[batch, columns, sizes].
     *
     * @param format F32 or BF16
     * @param x [batch, channels, sizes]
     * @param w [columns, channels / groups, kernel]
     * @param bias [columns], or null
     * @param residual as out, or null
     * @param first whether the residual is added before the activation
     */
    public static Expected compute(DType format, Shape shape, float[] x, float[] w, @Nullable Norm norm,
            float @Nullable [] bias, Activation activation, float @Nullable [] residual, boolean first) {
        int positions = shape.positions();
        int channels = shape.channels / shape.groups;
        int columns = shape.columns / shape.groups;
        int volume = shape.size[0] * shape.size[1] * shape.size[2];
        int outVolume = shape.out[0] * shape.out[1] * shape.out[2];
        boolean bf16 = format == DType.BF16;
        float[] input = bf16 ? Bf16.round(x.clone()) : x;
        float[] folded = w.clone();
        for (int i = 0; norm != null && i < w.length; i++) {
            folded[i] = (float) (w[i] * norm.scale(i / (channels * positions)));
        }
        folded = bf16 ? Bf16.round(folded) : folded;
        int elements = shape.batch * shape.columns * outVolume;
        Expected expected = Expected.of(elements, elements);
        for (int i = 0; i < expected.value().length; i++) {
            int place = i % outVolume;
            int o = i / outVolume % shape.columns;
            int image = i / outVolume / shape.columns;
            int[] y = {place / shape.out[2] / shape.out[1], place / shape.out[2] % shape.out[1], place % shape.out[2]};
            double value = 0;
            double magnitude = 0;
            double bound = (double) channels * positions * TINY + TINY;
            float naive = 0;
            for (int c = 0; c < channels; c++) {
                for (int t = 0; t < positions; t++) {
                    int from = source(shape, y, t);
                    if (from < 0) {
                        continue;
                    }
                    float a = input[(image * shape.channels + o / columns * channels + c) * volume + from];
                    float b = folded[(o * channels + c) * positions + t];
                    value += (double) a * b;
                    magnitude += Math.abs((double) a * b);
                    naive += a * b;
                    if (bf16 && (Math.abs(a) < FLUSH || Math.abs(b) < FLUSH)) {
                        bound += Math.abs((double) a * b);
                    }
                }
            }
            bound += (channels * positions + 1) * U * magnitude;
            if (norm != null) {
                double shift = norm.beta[o] - norm.mean[o] * norm.scale(o);
                value += shift;
                naive += (float) shift;
                bound += U * (Math.abs(shift) + Math.abs(value));
            }
            if (bias != null) {
                value += bias[o];
                naive += bias[o];
                bound += U * Math.abs(value);
            }
            if (residual != null && first) {
                value += residual[i];
                naive += residual[i];
                bound += U * Math.abs(value);
            }
            bound = ActivationReference.bound(activation, value, bound * (1 + 4 * U));
            value = ActivationReference.value(activation, value);
            naive = ActivationReference.naive(activation, naive);
            if (residual != null && !first) {
                value += residual[i];
                naive += residual[i];
                bound += U * (Math.abs(value) + bound);
            }
            expected.set(i, value, bound, naive);
        }
        return expected;
    }

    /** Where position t of the kernel meets x, or -1 outside of it. */
    private static int source(Shape shape, int[] y, int t) {
        int[] at = {t / shape.kernel[2] / shape.kernel[1], t / shape.kernel[2] % shape.kernel[1], t % shape.kernel[2]};
        int from = 0;
        for (int d = 0; d < 3; d++) {
            int position = y[d] * shape.stride[d] + at[d] * shape.dilation[d] - shape.before[d];
            if (position < 0 || position >= shape.size[d]) {
                return -1;
            }
            from = from * shape.size[d] + position;
        }
        return from;
    }
}
