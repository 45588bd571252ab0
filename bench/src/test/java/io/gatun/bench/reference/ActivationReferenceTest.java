package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Activation;
import io.gatun.DType;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class ActivationReferenceTest {
    @ParameterizedTest
    @CsvSource({
        "-3, -0.004049694094890287, -0.0036373920817729943, -0.14227761953270035",
        "-1, -0.15865525393145705, -0.15880800939172324, -0.2689414213699951",
        "0, 0, 0, 0",
        "1, 0.84134474606854293, 0.84119199060827676, 0.7310585786300049",
        "2, 1.9544997361036416, 1.9545976940877752, 1.7615941559557649"
    })
    void knownValues(double x, double geluErf, double geluTanh, double silu) {
        assertEquals(geluErf, ActivationReference.value(Activation.GELU_ERF, x), 1e-15);
        assertEquals(geluTanh, ActivationReference.value(Activation.GELU_TANH, x), 1e-15);
        assertEquals(silu, ActivationReference.value(Activation.SILU, x), 1e-15);
        assertEquals(Math.max(x, 0), ActivationReference.value(Activation.RELU, x));
        assertEquals(x, ActivationReference.value(Activation.NONE, x));
    }

    @ParameterizedTest
    @EnumSource(Activation.class)
    void limits(Activation activation) {
        assertTrue(Double.isNaN(ActivationReference.value(activation, Double.NaN)));
        assertEquals(1e30, ActivationReference.value(activation, 1e30), 1e15);
        assertEquals(
                activation == Activation.NONE ? -1e30 : 0, ActivationReference.value(activation, -1e30), 1e15);
    }

    @ParameterizedTest
    @EnumSource(Activation.class)
    void theTextbookFormulaIsWithinTheBound(Activation activation) {
        Random random = new Random(3);
        float[] x = new float[20_000];
        for (int i = 0; i < x.length; i++) {
            x[i] = (float) (random.nextGaussian() * Math.pow(10, random.nextInt(-5, 3)));
        }
        Bounds.hold(ActivationReference.compute(activation, DType.F32, 100, 200, x, null));
        Bounds.hold(ActivationReference.compute(activation, DType.F32, 100, 200, x, Arrays.copyOf(x, 200)));
    }

    @Test
    void addsTheBiasPerColumn() {
        Expected expected = ActivationReference.compute(
                Activation.RELU, DType.BF16, 2, 3, new float[] {1, 2, 3, 4, 5, 6}, new float[] {10, -20, 0.5f});
        assertArrayEquals(new double[] {11, 0, 3.5, 14, 0, 6.5}, expected.value());
    }

    /** Halfway between two BF16 numbers, the one with an even last bit; a bias is an operation, and has a bound. */
    @Test
    void whatComputesNothingIsRoundedExactly() {
        float[] x = {1 + 0x1p-8f, 1 + 0x3p-8f, -1 - 0x1p-8f, 1 + 0x1.02p-8f};
        double[] rounded = {1, 1 + 0x1p-6, -1, 1 + 0x1p-7};
        Expected none = ActivationReference.compute(Activation.NONE, DType.BF16, 1, 4, x, null);
        assertArrayEquals(rounded, none.value());
        assertArrayEquals(new double[4], none.bound());
        rounded[2] = 0;
        assertArrayEquals(
                rounded,
                ActivationReference.compute(Activation.RELU, DType.BF16, 1, 4, x, null).value());
        assertEquals(
                x[0],
                ActivationReference.compute(Activation.NONE, DType.F32, 1, 4, x, null).value()[0]);
        Expected added = ActivationReference.compute(Activation.NONE, DType.BF16, 1, 4, x, new float[4]);
        assertEquals(x[0], added.value()[0]);
        assertTrue(added.bound()[0] > 0);
    }
}
