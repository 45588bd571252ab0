package io.gatun.bench.reference;

import io.gatun.Quantization;
import java.util.Arrays;

/**
 * Weights of 4 or 8 bits, quantized in groups along k, with the definition that {@link Quantization} states. What the
 * integers stand for, (q - z) s rounded to FP32, is then multiplied as FP32, so no error bound of its own is needed.
 */
public final class WeightQuantizer {
    private static final int RANGES = 32;
    private static final int LEAST_RANGE = 16;
    private static final int TURNS = 16;

    private final Quantization quantization;
    private final int k;
    private final int n;
    private final int blocks;
    private final int most;
    private final int[] integers; // [n, blocks, group size]
    private final int[] zeros; // [n, blocks]
    private final float[] scales;

    /**
     * Quantizes a matrix.
     *
     * @param w [k, n], finite
     */
    public WeightQuantizer(Quantization quantization, int k, int n, float[] w) {
        this.quantization = quantization;
        this.k = k;
        this.n = n;
        this.most = (1 << quantization.bits()) - 1;
        int size = quantization.groupSize();
        this.blocks = Math.ceilDiv(k, size);
        this.integers = new int[n * blocks * size];
        this.zeros = new int[n * blocks];
        this.scales = new float[n * blocks];
        for (int j = 0; j < n; j++) {
            for (int b = 0; b < blocks; b++) {
                double[] group = new double[Math.min(size, k - b * size)];
                for (int i = 0; i < group.length; i++) {
                    group[i] = w[(b * size + i) * n + j];
                }
                quantize(group, j * blocks + b);
            }
        }
    }

    private void quantize(double[] group, int at) {
        double lo = Math.min(0, Arrays.stream(group).min().orElse(0));
        double hi = Math.max(0, Arrays.stream(group).max().orElse(0));
        boolean symmetric = quantization.symmetric();
        int half = (most + 1) / 2;
        Best best = new Best(group, at);
        for (int part = RANGES; part >= (quantization.method() == Quantization.Method.NEAREST ? RANGES : LEAST_RANGE); part--) {
            double c = part / (double) RANGES;
            float scale = (float) (symmetric ? c * Math.max(hi, -lo) / (half - 1) : (c * hi - c * lo) / most);
            best.take(scale, symmetric ? half : scale == 0 ? 0 : clamp(Math.rint(-(c * lo) / scale)));
        }
        if (quantization.method() != Quantization.Method.FIT) {
            return;
        }
        double largest = Arrays.stream(group).filter(w -> Math.abs(w) == Math.max(hi, -lo)).findFirst().orElse(0);
        for (int part = RANGES; symmetric && part >= LEAST_RANGE; part--) {
            float scale = (float) (-(part / (double) RANGES * largest) / half);
            if (scale != 0) {
                best.take(scale, half);
            }
        }
        boolean better = scales[at] != 0;
        for (int turn = 0; better && turn < TURNS; turn++) {
            float scale = scales[at];
            int zero = zeros[at];
            better = false;
            for (int z : symmetric ? new int[] {zero} : new int[] {zero, zero - 1, zero + 1}) {
                if (z < 0 || z > most) {
                    continue;
                }
                double products = 0;
                double squares = 0;
                for (double w : group) {
                    double step = integer(w, scale, z) - z;
                    products += w * step;
                    squares += step * step;
                }
                float fitted = squares == 0 ? 0 : (float) (products / squares);
                if (fitted != 0) {
                    better |= best.take(fitted, z);
                }
            }
        }
    }

    private int integer(double w, float scale, int zero) {
        return scale == 0 ? 0 : clamp(Math.rint(w / scale) + zero);
    }

    /** What has the least error so far for a group. */
    private final class Best {
        private final double[] group;
        private final int at;
        private double least = Double.POSITIVE_INFINITY;

        Best(double[] group, int at) {
            this.group = group;
            this.at = at;
        }

        boolean take(float scale, int zero) {
            int[] chosen = new int[group.length];
            double error = 0;
            for (int i = 0; i < group.length; i++) {
                chosen[i] = integer(group[i], scale, zero);
                double off = group[i] - (double) (chosen[i] - zero) * scale;
                error += off * off;
            }
            if (!(error < least)) {
                return false;
            }
            least = error;
            scales[at] = scale;
            zeros[at] = zero;
            System.arraycopy(chosen, 0, integers, at * quantization.groupSize(), chosen.length);
            return true;
        }
    }

    private int clamp(double value) {
        return (int) Math.clamp(value, 0, most);
    }

    /** The weights that the integers stand for, [k, n]. */
    public float[] weights() {
        float[] w = new float[k * n];
        int size = quantization.groupSize();
        for (int p = 0; p < k; p++) {
            for (int j = 0; j < n; j++) {
                int block = j * blocks + p / size;
                w[p * n + j] = (integers[block * size + p % size] - zeros[block]) * scales[block];
            }
        }
        return w;
    }

    /** The groups of a column. */
    public int blocks() {
        return blocks;
    }

    /** The scales, [n, blocks]. */
    public float[] scales() {
        return scales;
    }

    /** The integers in bytes as {@code MatMulNBits} has them, [n, blocks, bytes of a group]. */
    public byte[] integerBytes() {
        return bytes(integers, quantization.groupSize());
    }

    /** The zero points likewise, [n, bytes of a column]. */
    public byte[] zeroBytes() {
        return bytes(zeros, blocks);
    }

    /** Runs of `length` integers, the first of two of 4 bits in the lower half of a byte. */
    private byte[] bytes(int[] values, int length) {
        if (length == 0) {
            return new byte[0];
        }
        int each = 8 / quantization.bits();
        int run = Math.ceilDiv(length, each);
        byte[] bytes = new byte[values.length / length * run];
        for (int i = 0; i < values.length; i++) {
            int shift = i % length % each * quantization.bits();
            bytes[i / length * run + i % length / each] |= (byte) (values[i] << shift);
        }
        return bytes;
    }
}
