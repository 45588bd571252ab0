package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.lang.foreign.Arena;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What methods leave of the squared error of normally distributed weights: the table of docs/quantization.md. */
class QuantizationTest {
    private static final int K = 1024;
    private static final int N = 64;

    @ParameterizedTest
    @CsvSource({"4, false, 0.94, 0.92", "4, true, 0.80, 0.70", "8, false, 1.00, 0.92", "8, true, 1.00, 0.86"})
    void methodsLeaveLessError(int bits, boolean symmetric, double searched, double fitted) {
        try (Arena arena = Arena.ofConfined();
                Device device = Device.open("cpu", 1);
                Stream stream = device.newStream()) {
            Random random = new Random(11);
            float[] values = new float[K * N];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) random.nextGaussian();
            }
            Tensor w = Tensor.allocate(arena, DType.F32, K, N).copyFrom(values);
            Quantization nearest = new Quantization(bits, 32, symmetric, Quantization.Method.NEAREST);
            double whole = error(device, stream, arena, nearest, w);
            double search = error(device, stream, arena, nearest.searched(), w) / whole;
            double fit = error(device, stream, arena, nearest.fitted(), w) / whole;
            assertEquals(searched, search, 0.01);
            assertEquals(fitted, fit, 0.01);
        }
    }

    /** A product with the identity gives the weights that the integers stand for. */
    private static double error(Device device, Stream stream, Arena arena, Quantization quantization, Tensor w) {
        Tensor identity = Tensor.allocate(arena, DType.F32, K, K);
        for (int i = 0; i < K; i++) {
            identity.setFloat(1, i, i);
        }
        Tensor out = Tensor.allocate(arena, DType.F32, K, N);
        try (PackedWeights weights = PackedWeights.quantize(device, quantization, w);
                Gemm.Plan plan = Gemm.of(quantization).plan(device, identity.spec(), out.spec())) {
            plan.run(stream, weights, identity, null, null, out);
        }
        float[] from = w.toFloatArray();
        float[] to = out.toFloatArray();
        double sum = 0;
        for (int i = 0; i < from.length; i++) {
            double off = (double) from[i] - to[i];
            sum += off * off;
        }
        return sum;
    }
}
