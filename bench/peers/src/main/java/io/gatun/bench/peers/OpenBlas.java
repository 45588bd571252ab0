package io.gatun.bench.peers;

import static org.bytedeco.openblas.global.openblas_nolapack.cblas_sgemm;

import io.gatun.DType;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.openblas.global.openblas_nolapack;

/** OpenBLAS: FP32 products; it packs nothing before. */
final class OpenBlas implements Peer {
    private static final int ROW_MAJOR = 101;
    private static final int AS_IS = 111;
    private static final String LIBRARY = "libopenblas.so.0";

    OpenBlas() {
        Loader.load(openblas_nolapack.class);
    }

    @Override
    public String name() {
        return "OpenBLAS " + Native.version(openblas_nolapack.class);
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        if (!(task instanceof Task.Gemm gemm) || gemm.format() != DType.F32) {
            return Optional.empty();
        }
        Native.call(LIBRARY, "openblas_set_num_threads", threads);
        Arena arena = Arena.ofShared();
        MemorySegment out = arena.allocate(4L * gemm.m() * gemm.n(), 64);
        MemorySegment a = operands.memory("a");
        return Optional.of(new Call() {
            @Override
            public void run(int set) {
                cblas_sgemm(
                        ROW_MAJOR, AS_IS, AS_IS, gemm.m(), gemm.n(), gemm.k(), 1, Native.floats(a), gemm.k(),
                        Native.floats(operands.memory("w", set)), gemm.n(), 0, Native.floats(out), gemm.n());
            }

            @Override
            public float[] result() {
                return Native.toFloats(out);
            }

            @Override
            public void close() {
                // What torch shares with it must not use threads of its own within torch's.
                Native.call(LIBRARY, "openblas_set_num_threads", 1);
                arena.close();
            }
        });
    }
}
