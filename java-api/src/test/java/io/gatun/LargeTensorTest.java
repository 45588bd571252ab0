package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Tensors beyond 2 GiB and, for bytes, beyond 2^31 elements. Only the pages that are touched exist. */
class LargeTensorTest {
    private static final long N = 1024;
    private static final long ROWS = (3L << 30) / (4 * N);

    @TempDir
    Path folder;

    @Test
    void rowsOfAMappedFile() throws IOException {
        try (FileChannel file = FileChannel.open(folder.resolve("sparse"),
                        StandardOpenOption.CREATE_NEW, StandardOpenOption.SPARSE, StandardOpenOption.READ,
                        StandardOpenOption.WRITE);
                Arena arena = Arena.ofShared()) {
            MemorySegment memory = file.map(MapMode.READ_WRITE, 0, 3L << 30, arena);
            softmaxOfRows(Tensor.of(memory, DType.F32, ROWS, N));
        }
    }

    @Test
    void rowsOfAPool() {
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.of(device)) {
            softmaxOfRows(pool.tensor(DType.F32, ROWS, N));
            assertEquals(3L << 30, pool.statistics().usedBytes());
            Tensor bytes = pool.tensor(DType.S8, (1L << 31) + 5);
            bytes.setFloat(-7, (1L << 31) + 4);
            assertEquals(-7, bytes.memory().get(ValueLayout.JAVA_BYTE, (1L << 31) + 4));
        }
    }

    private static void softmaxOfRows(Tensor large) {
        TensorSpec two = TensorSpec.of(DType.F32, 2, N);
        long far = ROWS / 4 * 3;
        try (Device device = Device.open("cpu", 1);
                Stream stream = device.newStream();
                Softmax.Plan plan = Softmax.of().plan(device, two, two);
                Softmax.Plan apart = Softmax.of().plan(
                        device, two.withStrides(far * N, 1), two.withStrides(far * N, 1))) {
            // around 2 GiB, and the last rows
            for (long row : new long[] {(2L << 30) / (4 * N) - 1, ROWS - 2}) {
                Tensor rows = large.slice(0, row, row + 2);
                fill(rows);
                plan.run(stream, rows, rows);
                check(rows);
            }
            // two rows that are more than 2 GiB apart
            TensorSpec strided = two.withStrides(far * N, 1);
            Tensor rows = Tensor.of(large.memory().asSlice(4 * N, strided.byteSpan()), strided);
            fill(rows);
            apart.run(stream, rows, rows);
            check(rows);
        }
    }

    private static void fill(Tensor rows) {
        for (long i = 0; i < N; i++) {
            rows.setFloat(0, 0, i);
            rows.setFloat(i == 3 ? 200 : 0, 1, i);
        }
    }

    private static void check(Tensor rows) {
        for (long i = 0; i < N; i++) {
            assertEquals(1f / N, rows.getFloat(0, i), 1e-7f);
            assertEquals(i == 3 ? 1 : 0, rows.getFloat(1, i), 1e-7f);
        }
    }
}
