package io.gatun.bench.peers;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Weights in 8 bits, a scale for each output channel: those that Gatun makes of the same source.
 *
 * @param bytes [k, n]
 * @param scales [n]
 * @param sums of each column
 */
record Weights(byte[] bytes, float[] scales, int[] sums) {
    static Weights of(float[] source, int k, int n) {
        float[] scales = new float[n];
        for (int i = 0; i < source.length; i++) {
            scales[i % n] = Math.max(scales[i % n], Math.abs(source[i]));
        }
        for (int j = 0; j < n; j++) {
            scales[j] /= 127;
        }
        byte[] bytes = new byte[k * n];
        int[] sums = new int[n];
        for (int i = 0; i < source.length; i++) {
            float scale = scales[i % n];
            bytes[i] = scale == 0 ? 0 : (byte) Math.rint(source[i] / scale);
            sums[i % n] += bytes[i];
        }
        return new Weights(bytes, scales, sums);
    }

    void copyTo(MemorySegment memory) {
        MemorySegment.copy(bytes, 0, memory, ValueLayout.JAVA_BYTE, 0, bytes.length);
    }

    /** What sums of products stand for, once the zero point's share has been taken off them. */
    float[] dequantized(int[] sums, float scale) {
        float[] values = new float[sums.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = sums[i] * scale * scales[i % scales.length];
        }
        return values;
    }
}
