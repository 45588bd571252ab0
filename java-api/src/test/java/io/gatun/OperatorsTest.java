package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * That every argument gets to the kernel that it is meant for; how exact kernels are is the business of their own
 * tests.
 */
class OperatorsTest {
    private static final float TOLERANCE = 1e-4f;

    private final Arena arena = Arena.ofShared();
    private final Random random = new Random(42);
    private Device device = Device.open("cpu", 2);
    private Stream stream = device.newStream();

    @BeforeEach
    void open() {
        assertTrue(device.info().available());
    }

    @AfterEach
    void close() {
        stream.close();
        device.close();
        arena.close();
    }

    private Tensor tensor(long... shape) {
        Tensor tensor = Tensor.allocate(arena, DType.F32, shape);
        float[] values = new float[(int) tensor.spec().elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = random.nextFloat() * 4 - 2;
        }
        return tensor.copyFrom(values);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void gemm(boolean transposed) {
        int m = 5;
        int k = 7;
        int n = 11;
        Tensor a = tensor(m, k);
        Tensor source = transposed ? tensor(n, k).transpose(0, 1) : tensor(k, n);
        Tensor bias = tensor(n);
        Tensor residual = tensor(m, n);
        Tensor out = tensor(m, n);
        Gemm gemm = Gemm.of(DType.F32).bias().residual().activation(Activation.RELU);
        try (PackedWeights weights = PackedWeights.pack(device, DType.F32, source);
                Gemm.Plan plan = gemm.plan(device, a.spec(), out.spec());
                Gemm.Plan plain = Gemm.of(DType.F32).plan(device, a.spec(), out.spec());
                Gemm.Plan biased = Gemm.of(DType.F32).bias().plan(device, a.spec(), out.spec())) {
            assertEquals(k, weights.k());
            assertEquals(n, weights.n());
            assertEquals(DType.F32, weights.format());
            assertTrue(weights.bytes() >= 4L * k * n);
            assertEquals("gemm", plan.info().operator());
            assertTrue(plan.info().kernel().startsWith(device.name().replace(':', '.')), plan.info()::kernel);
            assertTrue(plan.info().flops() >= 2.0 * m * k * n);
            plan.run(stream, weights, a, bias, residual, out);
            float[] product = new float[m * n];
            float[] sum = new float[m * n];
            float[] expected = new float[m * n];
            for (int i = 0; i < m * n; i++) {
                double dot = 0;
                for (int j = 0; j < k; j++) {
                    dot += (double) a.getFloat(i / n, j) * source.getFloat(j, i % n);
                }
                product[i] = (float) dot;
                sum[i] = product[i] + bias.getFloat(i % n);
                expected[i] = Math.max(sum[i], 0) + residual.getFloat(i / n, i % n);
            }
            assertArrayEquals(expected, out.toFloatArray(), TOLERANCE);
            biased.run(stream, weights, a, bias, out);
            assertArrayEquals(sum, out.toFloatArray(), TOLERANCE);
            plain.run(stream, weights, a, out);
            assertArrayEquals(product, out.toFloatArray(), TOLERANCE);
            // fewer rows than planned leave the others alone
            out.copyFrom(new float[m * n]);
            plain.run(stream, weights, a.slice(0, 1, 3), out.slice(0, 0, 2));
            assertEquals(product[n], out.getFloat(0, 0), TOLERANCE);
            assertEquals(0, out.getFloat(2, 0));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16", "S8", "F8E4M3", "F8E5M2"})
    void gemmOfRoundedWeights(DType format) {
        double unit = format == DType.F8E5M2 ? 0.13 : format == DType.F8E4M3 ? 0.07 : 0.02;
        Tensor a = tensor(3, 64);
        Tensor source = tensor(64, 8);
        Tensor out = tensor(3, 8);
        try (PackedWeights weights = PackedWeights.pack(device, format, source);
                Gemm.Plan plan = Gemm.of(format).plan(device, a.spec(), out.spec())) {
            plan.run(stream, weights, a, out);
            for (int i = 0; i < 24; i++) {
                double dot = 0;
                double size = 0;
                for (int j = 0; j < 64; j++) {
                    dot += (double) a.getFloat(i / 8, j) * source.getFloat(j, i % 8);
                    size += Math.abs((double) a.getFloat(i / 8, j) * source.getFloat(j, i % 8));
                }
                assertEquals(dot, out.getFloat(i / 8, i % 8), unit * size);
            }
        }
    }

    /** Halves in and out, with halves as weights: numbers that all of them hold exactly. */
    @Test
    void gemmOfHalves() {
        Tensor a = Tensor.allocate(arena, DType.F16, 2, 3).copyFrom(new float[] {1, 2, 3, -4, 0.5f, 6});
        Tensor source = Tensor.allocate(arena, DType.F16, 3, 2).copyFrom(new float[] {1, 0, 0.25f, 2, -1, 0x1p-24f});
        Tensor out = Tensor.allocate(arena, DType.F16, 2, 2);
        Tensor residual = Tensor.allocate(arena, DType.F16, 2, 2).copyFrom(new float[] {10, 0, 0, 0});
        try (PackedWeights weights = PackedWeights.pack(device, DType.F16, source);
                Gemm.Plan plan = Gemm.of(DType.F16).residual().plan(device, a.spec(), out.spec())) {
            assertEquals(DType.F16, weights.format());
            plan.run(stream, weights, a, null, residual, out);
            assertArrayEquals(new float[] {8.5f, 4, -9.875f, 1}, out.toFloatArray());
        }
    }

    /** Numbers and scales as they come; a NaN among the numbers stays in its column. */
    @ParameterizedTest
    @EnumSource(names = {"F8E4M3", "F8E5M2"})
    void gemmOfReadyFloat8(DType format) {
        Tensor a = tensor(1, 3).copyFrom(new float[] {1, 2, 4});
        Tensor numbers = Tensor.allocate(arena, format, 2, 3).copyFrom(new float[] {1.5f, -3, 0.25f, 1, Float.NaN, 1});
        Tensor scales = tensor(2).copyFrom(new float[] {2, 1});
        Tensor out = tensor(1, 2);
        try (PackedWeights weights = PackedWeights.ofFloat8(device, numbers, scales);
                Gemm.Plan plan = Gemm.of(format).plan(device, a.spec(), out.spec())) {
            assertEquals(format, weights.format());
            assertEquals(3, weights.k());
            assertEquals(2, weights.n());
            plan.run(stream, weights, a, out);
            assertArrayEquals(new float[] {-7, Float.NaN}, out.toFloatArray());
        }
    }

    /** Channels last, as images often lie. */
    @Test
    void pooling() {
        Tensor x = tensor(2, 6, 5, 3).transpose(1, 3).transpose(2, 3); // [2, 3, 6, 5]
        Tensor most = tensor(2, 3, 3, 5);
        Tensor mean = tensor(2, 3, 3, 5);
        Tensor all = tensor(2, 3, 1, 1);
        Pooling window = Pooling.max(3, 3).stride(2, 1).padding(1, 1);
        Pooling average = Pooling.average(3, 3).stride(2, 1).padding(1, 1);
        assertEquals(3, window.outSize(0, 6));
        try (Pooling.Plan max = window.plan(device, x.spec(), most.spec());
                Pooling.Plan padded = average.countPadding().plan(device, x.spec(), mean.spec());
                Pooling.Plan global = Pooling.globalAverage().plan(device, x.spec(), all.spec())) {
            assertEquals("pooling", max.info().operator());
            max.run(stream, x, most);
            padded.run(stream, x, mean);
            global.run(stream, x, all);
            for (int i = 0; i < 2 * 3; i++) {
                double whole = 0;
                for (int p = 0; p < 30; p++) {
                    whole += x.getFloat(i / 3, i % 3, p / 5, p % 5);
                }
                assertEquals(whole / 30, all.getFloat(i / 3, i % 3, 0, 0), TOLERANCE);
                for (int p = 0; p < 15; p++) {
                    float highest = Float.NEGATIVE_INFINITY;
                    double sum = 0;
                    for (int t = 0; t < 9; t++) {
                        int row = p / 5 * 2 + t / 3 - 1;
                        int column = p % 5 + t % 3 - 1;
                        if (row >= 0 && row < 6 && column >= 0 && column < 5) {
                            highest = Math.max(highest, x.getFloat(i / 3, i % 3, row, column));
                            sum += x.getFloat(i / 3, i % 3, row, column);
                        }
                    }
                    assertEquals(highest, most.getFloat(i / 3, i % 3, p / 5, p % 5));
                    assertEquals(sum / 9, mean.getFloat(i / 3, i % 3, p / 5, p % 5), TOLERANCE);
                }
            }
            // a smaller batch than planned leaves the others alone
            float second = most.getFloat(1, 0, 0, 0);
            most.setFloat(77, 0, 0, 0, 0);
            max.run(stream, x.slice(0, 0, 1), most.slice(0, 0, 1));
            assertTrue(most.getFloat(0, 0, 0, 0) < 3);
            assertEquals(second, most.getFloat(1, 0, 0, 0));
        }
    }

    /** A product by pruned weights is that by all of them, zeros included. */
    @Test
    void gemmOfPrunedWeights() {
        int k = 37;
        int n = 9;
        Tensor a = tensor(3, k);
        Tensor source = tensor(k, n);
        Tensor out = tensor(3, n);
        Tensor dense = tensor(3, n);
        Pruning.nOfM(2, 4, 0).prune(source);
        Tensor half = Tensor.allocate(arena, DType.BF16, k, n).copyFrom(source.toFloatArray());
        try (PackedWeights weights = PackedWeights.packSparse(device, source);
                PackedWeights all = PackedWeights.pack(device, DType.F32, half);
                Gemm.Plan plan = Gemm.ofSparse().plan(device, a.spec(), out.spec());
                Gemm.Plan plain = Gemm.of(DType.F32).plan(device, a.spec(), out.spec())) {
            assertEquals(DType.BF16, weights.format());
            assertTrue(weights.sparse());
            assertEquals("a F32, weights BF16_2OF4, out F32", plan.info().precision());
            plan.run(stream, weights, a, out);
            plain.run(stream, all, a, dense);
            assertArrayEquals(dense.toFloatArray(), out.toFloatArray());
            Expect.illegalArgument("weights: packed weights F32", () -> plan.run(stream, all, a, out));
        }
        source.setFloat(1, 4, 0);
        source.setFloat(1, 5, 0);
        source.setFloat(1, 6, 0);
        Expect.illegalArgument("source[k = 4 to 7, n = 0]", () -> PackedWeights.packSparse(device, source));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void fakeQuantizeAndItsGradient(boolean perRow) {
        int rows = 4;
        int n = 11;
        Tensor x = tensor(rows, n);
        Tensor out = tensor(rows, n);
        Tensor gradient = tensor(rows, n);
        Tensor slope = tensor(rows, n);
        int grids = perRow ? rows : n;
        Tensor scales = tensor(grids);
        long[] zeros = new long[grids];
        for (int i = 0; i < grids; i++) {
            scales.setFloat(0.1f + i * 0.01f, i);
            zeros[i] = 5 + i % 3;
        }
        Tensor zeroPoints = Tensor.allocate(arena, DType.S32, grids).copyFrom(zeros);
        FakeQuantize of = perRow ? FakeQuantize.unsigned(4).perRow() : FakeQuantize.unsigned(4).perColumn();
        try (FakeQuantize.Plan plan = of.plan(device, x.spec(), out.spec());
                FakeQuantize.Plan back = of.gradient().plan(device, x.spec(), out.spec())) {
            assertEquals("x F32, out F32, integers 0 to 15", plan.info().precision());
            assertEquals("fake_quantize", plan.info().operator());
            plan.run(stream, x, scales, zeroPoints, null, out);
            back.run(stream, x, scales, zeroPoints, gradient, slope);
            for (int i = 0; i < rows * n; i++) {
                int grid = perRow ? i / n : i % n;
                float scale = scales.getFloat(grid);
                Calibration.Grid integers = new Calibration.Grid(scale, (int) zeros[grid], 0, 15);
                float value = x.getFloat(i / n, i % n);
                assertEquals(integers.value(integers.quantize(value)), out.getFloat(i / n, i % n));
                double integer = Math.rint(value / scale) + zeros[grid];
                assertEquals(
                        integer >= 0 && integer <= 15 ? gradient.getFloat(i / n, i % n) : 0, slope.getFloat(i / n, i % n));
            }
            // fewer rows leave the others alone
            slope.setFloat(77, 3, 0);
            Tensor two = perRow ? scales.slice(0, 0, 2) : scales;
            Tensor twoZeros = perRow ? zeroPoints.slice(0, 0, 2) : zeroPoints;
            back.run(stream, x.slice(0, 0, 2), two, twoZeros, gradient.slice(0, 0, 2), slope.slice(0, 0, 2));
            assertEquals(77, slope.getFloat(3, 0));
        }
    }

    /** What is quantized here and what comes quantized are the same weights, and both close to those that they were. */
    @ParameterizedTest
    @ValueSource(ints = {4, 8})
    void gemmOfQuantizedWeights(int bits) {
        int k = 70;
        int n = 3;
        Quantization quantization = bits == 4 ? Quantization.int4(32) : Quantization.int8(32);
        Tensor a = tensor(2, k);
        Tensor source = tensor(k, n);
        Tensor out = tensor(2, n);
        Tensor same = tensor(2, n);
        int most = bits == 4 ? 15 : 255;
        byte[] integers = new byte[n * 3 * 32 * bits / 8];
        byte[] zeros = new byte[n * (bits == 4 ? 2 : 3)];
        float[] scales = new float[n * 3];
        double step = 0;
        for (int g = 0; g < n * 3; g++) {
            double lo = 0;
            double hi = 0;
            for (int p = g % 3 * 32; p < Math.min(k, g % 3 * 32 + 32); p++) {
                lo = Math.min(lo, source.getFloat(p, g / 3));
                hi = Math.max(hi, source.getFloat(p, g / 3));
            }
            scales[g] = (float) ((hi - lo) / most);
            step = Math.max(step, scales[g]);
            int zero = (int) Math.rint(-lo / scales[g]);
            zeros[bits == 4 ? g / 3 * 2 + g % 3 / 2 : g] |= (byte) (bits == 4 && g % 3 == 1 ? zero << 4 : zero);
            for (int p = g % 3 * 32; p < Math.min(k, g % 3 * 32 + 32); p++) {
                int q = (int) Math.clamp(Math.rint(source.getFloat(p, g / 3) / (double) scales[g]) + zero, 0, most);
                int at = g * 32 + p % 32;
                integers[bits == 4 ? at / 2 : at] |= (byte) (bits == 4 && at % 2 == 1 ? q << 4 : q);
            }
        }
        Tensor bytes = Tensor.allocate(arena, DType.U8, n, 3, 32 * bits / 8);
        bytes.memory().copyFrom(MemorySegment.ofArray(integers));
        Tensor points = Tensor.allocate(arena, DType.U8, n, bits == 4 ? 2 : 3);
        points.memory().copyFrom(MemorySegment.ofArray(zeros));
        Tensor factors = tensor(n, 3).copyFrom(scales);
        try (PackedWeights weights = PackedWeights.quantize(device, quantization, source);
                PackedWeights ready = PackedWeights.ofQuantized(device, quantization, k, bytes, factors, points);
                Gemm.Plan plan = Gemm.of(quantization).plan(device, a.spec(), out.spec())) {
            assertEquals(DType.U8, weights.format());
            assertEquals(bits, weights.bits());
            assertEquals(32, ready.groupSize());
            plan.run(stream, weights, a, out);
            plan.run(stream, ready, a, same);
            assertArrayEquals(out.toFloatArray(), same.toFloatArray());
            for (int i = 0; i < 2 * n; i++) {
                double dot = 0;
                double size = 0;
                for (int p = 0; p < k; p++) {
                    dot += (double) a.getFloat(i / n, p) * source.getFloat(p, i % n);
                    size += Math.abs(a.getFloat(i / n, p));
                }
                assertEquals(dot, out.getFloat(i / n, i % n), size * step);
            }
        }
    }

    @Test
    void gemmOfGroups() {
        int k = 7;
        int n = 5;
        Tensor a = tensor(4, k);
        Tensor source = tensor(3, k, n);
        Tensor bias = tensor(3, n);
        Tensor residual = tensor(6, n);
        Tensor out = tensor(6, n);
        Tensor offsets = Tensor.allocate(arena, DType.S64, 4).copyFrom(new long[] {0, 2, 2, 5});
        long[] rows = {3, 1, 0, 3, 2, 0};
        Tensor index = Tensor.allocate(arena, DType.S32, 6).copyFrom(rows);
        float untouched = out.getFloat(5, 0);
        try (PackedWeights weights = PackedWeights.pack(device, DType.F32, source);
                Gemm.Plan plan = Gemm.of(DType.F32).bias().residual().rowIndex().groups(3).plan(
                        device, a.spec(), out.spec());
                Gemm.Plan inOrder = Gemm.of(DType.F32).groups(3).plan(device, a.spec(), tensor(4, n).spec())) {
            assertEquals(3, weights.groups());
            assertEquals(k, weights.k());
            assertEquals(n, weights.n());
            assertTrue(plan.info().kernel().endsWith(".gemm.f32.grouped"), plan.info()::kernel);
            plan.run(stream, weights, a, bias, residual, out, offsets, index, null, null);
            for (int r = 0; r < 5; r++) {
                int group = r < 2 ? 0 : 2;
                for (int j = 0; j < n; j++) {
                    double expected = bias.getFloat(group, j) + residual.getFloat(r, j);
                    for (int p = 0; p < k; p++) {
                        expected += (double) a.getFloat(rows[r], p) * source.getFloat(group, p, j);
                    }
                    assertEquals(expected, out.getFloat(r, j), TOLERANCE);
                }
            }
            assertEquals(untouched, out.getFloat(5, 0));
            // Fewer rows of a and of the output.
            offsets.copyFrom(new long[] {0, 1, 1, 1});
            out.copyFrom(new float[6 * n]);
            plan.run(stream, weights, a.slice(0, 3, 4), bias, residual.slice(0, 0, 1), out.slice(0, 0, 1), offsets,
                    Tensor.allocate(arena, DType.S32, 1), null, null);
            double expected = bias.getFloat(0, 0) + residual.getFloat(0, 0);
            for (int p = 0; p < k; p++) {
                expected += (double) a.getFloat(3, p) * source.getFloat(0, p, 0);
            }
            assertEquals(expected, out.getFloat(0, 0), TOLERANCE);
            assertEquals(0, out.getFloat(1, 0));
            Tensor some = tensor(4, n);
            inOrder.run(stream, weights, a, null, null, some, offsets, null, null, null);
            expected = 0;
            for (int p = 0; p < k; p++) {
                expected += (double) a.getFloat(0, p) * source.getFloat(0, p, 1);
            }
            assertEquals(expected, some.getFloat(0, 1), TOLERANCE);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void gemmOfLowRank(DType dtype) {
        int m = 3;
        int k = 7;
        int n = 5;
        int rank = 2;
        Tensor a = tensor(m, k);
        Tensor bias = tensor(n);
        Tensor out = tensor(m, n);
        Tensor down = Tensor.allocate(arena, dtype, k, rank).copyFrom(tensor(k, rank).toFloatArray());
        Tensor up = Tensor.allocate(arena, dtype, rank, n).copyFrom(tensor(rank, n).toFloatArray());
        try (PackedWeights weights = PackedWeights.pack(device, DType.S8, Tensor.allocate(arena, DType.F32, k, n));
                Gemm.Plan plan = Gemm.of(DType.S8).bias().lowRank(rank, dtype, 0.5f).plan(
                        device, a.spec(), out.spec())) {
            assertTrue(plan.info().kernel().endsWith(".gemm.int8.lora"), plan.info()::kernel);
            plan.run(stream, weights, a, bias, null, out, null, null, down, up);
            for (int r = 0; r < m; r++) {
                for (int j = 0; j < n; j++) {
                    double expected = bias.getFloat(j);
                    for (int p = 0; p < k; p++) {
                        for (int i = 0; i < rank; i++) {
                            expected += 0.5 * a.getFloat(r, p) * down.getFloat(p, i) * up.getFloat(i, j);
                        }
                    }
                    assertEquals(expected, out.getFloat(r, j), TOLERANCE);
                }
            }
        }
    }

    @Test
    void attentionOfBatchesWithLengths() {
        int batch = 2;
        int heads = 4;
        int headsK = 2;
        Tensor q = tensor(batch, 6, heads, 8);
        Tensor k = tensor(batch, 9, headsK, 8);
        Tensor v = tensor(batch, 9, headsK, 5);
        Tensor out = tensor(batch, 6, heads, 5);
        Tensor lse = tensor(batch, heads, 6);
        Tensor qLengths = Tensor.allocate(arena, DType.S64, batch).copyFrom(new long[] {6, 4});
        Tensor kLengths = Tensor.allocate(arena, DType.S64, batch).copyFrom(new long[] {9, 7});
        float untouched = out.getFloat(1, 4, 0, 0);
        try (Attention.Plan plan = Attention.causal().window(3).plan(device, q.spec(), k.spec(), v.spec())) {
            plan.run(stream, q, k, v, out, qLengths, kLengths, lse);
            for (int b = 0; b < batch; b++) {
                int lenQ = b == 0 ? 6 : 4;
                int lenK = b == 0 ? 9 : 7;
                for (int i = 0; i < lenQ; i++) {
                    for (int h = 0; h < heads; h++) {
                        int p = i + lenK - lenQ;
                        check(q.slice(0, b, b + 1), k.slice(0, b, b + 1), v.slice(0, b, b + 1), out.slice(0, b, b + 1),
                                lse.getFloat(b, h, i), i, h, Math.max(0, p - 3), p, 1 / Math.sqrt(8));
                    }
                }
            }
            assertEquals(untouched, out.getFloat(1, 4, 0, 0));
        }
    }

    @Test
    void attentionOfWholeBatches() {
        Tensor q = tensor(1, 5, 2, 8);
        Tensor k = tensor(1, 7, 2, 8);
        Tensor v = tensor(1, 7, 2, 8);
        Tensor out = tensor(1, 5, 2, 8);
        try (Attention.Plan plan =
                Attention.dense().window(-1, 1).scale(0.25f).plan(device, q.spec(), k.spec(), v.spec(), out.spec())) {
            plan.run(stream, q, k, v, out);
            for (int i = 0; i < 5; i++) {
                check(q, k, v, out, Float.NaN, i, 1, 0, Math.min(6, i + 3), 0.25);
            }
            // fewer tokens: sequence 0 has no need of the batch stride
            plan.run(stream, q.slice(1, 0, 2), k.slice(1, 0, 3), v.slice(1, 0, 3), out.slice(1, 0, 2));
            for (int i = 0; i < 2; i++) {
                check(q, k, v, out, Float.NaN, i, 0, 0, Math.min(2, i + 2), 0.25);
            }
        }
    }

    @Test
    void attentionOfPackedTokens() {
        Tensor q = tensor(10, 2, 8);
        Tensor k = tensor(12, 1, 8);
        Tensor v = tensor(12, 1, 8);
        Tensor out = tensor(10, 2, 8);
        Tensor lse = tensor(2, 10);
        Tensor qOffsets = Tensor.allocate(arena, DType.S64, 3).copyFrom(new long[] {0, 4, 9});
        Tensor kOffsets = Tensor.allocate(arena, DType.S64, 3).copyFrom(new long[] {0, 5, 11});
        try (Attention.Plan plan = Attention.causal().packed(4).plan(device, q.spec(), k.spec(), v.spec())) {
            plan.run(stream, q, k, v, out, qOffsets, kOffsets, lse);
            for (int i = 0; i < 4; i++) {
                check(one(q, 0, 4), one(k, 0, 5), one(v, 0, 5), one(out, 0, 4), lse.getFloat(1, i),
                        i, 1, 0, i + 1, 1 / Math.sqrt(8));
            }
            for (int i = 0; i < 5; i++) {
                check(one(q, 4, 9), one(k, 5, 11), one(v, 5, 11), one(out, 4, 9), lse.getFloat(0, 4 + i),
                        i, 0, 0, i + 1, 1 / Math.sqrt(8));
            }
        }
    }

    /** Tokens from to to - 1 as a batch of one sequence. */
    private static Tensor one(Tensor packed, long from, long to) {
        Tensor part = packed.slice(0, from, to);
        return part.reshape(1, to - from, packed.size(1), packed.size(2));
    }

    /** One query and head of sequence 0 against the keys {@code from} to {@code to}. */
    private static void check(
            Tensor q, Tensor k, Tensor v, Tensor out, float lse, int i, int h, int from, int to, double scale) {
        int hk = (int) (h / (q.size(2) / k.size(2)));
        double[] expected = new double[(int) v.size(3)];
        double sum = 0;
        for (int j = from; j <= to; j++) {
            double score = 0;
            for (int c = 0; c < q.size(3); c++) {
                score += (double) q.getFloat(0, i, h, c) * k.getFloat(0, j, hk, c);
            }
            double weight = Math.exp(score * scale);
            sum += weight;
            for (int c = 0; c < expected.length; c++) {
                expected[c] += weight * v.getFloat(0, j, hk, c);
            }
        }
        for (int c = 0; c < expected.length; c++) {
            assertEquals(expected[c] / sum, out.getFloat(0, i, h, c), TOLERANCE);
        }
        if (!Float.isNaN(lse)) {
            assertEquals(Math.log(sum), lse, TOLERANCE);
        }
    }

    @Test
    void merge() {
        Tensor x = tensor(2, 1, 3, 2, 4);
        Tensor xLse = tensor(2, 1, 2, 3);
        Tensor sink = tensor(2);
        Tensor out = tensor(1, 3, 2, 4);
        Tensor lse = tensor(1, 2, 3);
        try (Merge.Plan plan = Merge.of().sinkLogits().plan(device, x.spec(), xLse.spec(), out.spec(), lse.spec());
                Merge.Plan plain = Merge.of().plan(device, x.spec(), xLse.spec(), out.spec(), lse.spec())) {
            assertEquals("merge", plan.info().operator());
            plan.run(stream, x, xLse, sink, out, lse);
            for (boolean sunk : new boolean[] {true, false}) {
                for (int i = 0; i < 3; i++) {
                    for (int h = 0; h < 2; h++) {
                        double first = Math.exp(xLse.getFloat(0, 0, h, i));
                        double second = Math.exp(xLse.getFloat(1, 0, h, i));
                        double sum = first + second + (sunk ? Math.exp(sink.getFloat(h)) : 0);
                        for (int e = 0; e < 4; e++) {
                            double merged = first * x.getFloat(0, 0, i, h, e) + second * x.getFloat(1, 0, i, h, e);
                            assertEquals(merged / sum, out.getFloat(0, i, h, e), TOLERANCE);
                        }
                        assertEquals(Math.log(first + second), lse.getFloat(0, h, i), TOLERANCE);
                    }
                }
                plain.run(stream, x, xLse, out);
            }
        }
    }

    @Test
    void routeAndMixOfExperts() {
        int tokens = 9;
        int experts = 6;
        Tensor x = tensor(tokens, experts);
        Tensor bias = tensor(experts);
        Tensor chosen = Tensor.allocate(arena, DType.S32, tokens, 2);
        Tensor weights = tensor(tokens, 2);
        Tensor offsets = Tensor.allocate(arena, DType.S64, experts + 1);
        Tensor rows = Tensor.allocate(arena, DType.S32, tokens * 2);
        Tensor slots = Tensor.allocate(arena, DType.S32, tokens, 2);
        Route route = Route.sigmoid(2).groups(3, 2).bias().normalize().scale(1.5f);
        try (Route.Plan plan = route.plan(device, x.spec())) {
            assertEquals("route", plan.info().operator());
            plan.run(stream, x, bias, chosen, weights, offsets, rows, slots);
        }
        int[] expert = chosen.memory().toArray(ValueLayout.JAVA_INT);
        int[] row = slots.memory().toArray(ValueLayout.JAVA_INT);
        for (int t = 0; t < tokens; t++) {
            double[] score = new double[experts];
            double[] key = new double[experts];
            for (int e = 0; e < experts; e++) {
                score[e] = 1 / (1 + Math.exp(-x.getFloat(t, e)));
                key[e] = score[e] + bias.getFloat(e);
            }
            int worst = 0;
            for (int g = 1; g < 3; g++) {
                worst = key[2 * g] + key[2 * g + 1] < key[2 * worst] + key[2 * worst + 1] ? g : worst;
            }
            int first = -1;
            int second = -1;
            for (int e = 0; e < experts; e++) {
                if (e / 2 == worst) {
                    continue;
                }
                if (first < 0 || key[e] > key[first]) {
                    second = first;
                    first = e;
                } else if (second < 0 || key[e] > key[second]) {
                    second = e;
                }
            }
            assertEquals(first, expert[2 * t]);
            assertEquals(second, expert[2 * t + 1]);
            double sum = score[first] + score[second];
            assertEquals(1.5 * score[first] / sum, weights.getFloat(t, 0), TOLERANCE);
            assertEquals(1.5 * score[second] / sum, weights.getFloat(t, 1), TOLERANCE);
        }
        int[] token = rows.memory().toArray(ValueLayout.JAVA_INT);
        long[] offset = offsets.memory().toArray(ValueLayout.JAVA_LONG);
        for (int e = 0, r = 0; e < experts; e++) {
            assertEquals(r, offset[e]);
            for (int i = 0; i < 2 * tokens; i++) {
                if (expert[i] == e) {
                    assertEquals(i / 2, token[r]);
                    assertEquals(r++, row[i]);
                }
            }
        }
        assertEquals(2 * tokens, offset[experts]);
        // The rows of the experts, summed for each token again.
        Tensor given = tensor(2 * tokens, 1, 7);
        Tensor out = tensor(tokens, 1, 7);
        Tensor gates = weights.reshape(tokens, 2, 1);
        try (Mix.Plan plan = Mix.of().rowIndex().plan(device, given.spec(), gates.spec(), out.spec())) {
            assertEquals("mix", plan.info().operator());
            plan.run(stream, given, gates, slots, null, out);
        }
        for (int t = 0; t < tokens; t++) {
            for (int i = 0; i < 7; i++) {
                double sum = (double) weights.getFloat(t, 0) * given.getFloat(row[2 * t], 0, i)
                        + (double) weights.getFloat(t, 1) * given.getFloat(row[2 * t + 1], 0, i);
                assertEquals(sum, out.getFloat(t, 0, i), TOLERANCE);
            }
        }
    }

    @Test
    void mixOfBranches() {
        Tensor x = tensor(3, 4, 2, 5);
        Tensor gates = tensor(4, 3, 2);
        Tensor residual = tensor(4, 2, 5);
        Tensor out = tensor(4, 2, 5);
        for (boolean added : new boolean[] {false, true}) {
            Mix mix = added ? Mix.sigmoid().residual() : Mix.sigmoid();
            try (Mix.Plan plan = mix.plan(device, x.spec(), gates.spec(), out.spec())) {
                plan.run(stream, x, gates, null, added ? residual : null, out);
            }
            for (int t = 0; t < 4; t++) {
                for (int h = 0; h < 2; h++) {
                    for (int i = 0; i < 5; i++) {
                        double sum = added ? residual.getFloat(t, h, i) : 0;
                        for (int p = 0; p < 3; p++) {
                            sum += x.getFloat(p, t, h, i) / (1 + Math.exp(-gates.getFloat(t, p, h)));
                        }
                        assertEquals(sum, out.getFloat(t, h, i), TOLERANCE);
                    }
                }
            }
        }
    }

    /** Flamingo's layer: text attends to what another stream holds, and a tanh gate lets it in. */
    @Test
    void gatedCrossAttention() {
        Tensor text = tensor(1, 3, 4, 8);
        Tensor k = tensor(1, 10, 2, 8);
        Tensor v = tensor(1, 10, 2, 8);
        Tensor seen = tensor(1, 3, 4, 8);
        Tensor gate = tensor(1);
        Tensor everywhere = Tensor.of(gate.memory(), TensorSpec.of(DType.F32, 3, 1, 4).withStrides(0, 0, 0));
        Tensor before = tensor(3, 4, 8);
        Tensor out = tensor(3, 4, 8);
        try (Attention.Plan attention = Attention.dense().plan(device, text.spec(), k.spec(), v.spec());
                Mix.Plan mix = Mix.tanh().residual().plan(device, seen.spec(), everywhere.spec(), out.spec())) {
            for (float value : new float[] {0, 0.7f}) {
                gate.setFloat(value, 0);
                attention.run(stream, text, k, v, seen);
                mix.run(stream, seen, everywhere, null, before, out);
                for (int i = 0; i < 3; i++) {
                    for (int h = 0; h < 4; h++) {
                        double[] attended = new double[8];
                        double sum = 0;
                        for (int j = 0; j < 10; j++) {
                            double dot = 0;
                            for (int d = 0; d < 8; d++) {
                                dot += (double) text.getFloat(0, i, h, d) * k.getFloat(0, j, h / 2, d);
                            }
                            double weight = Math.exp(dot / Math.sqrt(8));
                            sum += weight;
                            for (int d = 0; d < 8; d++) {
                                attended[d] += weight * v.getFloat(0, j, h / 2, d);
                            }
                        }
                        for (int d = 0; d < 8; d++) {
                            double expected = before.getFloat(i, h, d) + Math.tanh(value) * attended[d] / sum;
                            assertEquals(expected, out.getFloat(i, h, d), value == 0 ? 0 : TOLERANCE);
                        }
                    }
                }
            }
        }
    }

    /** Of four blocks of two keys, the first and the one that the queries point to; attention to these alone. */
    @Test
    void selectionOfBlocks() {
        Tensor q = tensor(1, 2, 1, 4);
        Tensor k = tensor(1, 8, 1, 4);
        Tensor v = tensor(1, 8, 1, 3);
        Tensor out = tensor(1, 2, 1, 3);
        for (int key = 4; key < 6; key++) {
            for (int e = 0; e < 4; e++) {
                k.setFloat(9 * (q.getFloat(0, 0, 0, e) + q.getFloat(0, 1, 0, e)), 0, key, 0, e);
            }
        }
        for (Selection.Pool pool : Selection.Pool.values()) {
            try (Selection.Plan select =
                            Selection.blocks(2, 2, 2).first(1).pool(pool).plan(device, q.spec(), k.spec());
                    Attention.Plan plan = select.attention(Attention.dense())
                            .plan(device, q.spec(), k.spec(), v.spec(), out.spec())) {
                assertEquals("select", select.info().operator());
                Selection.Lists lists = select.lists(arena);
                select.run(stream, q, k, lists);
                plan.run(stream, lists.into(new Attention.Arrays().q(q).k(k).v(v).out(out)));
                for (int i = 0; i < 2; i++) {
                    check(q, k, v, out, i, new int[] {0, 1, 4, 5});
                }
            }
        }
    }

    /** Two rounds of hashing, merged: pairs that share a label in either. */
    @Test
    void selectionByHashing() {
        int n = 24;
        Tensor q = tensor(1, n, 1, 8);
        Tensor k = tensor(1, n, 1, 8);
        Tensor v = tensor(1, n, 1, 3);
        Tensor parts = tensor(2, 1, n, 1, 3);
        Tensor partsLse = tensor(2, 1, 1, n);
        Tensor out = tensor(1, n, 1, 3);
        Tensor lse = tensor(1, 1, n);
        int[] qLabels = {};
        int[] kLabels = {};
        for (int round = 0; round < 2; round++) {
            Tensor part = parts.slice(0, round, round + 1).reshape(1, n, 1, 3);
            try (Selection.Plan select = Selection.lsh(4, round + 1, 3, 4, 4, n).plan(device, q.spec(), k.spec());
                    Attention.Plan plan = select.attention(Attention.dense())
                            .plan(device, q.spec(), k.spec(), v.spec(), part.spec())) {
                Tensor qDocuments = Tensor.allocate(arena, select.qDocuments().dtype(), select.qDocuments().shape());
                Tensor kDocuments = Tensor.allocate(arena, select.kDocuments().dtype(), select.kDocuments().shape());
                Selection.Lists lists = select.lists(arena).qDocuments(qDocuments).kDocuments(kDocuments);
                select.run(stream, q, k, lists);
                plan.run(stream, lists.into(new Attention.Arrays()
                        .q(q)
                        .k(k)
                        .v(v)
                        .out(part)
                        .lse(partsLse.slice(0, round, round + 1).reshape(1, 1, n))));
                qLabels = ints(qDocuments);
                kLabels = ints(kDocuments);
            }
        }
        try (Merge.Plan merge = Merge.of().plan(device, parts.spec(), partsLse.spec(), out.spec(), lse.spec())) {
            merge.run(stream, parts, partsLse, out);
        }
        for (int i = 0; i < n; i++) {
            List<Integer> seen = new ArrayList<>();
            for (int j = 0; j < n; j++) {
                for (int layer = 0; layer < 2; layer++) {
                    if (qLabels[layer * n + i] == kLabels[layer * n + j]) {
                        seen.add(j);
                        break;
                    }
                }
            }
            check(q, k, v, out, i, seen.stream().mapToInt(Integer::intValue).toArray());
        }
    }

    /** Of codes of one bit nearly all keys share two: what is left out has a bias above 0 to make up for it. */
    @Test
    void selectionByRetrieval() {
        Tensor q = tensor(1, 2, 1, 8);
        Tensor k = tensor(1, 20, 1, 8);
        try (Selection.Plan select =
                Selection.retrieval(1, 12, 5, 20).first(1).local(2).causal().plan(device, q.spec(), k.spec())) {
            Tensor offsets = Tensor.allocate(arena, DType.S64, select.blockOffsets().shape());
            Tensor columns = Tensor.allocate(arena, DType.S32, select.blockColumns().shape());
            Tensor bias = Tensor.allocate(arena, DType.F32, select.blockBias().shape());
            select.run(stream, q, k, new Selection.Lists()
                    .blockOffsets(offsets)
                    .blockColumns(columns)
                    .blockBias(bias));
            long[] starts = offsets.memory().toArray(ValueLayout.JAVA_LONG);
            int[] keys = ints(columns);
            for (int i = 0; i < 2; i++) {
                int first = (int) starts[i];
                int last = (int) starts[i + 1] - 1;
                assertEquals(0, keys[first]);
                assertEquals(18 + i, keys[last], "the query's own position");
                assertEquals(17 + i, keys[last - 1]);
                assertEquals(0f, bias.getFloat(first));
                assertEquals(0f, bias.getFloat(last));
                assertTrue(last - first > 5, "most of the keys");
                for (int entry = first + 1; entry < last - 1; entry++) {
                    assertTrue(bias.getFloat(entry) >= 0 && bias.getFloat(entry) < 3, "the bias of entry " + entry);
                }
            }
        }
    }

    private static int[] ints(Tensor tensor) {
        return tensor.memory().toArray(ValueLayout.JAVA_INT);
    }

    /** Attention of a query to some keys. */
    private static void check(Tensor q, Tensor k, Tensor v, Tensor out, int query, int[] keys) {
        double[] weights = new double[keys.length];
        double sum = 0;
        for (int t = 0; t < keys.length; t++) {
            double score = 0;
            for (int e = 0; e < q.spec().size(3); e++) {
                score += (double) q.getFloat(0, query, 0, e) * k.getFloat(0, keys[t], 0, e);
            }
            weights[t] = Math.exp(score / Math.sqrt(q.spec().size(3)));
            sum += weights[t];
        }
        for (int e = 0; e < v.spec().size(3); e++) {
            double expected = 0;
            for (int t = 0; t < keys.length; t++) {
                expected += weights[t] / sum * v.getFloat(0, keys[t], 0, e);
            }
            assertEquals(expected, out.getFloat(0, query, 0, e), TOLERANCE);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void rope(boolean interleaved) {
        int rotary = 4;
        Rope rope = interleaved ? Rope.interleaved(rotary) : Rope.halves(rotary);
        Tensor q = tensor(3, 2, 6);
        Tensor qOut = tensor(3, 2, 6);
        Tensor k = tensor(3, 1, 6);
        Tensor v = tensor(3, 1, 5);
        Tensor kCache = tensor(2, 2, 1, 6);
        Tensor vCache = tensor(2, 2, 1, 5);
        Tensor table = tensor(10, rotary);
        Tensor positions = Tensor.allocate(arena, DType.S64, 3).copyFrom(new long[] {7, 0, 9});
        Tensor slots = Tensor.allocate(arena, DType.S64, 3).copyFrom(new long[] {3, 0, -1});
        float untouched = kCache.getFloat(0, 1, 0, 2);
        Rope.fillTable(table, 100);
        for (int p = 0; p < 10; p++) {
            assertEquals((float) Math.cos(p / 10.0), table.getFloat(p, 1));
            assertEquals((float) Math.sin(p), table.getFloat(p, 2));
        }
        try (Rope.Plan plan = rope.plan(
                device, 10, q.spec(), qOut.spec(), k.spec(), kCache.spec(), v.spec(), vCache.spec())) {
            assertEquals("rope", plan.info().operator());
            plan.run(stream, positions, table, slots, q, qOut, k, kCache, v, vCache, null, null);
        }
        long[] at = {7, 0, 9};
        for (int t = 0; t < 3; t++) {
            for (int h = 0; h < 2; h++) {
                double[] expected = rotate(q, t, h, at[t], interleaved);
                for (int e = 0; e < 6; e++) {
                    assertEquals(expected[e], qOut.getFloat(t, h, e), TOLERANCE);
                }
            }
        }
        for (int t = 0; t < 2; t++) {
            double[] expected = rotate(k, t, 0, at[t], interleaved);
            int page = t == 0 ? 1 : 0;
            for (int e = 0; e < 6; e++) {
                assertEquals(expected[e], kCache.getFloat(page, page, 0, e), TOLERANCE);
            }
            for (int e = 0; e < 5; e++) {
                assertEquals(v.getFloat(t, 0, e), vCache.getFloat(page, page, 0, e));
            }
        }
        assertEquals(untouched, kCache.getFloat(0, 1, 0, 2));
    }

    /** The first four of six elements turned by the angles of base 100. */
    private static double[] rotate(Tensor x, int token, int head, long position, boolean interleaved) {
        double[] out = new double[6];
        for (int e = 0; e < 6; e++) {
            out[e] = x.getFloat(token, head, e);
        }
        for (int i = 0; i < 2; i++) {
            int first = interleaved ? 2 * i : i;
            int second = interleaved ? 2 * i + 1 : i + 2;
            double angle = position * Math.pow(100, -i / 2.0);
            double a = out[first];
            double b = out[second];
            out[first] = a * Math.cos(angle) - b * Math.sin(angle);
            out[second] = a * Math.sin(angle) + b * Math.cos(angle);
        }
        return out;
    }

    @Test
    void layerNorm() {
        Tensor x = tensor(4, 9);
        Tensor residual = tensor(4, 9);
        Tensor gamma = tensor(9);
        Tensor beta = tensor(9);
        Tensor out = tensor(4, 9);
        Tensor sum = tensor(4, 9);
        try (LayerNorm.Plan full = LayerNorm.of(0.1f).residual().sum().plan(device, x.spec(), out.spec());
                LayerNorm.Plan plain = LayerNorm.of(0.1f).plan(device, x.spec(), out.spec());
                LayerNorm.Plan bare = LayerNorm.of(0.1f).withoutBeta().plan(device, x.spec(), out.spec())) {
            assertEquals("norm", full.info().operator());
            full.run(stream, x, residual, gamma, beta, out, sum);
            assertArrayEquals(layerNorm(x, residual, gamma, beta), out.toFloatArray(), TOLERANCE);
            assertArrayEquals(add(x, residual), sum.toFloatArray());
            plain.run(stream, x, gamma, beta, out);
            assertArrayEquals(layerNorm(x, null, gamma, beta), out.toFloatArray(), TOLERANCE);
            bare.run(stream, x, gamma, null, out);
            assertArrayEquals(layerNorm(x, null, gamma, null), out.toFloatArray(), TOLERANCE);
        }
    }

    private static float[] add(Tensor x, Tensor residual) {
        float[] sum = x.toFloatArray();
        float[] other = residual.toFloatArray();
        for (int i = 0; i < sum.length; i++) {
            sum[i] += other[i];
        }
        return sum;
    }

    private static float[] layerNorm(Tensor x, Tensor residual, Tensor gamma, Tensor beta) {
        float[] h = residual == null ? x.toFloatArray() : add(x, residual);
        int n = (int) x.size(1);
        float[] out = new float[h.length];
        for (int row = 0; row < h.length; row += n) {
            double mean = 0;
            double square = 0;
            for (int i = 0; i < n; i++) {
                mean += h[row + i] / (double) n;
            }
            for (int i = 0; i < n; i++) {
                square += (h[row + i] - mean) * (h[row + i] - mean) / n;
            }
            for (int i = 0; i < n; i++) {
                out[row + i] = (float) ((h[row + i] - mean) / Math.sqrt(square + 0.1f) * gamma.getFloat(i)
                        + (beta == null ? 0 : beta.getFloat(i)));
            }
        }
        return out;
    }

    @Test
    void rmsNorm() {
        Tensor x = tensor(4, 9);
        Tensor residual = tensor(4, 9);
        Tensor gamma = tensor(9);
        Tensor out = tensor(4, 9);
        Tensor sum = tensor(4, 9);
        try (RmsNorm.Plan full = RmsNorm.of(0.1f).residual().sum().plan(device, x.spec(), out.spec());
                RmsNorm.Plan plain = RmsNorm.of(0.1f).plan(device, x.spec(), out.spec())) {
            full.run(stream, x, residual, gamma, out, sum);
            assertArrayEquals(rmsNorm(add(x, residual), gamma), out.toFloatArray(), TOLERANCE);
            assertArrayEquals(add(x, residual), sum.toFloatArray());
            plain.run(stream, x, gamma, out);
            assertArrayEquals(rmsNorm(x.toFloatArray(), gamma), out.toFloatArray(), TOLERANCE);
        }
    }

    private static float[] rmsNorm(float[] h, Tensor gamma) {
        int n = (int) gamma.size(0);
        float[] out = new float[h.length];
        for (int row = 0; row < h.length; row += n) {
            double square = 0;
            for (int i = 0; i < n; i++) {
                square += (double) h[row + i] * h[row + i] / n;
            }
            for (int i = 0; i < n; i++) {
                out[row + i] = (float) (h[row + i] / Math.sqrt(square + 0.1f) * gamma.getFloat(i));
            }
        }
        return out;
    }

    @Test
    void softmax() {
        Tensor x = tensor(4, 9);
        Tensor out = tensor(4, 9);
        try (Softmax.Plan scaled = Softmax.scaled(0.5f).plan(device, x.spec(), out.spec());
                Softmax.Plan plain = Softmax.of().plan(device, x.spec(), out.spec())) {
            assertEquals("softmax", plain.info().operator());
            scaled.run(stream, x, out);
            assertArrayEquals(softmax(x, 0.5), out.toFloatArray(), TOLERANCE);
            float[] expected = softmax(x, 1);
            plain.run(stream, x, x);
            assertArrayEquals(expected, x.toFloatArray(), TOLERANCE);
        }
    }

    private static float[] softmax(Tensor x, double scale) {
        float[] out = new float[(int) x.spec().elements()];
        for (int i = 0; i < x.size(0); i++) {
            double sum = 0;
            for (int j = 0; j < x.size(1); j++) {
                sum += Math.exp(scale * x.getFloat(i, j));
            }
            for (int j = 0; j < x.size(1); j++) {
                out[(int) (i * x.size(1) + j)] = (float) (Math.exp(scale * x.getFloat(i, j)) / sum);
            }
        }
        return out;
    }

    @ParameterizedTest
    @EnumSource
    void biasAndActivation(Activation activation) {
        Tensor x = tensor(4, 9);
        Tensor bias = tensor(9);
        Tensor out = tensor(4, 9);
        try (BiasActivation.Plan plan = BiasActivation.of(activation).bias().plan(device, x.spec(), out.spec());
                BiasActivation.Plan plain = BiasActivation.of(activation).plan(device, x.spec(), out.spec())) {
            assertEquals("activation", plan.info().operator());
            plan.run(stream, x, bias, out);
            for (int i = 0; i < 36; i++) {
                double h = (double) x.getFloat(i / 9, i % 9) + bias.getFloat(i % 9);
                assertEquals(apply(activation, h), out.getFloat(i / 9, i % 9), TOLERANCE);
            }
            plain.run(stream, x, out);
            for (int i = 0; i < 36; i++) {
                assertEquals(apply(activation, x.getFloat(i / 9, i % 9)), out.getFloat(i / 9, i % 9), TOLERANCE);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Activation.class)
    void glu(Activation activation) {
        Tensor both = tensor(4, 18);
        Tensor gate = both.slice(1, 0, 9);
        Tensor x = both.slice(1, 9, 18);
        Tensor out = tensor(4, 9);
        try (Glu.Plan plan = Glu.of(activation).plan(device, gate.spec(), x.spec(), out.spec())) {
            assertEquals("glu", plan.info().operator());
            plan.run(stream, gate, x, out);
            for (int i = 0; i < 36; i++) {
                double product = apply(activation, gate.getFloat(i / 9, i % 9)) * x.getFloat(i / 9, i % 9);
                assertEquals(product, out.getFloat(i / 9, i % 9), TOLERANCE);
            }
        }
    }

    /** A norm in 8 bits, and a product of its rows: the bits of the way over F32. */
    @Test
    void quantizedRows() {
        Tensor x = tensor(4, 9);
        Tensor residual = tensor(4, 9);
        Tensor gamma = tensor(9);
        Tensor beta = tensor(9);
        Tensor floats = tensor(4, 9);
        Tensor bytes = Tensor.allocate(arena, DType.U8, 4, 9);
        Tensor scales = tensor(4);
        Tensor zeros = Tensor.allocate(arena, DType.S32, 4);
        Tensor sum = tensor(4, 9);
        Tensor expected = tensor(4, 5);
        Tensor out = tensor(4, 5);
        LayerNorm norm = LayerNorm.of(0.1f).residual().sum();
        try (LayerNorm.Plan plain = norm.plan(device, x.spec(), floats.spec());
                LayerNorm.Plan quantized = norm.plan(device, x.spec(), bytes.spec());
                PackedWeights weights = PackedWeights.pack(device, DType.S8, tensor(9, 5));
                Gemm.Plan ofFloats = Gemm.of(DType.S8).plan(device, floats.spec(), out.spec());
                Gemm.Plan ofBytes = Gemm.of(DType.S8).plan(device, bytes.spec(), out.spec())) {
            plain.run(stream, x, residual, gamma, beta, floats, sum);
            quantized.runQuantized(stream, x, residual, gamma, beta, bytes, scales, zeros, sum);
            for (int i = 0; i < 36; i++) {
                float value = (bytes.getFloat(i / 9, i % 9) - zeros.getFloat(i / 9)) * scales.getFloat(i / 9);
                assertEquals(floats.getFloat(i / 9, i % 9), value, scales.getFloat(i / 9));
            }
            ofFloats.run(stream, weights, floats, expected);
            ofBytes.runQuantized(stream, weights, bytes, scales, zeros, null, null, out, null, null);
            assertArrayEquals(expected.toFloatArray(), out.toFloatArray());
        }
    }

    private static double apply(Activation activation, double x) {
        return switch (activation) {
            case NONE -> x;
            case RELU -> Math.max(x, 0);
            case SILU -> x / (1 + Math.exp(-x));
            case GELU_TANH -> x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
            case GELU_ERF -> x / 2 * (1 + erf(x / Math.sqrt(2)));
        };
    }

    /** The Maclaurin series, enough for |x| below 3. */
    private static double erf(double x) {
        double term = x;
        double sum = x;
        for (int i = 1; i < 60; i++) {
            term *= -x * x / i;
            sum += term / (2 * i + 1);
        }
        return 2 / Math.sqrt(Math.PI) * sum;
    }

    @Test
    void emptyTensorsAreServed() {
        Tensor x = Tensor.allocate(arena, DType.F32, 0, 9);
        TensorSpec planned = TensorSpec.of(DType.F32, 4, 9);
        try (Softmax.Plan plan = Softmax.of().plan(device, planned, planned)) {
            plan.run(stream, x, x);
        }
    }
}
