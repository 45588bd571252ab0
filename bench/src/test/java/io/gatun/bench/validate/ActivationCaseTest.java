package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import io.gatun.Activation;
import io.gatun.DType;
import io.gatun.bench.reference.ActivationReference;
import io.gatun.bench.reference.Bf16;
import io.gatun.bench.reference.Expected;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class ActivationCaseTest {
    private static List<String> failures(DType out, float x, float result) {
        Expected expected = ActivationReference.compute(Activation.NONE, out, 1, 1, new float[] {x}, null);
        try (Arena arena = Arena.ofConfined()) {
            Operand operand = Operand.dense(arena, "out", out, 1);
            byte[] before = operand.snapshot();
            operand.fill(new float[] {result}, 1);
            Comparison comparison = new Comparison();
            comparison.add(new Trial.Output(operand, new long[] {1}, expected, true), before);
            return comparison.failures();
        }
    }

    /** A copy is right to the last bit: the numbers next to it fail, but for the one below a power of two. */
    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16"})
    void neighboursOfACopyFail(DType out) {
        Random random = new Random(5);
        for (int i = 0; i < 2000; i++) {
            float x = (float) (random.nextGaussian() * Math.pow(10, random.nextInt(-30, 30)));
            float right = out == DType.BF16 ? Bf16.round(x) : x;
            int step = out == DType.BF16 ? 0x10000 : 1;
            assertEquals(List.of(), failures(out, x, right));
            for (int off : new int[] {-step, step}) {
                if (off < 0 && (Float.floatToRawIntBits(right) & 0x7fffff) == 0) {
                    continue;
                }
                float wrong = Float.intBitsToFloat(Float.floatToRawIntBits(right) + off);
                assertNotEquals(List.of(), failures(out, x, wrong), x + " as " + wrong);
            }
        }
    }

    @Test
    void tiesAreHalfway() {
        float tie = 1 + 0x1p-8f;
        assertEquals(List.of(), failures(DType.BF16, tie, 1));
        assertNotEquals(List.of(), failures(DType.BF16, tie, 1 + 0x1p-7f));
    }
}
