package io.gatun;

import io.gatun.bindings.c.gatun_h;
import java.util.Objects;

/**
 * How weights are quantized for a {@linkplain Gemm#of(Quantization) multiplication} of floating point rows by them: in each
 * column, every {@code groupSize} elements of k share an FP32 scale and a zero point, and integer q stands for the weight
 * {@code (q - zero point) * scale}, rounded to FP32 once. The last group of a column may have fewer elements.
 *
 * <p>{@link PackedWeights#quantize} makes the integers of a group, with most = 15 or 255, of the range {@code lo = c min(0,
 * min w)} to {@code hi = c max(0, max w)}: the scale is {@code s = (hi - lo) / most}, the zero point {@code z = rint(-lo /
 * s)}, and the integers are {@code clamp(rint(w / s) + z, 0, most)}. Symmetric, with h = 8 or 128, the scale is {@code c max
 * |w| / (h - 1)} and the zero point h. The scale is computed in FP64 and rounded to FP32, quotients are of FP64, and ties go
 * to even; a scale of 0 gives integers and, unless symmetric, a zero point of 0. c is 1, or found by a {@link Method}.
 *
 * @param bits of an integer: 4 or 8
 * @param groupSize 32, 64 or 128
 * @param symmetric whether all zero points are 8 or 128
 * @param method how scales and zero points are chosen
 */
public record Quantization(int bits, int groupSize, boolean symmetric, Method method) {
    /**
     * How the scale and the zero point of a group are chosen. Errors are sums of {@code (w - (q - z) s)^2} over a group, in
     * FP64.
     */
    public enum Method {
        /** The whole range: c is 1. */
        NEAREST,
        /**
         * c is that of 1, 31/32, ..., 16/32 with the least error, the first of equals: some groups are better off with their
         * largest weights clipped. Each group is quantized 17 times.
         */
        SEARCH,
        /**
         * What the search finds, then scale and integers fitted to each other by turns, as Zhang et al. 2018 (LQ-Nets, section
         * 3.2) do, with zero points one step off taking part, while the error falls, 16 turns at most: each turn takes the scale
         * {@code sum w (q - z) / sum (q - z)^2}, which has the least error for its integers. Symmetric groups may use all
         * integers: their scale may be below 0, so that the largest weight is -8 or -128 steps. It takes longest.
         */
        FIT;

        int code() {
            return switch (this) {
                case NEAREST -> gatun_h.GTN_QUANTIZE_NEAREST();
                case SEARCH -> gatun_h.GTN_QUANTIZE_SEARCH();
                case FIT -> gatun_h.GTN_QUANTIZE_FIT();
            };
        }
    }

    /**
     * Checks the numbers.
     *
     * @throws IllegalArgumentException if bits or groupSize is none of the above
     * @throws NullPointerException if the method is null
     */
    public Quantization {
        if (bits != 4 && bits != 8) {
            throw new IllegalArgumentException("bits: " + bits + ", expected 4 or 8");
        }
        if (groupSize != 32 && groupSize != 64 && groupSize != 128) {
            throw new IllegalArgumentException("groupSize: " + groupSize + ", expected 32, 64 or 128");
        }
        Objects.requireNonNull(method, "method");
    }

    /**
     * Describes integers of 4 bits with zero points of their own and whole ranges.
     *
     * @param groupSize 32, 64 or 128
     * @return the description
     * @throws IllegalArgumentException if groupSize is another number
     */
    public static Quantization int4(int groupSize) {
        return new Quantization(4, groupSize, false, Method.NEAREST);
    }

    /**
     * Describes integers of 8 bits with zero points of their own and whole ranges.
     *
     * @param groupSize 32, 64 or 128
     * @return the description
     * @throws IllegalArgumentException if groupSize is another number
     */
    public static Quantization int8(int groupSize) {
        return new Quantization(8, groupSize, false, Method.NEAREST);
    }

    /**
     * Fixes the zero points at 8 or 128, which takes less memory.
     *
     * @return a description without zero points
     */
    public Quantization symmetricRange() {
        return new Quantization(bits, groupSize, true, method);
    }

    /**
     * Searches for the range of each group.
     *
     * @return a description with a search
     */
    public Quantization searched() {
        return new Quantization(bits, groupSize, symmetric, Method.SEARCH);
    }

    /**
     * Fits the scale of each group to its integers, which takes longest and leaves the least error.
     *
     * @return a description with a fit
     */
    public Quantization fitted() {
        return new Quantization(bits, groupSize, symmetric, Method.FIT);
    }
}
