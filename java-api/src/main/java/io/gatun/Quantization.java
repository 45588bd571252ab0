package io.gatun;

/**
 * How weights are quantized for a {@linkplain Gemm#of(Quantization) multiplication} of floating point rows by them: in each
 * column, every {@code groupSize} elements of k share an FP32 scale and a zero point, and integer q stands for the weight
 * {@code (q - zero point) * scale}, rounded to FP32 once. The last group of a column may have fewer elements.
 *
 * <p>{@link PackedWeights#quantize} makes the integers of a group, with most = 15 or 255, of the range {@code lo = c min(0,
 * min w)} to {@code hi = c max(0, max w)}: the scale is {@code s = (hi - lo) / most}, the zero point {@code z = rint(-lo /
 * s)}, and the integers are {@code clamp(rint(w / s) + z, 0, most)}. Symmetric, with h = 8 or 128, the scale is {@code c max
 * |w| / (h - 1)} and the zero point h. The scale is computed in FP64 and rounded to FP32, quotients are of FP64, and ties go
 * to even; a scale of 0 gives integers and, unless symmetric, a zero point of 0. c is 1 unless it is searched for.
 *
 * @param bits of an integer: 4 or 8
 * @param groupSize 32, 64 or 128
 * @param symmetric whether all zero points are 8 or 128
 * @param search whether c is that of 1, 31/32, ..., 16/32 with the least sum of squared errors, the first of equals: some
 *     groups are better off with their largest weights clipped. It takes some 20 times as long
 */
public record Quantization(int bits, int groupSize, boolean symmetric, boolean search) {
    /**
     * Checks the numbers.
     *
     * @throws IllegalArgumentException if bits or groupSize is none of the above
     */
    public Quantization {
        if (bits != 4 && bits != 8) {
            throw new IllegalArgumentException("bits: " + bits + ", expected 4 or 8");
        }
        if (groupSize != 32 && groupSize != 64 && groupSize != 128) {
            throw new IllegalArgumentException("groupSize: " + groupSize + ", expected 32, 64 or 128");
        }
    }

    /**
     * Describes integers of 4 bits with zero points of their own and whole ranges.
     *
     * @param groupSize 32, 64 or 128
     * @return the description
     * @throws IllegalArgumentException if groupSize is another number
     */
    public static Quantization int4(int groupSize) {
        return new Quantization(4, groupSize, false, false);
    }

    /**
     * Describes integers of 8 bits with zero points of their own and whole ranges.
     *
     * @param groupSize 32, 64 or 128
     * @return the description
     * @throws IllegalArgumentException if groupSize is another number
     */
    public static Quantization int8(int groupSize) {
        return new Quantization(8, groupSize, false, false);
    }

    /**
     * Fixes the zero points at 8 or 128, which takes less memory.
     *
     * @return a description without zero points
     */
    public Quantization symmetricRange() {
        return new Quantization(bits, groupSize, true, search);
    }

    /**
     * Searches for the range of each group.
     *
     * @return a description with a search
     */
    public Quantization searched() {
        return new Quantization(bits, groupSize, symmetric, true);
    }
}
