package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class PrecisionTest {
    private static final Calibration.Range RANGE = new Calibration.Range(-2.5f, 4);

    @Test
    void operatorsAndLayersHaveTheirTypes() {
        Precision mixed = Precision.mixed();
        assertEquals(DType.F32, mixed.dtype(Operator.NORM));
        assertEquals(DType.F32, mixed.dtype(Operator.SOFTMAX));
        assertEquals(DType.BF16, mixed.dtype(Operator.GEMM));
        assertEquals(DType.BF16, mixed.dtype(Operator.ATTENTION, "any"));
        assertEquals(TensorSpec.of(DType.F32, 3, 4), mixed.spec(Operator.NORM, 3, 4));
        Precision own = mixed.with(Operator.ATTENTION, DType.F16)
                .with(Operator.GEMM, "head", DType.F32)
                .calibrated("up", RANGE);
        assertEquals(DType.F16, own.dtype(Operator.ATTENTION));
        assertEquals(DType.BF16, mixed.dtype(Operator.ATTENTION));
        assertEquals(DType.F32, own.weights("head"));
        assertEquals(TensorSpec.of(DType.F32, 3, 4), own.spec(Operator.GEMM, "head", 3, 4));
        assertEquals(TensorSpec.of(DType.BF16, 3, 4), own.spec(Operator.GEMM, "down", 3, 4));
        assertEquals(DType.S8, own.weights("up"));
        assertEquals(DType.BF16, own.dtype(Operator.GEMM, "up"));
        assertEquals(DType.BF16, own.weights("down"));
        assertEquals(RANGE, own.range("up"));
        assertEquals(
                "F32, GEMM BF16, ATTENTION F16, CONV BF16, GEMM of head F32, GEMM of up S8 for -2.5 to 4.0", own.toString());
        Precision without = own.with(Operator.GEMM, "up", DType.BF16);
        assertEquals(DType.BF16, without.weights("up"));
        assertEquals("F32", Precision.full().toString());
    }

    /** What a policy chose is what plans say of themselves. */
    @Test
    void plansTellTheirTypes() {
        Precision precision = Precision.mixed().calibrated("up", RANGE);
        TensorSpec a = precision.spec(Operator.GEMM, 3, 8);
        TensorSpec out = precision.spec(Operator.GEMM, 3, 5);
        TensorSpec x = precision.spec(Operator.SOFTMAX, 3, 8);
        try (Device device = Device.open("cpu", 1);
                Gemm.Plan up = precision.gemm("up").plan(device, a, out);
                Gemm.Plan down = precision.gemm("down").plan(device, a, out);
                Gemm.Plan grouped = Gemm.of(Quantization.int4(32)).plan(device, a, out);
                Softmax.Plan softmax = Softmax.of().plan(device, x, x)) {
            assertEquals("a BF16, weights S8, out BF16", up.info().precision());
            assertEquals("a BF16, weights BF16, out BF16", down.info().precision());
            assertEquals("a BF16, weights U4, out BF16", grouped.info().precision());
            assertEquals("x F32, out F32", softmax.info().precision());
        }
    }

    @Test
    void wrongArguments() {
        Precision precision = Precision.mixed();
        Expect.illegalArgument("dtype: S8", () -> precision.with(Operator.GEMM, DType.S8));
        Expect.illegalArgument("dtype: U8", () -> precision.with(Operator.GEMM, "up", DType.U8));
        Expect.illegalArgument("layer: up", () -> precision.range("up"));
        Expect.failure(NullPointerException.class, "layer", () -> precision.weights(null));
    }
}
