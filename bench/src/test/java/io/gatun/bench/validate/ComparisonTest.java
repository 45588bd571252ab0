package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Activation;
import io.gatun.DType;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.GemmReference;
import io.gatun.bench.reference.NormReference;
import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class ComparisonTest {
    /** Compares values that stand in for a kernel's. */
    private static Comparison compare(DType dtype, Expected expected, float[] values) {
        return compare(dtype, expected, (operand, run) -> operand.fill(values, run));
    }

    private static Comparison compare(DType dtype, Expected expected, BiConsumer<Operand, long[]> kernel) {
        try (Arena arena = Arena.ofConfined()) {
            long[] run = {expected.value().length};
            Operand operand = Operand.dense(arena, "out", dtype, run);
            byte[] before = operand.snapshot();
            kernel.accept(operand, run);
            Comparison comparison = new Comparison();
            comparison.add(new Trial.Output(operand, run, expected, true), before);
            return comparison;
        }
    }

    private static Expected expected(double... values) {
        float[] naive = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            naive[i] = (float) values[i];
        }
        return new Expected(values, new double[values.length], naive, 1);
    }

    private static void assertFails(String why, Comparison comparison) {
        assertEquals(1, comparison.failures().size(), comparison.failures().toString());
        String message = comparison.failures().getFirst();
        assertTrue(message.contains(why), message);
    }

    @Test
    void exactValuesPass() {
        Comparison comparison = compare(DType.F32, expected(1, -2, 0, 0x1p-130), new float[] {1, -2, 0, 0x1p-130f});
        assertEquals(List.of(), comparison.failures());
        assertEquals(3, comparison.telling());
        assertEquals(0, comparison.error());
    }

    @Test
    void oneRoundingOfTheOutputIsAllowed() {
        assertEquals(List.of(), compare(DType.F32, expected(1 + 0x1p-24), new float[] {1}).failures());
        assertFails("out[0] is", compare(DType.F32, expected(1 + 0x1.2p-23), new float[] {1}));
        assertEquals(List.of(), compare(DType.BF16, expected(1 + 0x1p-8), new float[] {1}).failures());
        assertFails("out[0] is", compare(DType.BF16, expected(1 + 0x1.2p-7), new float[] {1}));
        assertEquals(List.of(), compare(DType.F16, expected(1 + 0x1p-11), new float[] {1}).failures());
        assertFails("out[0] is", compare(DType.F16, expected(1 + 0x1.2p-10), new float[] {1}));
        assertEquals(List.of(), compare(DType.F16, expected(0x1p-25), new float[] {0}).failures());
        assertFails("out[0] is", compare(DType.F16, expected(0x1p-24), new float[] {0}));
    }

    @Test
    void theBoundIsAllowed() {
        Expected expected = new Expected(new double[] {1}, new double[] {0.5}, new float[] {1}, 1);
        Comparison comparison = compare(DType.F32, expected, new float[] {1.25f});
        assertEquals(List.of(), comparison.failures());
        assertEquals(0.5, comparison.ratio(), 1e-6);
        assertEquals(0.25, comparison.error());
        assertEquals(0.5, comparison.tolerance(), 1e-6);
        assertFails("expected 1.00000000 within 0.50", compare(DType.F32, expected, new float[] {1.75f}));
    }

    @Test
    void whatIsNotFinite() {
        double inf = Double.POSITIVE_INFINITY;
        Expected expected = expected(inf, -inf, Double.NaN);
        float f = Float.POSITIVE_INFINITY;
        assertEquals(List.of(), compare(DType.F32, expected, new float[] {f, -f, Float.NaN}).failures());
        assertFails("out[0]", compare(DType.F32, expected, new float[] {-f, -f, Float.NaN}));
        assertFails("out[1]", compare(DType.F32, expected, new float[] {f, Float.NaN, Float.NaN}));
        assertFails("out[2]", compare(DType.F32, expected, new float[] {f, -f, 0}));
        assertFails("out[0]", compare(DType.F32, expected(1), new float[] {Float.NaN}));
        assertFails("out[0]", compare(DType.F32, expected(1), new float[] {f}));
        assertEquals(0, compare(DType.F32, expected, new float[] {f, -f, Float.NaN}).telling());
    }

    @Test
    void roundingMayOverflow() {
        double almost = 3.3961e38; // nearer to the next power of two than to the largest BF16 number
        assertEquals(List.of(), compare(DType.BF16, expected(almost), new float[] {Float.MAX_VALUE}).failures());
        assertFails("out[0]", compare(DType.BF16, expected(-almost), new float[] {Float.MAX_VALUE}));
        assertFails("out[0]", compare(DType.BF16, expected(1e38), new float[] {Float.MAX_VALUE}));
        assertEquals(List.of(), compare(DType.F16, expected(65519), new float[] {Float.MAX_VALUE}).failures());
        assertFails("out[0]", compare(DType.F16, expected(65000), new float[] {Float.MAX_VALUE}));
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "F16"})
    void unwrittenElements(DType dtype) {
        assertFails("out[1] was not written", compare(dtype, expected(1, Double.NaN), (operand, run) -> {
            operand.forEach(run, (index, element) -> {
                if (index == 0) {
                    operand.set(element, 1);
                }
            });
        }));
    }

    @Test
    void elementsThatMustNotBeWritten() {
        Expected expected = expected(1, 2, 3);
        expected.bound()[1] = Expected.UNTOUCHED;
        assertFails("out was written 1 elements from its start", compare(DType.F32, expected, new float[] {1, 2, 3}));
    }

    @Test
    void guards() {
        for (long beyond : new long[] {-1, 2}) {
            Comparison comparison = compare(DType.F32, expected(1, 2), (operand, run) -> {
                operand.fill(new float[] {1, 2}, run);
                operand.forEach(new long[] {1}, (_, element) -> operand.set(element + beyond, 0));
            });
            assertFails("out was written " + beyond + " elements", comparison);
        }
    }

    @Test
    void elementsThatMayHoldAnything() {
        Expected expected = expected(1, 2);
        expected.bound()[0] = Expected.ANY;
        assertEquals(List.of(), compare(DType.F32, expected, new float[] {Float.NaN, 2}).failures());
    }

    /** The last of 1025 products left out, in one row: the error is small beside the sum, and still found. */
    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "S8"})
    void aMissingProduct(DType format) {
        Random random = new Random(1);
        int k = 1025;
        float[] a = new float[k];
        float[] w = new float[k];
        for (int p = 0; p < k; p++) {
            a[p] = 1 + random.nextInt(100);
            w[p] = random.nextInt(-127, 128);
        }
        a[0] = 255;
        w[0] = 127;
        w[k - 1] = 5;
        Expected expected = GemmReference.compute(format, 1, k, 1, a, w, null, Activation.NONE, null);
        float[] shorter = Arrays.copyOf(a, k);
        shorter[k - 1] = 0;
        Expected wrong = GemmReference.compute(format, 1, k, 1, shorter, w, null, Activation.NONE, null);
        assertEquals(List.of(), compare(DType.F32, expected, expected.naive()).failures());
        assertFails("out[0] is", compare(DType.F32, expected, wrong.naive()));
    }

    /** Sums of 4096 in BF16 instead of FP32: each element is within the worst case, the tensor as a whole is not. */
    @Test
    void sumsOfLowPrecision() {
        Random random = new Random(2);
        int m = 64;
        int k = 4096;
        float[] a = new float[m * k];
        float[] w = new float[k];
        for (int i = 0; i < a.length; i++) {
            a[i] = (float) random.nextGaussian();
        }
        for (int p = 0; p < k; p++) {
            w[p] = (float) random.nextGaussian();
        }
        Expected expected = GemmReference.compute(DType.F32, m, k, 1, a, w, null, Activation.NONE, null);
        float[] wrong = new float[m];
        for (int i = 0; i < m; i++) {
            for (int p = 0; p < k; p++) {
                wrong[i] += a[i * k + p] * w[p];
                wrong[i] = Float.intBitsToFloat(Float.floatToRawIntBits(wrong[i]) & ~0xf); // four bits fewer
            }
        }
        assertEquals(List.of(), compare(DType.F32, expected, expected.naive()).failures());
        assertFails("times as far off, over all", compare(DType.F32, expected, wrong));
    }

    /** A variance in one pass, as the mean of squares less the square of the mean, loses the digits of the offset. */
    @Test
    void onePassVariance() {
        Random random = new Random(3);
        int rows = 40;
        int n = 64;
        float[] x = new float[rows * n];
        for (int i = 0; i < x.length; i++) {
            x[i] = (float) (100 + random.nextGaussian());
        }
        float[] gamma = new float[n];
        Arrays.fill(gamma, 1);
        Expected expected = NormReference.layerNorm(rows, n, 1e-5f, x, null, gamma, null, false);
        float[] wrong = new float[rows * n];
        for (int i = 0; i < rows; i++) {
            float sum = 0;
            float squares = 0;
            for (int j = 0; j < n; j++) {
                sum += x[i * n + j];
                squares += x[i * n + j] * x[i * n + j];
            }
            float mean = sum / n;
            float variance = squares / n - mean * mean;
            for (int j = 0; j < n; j++) {
                wrong[i * n + j] = (x[i * n + j] - mean) / (float) Math.sqrt(variance + 1e-5f);
            }
        }
        assertEquals(List.of(), compare(DType.F32, expected, expected.naive()).failures());
        assertTrue(!compare(DType.F32, expected, wrong).failures().isEmpty());
    }
}
