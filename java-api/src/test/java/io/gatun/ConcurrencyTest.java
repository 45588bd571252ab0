package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** One plan and one set of weights on many streams at once. */
class ConcurrencyTest {
    private static final int ROWS = 64;
    private static final int K = 96;
    private static final int N = 128;

    static Stream<ExecutorService> executors() {
        return Stream.of(Executors.newFixedThreadPool(6), Executors.newVirtualThreadPerTaskExecutor());
    }

    @ParameterizedTest
    @MethodSource("executors")
    void threadsShareAPlan(ExecutorService executor) throws Exception {
        Random random = new Random(5);
        float[] values = new float[ROWS * K];
        for (int i = 0; i < values.length; i++) {
            values[i] = random.nextFloat() - 0.5f;
        }
        try (Arena arena = Arena.ofShared();
                Device device = Device.open("cpu", 2);
                PackedWeights weights = PackedWeights.pack(
                        device, DType.F32,
                        Tensor.allocate(arena, DType.F32, ROWS, K).copyFrom(values).reshape(K, ROWS));
                Gemm.Plan gemm = Gemm.of(DType.F32).plan(
                        device, TensorSpec.of(DType.F32, N, K), TensorSpec.of(DType.F32, N, ROWS));
                Softmax.Plan softmax = Softmax.of().plan(
                        device, TensorSpec.of(DType.F32, N, ROWS), TensorSpec.of(DType.F32, N, ROWS));
                executor) {
            List<float[]> expected = new ArrayList<>();
            for (int i = 0; i < 8; i++) {
                expected.add(run(device, gemm, softmax, weights, i));
            }
            List<Future<float[]>> results = new ArrayList<>();
            for (int i = 0; i < 64; i++) {
                int seed = i % 8;
                results.add(executor.submit(() -> run(device, gemm, softmax, weights, seed)));
            }
            for (int i = 0; i < 64; i++) {
                assertArrayEquals(expected.get(i % 8), results.get(i).get());
            }
        }
    }

    private static float[] run(Device device, Gemm.Plan gemm, Softmax.Plan softmax, PackedWeights weights, int seed) {
        try (Arena arena = Arena.ofConfined();
                io.gatun.Stream stream = device.newStream()) {
            Random random = new Random(seed);
            Tensor a = Tensor.allocate(arena, DType.F32, N, K);
            float[] values = new float[N * K];
            for (int i = 0; i < values.length; i++) {
                values[i] = random.nextFloat();
            }
            a.copyFrom(values);
            Tensor out = Tensor.allocate(arena, DType.F32, N, ROWS);
            for (int i = 0; i < 20; i++) {
                gemm.run(stream, weights, a, out);
                softmax.run(stream, out, out);
            }
            return out.toFloatArray();
        }
    }
}
