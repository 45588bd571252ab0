package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PoolTraceTest {
    @Test
    void whatIsAskedForIsRecordedInOrder(@TempDir Path folder) throws IOException {
        Path file = folder.resolve("a.trace");
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.builder(device).trace(file).build()) {
            MemorySegment first = pool.allocate(MemoryDomain.WEIGHTS, 100, 64);
            MemorySegment second = pool.allocate(200, 4096);
            pool.free(first);
            pool.free(pool.allocate(MemoryDomain.WEIGHTS, 100, 64)); // the place of the first, another tensor
            try (PoolArena arena = pool.newArena()) {
                arena.tensor(DType.F32, 10);
                arena.reset();
                arena.allocate(1, 1);
                arena.allocate(2, 1);
            }
            pool.free(second);
        }
        assertEquals(
                List.of("gatun-memory-trace 1", "+ 0 WEIGHTS 100 64 0", "+ 1 ACTIVATIONS 200 4096 0", "- 0",
                        "+ 2 WEIGHTS 100 64 0", "- 2", "+ 3 ACTIVATIONS 40 64 1", "- 3", ". 1",
                        "+ 4 ACTIVATIONS 1 1 2", "+ 5 ACTIVATIONS 2 1 2", "- 4", "- 5", ". 2", "- 1"),
                Files.readAllLines(file));
    }
}
