package io.gatun.bench.peers;

import static org.bytedeco.mkl.global.mkl_rt.MKL_Get_Version_String;
import static org.bytedeco.mkl.global.mkl_rt.MKL_Set_Dynamic;
import static org.bytedeco.mkl.global.mkl_rt.MKL_Set_Num_Threads;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_bf16bf16f32_compute;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_bf16bf16f32_pack;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_bf16bf16f32_pack_get_size;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_s8u8s32_compute;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_s8u8s32_pack;
import static org.bytedeco.mkl.global.mkl_rt.cblas_gemm_s8u8s32_pack_get_size;
import static org.bytedeco.mkl.global.mkl_rt.cblas_sgemm_compute;
import static org.bytedeco.mkl.global.mkl_rt.cblas_sgemm_pack;
import static org.bytedeco.mkl.global.mkl_rt.cblas_sgemm_pack_get_size;

import io.gatun.DType;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * Intel's MKL: products with packed weights. Its INT8 products take integers and give sums: activations are quantized
 * by {@link Quantizer}, the zero point's share is the product's own offset, and scales are left out of its time.
 */
final class Mkl implements Peer {
    private static final int ROW_MAJOR = 101;
    private static final int AS_IS = 111;
    private static final int PACKED = 151;
    private static final int B_MATRIX = 162;
    private static final int OFFSET_OF_COLUMNS = 171; // one for each column, which cblas.h calls a row

    private final String name;

    Mkl() {
        byte[] version = new byte[256];
        MKL_Get_Version_String(version, version.length);
        MKL_Set_Dynamic(0);
        name = "MKL " + new String(version, java.nio.charset.StandardCharsets.US_ASCII).replaceFirst(
                "(?s).*Version (\\d+\\.\\d+).*", "$1");
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        if (!(task instanceof Task.Gemm gemm)) {
            return Optional.empty();
        }
        MKL_Set_Num_Threads(threads);
        return Optional.of(new Product(gemm, operands, threads));
    }

    private static final class Product implements Call {
        private final Arena arena = Arena.ofShared();
        private final Task.Gemm task;
        private final MemorySegment a;
        private final List<MemorySegment> packed = new ArrayList<>();
        private final MemorySegment out;
        private final Quantizer quantizer;
        private final Weights weights;
        private final MemorySegment offsets;

        Product(Task.Gemm task, Operands operands, int threads) {
            this.task = task;
            int m = task.m();
            int n = task.n();
            int k = task.k();
            a = operands.memory("a");
            out = arena.allocate(4L * m * n, 64);
            offsets = arena.allocate(4L * n, 64);
            boolean int8 = task.format() == DType.S8;
            quantizer = new Quantizer(int8 ? operands.values("a") : new float[0], false, threads);
            weights = int8 ? Weights.of(operands.values("w"), k, n) : Weights.of(new float[0], 0, 1);
            try (Arena temporary = Arena.ofConfined()) {
                MemorySegment integers = temporary.allocate(Math.max(1, weights.bytes().length), 64);
                weights.copyTo(integers);
                for (int set = 0; set < operands.sets(); set++) {
                    packed.add(pack(operands.memory("w"), integers, m, n, k));
                }
            }
        }

        private MemorySegment pack(MemorySegment w, MemorySegment integers, int m, int n, int k) {
            MemorySegment to;
            switch (task.format()) {
                case F32 -> {
                    to = arena.allocate(cblas_sgemm_pack_get_size(B_MATRIX, m, n, k), 4096);
                    cblas_sgemm_pack(
                            ROW_MAJOR, B_MATRIX, AS_IS, m, n, k, 1, Native.floats(w), n, Native.floats(to));
                }
                case BF16 -> {
                    to = arena.allocate(cblas_gemm_bf16bf16f32_pack_get_size(B_MATRIX, m, n, k), 4096);
                    cblas_gemm_bf16bf16f32_pack(
                            ROW_MAJOR, B_MATRIX, AS_IS, m, n, k, Native.shorts(w), n, Native.shorts(to));
                }
                default -> {
                    to = arena.allocate(cblas_gemm_s8u8s32_pack_get_size(B_MATRIX, m, n, k), 4096);
                    cblas_gemm_s8u8s32_pack(
                            ROW_MAJOR, B_MATRIX, AS_IS, m, n, k, Native.pointer(integers), n, Native.pointer(to));
                }
            }
            return to;
        }

        @Override
        public void run(int set) throws Exception {
            int m = task.m();
            int n = task.n();
            int k = task.k();
            MemorySegment w = packed.get(set);
            switch (task.format()) {
                case F32 -> cblas_sgemm_compute(
                        ROW_MAJOR, AS_IS, PACKED, m, n, k, Native.floats(a), k, Native.floats(w), n, 0,
                        Native.floats(out), n);
                case BF16 -> cblas_gemm_bf16bf16f32_compute(
                        ROW_MAJOR, AS_IS, PACKED, m, n, k, 1, Native.shorts(a), k, Native.shorts(w), n, 0,
                        Native.floats(out), n);
                default -> {
                    quantizer.run();
                    for (int j = 0; j < n; j++) {
                        offsets.setAtIndex(ValueLayout.JAVA_INT, j, -quantizer.zero() * weights.sums()[j]);
                    }
                    cblas_gemm_s8u8s32_compute(
                            ROW_MAJOR, AS_IS, PACKED, OFFSET_OF_COLUMNS, m, n, k, 1, Native.pointer(quantizer.out()), k,
                            (byte) 0, Native.pointer(w), n, (byte) 0, 0, Native.ints(out), n, Native.ints(offsets));
                }
            }
        }

        @Override
        public float[] result() {
            return task.format() == DType.S8
                    ? weights.dequantized(out.toArray(ValueLayout.JAVA_INT), quantizer.scale())
                    : Native.toFloats(out);
        }

        @Override
        public void close() {
            quantizer.close();
            arena.close();
        }
    }
}
