package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class MemoryPoolTest {
    private static final long SLAB = 1 << 20;

    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = MemoryPool.of(device, SLAB);

    @AfterEach
    void close() {
        pool.close();
        device.close();
    }

    private void expect(long used, long reserved, long peak, long blocks, long slabs) {
        MemoryPool.Statistics statistics = pool.statistics();
        assertEquals(used, statistics.usedBytes());
        assertEquals(reserved, statistics.reservedBytes());
        assertEquals(peak, statistics.peakUsedBytes());
        assertEquals(blocks, statistics.blocks());
        assertEquals(slabs, statistics.slabs());
    }

    @Test
    void statisticsCountBlocksAndSlabs() {
        expect(0, 0, 0, 0, 0);
        MemorySegment a = pool.allocate(1, 1);
        MemorySegment b = pool.allocate(100, 1);
        assertEquals(1, a.byteSize());
        assertEquals(100, b.byteSize());
        expect(64 + 128, SLAB, 192, 2, 1);
        pool.free(a);
        expect(128, SLAB, 192, 1, 1);
        pool.free(b);
        expect(0, SLAB, 192, 0, 1);
        assertEquals(SLAB, pool.trim());
        expect(0, 0, 192, 0, 0);
        assertEquals(SLAB, pool.statistics().peakReservedBytes());
    }

    @Test
    void statisticsTellOfFragmentation() {
        assertEquals(0, pool.statistics().internalFragmentation());
        assertEquals(0, pool.statistics().externalFragmentation());
        assertEquals(0, pool.statistics().hitRate());
        MemorySegment block = pool.allocate(SLAB / 2 + 1, 64); // takes a granule more than a half
        assertEquals((4096 - 64) / (SLAB / 2 + 4096.), pool.statistics().internalFragmentation(), 1e-9);
        assertEquals((SLAB / 2 - 4096.) / SLAB, pool.statistics().externalFragmentation(), 1e-9);
        pool.free(block);
        assertEquals(0, pool.statistics().internalFragmentation());
        assertEquals(1, pool.statistics().externalFragmentation(), "a block that is kept holds its slab");
        block = pool.allocate(SLAB / 2 + 1, 64);
        assertEquals(.5, pool.statistics().hitRate());
        pool.free(block);
    }

    @Test
    void blocksAreAligned() {
        for (long alignment = 1; alignment <= 2 << 20; alignment *= 2) {
            pool.allocate(3, 1);
            MemorySegment block = pool.allocate(100, alignment);
            assertEquals(0, block.address() % Math.max(alignment, 64), "alignment " + alignment);
            block.fill((byte) 1);
        }
    }

    @Test
    void emptyBlocksAreApartAndCanBeFreed() {
        MemorySegment a = pool.allocate(0, 1);
        MemorySegment b = pool.allocate(0, 1);
        assertNotEquals(a.address(), b.address());
        pool.free(a);
        pool.free(b);
        assertEquals(0, pool.statistics().blocks());
    }

    @Test
    void freeNeighboursBecomeOne() {
        List<MemorySegment> blocks = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            blocks.add(pool.allocate(SLAB / 16, 64));
        }
        assertEquals(1, pool.statistics().slabs());
        // every order of before, after, both and neither
        for (int i : new int[] {0, 2, 1, 15, 14, 7, 9, 8, 3, 4, 5, 6, 13, 12, 11, 10}) {
            pool.free(blocks.get(i));
        }
        MemorySegment whole = pool.allocate(SLAB, 64);
        expect(SLAB, SLAB, SLAB, 1, 1);
        pool.free(whole);
    }

    @Test
    void theSmallestRangeThatFitsIsTaken() {
        MemorySegment large = pool.allocate(200 << 10, 64);
        MemorySegment wall = pool.allocate(40 << 10, 64);
        MemorySegment small = pool.allocate(100 << 10, 64);
        MemorySegment end = pool.allocate(40 << 10, 64);
        pool.free(large);
        pool.free(small);
        pool.trim(); // nothing is kept aside then
        assertEquals(small.address(), pool.allocate(99 << 10, 64).address());
        assertEquals(large.address(), pool.allocate(100 << 10, 64).address());
        assertTrue(wall.address() < end.address());
    }

    @Test
    void aLargeRequestGetsASlabThatGoesBackWithIt() {
        pool.allocate(64, 64);
        MemorySegment large = pool.allocate(3 * SLAB + 1, 4096);
        expect(3 * SLAB + 128, 4 * SLAB + 4096, 3 * SLAB + 128, 2, 2);
        large.set(ValueLayout.JAVA_BYTE, 3 * SLAB, (byte) 1);
        pool.free(large);
        expect(64, SLAB, 3 * SLAB + 128, 1, 1);
    }

    @Test
    void doubleAndForeignFreesAreDetected() {
        MemorySegment a = pool.allocate(256, 64);
        MemorySegment b = pool.allocate(256, 64);
        pool.free(a);
        Expect.illegalState("freed already", () -> pool.free(a));
        MemorySegment again = pool.allocate(256, 64);
        assertEquals(a.address(), again.address());
        Expect.illegalState("freed already", () -> pool.free(a)); // the block is another one now
        Expect.illegalState("slice", () -> pool.free(b.asSlice(0, 128)));
        Expect.illegalArgument("part of a block", () -> pool.free(b.asSlice(64)));
        Tensor tensor = pool.tensor(DType.F32, 4, 4);
        Expect.illegalState("slice", () -> pool.free(tensor.slice(0, 0, 2)));
        try (Arena other = Arena.ofConfined();
                MemoryPool otherPool = MemoryPool.of(device);
                Arena poolArena = pool.newArena()) {
            Expect.illegalArgument("this pool", () -> pool.free(other.allocate(8)));
            Expect.illegalArgument("this pool", () -> pool.free(otherPool.allocate(8)));
            Expect.illegalArgument("this pool", () -> pool.free(poolArena.allocate(8)));
            Expect.illegalArgument("this pool", () -> otherPool.free(b));
        }
        assertThrows(NullPointerException.class, () -> pool.free((MemorySegment) null));
        assertThrows(NullPointerException.class, () -> pool.free((Tensor) null));
        assertEquals(3, pool.statistics().blocks());
        pool.free(tensor);
        pool.free(again);
        pool.free(b);
        assertEquals(0, pool.statistics().usedBytes());
    }

    @Test
    void arenasAreZeroAndGiveEverythingBack() {
        MemorySegment dirty = pool.allocate(SLAB, 64).fill((byte) 0x55);
        pool.free(dirty);
        MemorySegment segment;
        try (Arena arena = pool.newArena()) {
            segment = arena.allocate(SLAB / 2, 8);
            assertEquals(-1, segment.mismatch(Arena.ofAuto().allocate(SLAB / 2)));
            for (int i = 0; i < 100; i++) {
                Tensor.allocate(arena, DType.F32, 3, i).toFloatArray();
            }
            assertTrue(pool.statistics().blocks() <= 2, "segments are laid in chunks");
            assertTrue(arena.scope().isAlive());
            assertEquals(arena.scope(), segment.scope());
        }
        assertEquals(0, pool.statistics().blocks());
        assertEquals(0, pool.statistics().usedBytes());
        assertThrows(IllegalStateException.class, () -> segment.get(ValueLayout.JAVA_BYTE, 0));
        pool.free(pool.allocate(SLAB, 64));
        assertEquals(1, pool.statistics().slabs());
    }

    @Test
    void aClosedArenaAllocatesNothing() {
        Arena arena = pool.newArena();
        arena.close();
        assertThrows(IllegalStateException.class, () -> arena.allocate(8));
        assertThrows(IllegalStateException.class, arena::close);
        assertEquals(0, pool.statistics().blocks());
    }

    @Test
    void segmentsOfOneArenaOutliveAnother() {
        try (Arena a = pool.newArena()) {
            MemorySegment kept = a.allocate(64);
            try (Arena b = pool.newArena()) {
                b.allocate(64).fill((byte) 1);
            }
            kept.fill((byte) 2);
            assertEquals(2, kept.get(ValueLayout.JAVA_BYTE, 63));
        }
    }

    @Test
    void aClosedPoolIsOfNoUse() {
        MemoryPool closed = MemoryPool.of(device);
        MemorySegment block = closed.allocate(64, 64);
        closed.close();
        closed.close();
        assertThrows(IllegalStateException.class, () -> block.get(ValueLayout.JAVA_BYTE, 0));
        Expect.illegalState("memory pool on cpu", () -> closed.allocate(1, 1));
        Expect.illegalState("memory pool on cpu", () -> closed.tensor(DType.F32, 1));
        Expect.illegalState("memory pool on cpu", () -> closed.free(block));
        Expect.illegalState("memory pool on cpu", closed::newArena);
        assertEquals(0, closed.statistics().reservedBytes());
    }

    @Test
    void openArenasAndPoolsHoldWhatTheyAreOf() {
        MemoryPool other = MemoryPool.of(device);
        Arena arena = other.newArena();
        MemorySegment block = other.allocate(64, 64);
        Expect.illegalState("1 arena of it is open", other::close);
        block.fill((byte) 1);
        arena.close();
        Expect.illegalState("2 memory pools", device::close);
        other.close();
        Expect.illegalState("1 memory pool open", device::close);
    }

    @Test
    void theDevicesMemoryIsGivenBack() {
        for (int i = 0; i < 50; i++) {
            try (Device own = Device.open("cpu", 1);
                    MemoryPool many = MemoryPool.of(own, 64 << 20)) {
                many.allocate(1, 1);
                many.allocate(100 << 20, 1);
            } // closing the device says whether memory is open
        }
    }

    /**
     * Seeded allocations and frees against a model: blocks never overlap, keep their content, and the statistics agree.
     */
    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
    void randomWorkload(long seed) {
        Random random = new Random(seed);
        TreeMap<Long, MemorySegment> live = new TreeMap<>();
        long used = 0;
        long peak = 0;
        for (int step = 0; step < 4000; step++) {
            boolean allocate = live.isEmpty() || random.nextInt(1000) < (step / 500 % 2 == 0 ? 600 : 400);
            if (allocate) {
                long bytes = switch (random.nextInt(20)) {
                    case 0 -> 0;
                    case 1 -> SLAB + random.nextInt((int) SLAB);
                    case 2 -> random.nextInt((int) SLAB + 1);
                    default -> 1L << random.nextInt(16);
                };
                long alignment = 1L << random.nextInt(random.nextInt(10) == 0 ? 22 : 13);
                MemorySegment block = pool.allocate(bytes, alignment);
                long end = block.address() + Math.max(64, up(bytes));
                assertEquals(0, block.address() % Math.max(64, alignment));
                Long before = live.floorKey(end - 1);
                assertTrue(before == null || before + Math.max(64, up(live.get(before).byteSize())) <= block.address(),
                        "seed " + seed + " step " + step + ": overlap");
                mark(block, (byte) step);
                live.put(block.address(), block);
                used += Math.max(64, up(bytes));
                peak = Math.max(peak, used);
            } else {
                Long key = live.ceilingKey(random.nextLong(live.firstKey(), live.lastKey() + 1));
                MemorySegment block = live.remove(key);
                if (block.byteSize() > 0) {
                    byte mark = block.get(ValueLayout.JAVA_BYTE, 0);
                    assertEquals(mark, block.get(ValueLayout.JAVA_BYTE, block.byteSize() - 1), "content");
                }
                pool.free(block);
                used -= Math.max(64, up(block.byteSize()));
            }
            MemoryPool.Statistics statistics = pool.statistics();
            assertEquals(used, statistics.usedBytes());
            assertEquals(peak, statistics.peakUsedBytes());
            assertEquals(live.size(), statistics.blocks());
            assertTrue(statistics.reservedBytes() >= used);
        }
        live.values().forEach(pool::free);
        MemoryPool.Statistics empty = pool.statistics();
        assertEquals(0, empty.usedBytes());
        assertEquals(empty.slabs() * SLAB, empty.reservedBytes());
        // All of it has become whole slabs again.
        for (int i = 0; i < empty.slabs(); i++) {
            pool.allocate(SLAB, 64);
        }
        assertEquals(empty.slabs(), pool.statistics().slabs());
    }

    private static long up(long bytes) {
        return (bytes + 63) / 64 * 64;
    }

    private static void mark(MemorySegment block, byte mark) {
        if (block.byteSize() > 0) {
            block.set(ValueLayout.JAVA_BYTE, 0, mark);
            block.set(ValueLayout.JAVA_BYTE, block.byteSize() - 1, mark);
        }
    }

    @Test
    void threadsMayShareAPool() throws Exception {
        List<Future<?>> all = new ArrayList<>();
        try (ExecutorService threads = Executors.newFixedThreadPool(4)) {
            for (int t = 0; t < 8; t++) {
                long mark = t + 1;
                all.add(threads.submit(() -> {
                    Random random = new Random(mark);
                    for (int i = 0; i < 2000; i++) {
                        MemorySegment block = pool.allocate(8L * (1 + random.nextInt(500)), 8);
                        try (Arena arena = i % 50 == 0 ? pool.newArena() : null) {
                            block.setAtIndex(ValueLayout.JAVA_LONG, block.byteSize() / 8 - 1, mark);
                            block.setAtIndex(ValueLayout.JAVA_LONG, 0, mark);
                            if (arena != null) {
                                assertEquals(0, arena.allocate(64).get(ValueLayout.JAVA_LONG, 56));
                            }
                            assertEquals(mark, block.getAtIndex(ValueLayout.JAVA_LONG, block.byteSize() / 8 - 1));
                        }
                        pool.free(block);
                    }
                    return null;
                }));
            }
        }
        for (Future<?> future : all) {
            future.get();
        }
        assertEquals(0, pool.statistics().blocks());
    }
}
