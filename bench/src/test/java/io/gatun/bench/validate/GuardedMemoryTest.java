package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.DType;
import io.gatun.bench.validate.Operand.Placement;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class GuardedMemoryTest {
    @ParameterizedTest
    @ValueSource(longs = {0, 1, 4095, 4096, 4097, 1 << 20})
    void allOfItCanBeUsed(long bytes) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment memory = new GuardedMemory(arena).allocate(bytes);
            assertTrue(memory.byteSize() >= Math.max(bytes, 1));
            assertEquals(0, memory.byteSize() % GuardedMemory.PAGE);
            assertEquals(0, memory.address() % GuardedMemory.PAGE);
            memory.fill((byte) 1);
        }
    }

    @Test
    void eachHasGuardsOfItsOwn() {
        try (Arena arena = Arena.ofConfined()) {
            GuardedMemory guarded = new GuardedMemory(arena);
            MemorySegment first = guarded.allocate(1);
            for (long bytes : new long[] {5000, 80 << 20, 1}) {
                MemorySegment next = guarded.allocate(bytes);
                next.fill((byte) 1);
                long gap = Math.max(next.address() - first.address() - first.byteSize(),
                        first.address() - next.address() - next.byteSize());
                assertTrue(gap >= 2 * GuardedMemory.PAGE);
                first = next;
            }
        }
    }

    @Test
    void itIsGivenBack() {
        long before = ProcessMemory.now().mapped();
        for (int i = 0; i < 100; i++) {
            try (Arena arena = Arena.ofConfined()) {
                new GuardedMemory(arena).allocate(64 << 20);
            }
        }
        assertTrue(ProcessMemory.now().mapped() - before < 50L * (64 << 20));
    }

    @ParameterizedTest
    @EnumSource(Placement.class)
    void operandsLieWhereTheyShould(Placement placement) {
        try (Arena arena = Arena.ofConfined()) {
            long[] shape = {3, 5};
            Operand operand =
                    Operand.allocate(new GuardedMemory(arena), null, "x", DType.BF16, shape, Operand.rowMajor(shape), placement);
            Operand.Region region = operand.region();
            assertEquals(30, region.end() - region.start());
            switch (placement) {
                case ALIGNED -> assertEquals(0, region.start() % 64);
                case UNALIGNED -> assertEquals(6, region.start() % 64);
                case AT_START -> assertEquals(0, region.start() % GuardedMemory.PAGE);
                case AT_END -> assertEquals(0, region.end() % GuardedMemory.PAGE);
            }
        }
    }

    @Test
    void whatACrashTouchedIsNamed() {
        List<Operand.Region> regions =
                List.of(new Operand.Region("x", 8192, 12288), new Operand.Region("out", 40960, 45056));
        assertEquals(", touching memory 0 bytes past the end of x", Director.touched(12288L, regions));
        assertEquals(", touching memory 3 bytes past the end of out", Director.touched(45059L, regions));
        assertEquals(", touching memory 4 bytes before the start of out", Director.touched(40956L, regions));
        assertEquals("", Director.touched(100_000L, regions));
        assertEquals("", Director.touched(null, regions));
    }
}
