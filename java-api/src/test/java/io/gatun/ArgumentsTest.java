package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/**
 * Wrong arguments of every operator: the message names the argument and what was expected, and outputs are untouched.
 */
class ArgumentsTest {
    private static final Arena ARENA = Arena.ofShared();
    private static final Device DEVICE = Device.open("cpu", 1);
    private static final Device OTHER = Device.open("cpu", 1);
    private static final Stream STREAM = DEVICE.newStream();
    private static final Stream FOREIGN = OTHER.newStream();
    private static final TensorSpec SPEC = TensorSpec.of(DType.F32, 4, 6);
    private static final Tensor X = tensor(4, 6);
    private static final Tensor ROW = tensor(6);
    private static final Tensor OUT = tensor(4, 6);

    @AfterAll
    static void close() {
        STREAM.close();
        FOREIGN.close();
        DEVICE.close();
        OTHER.close();
        ARENA.close();
    }

    private static Tensor tensor(long... shape) {
        return Tensor.allocate(ARENA, DType.F32, shape);
    }

    private static Tensor typed(DType dtype, long... shape) {
        return Tensor.allocate(ARENA, dtype, shape);
    }

    private static Tensor readOnly(Tensor tensor) {
        return Tensor.of(tensor.memory().asReadOnly(), tensor.spec());
    }

    private static TensorSpec spec(long... shape) {
        return TensorSpec.of(DType.F32, shape);
    }

    @Test
    void devices() {
        Expect.illegalArgument("threads: 0", () -> Device.open("cpu", 0));
        Expect.illegalArgument("threads: -1", () -> Device.open("cpu", -1));
        try (Device most = Device.open("cpu", Integer.MAX_VALUE)) {
            assertEquals(1024, most.info().threads(), "what the worker pool is limited to");
        }
        assertThrows(NullPointerException.class, () -> Device.open(null));
        Expect.failure(NotAvailableException.class, "nothing", () -> Device.open("nothing"));
        Expect.failure(NotAvailableException.class, "sse9", () -> Device.open("cpu:sse9"));
        Expect.illegalArgument("name", () -> Device.open(""));
        Expect.illegalArgument("name", () -> Device.open("cpu:"));
    }

    @Test
    void softmax() {
        Expect.illegalArgument("scale: NaN", () -> Softmax.scaled(Float.NaN));
        Expect.illegalArgument("x: F32[4]", () -> Softmax.of().plan(DEVICE, spec(4), spec(4)));
        Expect.illegalArgument("x: S8[4, 6]", () -> Softmax.of().plan(DEVICE, TensorSpec.of(DType.S8, 4, 6), SPEC));
        Expect.illegalArgument("out: F32[4, 5]", () -> Softmax.of().plan(DEVICE, SPEC, spec(4, 5)));
        Expect.illegalArgument("x: F32[4, 6] strides", () -> Softmax.of().plan(DEVICE, SPEC.withStrides(12, 2), SPEC));
        Expect.illegalArgument("out", () -> Softmax.of().plan(DEVICE, SPEC, SPEC.withStrides(0, 1)));
        assertThrows(NullPointerException.class, () -> Softmax.of().plan(null, SPEC, SPEC));
        assertThrows(NullPointerException.class, () -> Softmax.of().plan(DEVICE, null, SPEC));
        try (Softmax.Plan plan = Softmax.of().plan(DEVICE, SPEC, SPEC)) {
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, X, OUT));
            Expect.illegalArgument("expected F32[0 to 4, 6]", () -> plan.run(STREAM, tensor(5, 6), OUT));
            Expect.illegalArgument("x (strides [5, 1]): F32[4, 5]", () -> plan.run(STREAM, tensor(4, 5), OUT));
            Expect.illegalArgument("x (strides [1, 4])", () -> plan.run(STREAM, tensor(6, 4).transpose(0, 1), OUT));
            Expect.illegalArgument("x (strides [6, 1]): BF16", () -> plan.run(STREAM, typed(DType.BF16, 4, 6), OUT));
            Expect.illegalArgument("out: F32[3, 6], expected 4 rows", () -> plan.run(STREAM, X, OUT.slice(0, 0, 3)));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, X, readOnly(OUT)));
            Tensor both = tensor(5, 6);
            Expect.illegalArgument("out: overlaps x", () -> plan.run(STREAM, both.slice(0, 0, 4), both.slice(0, 1, 5)));
            assertThrows(NullPointerException.class, () -> plan.run(STREAM, null, OUT));
            assertThrows(NullPointerException.class, () -> plan.run(STREAM, X, null));
            assertThrows(NullPointerException.class, () -> plan.run(null, X, OUT));
            plan.run(STREAM, readOnly(X), OUT);
            assertArrayEquals(new float[30], both.toFloatArray());
        }
    }

    @Test
    void biasActivation() {
        assertThrows(NullPointerException.class, () -> BiasActivation.of(null));
        BiasActivation relu = BiasActivation.of(Activation.RELU);
        Expect.illegalArgument("out: F32[5, 6]", () -> relu.plan(DEVICE, SPEC, spec(5, 6)));
        Expect.illegalArgument("x", () -> relu.plan(DEVICE, spec(4, 6, 1), SPEC));
        try (BiasActivation.Plan plan = relu.bias().plan(DEVICE, SPEC, SPEC);
                BiasActivation.Plan plain = relu.plan(DEVICE, SPEC, SPEC)) {
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, X, ROW, OUT));
            Expect.illegalArgument("bias: null", () -> plan.run(STREAM, X, OUT));
            Expect.illegalArgument("bias: F32[6], expected null", () -> plain.run(STREAM, X, ROW, OUT));
            Expect.illegalArgument("F32[5]", () -> plan.run(STREAM, X, tensor(5), OUT));
            Expect.illegalArgument("bias", () -> plan.run(STREAM, X, typed(DType.BF16, 6), OUT));
            Expect.illegalArgument("bias (strides [2])", () -> plan.run(STREAM, X, view(2, 6), OUT));
            Expect.illegalArgument("out: overlaps bias", () -> plan.run(STREAM, X, OUT.slice(0, 0, 1).reshape(6), OUT));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, X, ROW, readOnly(OUT)));
        }
    }

    /** A vector with a stride. */
    private static Tensor view(long stride, long size) {
        TensorSpec spec = spec(size).withStrides(stride);
        return Tensor.of(ARENA.allocate(spec.byteSpan(), 64), spec);
    }

    @Test
    void layerNorm() {
        Expect.illegalArgument("epsilon: -1.0", () -> LayerNorm.of(-1));
        Expect.illegalArgument("epsilon: Infinity", () -> LayerNorm.of(Float.POSITIVE_INFINITY));
        Expect.illegalArgument("epsilon: NaN", () -> LayerNorm.of(Float.NaN));
        Expect.illegalArgument("x: F32[4, 0]", () -> LayerNorm.of(0).plan(DEVICE, spec(4, 0), spec(4, 0)));
        Expect.illegalArgument("out", () -> LayerNorm.of(0).plan(DEVICE, SPEC, spec(4, 7)));
        try (LayerNorm.Plan plan = LayerNorm.of(0).residual().sum().plan(DEVICE, SPEC, SPEC);
                LayerNorm.Plan plain = LayerNorm.of(0).plan(DEVICE, SPEC, SPEC)) {
            Tensor r = tensor(4, 6);
            Tensor sum = tensor(4, 6);
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, X, r, ROW, ROW, OUT, sum));
            Expect.illegalArgument("residual: null", () -> plan.run(STREAM, X, null, ROW, ROW, OUT, sum));
            Expect.illegalArgument("sum: null", () -> plan.run(STREAM, X, r, ROW, ROW, OUT, null));
            Expect.illegalArgument("beta: null", () -> plan.run(STREAM, X, r, ROW, null, OUT, sum));
            Expect.illegalArgument("residual: F32[3, 6], expected 4 rows",
                    () -> plan.run(STREAM, X, r.slice(0, 0, 3), ROW, ROW, OUT, sum));
            Expect.illegalArgument("sum: F32[3, 6], expected 4 rows",
                    () -> plan.run(STREAM, X, r, ROW, ROW, OUT, sum.slice(0, 0, 3)));
            Expect.illegalArgument("sum: read-only", () -> plan.run(STREAM, X, r, ROW, ROW, OUT, readOnly(sum)));
            Expect.illegalArgument("out: overlaps sum", () -> plan.run(STREAM, X, r, ROW, ROW, OUT, OUT));
            Expect.illegalArgument("gamma", () -> plan.run(STREAM, X, r, tensor(7), ROW, OUT, sum));
            Expect.illegalArgument("beta", () -> plan.run(STREAM, X, r, ROW, tensor(6, 1), OUT, sum));
            assertThrows(NullPointerException.class, () -> plan.run(STREAM, X, r, null, ROW, OUT, sum));
            Expect.illegalArgument("residual: F32[4, 6], expected null", () ->
                    plain.run(STREAM, X, r, ROW, ROW, OUT, null));
            Expect.illegalArgument("sum: F32[4, 6], expected null", () ->
                    plain.run(STREAM, X, null, ROW, ROW, OUT, sum));
        }
        try (LayerNorm.Plan bare = LayerNorm.of(0).withoutBeta().plan(DEVICE, SPEC, SPEC)) {
            Expect.illegalArgument("beta: F32[6], expected null", () -> bare.run(STREAM, X, ROW, ROW, OUT));
        }
    }

    @Test
    void rmsNorm() {
        Expect.illegalArgument("epsilon: -1.0", () -> RmsNorm.of(-1));
        Expect.illegalArgument("x", () -> RmsNorm.of(0).plan(DEVICE, spec(4, 0), spec(4, 0)));
        Expect.illegalArgument("out", () -> RmsNorm.of(0).plan(DEVICE, SPEC, spec(4, 7)));
        try (RmsNorm.Plan plan = RmsNorm.of(0).residual().sum().plan(DEVICE, SPEC, SPEC)) {
            Tensor r = tensor(4, 6);
            Tensor sum = tensor(4, 6);
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, X, r, ROW, OUT, sum));
            Expect.illegalArgument("residual: null", () -> plan.run(STREAM, X, null, ROW, OUT, sum));
            Expect.illegalArgument("sum: null", () -> plan.run(STREAM, X, r, ROW, OUT, null));
            Expect.illegalArgument("sum: read-only", () -> plan.run(STREAM, X, r, ROW, OUT, readOnly(sum)));
            Expect.illegalArgument("gamma", () -> plan.run(STREAM, X, r, tensor(5), OUT, sum));
        }
    }

    @Test
    void packedWeights() {
        Expect.illegalArgument("format: U8", () -> PackedWeights.pack(DEVICE, DType.U8, X));
        Expect.illegalArgument("source: F32[6]", () -> PackedWeights.pack(DEVICE, DType.F32, ROW));
        Expect.illegalArgument("source: S8", () -> PackedWeights.pack(DEVICE, DType.S8, typed(DType.S8, 4, 6)));
        assertThrows(NullPointerException.class, () -> PackedWeights.pack(null, DType.F32, X));
        assertThrows(NullPointerException.class, () -> PackedWeights.pack(DEVICE, null, X));
        assertThrows(NullPointerException.class, () -> PackedWeights.pack(DEVICE, DType.F32, null));
        Tensor infinite = tensor(4, 6);
        infinite.setFloat(Float.POSITIVE_INFINITY, 2, 3);
        assertThrows(IllegalArgumentException.class, () -> PackedWeights.pack(DEVICE, DType.S8, infinite));
    }

    @Test
    void readyFloat8() {
        Tensor numbers = typed(DType.F8E4M3, 3, 4);
        Expect.illegalArgument("numbers: U8[3, 4], expected F8E4M3 or F8E5M2",
                () -> PackedWeights.ofFloat8(DEVICE, typed(DType.U8, 3, 4), tensor(3)));
        Expect.illegalArgument("numbers: F8E4M3[3]", () -> PackedWeights.ofFloat8(DEVICE, typed(DType.F8E4M3, 3), tensor(3)));
        Expect.illegalArgument("scales: F32[4], expected F32[3]", () -> PackedWeights.ofFloat8(DEVICE, numbers, tensor(4)));
        Tensor infinite = tensor(3);
        infinite.setFloat(Float.POSITIVE_INFINITY, 1);
        Expect.illegalArgument("scales[n = 1] is inf", () -> PackedWeights.ofFloat8(DEVICE, numbers, infinite));
    }

    @Test
    void pooling() {
        Expect.illegalArgument("kernel: 0 sizes, expected 1 to 3", () -> Pooling.max());
        Expect.illegalArgument("kernel: 0, expected 1 or more", () -> Pooling.average(2, 0));
        Expect.illegalArgument("stride: 1 values, expected 2", () -> Pooling.max(2, 2).stride(1));
        Expect.illegalArgument("before: -1, expected 0 or more", () -> Pooling.max(2).padding(-1));
        Expect.illegalArgument("dilation: expected none", () -> Pooling.globalMax().dilation(2));
        assertThrows(IllegalStateException.class, () -> Pooling.max(2).countPadding());
        Pooling pooling = Pooling.max(2, 2);
        TensorSpec x = TensorSpec.of(DType.F32, 2, 3, 4, 6);
        Expect.illegalArgument("out: F32[2, 3, 2, 2]",
                () -> pooling.plan(DEVICE, x, TensorSpec.of(DType.F32, 2, 3, 2, 2)));
        Expect.illegalArgument("out: F32[2, 4, 2, 3]",
                () -> pooling.plan(DEVICE, x, TensorSpec.of(DType.F32, 2, 4, 2, 3)));
        Expect.illegalArgument("x: S8[2, 3, 4, 6], expected F32, BF16 or F16",
                () -> pooling.plan(DEVICE, TensorSpec.of(DType.S8, 2, 3, 4, 6), x));
        Expect.illegalArgument("x: F32[2, 3]",
                () -> Pooling.globalAverage().plan(DEVICE, TensorSpec.of(DType.F32, 2, 3), x));
        try (Pooling.Plan plan = pooling.plan(DEVICE, x, TensorSpec.of(DType.F32, 2, 3, 2, 3))) {
            Tensor from = tensor(2, 3, 4, 6);
            Tensor to = tensor(2, 3, 2, 3);
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, from, to));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, from, readOnly(to)));
            Expect.illegalArgument("out", () -> plan.run(STREAM, from, to.slice(0, 0, 1)));
        }
    }

    @Test
    void fakeQuantize() {
        Expect.illegalArgument("bits: 1", () -> FakeQuantize.signed(1));
        Expect.illegalArgument("bits: 9", () -> FakeQuantize.unsigned(9));
        Tensor x = tensor(2, 3);
        Tensor out = tensor(2, 3);
        Expect.illegalArgument("x: F32[6]", () -> FakeQuantize.signed(8).plan(DEVICE, ROW.spec(), out.spec()));
        Expect.illegalArgument("out", () -> FakeQuantize.signed(8).plan(DEVICE, x.spec(), tensor(2, 4).spec()));
        try (FakeQuantize.Plan plan = FakeQuantize.signed(8).perRow().plan(DEVICE, x.spec(), out.spec());
                FakeQuantize.Plan back = FakeQuantize.unsigned(8).gradient().plan(DEVICE, x.spec(), out.spec())) {
            Tensor scales = tensor(2);
            Tensor one = tensor(1);
            Tensor zero = typed(DType.S32, 1);
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, x, scales, null, null, out));
            Expect.illegalArgument("scales", () -> plan.run(STREAM, x, one, null, null, out));
            Expect.illegalArgument("scales", () -> plan.run(STREAM, x, tensor(3), null, null, out));
            Expect.illegalArgument(
                    "zeroPoints: S32[1], expected null", () -> plan.run(STREAM, x, scales, zero, null, out));
            Expect.illegalArgument("gradient: F32[2, 3], expected null", () -> plan.run(STREAM, x, scales, null, x, out));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, x, scales, null, null, readOnly(out)));
            Expect.illegalArgument("zeroPoints: null", () -> back.run(STREAM, x, one, null, out, out));
            Expect.illegalArgument("gradient: null", () -> back.run(STREAM, x, one, zero, null, out));
            plan.run(STREAM, x, scales, null, null, x);
            back.run(STREAM, x, one, zero, out, out);
        }
    }

    @Test
    void gemm() {
        Expect.illegalArgument("bits: 5", () -> new Quantization(5, 32, false, Quantization.Method.NEAREST));
        Expect.illegalArgument("groupSize: 48", () -> Quantization.int4(48));
        Quantization int4 = Quantization.int4(32);
        Expect.illegalArgument("source: F32[6]", () -> PackedWeights.quantize(DEVICE, int4, ROW));
        Tensor integers = typed(DType.U8, 3, 2, 16);
        Tensor scales = tensor(3, 2);
        Expect.illegalArgument("k: -1", () -> PackedWeights.ofQuantized(DEVICE, int4, -1, integers, scales, null));
        Expect.illegalArgument(
                "integers: U8[3, 2, 16]", () -> PackedWeights.ofQuantized(DEVICE, int4, 65, integers, scales, null));
        Expect.illegalArgument(
                "integers: F32[6]", () -> PackedWeights.ofQuantized(DEVICE, int4, 64, ROW, scales, null));
        Expect.illegalArgument(
                "scales: U8", () -> PackedWeights.ofQuantized(DEVICE, int4, 64, integers, integers, null));
        Expect.illegalArgument(
                "zeroPoints: F32", () -> PackedWeights.ofQuantized(DEVICE, int4, 64, integers, scales, scales));
        try (PackedWeights quantized = PackedWeights.ofQuantized(DEVICE, int4, 64, integers, scales, null);
                Gemm.Plan other = Gemm.of(Quantization.int4(64))
                        .plan(DEVICE, tensor(1, 64).spec(), tensor(1, 3).spec())) {
            Expect.illegalArgument(
                    "weights: packed weights U4 in groups of 32 [64, 3]",
                    () -> other.run(STREAM, quantized, tensor(1, 64), tensor(1, 3)));
        }
        Expect.illegalArgument("format: S32", () -> Gemm.of(DType.S32));
        assertThrows(NullPointerException.class, () -> Gemm.of((DType) null));
        assertThrows(NullPointerException.class, () -> Gemm.of(DType.F32).activation(null));
        Gemm gemm = Gemm.of(DType.F32);
        Expect.illegalArgument("a: F32[6]", () -> gemm.plan(DEVICE, spec(6), SPEC));
        Expect.illegalArgument("out: F32[5, 6], expected the 4 rows of a", () -> gemm.plan(DEVICE, SPEC, spec(5, 6)));
        Expect.illegalArgument("a: F32[4, 6] strides [1, 4]",
                () -> gemm.plan(DEVICE, spec(6, 4).transpose(0, 1), SPEC));
        Tensor source = tensor(6, 3);
        Tensor out = tensor(4, 3);
        Tensor bias = tensor(3);
        try (PackedWeights weights = PackedWeights.pack(DEVICE, DType.F32, source);
                PackedWeights wide = PackedWeights.pack(DEVICE, DType.F32, tensor(6, 4));
                PackedWeights half = PackedWeights.pack(DEVICE, DType.BF16, source);
                PackedWeights foreign = PackedWeights.pack(OTHER, DType.F32, source);
                Gemm.Plan plan = gemm.bias().residual().plan(DEVICE, SPEC, out.spec());
                Gemm.Plan plain = gemm.plan(DEVICE, SPEC, out.spec())) {
            Expect.illegalArgument("stream", () -> plain.run(FOREIGN, weights, X, out));
            Expect.illegalArgument("expected F32[6, 3]", () -> plain.run(STREAM, wide, X, out));
            Expect.illegalArgument("weights: packed weights BF16", () -> plain.run(STREAM, half, X, out));
            Expect.illegalArgument("weights", () -> plain.run(STREAM, foreign, X, out));
            assertThrows(NullPointerException.class, () -> plain.run(STREAM, null, X, out));
            Expect.illegalArgument("a (strides", () -> plain.run(STREAM, weights, tensor(5, 6), out));
            Expect.illegalArgument("out: F32[2, 3], expected 4 rows",
                    () -> plain.run(STREAM, weights, X, out.slice(0, 0, 2)));
            Expect.illegalArgument("out: read-only", () -> plain.run(STREAM, weights, X, readOnly(out)));
            Expect.illegalArgument("bias: null", () -> plan.run(STREAM, weights, X, out));
            Expect.illegalArgument("residual: null", () -> plan.run(STREAM, weights, X, bias, out));
            Expect.illegalArgument("bias: F32[3], expected null", () -> plain.run(STREAM, weights, X, bias, out));
            Expect.illegalArgument("residual: F32[4, 3], expected null",
                    () -> plain.run(STREAM, weights, X, null, out, out));
            Expect.illegalArgument("out: overlaps a",
                    () -> plain.run(STREAM, weights, X, X.reshape(8, 3).slice(0, 0, 4)));
            plan.run(STREAM, weights, X, bias, out, out);
        }
    }

    @Test
    void gemmOfGroupsAndLowRank() {
        Gemm gemm = Gemm.of(DType.F32);
        Expect.illegalArgument("groups: 0, expected 1 or more", () -> gemm.groups(0));
        Expect.illegalArgument("rank: 0, expected 1 to 1024", () -> gemm.lowRank(0, DType.F32, 1));
        Expect.illegalArgument("rank: 1025", () -> gemm.lowRank(1025, DType.F32, 1));
        Expect.illegalArgument("dtype: S8, expected F32, BF16 or F16", () -> gemm.lowRank(1, DType.S8, 1));
        Expect.illegalArgument("dtype: null", () -> gemm.lowRank(1, null, 1));
        Expect.illegalArgument("scale: NaN", () -> gemm.lowRank(1, DType.F32, Float.NaN));
        Gemm low = gemm.lowRank(2, DType.BF16, 1);
        Expect.illegalArgument("lowRank: 2, expected none with groups", () -> low.groups(2).plan(DEVICE, SPEC, SPEC));
        Expect.illegalArgument("lowRank: 2, expected none with an index",
                () -> low.rowIndex().plan(DEVICE, SPEC, SPEC));
        Expect.illegalArgument("groupOffsets: ", () -> gemm.groups(Long.MAX_VALUE).plan(DEVICE, SPEC, SPEC));
        Expect.illegalArgument("bias: ", () -> gemm.groups(Long.MAX_VALUE / 16).bias().plan(DEVICE, SPEC, SPEC));
        Expect.illegalArgument("source: F32[2, 2, 6, 3], expected a matrix [k, n] or matrices",
                () -> PackedWeights.pack(DEVICE, DType.F32, tensor(2, 2, 6, 3)));
        Expect.illegalArgument("source: F32[0, 6, 3], expected 1 group or more",
                () -> PackedWeights.pack(DEVICE, DType.F32, tensor(0, 6, 3)));
        Tensor source = tensor(2, 6, 3);
        source.setFloat(Float.NaN, 1, 4, 2);
        Expect.illegalArgument("source[group = 1, k = 4, n = 2] is nan",
                () -> PackedWeights.pack(DEVICE, DType.S8, source));
        Tensor out = tensor(5, 3);
        Tensor offsets = Tensor.allocate(ARENA, DType.S64, 3).copyFrom(new long[] {0, 2, 5});
        Tensor index = Tensor.allocate(ARENA, DType.S32, 5);
        Tensor down = Tensor.allocate(ARENA, DType.BF16, 6, 2);
        Tensor up = Tensor.allocate(ARENA, DType.BF16, 2, 3);
        Tensor same = tensor(4, 3);
        try (PackedWeights weights = PackedWeights.pack(DEVICE, DType.F32, source);
                PackedWeights one = PackedWeights.pack(DEVICE, DType.F32, tensor(6, 3));
                Gemm.Plan grouped = gemm.groups(2).rowIndex().plan(DEVICE, SPEC, out.spec());
                Gemm.Plan adapted = low.plan(DEVICE, SPEC, same.spec())) {
            Expect.illegalArgument("weights: packed weights F32[6, 3] on",
                    () -> grouped.run(STREAM, one, X, null, null, out, offsets, index, null, null));
            Expect.illegalArgument("expected F32[6, 3] packed",
                    () -> adapted.run(STREAM, weights, X, null, null, same, null, null, down, up));
            Expect.illegalArgument("groupOffsets: null, expected S64[3]", () -> grouped.run(STREAM, weights, X, out));
            Expect.illegalArgument("groupOffsets: S64[3], expected null",
                    () -> adapted.run(STREAM, one, X, null, null, same, offsets, null, down, up));
            Expect.illegalArgument("groupOffsets (strides [1]): S64[2]",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets.slice(0, 0, 2), index, null, null));
            Expect.illegalArgument("rowIndex: null",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets, null, null, null));
            Expect.illegalArgument("rowIndex: S32[4], expected 5 in dimension 0, the rows of out",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets, index.slice(0, 0, 4), null, null));
            Expect.illegalArgument("loraA: BF16[6, 2], expected null",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets, index, down, null));
            Expect.illegalArgument("loraA: null, expected BF16[6, 2]",
                    () -> adapted.run(STREAM, one, X, null, null, same, null, null, null, up));
            Expect.illegalArgument("loraB (strides [2, 1]): BF16[6, 2]",
                    () -> adapted.run(STREAM, one, X, null, null, same, null, null, down, down));
            // What only the backend sees.
            offsets.copyFrom(new long[] {0, 6, 5});
            Expect.illegalArgument("group_offsets[1] is 6, expected 0",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets, index, null, null));
            offsets.copyFrom(new long[] {0, 2, 5});
            index.copyFrom(new long[] {0, 1, 2, 4, 0});
            Expect.illegalArgument("row_index[3] is 4, expected 0 to rows_a - 1 = 3",
                    () -> grouped.run(STREAM, weights, X, null, null, out, offsets, index, null, null));
            index.copyFrom(new long[] {0, 1, 2, 3, 0});
            grouped.run(STREAM, weights, X, null, null, out, offsets, index, null, null);
        }
    }

    @Test
    void attention() {
        Expect.illegalArgument("left: -2", () -> Attention.dense().window(-2));
        Expect.illegalArgument("right: -2", () -> Attention.dense().window(0, -2));
        Expect.illegalArgument("right: 3", () -> Attention.causal().window(1, 3));
        Expect.illegalArgument("scale: Infinity", () -> Attention.dense().scale(Float.POSITIVE_INFINITY));
        Expect.illegalArgument("maxSequences: 0", () -> Attention.dense().packed(0));
        Attention dense = Attention.dense();
        TensorSpec q = spec(2, 5, 4, 8);
        TensorSpec k = spec(2, 7, 2, 8);
        Expect.illegalArgument("q: F32[5, 4, 8]", () -> dense.plan(DEVICE, spec(5, 4, 8), k, k));
        Expect.illegalArgument("q: F32[2, 5, 4, 8]", () -> dense.packed(1).plan(DEVICE, q, k, k));
        Expect.illegalArgument("k: F32[1, 7, 2, 8]", () -> dense.plan(DEVICE, q, spec(1, 7, 2, 8), k));
        Expect.illegalArgument("v: F32[1, 7, 2, 8]", () -> dense.plan(DEVICE, q, k, spec(1, 7, 2, 8)));
        Expect.illegalArgument("k: F32[2, 7, 2, 9]", () -> dense.plan(DEVICE, q, spec(2, 7, 2, 9), k));
        Expect.illegalArgument("k: F32[2, 7, 3, 8]", () -> dense.plan(DEVICE, q, spec(2, 7, 3, 8), spec(2, 7, 3, 8)));
        Expect.illegalArgument("v: F32[2, 6, 2, 8]", () -> dense.plan(DEVICE, q, k, spec(2, 6, 2, 8)));
        Expect.illegalArgument("v: F32[2, 7, 4, 8]", () -> dense.plan(DEVICE, q, k, spec(2, 7, 4, 8)));
        Expect.illegalArgument("v: BF16", () -> dense.plan(DEVICE, q, k, TensorSpec.of(DType.BF16, 2, 7, 2, 8)));
        Expect.illegalArgument("out: F32[2, 5, 4, 9]", () -> dense.plan(DEVICE, q, k, k, spec(2, 5, 4, 9)));
        Expect.illegalArgument("out: F32[2, 4, 4, 8]", () -> dense.plan(DEVICE, q, k, k, spec(2, 4, 4, 8)));
        Tensor query = tensor(2, 5, 4, 8);
        Tensor key = tensor(2, 7, 2, 8);
        Tensor out = tensor(2, 5, 4, 8);
        try (Attention.Plan plan = dense.plan(DEVICE, q, k, k)) {
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, query, key, key, out));
            Expect.illegalArgument("expected F32[0 to 2, 0 to 5, 4, 8]",
                    () -> plan.run(STREAM, tensor(2, 6, 4, 8), key, key, out));
            Expect.illegalArgument("k: F32[1, 7, 2, 8]", () -> plan.run(STREAM, query, key.slice(0, 0, 1), key, out));
            Expect.illegalArgument("v: F32[2, 6, 2, 8]", () -> plan.run(STREAM, query, key, key.slice(1, 0, 6), out));
            Expect.illegalArgument("out: F32[2, 4, 4, 8]", () -> plan.run(STREAM, query, key, key, out.slice(1, 0, 4)));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, query, key, key, readOnly(out)));
            Expect.illegalArgument("out: overlaps q", () -> plan.run(STREAM, query, key, key, query));
            Expect.illegalArgument("qIndex", () -> plan.run(STREAM, query, key, key, out, tensor(2), null, null));
            Expect.illegalArgument("qIndex: S64[1]",
                    () -> plan.run(STREAM, query, key, key, out, typed(DType.S64, 1), null, null));
            Expect.illegalArgument("kIndex",
                    () -> plan.run(STREAM, query, key, key, out, null, typed(DType.S64, 3), null));
            Expect.illegalArgument("lse", () -> plan.run(STREAM, query, key, key, out, null, null, tensor(2, 5, 4)));
            Expect.illegalArgument("lse: F32[1, 4, 5]",
                    () -> plan.run(STREAM, query, key, key, out, null, null, tensor(1, 4, 5)));
            Expect.illegalArgument("lse: read-only",
                    () -> plan.run(STREAM, query, key, key, out, null, null, readOnly(tensor(2, 4, 5))));
            Tensor lengths = typed(DType.S64, 2).copyFrom(new long[] {5, 6});
            assertThrows(IllegalArgumentException.class,
                    () -> plan.run(STREAM, query, key, key, out, lengths, null, null));
            assertArrayEquals(new float[320], out.toFloatArray());
        }
        try (Attention.Plan plan = dense.packed(2).plan(DEVICE, spec(5, 4, 8), spec(7, 2, 8), spec(7, 2, 8))) {
            Tensor tokens = tensor(5, 4, 8);
            Tensor keys = tensor(7, 2, 8);
            Tensor result = tensor(5, 4, 8);
            Tensor two = typed(DType.S64, 3);
            Expect.illegalArgument("qIndex: null", () -> plan.run(STREAM, tokens, keys, keys, result));
            Expect.illegalArgument("kIndex: null", () -> plan.run(STREAM, tokens, keys, keys, result, two, null, null));
            Expect.illegalArgument("qIndex", () -> plan.run(
                    STREAM, tokens, keys, keys, result, typed(DType.S64, 4), typed(DType.S64, 4), null));
            Expect.illegalArgument("kIndex: S64[2]", () -> plan.run(
                    STREAM, tokens, keys, keys, result, two, typed(DType.S64, 2), null));
            Expect.illegalArgument("at least 1 offset", () -> plan.run(
                    STREAM, tokens, keys, keys, result, typed(DType.S64, 0), typed(DType.S64, 0), null));
            Expect.illegalArgument("lse", () -> plan.run(STREAM, tokens, keys, keys, result, two, two, tensor(4, 4)));
            Tensor falling = typed(DType.S64, 3).copyFrom(new long[] {0, 4, 3});
            assertThrows(IllegalArgumentException.class,
                    () -> plan.run(STREAM, tokens, keys, keys, result, falling, two, null));
        }
    }

    @Test
    void merge() {
        TensorSpec x = spec(3, 2, 4, 2, 8);
        TensorSpec xLse = spec(3, 2, 2, 4);
        TensorSpec out = spec(2, 4, 2, 8);
        TensorSpec lse = spec(2, 2, 4);
        Expect.illegalArgument("x: F32[2, 4, 2, 8]", () -> Merge.of().plan(DEVICE, out, xLse, out, lse));
        Expect.illegalArgument("x: S32", () -> Merge.of()
                .plan(DEVICE, TensorSpec.of(DType.S32, 3, 2, 4, 2, 8), xLse, out, lse));
        Expect.illegalArgument("x: F32[3, 2, 4, 0, 8], expected 1 or more", () -> Merge.of()
                .plan(DEVICE, spec(3, 2, 4, 0, 8), xLse, out, lse));
        Expect.illegalArgument("xLse: F32[3, 2, 4, 2], expected 2 in dimension 2, the heads of x",
                () -> Merge.of().plan(DEVICE, x, spec(3, 2, 4, 2), out, lse));
        Expect.illegalArgument("xLse: BF16",
                () -> Merge.of().plan(DEVICE, x, TensorSpec.of(DType.BF16, 3, 2, 2, 4), out, lse));
        Expect.illegalArgument("out: F32[2, 4, 2, 7]", () -> Merge.of().plan(DEVICE, x, xLse, spec(2, 4, 2, 7), lse));
        Expect.illegalArgument("lse: F32[2, 4, 2]", () -> Merge.of().plan(DEVICE, x, xLse, out, spec(2, 4, 2)));
        assertThrows(NullPointerException.class, () -> Merge.of().plan(DEVICE, x, xLse, out, null));
        Tensor in = tensor(3, 2, 4, 2, 8);
        Tensor inLse = tensor(3, 2, 2, 4);
        Tensor to = tensor(2, 4, 2, 8);
        Tensor toLse = tensor(2, 2, 4);
        Tensor sink = tensor(2);
        try (Merge.Plan plan = Merge.of().sinkLogits().plan(DEVICE, x, xLse, out, lse);
                Merge.Plan plain = Merge.of().plan(DEVICE, x, xLse, out, lse)) {
            Expect.illegalArgument("stream", () -> plain.run(FOREIGN, in, inLse, to));
            Expect.illegalArgument("sinkLogits: null", () -> plan.run(STREAM, in, inLse, to));
            Expect.illegalArgument("sinkLogits: F32[2], expected null",
                    () -> plain.run(STREAM, in, inLse, sink, to, toLse));
            Expect.illegalArgument("x (strides", () -> plain.run(STREAM, tensor(4, 2, 4, 2, 8), inLse, to));
            Expect.illegalArgument("xLse: F32[2, 2, 2, 4], expected 3 in dimension 0, the parts of x",
                    () -> plain.run(STREAM, in, inLse.slice(0, 0, 2), to));
            Expect.illegalArgument("xLse: F32[3, 2, 1, 4]", () -> plain.run(STREAM, in, inLse.slice(2, 0, 1), to));
            Expect.illegalArgument("out: F32[1, 4, 2, 8]", () -> plain.run(STREAM, in, inLse, to.slice(0, 0, 1)));
            Expect.illegalArgument("lse: F32[2, 2, 3]",
                    () -> plain.run(STREAM, in, inLse, null, to, toLse.slice(2, 0, 3)));
            Expect.illegalArgument("out: read-only", () -> plain.run(STREAM, in, inLse, readOnly(to)));
            Expect.illegalArgument("lse: read-only", () -> plain.run(STREAM, in, inLse, null, to, readOnly(toLse)));
            Expect.illegalArgument("out: overlaps x",
                    () -> plain.run(STREAM, in, inLse, in.slice(0, 1, 2).reshape(2, 4, 2, 8)));
            assertThrows(NullPointerException.class, () -> plain.run(STREAM, in, null, to));
            plan.run(STREAM, in, inLse, sink, to, toLse);
            plain.run(STREAM, in.slice(0, 0, 2), inLse.slice(0, 0, 2), in.slice(0, 0, 1).reshape(2, 4, 2, 8));
            plain.run(STREAM, in.slice(2, 0, 3), inLse.slice(3, 0, 3), null, to.slice(1, 0, 3), toLse.slice(2, 0, 3));
        }
    }

    @Test
    void route() {
        TensorSpec x = spec(5, 12);
        Expect.illegalArgument("top: 0", () -> Route.softmax(0));
        Expect.illegalArgument("groups: 0", () -> Route.sigmoid(1).groups(0, 1));
        Expect.illegalArgument("topGroups: 4, expected 1 to 3", () -> Route.sigmoid(1).groups(3, 4));
        Expect.illegalArgument("scale: NaN", () -> Route.sigmoid(1).scale(Float.NaN));
        Expect.illegalArgument("x: F32[5, 12, 1]", () -> Route.softmax(1).plan(DEVICE, spec(5, 12, 1)));
        Expect.illegalArgument("x: S8", () -> Route.softmax(1).plan(DEVICE, TensorSpec.of(DType.S8, 5, 12)));
        Expect.illegalArgument("x: F32[5, 0], expected 1 to 65536", () -> Route.softmax(1).plan(DEVICE, spec(5, 0)));
        Expect.illegalArgument("x: F32[5, 65537]", () -> Route.softmax(1).plan(DEVICE, spec(5, 65537)));
        Expect.illegalArgument("x: F32", () -> Route.softmax(1).plan(DEVICE, x.transpose(0, 1)));
        Expect.illegalArgument("groups: 5, expected a divisor of 12",
                () -> Route.softmax(1).groups(5, 1).plan(DEVICE, x));
        Expect.illegalArgument("top: 13, expected at most 12", () -> Route.softmax(13).plan(DEVICE, x));
        Expect.illegalArgument("top: 5, expected at most 4", () -> Route.softmax(5).groups(3, 1).plan(DEVICE, x));
        Tensor in = tensor(5, 12);
        Tensor bias = tensor(12);
        Tensor experts = Tensor.allocate(ARENA, DType.S32, 5, 2);
        Tensor weights = tensor(5, 2);
        Tensor offsets = Tensor.allocate(ARENA, DType.S64, 13);
        Tensor rows = Tensor.allocate(ARENA, DType.S32, 10);
        Tensor slots = Tensor.allocate(ARENA, DType.S32, 5, 2);
        try (Route.Plan plan = Route.softmax(2).bias().plan(DEVICE, x);
                Route.Plan plain = Route.sigmoid(2).plan(DEVICE, x)) {
            Expect.illegalArgument("stream",
                    () -> plain.run(FOREIGN, in, null, experts, weights, offsets, rows, slots));
            Expect.illegalArgument("bias: null",
                    () -> plan.run(STREAM, in, null, experts, weights, offsets, rows, slots));
            Expect.illegalArgument("bias: F32[12], expected null",
                    () -> plain.run(STREAM, in, bias, experts, weights, offsets, rows, slots));
            Expect.illegalArgument("experts (strides [2, 1]): F32[5, 2]",
                    () -> plain.run(STREAM, in, null, weights, weights, offsets, rows, slots));
            Expect.illegalArgument("experts: S32[4, 2], expected 5 rows",
                    () -> plain.run(STREAM, in, null, experts.slice(0, 0, 4), weights, offsets, rows, slots));
            Expect.illegalArgument("weights: F32[4, 2]",
                    () -> plain.run(STREAM, in, null, experts, weights.slice(0, 0, 4), offsets, rows, slots));
            Expect.illegalArgument("offsets (strides [1]): S64[12]",
                    () -> plain.run(STREAM, in, null, experts, weights, offsets.slice(0, 0, 12), rows, slots));
            Expect.illegalArgument("rows: S32[9], expected 10",
                    () -> plain.run(STREAM, in, null, experts, weights, offsets, rows.slice(0, 0, 9), slots));
            Expect.illegalArgument("slots: S32[4, 2]",
                    () -> plain.run(STREAM, in, null, experts, weights, offsets, rows, slots.slice(0, 0, 4)));
            Expect.illegalArgument("slots: read-only",
                    () -> plain.run(STREAM, in, null, experts, weights, offsets, rows, readOnly(slots)));
            Expect.illegalArgument("slots: overlaps experts",
                    () -> plain.run(STREAM, in, null, experts, weights, offsets, rows, experts));
            bias.setFloat(Float.POSITIVE_INFINITY, 3);
            Expect.illegalArgument("bias[3] is inf",
                    () -> plan.run(STREAM, in, bias, experts, weights, offsets, rows, slots));
            bias.setFloat(0, 3);
            plan.run(STREAM, in, bias, experts, weights, offsets, rows, slots);
            plain.run(STREAM, in.slice(0, 0, 3), null, experts.slice(0, 0, 3), weights.slice(0, 0, 3), offsets,
                    rows.slice(0, 0, 6), slots.slice(0, 0, 3));
        }
    }

    @Test
    void mix() {
        TensorSpec x = spec(3, 4, 2, 8);
        TensorSpec gates = spec(4, 3, 2);
        TensorSpec out = spec(4, 2, 8);
        Expect.illegalArgument("x: F32[4, 2, 8]", () -> Mix.of().plan(DEVICE, out, gates, out));
        Expect.illegalArgument("x: F32[3, 4, 2, 8], expected [rows", () -> Mix.of().rowIndex()
                .plan(DEVICE, x, gates, out));
        Expect.illegalArgument("x: S32", () -> Mix.of()
                .plan(DEVICE, TensorSpec.of(DType.S32, 3, 4, 2, 8), gates, out));
        Expect.illegalArgument("gates: BF16", () -> Mix.tanh()
                .plan(DEVICE, x, TensorSpec.of(DType.BF16, 4, 3, 2), out));
        Expect.illegalArgument("gates: F32[3, 4, 2], expected 4 in dimension 0, the tokens of out",
                () -> Mix.of().plan(DEVICE, x, spec(3, 4, 2), out));
        Expect.illegalArgument("gates: F32[4, 3, 1]", () -> Mix.of().plan(DEVICE, x, spec(4, 3, 1), out));
        Expect.illegalArgument("x: F32[2, 4, 2, 8], expected 3 in dimension 0, the parts of gates",
                () -> Mix.of().plan(DEVICE, spec(2, 4, 2, 8), gates, out));
        Expect.illegalArgument("x: F32[3, 4, 2, 7]", () -> Mix.of().plan(DEVICE, spec(3, 4, 2, 7), gates, out));
        Expect.illegalArgument("out: F32[4, 0, 8], expected 1 or more",
                () -> Mix.of().plan(DEVICE, x, gates, spec(4, 0, 8)));
        Tensor in = tensor(3, 4, 2, 8);
        Tensor rows = tensor(7, 2, 8);
        Tensor g = tensor(4, 3, 2);
        Tensor residual = tensor(4, 2, 8);
        Tensor to = tensor(4, 2, 8);
        Tensor index = Tensor.allocate(ARENA, DType.S32, 4, 3);
        try (Mix.Plan plan = Mix.sigmoid().residual().rowIndex().plan(DEVICE, rows.spec(), gates, out);
                Mix.Plan plain = Mix.of().plan(DEVICE, x, gates, out)) {
            Expect.illegalArgument("stream", () -> plain.run(FOREIGN, in, g, null, null, to));
            Expect.illegalArgument("rowIndex: null", () -> plan.run(STREAM, rows, g, null, residual, to));
            Expect.illegalArgument("residual: null", () -> plan.run(STREAM, rows, g, index, null, to));
            Expect.illegalArgument("rowIndex: S32[4, 3], expected null",
                    () -> plain.run(STREAM, in, g, index, null, to));
            Expect.illegalArgument("residual: F32[4, 2, 8], expected null",
                    () -> plain.run(STREAM, in, g, null, residual, to));
            Expect.illegalArgument("gates: F32[3, 3, 2], expected 4",
                    () -> plain.run(STREAM, in, g.slice(0, 0, 3), null, null, to));
            Expect.illegalArgument("x: F32[2, 4, 2, 8], expected 3",
                    () -> plain.run(STREAM, in.slice(0, 0, 2), g, null, null, to));
            Expect.illegalArgument("x: F32[3, 3, 2, 8] strides [64, 16, 8, 1], expected 4",
                    () -> plain.run(STREAM, in.slice(1, 0, 3), g, null, null, to));
            Expect.illegalArgument("rowIndex: S32[3, 3], expected 4",
                    () -> plan.run(STREAM, rows, g, index.slice(0, 0, 3), residual, to));
            Expect.illegalArgument("residual: F32[3, 2, 8], expected 4",
                    () -> plan.run(STREAM, rows, g, index, residual.slice(0, 0, 3), to));
            Expect.illegalArgument("out: read-only", () -> plain.run(STREAM, in, g, null, null, readOnly(to)));
            Expect.illegalArgument("out: overlaps x",
                    () -> plain.run(STREAM, in, g, null, null, in.slice(0, 1, 2).reshape(4, 2, 8)));
            index.copyFrom(new long[] {0, 1, 2, 3, 4, 5, 6, -1, 0, 0, 0, 6});
            Expect.illegalArgument("row_index[2, 0] is 6, expected -1, or 0 to rows_x - 1 = 5",
                    () -> plan.run(STREAM, rows.slice(0, 0, 6), g, index, residual, to));
            plan.run(STREAM, rows, g, index, residual, to);
            plan.run(STREAM, rows, g, index, to, to);
            plain.run(STREAM, in.slice(1, 0, 2), g.slice(0, 0, 2), null, null, to.slice(0, 0, 2));
        }
    }

    @Test
    void glu() {
        Glu glu = Glu.of(Activation.SILU);
        assertThrows(NullPointerException.class, () -> Glu.of(null));
        Expect.illegalArgument("gate: F32[4, 2, 6], expected a matrix", () -> glu.plan(DEVICE, spec(4, 2, 6), SPEC, SPEC));
        Expect.illegalArgument("gate: S8", () -> glu.plan(DEVICE, TensorSpec.of(DType.S8, 4, 6), SPEC, SPEC));
        Expect.illegalArgument("x: F32[4, 5], expected the shape of gate",
                () -> glu.plan(DEVICE, SPEC, spec(4, 5), SPEC));
        Expect.illegalArgument("x: BF16[4, 6], expected F32",
                () -> glu.plan(DEVICE, SPEC, TensorSpec.of(DType.BF16, 4, 6), SPEC));
        Expect.illegalArgument("x: ", () -> glu.plan(DEVICE, SPEC, spec(6, 4).transpose(0, 1), SPEC));
        Expect.illegalArgument("out: F32[3, 6]", () -> glu.plan(DEVICE, SPEC, SPEC, spec(3, 6)));
        Expect.illegalArgument("out: S32", () -> glu.plan(DEVICE, SPEC, SPEC, TensorSpec.of(DType.S32, 4, 6)));
        Tensor both = tensor(4, 12);
        Tensor gate = both.slice(1, 0, 6);
        Tensor x = both.slice(1, 6, 12);
        try (Glu.Plan plan = glu.plan(DEVICE, gate.spec(), x.spec(), SPEC);
                Glu.Plan plain = glu.plan(DEVICE, SPEC, SPEC, SPEC)) {
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, gate, x, OUT));
            Expect.illegalArgument("gate (strides", () -> plan.run(STREAM, X, x, OUT));
            Expect.illegalArgument("x: F32[3, 6] strides [12, 1], expected 4 rows",
                    () -> plan.run(STREAM, gate, x.slice(0, 0, 3), OUT));
            Expect.illegalArgument("out: F32[3, 6], expected 4 rows",
                    () -> plan.run(STREAM, gate, x, OUT.slice(0, 0, 3)));
            Expect.illegalArgument("out: read-only", () -> plan.run(STREAM, gate, x, readOnly(OUT)));
            Tensor three = tensor(5, 6);
            Expect.illegalArgument("out: overlaps x",
                    () -> plain.run(STREAM, X, three.slice(0, 0, 4), three.slice(0, 1, 5)));
            plan.run(STREAM, gate, x, OUT);
            plain.run(STREAM, X, OUT, OUT);
        }
    }

    @Test
    void quantizedRows() {
        TensorSpec bytes = TensorSpec.of(DType.U8, 4, 6);
        Tensor rows = typed(DType.U8, 4, 6);
        Tensor scales = tensor(4);
        Tensor zeros = typed(DType.S32, 4);
        Expect.illegalArgument("x: U8", () -> LayerNorm.of(0).plan(DEVICE, bytes, bytes));
        Expect.illegalArgument("out: S8[4, 6], expected F32, BF16 or U8",
                () -> RmsNorm.of(0).plan(DEVICE, SPEC, TensorSpec.of(DType.S8, 4, 6)));
        try (RmsNorm.Plan plan = RmsNorm.of(0).plan(DEVICE, SPEC, bytes);
                RmsNorm.Plan plain = RmsNorm.of(0).plan(DEVICE, SPEC, SPEC)) {
            Expect.illegalArgument("scales: null, expected F32[4]", () -> plan.run(STREAM, X, ROW, rows));
            Expect.illegalArgument("scales: F32[4], expected null",
                    () -> plain.runQuantized(STREAM, X, null, ROW, OUT, scales, zeros, null));
            Expect.illegalArgument("scales: F32[3], expected 4 rows",
                    () -> plan.runQuantized(STREAM, X, null, ROW, rows, scales.slice(0, 0, 3), zeros, null));
            Expect.illegalArgument("zeroPoints",
                    () -> plan.runQuantized(STREAM, X, null, ROW, rows, scales, scales, null));
            Expect.illegalArgument("zeroPoints: read-only",
                    () -> plan.runQuantized(STREAM, X, null, ROW, rows, scales, readOnly(zeros), null));
            Expect.illegalArgument("scales: overlaps gamma",
                    () -> plan.runQuantized(STREAM, X, null, ROW, rows, ROW.slice(0, 1, 5), zeros, null));
            plan.runQuantized(STREAM, X, null, ROW, rows, scales, zeros, null);
        }
        Expect.illegalArgument("a: U8[4, 6], expected F32, BF16 or F16",
                () -> Gemm.of(DType.F32).plan(DEVICE, bytes, SPEC));
        Expect.illegalArgument("a: U8[4, 6], expected F32, BF16 or F16",
                () -> Gemm.of(DType.S8).lowRank(2, DType.F32, 1).plan(DEVICE, bytes, SPEC));
        try (PackedWeights weights = PackedWeights.pack(DEVICE, DType.S8, tensor(6, 6));
                Gemm.Plan plan = Gemm.of(DType.S8).plan(DEVICE, bytes, SPEC);
                Gemm.Plan plain = Gemm.of(DType.S8).plan(DEVICE, SPEC, SPEC)) {
            Expect.illegalArgument("scales: null, expected F32[4]", () -> plan.run(STREAM, weights, rows, OUT));
            Expect.illegalArgument("scales: F32[4], expected null", () -> plain.runQuantized(
                    STREAM, weights, X, scales, zeros, null, null, OUT, null, null));
            Expect.illegalArgument("zeroPoints: S32[3], expected 4 rows", () -> plan.runQuantized(
                    STREAM, weights, rows, scales, zeros.slice(0, 0, 3), null, null, OUT, null, null));
            Expect.illegalArgument("out: overlaps scales", () -> plan.runQuantized(
                    STREAM, weights, rows, OUT.slice(0, 0, 1).reshape(6).slice(0, 0, 4), zeros, null, null, OUT, null,
                    null));
            plan.runQuantized(STREAM, weights, rows, scales, zeros, null, null, OUT, null, null);
        }
    }

    @Test
    void selection() {
        TensorSpec q = spec(2, 6, 4, 8);
        TensorSpec k = spec(2, 5, 2, 8);
        Selection blocks = Selection.blocks(2, 2, 3);
        Selection lsh = Selection.lsh(4, 2, 9, 2, 2, 3);
        Expect.illegalArgument("blockQ: 0, expected 1 or more", () -> Selection.blocks(0, 2, 3));
        Expect.illegalArgument("blockK: -1", () -> Selection.blocks(2, -1, 3));
        Expect.illegalArgument("count: 0", () -> Selection.blocks(2, 2, 0));
        Expect.illegalArgument("buckets: 5, expected an even number", () -> Selection.lsh(5, 1, 0, 2, 2, 3));
        Expect.illegalArgument("buckets: 65538, expected 2 to 65536", () -> Selection.lsh(65538, 1, 0, 2, 2, 3));
        Expect.illegalArgument("layers: 65, expected 1 to 64", () -> Selection.lsh(4, 65, 0, 2, 2, 3));
        Expect.illegalArgument("bits: 17, expected 1 to 16", () -> Selection.retrieval(17, 2, 0, 3));
        Expect.illegalArgument("tables: 1, expected 2 to 1024", () -> Selection.retrieval(4, 1, 0, 3));
        Expect.illegalArgument("first: 4, expected 0 to 3", () -> blocks.first(4));
        Expect.illegalArgument("local: 2, expected 0 to 1", () -> blocks.first(2).local(2));
        Expect.illegalArgument("scale: NaN", () -> blocks.scale(Float.NaN));
        Expect.illegalArgument("heads: 0", () -> blocks.heads(0));
        Expect.illegalArgument("maxSequences: 0", () -> blocks.packed(0));
        Expect.illegalState("first: of LSH", () -> lsh.first(1));
        Expect.illegalState("pool: of LSH, expected BLOCKS", () -> lsh.pool(Selection.Pool.BOUNDS));
        Expect.illegalState("scale: of LSH", () -> lsh.scale(1));
        Expect.illegalState("heads: of LSH", () -> lsh.heads(2));
        Expect.illegalArgument("q: F32[6, 4, 8], expected [batch", () -> blocks.plan(DEVICE, spec(6, 4, 8), k));
        Expect.illegalArgument("q: F32[2, 6, 4, 8], expected [tokens", () -> blocks.packed(2).plan(DEVICE, q, k));
        Expect.illegalArgument("q: S32", () -> blocks.plan(DEVICE, TensorSpec.of(DType.S32, 2, 6, 4, 8), k));
        Expect.illegalArgument("k: F16[2, 5, 2, 8], expected F32",
                () -> blocks.plan(DEVICE, q, TensorSpec.of(DType.F16, 2, 5, 2, 8)));
        Expect.illegalArgument("q: F32[2, 6, 4, 0], expected 1 or more in dimension 3",
                () -> blocks.plan(DEVICE, spec(2, 6, 4, 0), k));
        Expect.illegalArgument("k: F32[1, 5, 2, 8], expected 2 in dimension 0, the batch of q",
                () -> blocks.plan(DEVICE, q, spec(1, 5, 2, 8)));
        Expect.illegalArgument("k: F32[2, 5, 2, 7]", () -> blocks.plan(DEVICE, q, spec(2, 5, 2, 7)));
        Expect.illegalArgument("k: F32[2, 5, 3, 8], expected a number of heads that divides the 4 of q",
                () -> blocks.plan(DEVICE, q, spec(2, 5, 3, 8)));
        Expect.illegalArgument("heads: 3, expected 2, the heads of k, or 4", () -> blocks.heads(3).plan(DEVICE, q, k));
        Expect.illegalArgument("blockColumns: ",
                () -> Selection.blocks(2, 2, Long.MAX_VALUE / 4).plan(DEVICE, q, k));
        Tensor queries = tensor(2, 6, 4, 8);
        Tensor keys = tensor(2, 5, 2, 8);
        try (Selection.Plan plan = lsh.plan(DEVICE, q, k);
                Selection.Plan packed = blocks.packed(2).plan(DEVICE, spec(6, 4, 8), spec(5, 2, 8))) {
            Selection.Lists lists = plan.lists(ARENA);
            assertEquals(TensorSpec.of(DType.S64, 2 * 4 * 3 + 1), plan.blockOffsets());
            assertEquals(TensorSpec.of(DType.S32, 2 * 4 * 3 * 3), plan.blockColumns());
            assertNull(plan.blockBias());
            assertEquals(TensorSpec.of(DType.S32, 2, 4, 6), plan.qOrder());
            assertEquals(TensorSpec.of(DType.S32, 2, 2, 4, 5), plan.kDocuments());
            plan.run(STREAM, queries, keys, lists);
            Expect.illegalArgument("stream", () -> plan.run(FOREIGN, queries, keys, lists));
            Expect.illegalArgument("k: F32[1, 5, 2, 8], expected 2 in dimension 0, the batch of q",
                    () -> plan.run(STREAM, queries, keys.slice(0, 0, 1), lists));
            Expect.illegalArgument("q (strides", () -> plan.run(STREAM, tensor(2, 7, 4, 8), keys, lists));
            Expect.illegalArgument("qIndex: S64[1], expected 2 in dimension 0, the batch of q",
                    () -> plan.run(STREAM, queries, keys, typed(DType.S64, 1), null, lists));
            Expect.illegalArgument("blockOffsets: S64[25], expected 13 in dimension 0, for the run's 1 sequences",
                    () -> plan.run(STREAM, queries.slice(0, 0, 1), keys.slice(0, 0, 1), lists));
            Expect.illegalArgument("blockColumns: null, expected S32[72]",
                    () -> plan.run(STREAM, queries, keys, plan.lists(ARENA).blockColumns(null)));
            Expect.illegalArgument("blockBias: F32[72], expected null",
                    () -> plan.run(STREAM, queries, keys, plan.lists(ARENA).blockBias(tensor(72))));
            Expect.illegalArgument("kOrder: read-only", () -> plan.run(STREAM, queries, keys,
                    plan.lists(ARENA).kOrder(readOnly(typed(DType.S32, 2, 4, 5)))));
            Tensor lengths = typed(DType.S64, 2).copyFrom(new long[] {6, 7});
            Expect.illegalArgument("q_index[1] is 7", () -> plan.run(STREAM, queries, keys, lengths, null, lists));
            Selection.Lists few = packed.lists(ARENA);
            Tensor tokens = tensor(6, 4, 8);
            Tensor rows = tensor(5, 2, 8);
            Tensor offsets = typed(DType.S64, 3).copyFrom(new long[] {0, 2, 5});
            packed.run(STREAM, tokens, rows, offsets, offsets, few);
            Expect.illegalArgument("kIndex: null, expected S64 offsets",
                    () -> packed.run(STREAM, tokens, rows, offsets, null, few));
            Expect.illegalArgument("kIndex: S64[2], expected 3 in dimension 0, the offsets of qIndex",
                    () -> packed.run(STREAM, tokens, rows, offsets, offsets.slice(0, 0, 2), few));
        }
    }

    @Test
    void rope() {
        TensorSpec q = spec(5, 4, 8);
        TensorSpec k = spec(5, 2, 8);
        TensorSpec v = spec(5, 2, 3);
        TensorSpec kCache = TensorSpec.of(DType.S8, 3, 4, 2, 8);
        TensorSpec vCache = TensorSpec.of(DType.S8, 3, 4, 2, 3);
        Rope rope = Rope.halves(8);
        Expect.illegalArgument("rotary: 3, expected an even number", () -> Rope.halves(3));
        Expect.illegalArgument("rotary: -2", () -> Rope.interleaved(-2));
        Expect.illegalArgument("rotary: 10, expected at most 8",
                () -> Rope.halves(10).plan(DEVICE, 9, q, q, null, null, null, null));
        Expect.illegalArgument("maxPosition: 0", () -> rope.plan(DEVICE, 0, q, q, null, null, null, null));
        Expect.illegalArgument("maxPosition: ",
                () -> rope.plan(DEVICE, Long.MAX_VALUE / 8, q, q, null, null, null, null));
        Expect.illegalArgument("q: null", () -> rope.plan(DEVICE, 9, null, null, null, null, v, vCache));
        Expect.illegalArgument("qOut: null", () -> rope.plan(DEVICE, 9, q, null, null, null, null, null));
        Expect.illegalArgument("kCache: S8[3, 4, 2, 8], expected null",
                () -> rope.plan(DEVICE, 9, q, q, null, kCache, null, null));
        Expect.illegalArgument("vCache: null", () -> rope.plan(DEVICE, 9, q, q, k, kCache, v, null));
        Expect.illegalArgument("q: F32[4, 6]", () -> rope.plan(DEVICE, 9, SPEC, SPEC, null, null, null, null));
        Expect.illegalArgument("qOut: F32[5, 2, 8]", () -> rope.plan(DEVICE, 9, q, k, null, null, null, null));
        Expect.illegalArgument("k: F32[4, 2, 8]", () -> rope.plan(DEVICE, 9, q, q, spec(4, 2, 8), kCache, null, null));
        Expect.illegalArgument("k: F32[5, 2, 6]", () -> rope.plan(DEVICE, 9, q, q, spec(5, 2, 6), kCache, null, null));
        Expect.illegalArgument("v: BF16[5, 2, 3], expected F32",
                () -> rope.plan(DEVICE, 9, q, q, k, kCache, TensorSpec.of(DType.BF16, 5, 2, 3), vCache));
        Expect.illegalArgument("v: F32[5, 1, 3]", () -> rope.plan(
                DEVICE, 9, q, q, k, kCache, spec(5, 1, 3), TensorSpec.of(DType.S8, 3, 4, 1, 3)));
        Expect.illegalArgument("vCache: F32[3, 4, 2, 3], expected S8",
                () -> rope.plan(DEVICE, 9, q, q, k, kCache, v, spec(3, 4, 2, 3)));
        Expect.illegalArgument("vCache: S8[2, 4, 2, 3]",
                () -> rope.plan(DEVICE, 9, q, q, k, kCache, v, TensorSpec.of(DType.S8, 2, 4, 2, 3)));
        Expect.illegalArgument("kCache: S8[3, 0, 2, 8], expected a page size", () -> rope.plan(
                DEVICE, 9, q, q, k, TensorSpec.of(DType.S8, 3, 0, 2, 8), null, null));
        Tensor positions = typed(DType.S64, 5);
        Tensor slots = typed(DType.S64, 5).copyFrom(new long[] {0, 1, 2, 3, 11});
        Tensor table = tensor(9, 8);
        Tensor queries = tensor(5, 4, 8);
        Tensor keys = tensor(5, 2, 8);
        Tensor values = tensor(5, 2, 3);
        Tensor keyCache = typed(DType.S8, 3, 4, 2, 8);
        Tensor valueCache = typed(DType.S8, 3, 4, 2, 3);
        Tensor scales = tensor(3, 4, 2);
        Tensor others = tensor(3, 4, 2);
        try (Rope.Plan plan = rope.plan(DEVICE, 9, q, q, k, kCache, v, vCache);
                Rope.Plan alone = rope.plan(DEVICE, 9, q, q, null, null, null, null)) {
            plan.run(STREAM, positions, table, slots, queries, queries, keys, keyCache, values, valueCache,
                    scales, others);
            Expect.illegalArgument("stream", () -> alone.run(FOREIGN, positions, table, null, queries, queries,
                    null, null, null, null, null, null));
            Expect.illegalArgument("positions", () -> alone.run(STREAM, tensor(5), table, null, queries, queries,
                    null, null, null, null, null, null));
            Expect.illegalArgument("table", () -> alone.run(STREAM, positions, tensor(8, 8), null, queries, queries,
                    null, null, null, null, null, null));
            Expect.illegalArgument("slots: S64[5], expected null", () -> alone.run(STREAM, positions, table, slots,
                    queries, queries, null, null, null, null, null, null));
            Expect.illegalArgument("q: null", () -> alone.run(STREAM, positions, table, null, null, queries,
                    null, null, null, null, null, null));
            Expect.illegalArgument("q: F32[4, 4, 8], expected 5 in dimension 0", () -> alone.run(STREAM, positions,
                    table, null, queries.slice(0, 0, 4), queries, null, null, null, null, null, null));
            Expect.illegalArgument("qOut: read-only", () -> alone.run(STREAM, positions, table, null, queries,
                    readOnly(queries), null, null, null, null, null, null));
            Expect.illegalArgument("k: F32[5, 2, 8], expected null", () -> alone.run(STREAM, positions, table, null,
                    queries, queries, keys, null, null, null, null, null));
            Expect.illegalArgument("kCache: null", () -> plan.run(STREAM, positions, table, slots, queries, queries,
                    keys, null, values, valueCache, scales, others));
            Expect.illegalArgument("kScales: null", () -> plan.run(STREAM, positions, table, slots, queries, queries,
                    keys, keyCache, values, valueCache, null, others));
            Expect.illegalArgument("vScales: overlaps kScales".replace("S", "_s"), () -> plan.run(STREAM, positions,
                    table, slots, queries, queries, keys, keyCache, values, valueCache, scales, scales));
            Expect.illegalArgument("vCache: read-only", () -> plan.run(STREAM, positions, table, slots, queries,
                    queries, keys, keyCache, values, readOnly(valueCache), scales, others));
            Expect.illegalArgument("slots: S64[4], expected 5", () -> plan.run(STREAM, positions, table,
                    slots.slice(0, 0, 4), queries, queries, keys, keyCache, values, valueCache, scales, others));
            assertThrows(NullPointerException.class, () -> plan.run(STREAM, null, table, slots, queries, queries,
                    keys, keyCache, values, valueCache, scales, others));
            Tensor beyond = typed(DType.S64, 5).copyFrom(new long[] {0, 1, 2, 3, 12});
            assertThrows(IllegalArgumentException.class, () -> plan.run(STREAM, positions, table, beyond, queries,
                    queries, keys, keyCache, values, valueCache, scales, others));
            Tensor far = typed(DType.S64, 5).copyFrom(new long[] {0, 0, 9, 0, 0});
            assertThrows(IllegalArgumentException.class, () -> alone.run(STREAM, far, table, null, queries, queries,
                    null, null, null, null, null, null));
        }
        Expect.illegalArgument("table: F32[9, 7], expected an even number", () -> Rope.fillTable(tensor(9, 7), 1e4));
        Expect.illegalArgument("table: F32[6]", () -> Rope.fillTable(ROW, 1e4));
        Expect.illegalArgument("table: BF16", () -> Rope.fillTable(typed(DType.BF16, 9, 8), 1e4));
        Expect.illegalArgument("table: read-only", () -> Rope.fillTable(readOnly(table), 1e4));
        Expect.illegalArgument("base: 0.0", () -> Rope.fillTable(table, 0));
        Expect.illegalArgument("base: Infinity", () -> Rope.fillTable(table, Double.POSITIVE_INFINITY));
        Expect.illegalArgument("frequencies: 3 of them, expected 4", () -> Rope.fillTable(table, new double[3]));
        Expect.illegalArgument("frequencies[2]: NaN",
                () -> Rope.fillTable(table, new double[] {1, 1, Double.NaN, 1}));
    }

    @Test
    void pools() {
        assertThrows(NullPointerException.class, () -> MemoryPool.of(null));
        Expect.illegalArgument("slabBytes: 0", () -> MemoryPool.of(DEVICE, 0));
        Expect.illegalArgument("slabBytes: 100", () -> MemoryPool.of(DEVICE, 100));
        try (MemoryPool pool = MemoryPool.of(DEVICE);
                Arena arena = pool.newArena()) {
            for (SegmentAllocator allocator : new SegmentAllocator[] {pool, arena}) {
                Expect.illegalArgument("bytes: -1", () -> allocator.allocate(-1, 1));
                Expect.illegalArgument("bytes", () -> allocator.allocate(Long.MAX_VALUE, 1));
                Expect.illegalArgument("alignment: 0", () -> allocator.allocate(1, 0));
                Expect.illegalArgument("alignment: 3", () -> allocator.allocate(1, 3));
                Expect.illegalArgument("alignment: 4194304", () -> allocator.allocate(1, 4L << 20));
            }
            MemorySegment heap = MemorySegment.ofArray(new byte[8]);
            Expect.illegalArgument("expected a block that this pool allocated", () -> pool.free(heap));
        }
    }

    @Test
    void events() {
        try (Event event = DEVICE.newEvent();
                Event other = OTHER.newEvent()) {
            Expect.illegalArgument("recorded", event::synchronize);
            Expect.illegalArgument("recorded", event::isDone);
            Expect.illegalArgument("recorded", () -> event.elapsedMillis(event));
            Expect.illegalArgument("another device", () -> event.record(FOREIGN));
            event.record(STREAM);
            other.record(FOREIGN);
            Expect.illegalArgument("another device", () -> event.elapsedMillis(other));
            assertThrows(NullPointerException.class, () -> event.record(null));
        }
    }
}
