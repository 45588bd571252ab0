package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class PoolArenaTest {
    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = MemoryPool.of(device);

    @AfterEach
    void close() {
        pool.close();
        device.close();
    }

    @Test
    void aResetEndsTheSegmentsAndStartsAnew() {
        try (PoolArena arena = pool.newArena()) {
            MemorySegment before = arena.allocate(100, 64).fill((byte) 1);
            MemorySegment.Scope scope = arena.scope();
            arena.reset();
            assertThrows(IllegalStateException.class, () -> before.get(ValueLayout.JAVA_BYTE, 0));
            assertNotEquals(scope, arena.scope());
            assertTrue(arena.scope().isAlive());
            MemorySegment after = arena.allocate(100, 64);
            assertEquals(before.address(), after.address());
            assertEquals(0, after.get(ValueLayout.JAVA_BYTE, 99));
            assertThrows(IllegalStateException.class, () -> before.get(ValueLayout.JAVA_BYTE, 0));
        }
    }

    @Test
    void roundsOfOneSizeNeedNoMoreMemory() {
        try (PoolArena arena = pool.newArena()) {
            for (int round = 0; round < 20; round++) {
                for (int i = 0; i < 1000; i++) {
                    arena.tensor(DType.F32, 3, 100);
                }
                arena.allocate(1 << 20, 64);
                if (round >= 1) {
                    assertEquals(1, pool.statistics().blocks(), "one chunk");
                }
                arena.reset();
            }
            long requests = pool.statistics().requests();
            for (int round = 0; round < 100; round++) {
                arena.tensor(DType.F32, 1000, 100);
                arena.reset();
            }
            assertEquals(requests, pool.statistics().requests(), "rounds in a chunk take nothing from the pool");
        }
        assertEquals(0, pool.statistics().blocks());
    }

    @Test
    void segmentsLieApart() {
        Random random = new Random(7);
        try (PoolArena arena = pool.newArena(MemoryDomain.WORKSPACE)) {
            for (int round = 0; round < 10; round++) {
                List<MemorySegment> all = new ArrayList<>();
                for (int i = 0; i < 500; i++) {
                    long bytes = random.nextInt(50) == 0 ? random.nextInt(1 << 20) : random.nextInt(1 << 12);
                    long alignment = 1L << random.nextInt(random.nextInt(20) == 0 ? 22 : 8);
                    MemorySegment segment = arena.allocate(bytes, alignment);
                    assertEquals(0, segment.address() % Math.max(64, alignment));
                    assertEquals(bytes, segment.byteSize());
                    if (bytes > 0) {
                        assertEquals(0, segment.get(ValueLayout.JAVA_BYTE, bytes - 1));
                    }
                    all.add(segment.fill((byte) i));
                }
                for (int i = 0; i < all.size(); i++) {
                    MemorySegment segment = all.get(i);
                    if (segment.byteSize() > 0) {
                        assertEquals((byte) i, segment.get(ValueLayout.JAVA_BYTE, 0));
                        assertEquals((byte) i, segment.get(ValueLayout.JAVA_BYTE, segment.byteSize() - 1));
                    }
                }
                arena.reset();
            }
            assertEquals(0, pool.statistics(MemoryDomain.ACTIVATIONS).reservedBytes());
        }
        assertEquals(0, pool.statistics().blocks());
        pool.trim();
        assertEquals(0, pool.statistics().reservedBytes());
    }

    @Test
    void aLimitLeavesRoomForWhatIsAskedFor() {
        try (MemoryPool small = MemoryPool.builder(device).limit(MemoryDomain.ACTIVATIONS, 1 << 20).build();
                PoolArena arena = small.newArena()) {
            // doubling would soon ask for more than there is
            for (int i = 0; i < 240; i++) {
                arena.allocate(4096, 64);
            }
            Expect.failure(GatunException.class, "limit of 1048576", () -> arena.allocate(1 << 20, 64));
            arena.allocate(64, 64).fill((byte) 1);
        }
    }

    @Test
    void aClosedArenaIsOfNoUse() {
        PoolArena arena = pool.newArena();
        arena.close();
        Expect.illegalState("the arena is closed", arena::reset);
        Expect.illegalState("the arena is closed", () -> arena.allocate(1));
        Expect.illegalState("the arena is closed", () -> arena.tensor(DType.F32, 1));
    }

    @Test
    void whileARunIsInsideNothingIsReset() throws InterruptedException {
        try (LongRun run = new LongRun()) {
            Future<?> inside = run.start();
            assertThrows(IllegalStateException.class, run.arena::reset);
            assertTrue(run.arena.scope().isAlive());
            run.residual.memory().get(ValueLayout.JAVA_BYTE, 0);
            assertFalse(inside.isDone(), "the run was over too soon to tell anything");
            LongRun.await(inside);
        }
    }
}
