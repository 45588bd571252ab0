package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Domains: their slabs, limits and what happens when they are full; growth and trimming; frees after events. */
@Timeout(120)
class PoolDomainsTest {
    private static final long MIB = 1 << 20;

    private final Device device = Device.open("cpu", 1);

    @AfterEach
    void close() {
        device.close();
    }

    private static long reserved(MemoryPool pool, MemoryDomain domain) {
        return pool.statistics(domain).reservedBytes();
    }

    /** Blocks of one domain between which another one's were: pages that are free there go back before the pool grows. */
    @Test
    void whatOneDomainFreedMakesRoomForAnother() {
        try (MemoryPool pool = MemoryPool.of(device)) {
            MemoryDomain[] turns = {MemoryDomain.ACTIVATIONS, MemoryDomain.GRADIENTS};
            List<MemorySegment> kept = new ArrayList<>();
            for (int turn = 0; turn < 6; turn++) {
                List<MemorySegment> blocks = new ArrayList<>();
                for (int i = 0; i < 64; i++) {
                    blocks.add(pool.allocate(turns[turn % 2], MIB, 64).fill((byte) turn));
                }
                for (int i = 0; i < blocks.size(); i++) {
                    if (i % 16 == 0) {
                        kept.add(blocks.get(i));
                    } else {
                        pool.free(blocks.get(i));
                    }
                }
            }
            long most = (64 + 5 * 4) * MIB;
            assertTrue(pool.statistics().peakReservedBytes() <= most + 5 * MIB, pool.statistics()::toString);
            for (int i = 0; i < kept.size(); i++) {
                MemorySegment block = kept.get(i);
                assertEquals((byte) (i / 4), block.get(ValueLayout.JAVA_BYTE, 0));
                assertEquals(-1, block.asSlice(1).mismatch(block.asSlice(0, MIB - 1)));
            }
        }
    }

    /** What cannot go back in one domain, here the rest of a slab of a chosen size, is not taken from another one. */
    @Test
    void othersDoNotPayForWhatStays() {
        try (MemoryPool pool = MemoryPool.builder(device).slabBytes(MemoryDomain.WEIGHTS, 128 * MIB).build()) {
            pool.allocate(MemoryDomain.WEIGHTS, 64, 64);
            List<MemorySegment> blocks = new ArrayList<>();
            for (int i = 0; i < 64; i++) {
                blocks.add(pool.allocate(MIB, 64));
            }
            long before = reserved(pool, MemoryDomain.ACTIVATIONS);
            for (int i = 0; i < 64; i += 2) {
                pool.free(blocks.get(i));
            }
            pool.allocate(MemoryDomain.GRADIENTS, 16 * MIB, 64);
            long given = before - reserved(pool, MemoryDomain.ACTIVATIONS);
            assertTrue(given >= 12 * MIB && given <= 20 * MIB, given + " bytes for 16 MiB that another one took");
        }
    }

    @Test
    void domainsShareNoSlab() {
        try (MemoryPool pool = MemoryPool.builder(device).build()) {
            for (MemoryDomain domain : MemoryDomain.values()) {
                pool.allocate(domain, 64, 64);
                pool.tensor(domain, DType.F32, 100, 1000);
                assertEquals(2, pool.statistics(domain).blocks());
                assertTrue(reserved(pool, domain) > 0);
            }
            assertEquals(2 * MemoryDomain.values().length, pool.statistics().blocks());
            MemorySegment weight = pool.allocate(MemoryDomain.WEIGHTS, MIB / 2, 64);
            MemoryPool.Statistics weights = pool.statistics(MemoryDomain.WEIGHTS);
            // The peak of another domain changes nothing here, and leaves nothing behind.
            List<MemorySegment> peak = new ArrayList<>();
            for (int i = 0; i < 5000; i++) {
                peak.add(pool.allocate(MemoryDomain.WORKSPACE, 1 + i * 7 % 30_000, 64));
            }
            peak.forEach(pool::free);
            assertEquals(weights, pool.statistics(MemoryDomain.WEIGHTS));
            assertTrue(pool.trim() > 0);
            assertTrue(reserved(pool, MemoryDomain.WORKSPACE) <= MIB, "its first two blocks");
            pool.free(weight);
        }
    }

    @Test
    void slabsGrowWithTheDomainAndFitLargeBlocks() {
        try (MemoryPool pool = MemoryPool.of(device)) {
            pool.allocate(64, 64);
            assertEquals(MIB, pool.statistics().reservedBytes());
            for (int i = 0; i < 3000; i++) {
                pool.allocate(100 << 10, 64);
                MemoryPool.Statistics statistics = pool.statistics();
                long free = statistics.reservedBytes() - statistics.blockBytes();
                assertTrue(free <= statistics.reservedBytes() / 16 + MIB, statistics::toString);
            }
            assertTrue(pool.statistics().slabs() < 150, pool.statistics()::toString);
            pool.allocate(MemoryDomain.KV_CACHE, 5 * MIB + 1, 64);
            assertEquals(5 * MIB + 4096, reserved(pool, MemoryDomain.KV_CACHE));
        }
        try (MemoryPool pool = MemoryPool.builder(device).slabBytes(MemoryDomain.KV_CACHE, 16 * MIB).build()) {
            pool.allocate(MemoryDomain.KV_CACHE, 5 * MIB + 1, 64);
            assertEquals(16 * MIB, reserved(pool, MemoryDomain.KV_CACHE));
            MemorySegment large = pool.allocate(MemoryDomain.KV_CACHE, 17 * MIB, 64);
            assertEquals(33 * MIB, reserved(pool, MemoryDomain.KV_CACHE));
            pool.free(large);
            assertEquals(16 * MIB, reserved(pool, MemoryDomain.KV_CACHE));
        }
    }

    @Test
    void aLimitHolds() {
        try (MemoryPool pool = MemoryPool.builder(device).limit(MemoryDomain.KV_CACHE, 3 * MIB).build()) {
            MemorySegment a = pool.allocate(MemoryDomain.KV_CACHE, 2 * MIB, 64);
            GatunException e = Expect.failure(GatunException.class, "no room for 2097152 bytes in KV_CACHE",
                    () -> pool.allocate(MemoryDomain.KV_CACHE, 2 * MIB, 64));
            assertTrue(e.getMessage().contains("2097152 bytes of the device, and a limit of 3145728"), e::getMessage);
            pool.allocate(MemoryDomain.WEIGHTS, 10 * MIB, 64); // is not limited
            pool.free(a);
            // A slab that is free makes way for one of another size.
            MemorySegment b = pool.allocate(MemoryDomain.KV_CACHE, 3 * MIB, 64);
            assertEquals(3 * MIB, reserved(pool, MemoryDomain.KV_CACHE));
            assertThrows(GatunException.class, () -> pool.allocate(MemoryDomain.KV_CACHE, 1, 1));
            pool.free(b);
            pool.allocate(MemoryDomain.KV_CACHE, 1, 1);
        }
    }

    @Test
    void allOfALimitCanBeUsed() {
        for (long bytes : new long[] {64, 1000, 4096, 30_000, 40_960, MIB / 4, MIB}) {
            try (MemoryPool pool = MemoryPool.builder(device).limit(MemoryDomain.ACTIVATIONS, 8 * MIB).build()) {
                long blocks = 0;
                while (true) {
                    try {
                        pool.allocate(bytes, 64);
                    } catch (GatunException e) {
                        break;
                    }
                    blocks++;
                }
                assertTrue(blocks * bytes > .85 * 8 * MIB, blocks + " blocks of " + bytes);
                assertTrue(pool.statistics().reservedBytes() <= 8 * MIB);
            }
        }
    }

    /** Holes between blocks go back for a block that fits in none of them, and what is around them stays. */
    @Test
    void holesMakeWayAtALimit() {
        try (MemoryPool pool = MemoryPool.builder(device).limit(MemoryDomain.ACTIVATIONS, 8 * MIB).build()) {
            List<MemorySegment> blocks = new ArrayList<>();
            for (int i = 0; i < 8; i++) {
                blocks.add(pool.allocate(MIB, 64).fill((byte) i));
            }
            for (int i = 0; i < 8; i += 2) {
                pool.free(blocks.get(i));
            }
            MemorySegment large = pool.allocate(4 * MIB, 64).fill((byte) 99);
            assertEquals(8 * MIB, reserved(pool, MemoryDomain.ACTIVATIONS));
            assertThrows(GatunException.class, () -> pool.allocate(MIB, 64));
            for (int i = 1; i < 8; i += 2) {
                checkFilled(blocks.get(i), i);
            }
            pool.free(large);
            for (int i = 0; i < 8; i += 2) {
                blocks.set(i, pool.allocate(MIB, 64).fill((byte) i));
            }
            for (int i = 0; i < 8; i++) {
                checkFilled(blocks.get(i), i);
            }
            assertEquals(8 * MIB, reserved(pool, MemoryDomain.ACTIVATIONS));
        }
    }

    private static void checkFilled(MemorySegment block, int value) {
        byte[] bytes = new byte[(int) MIB];
        Arrays.fill(bytes, (byte) value);
        assertEquals(-1, block.mismatch(MemorySegment.ofArray(bytes)));
    }

    /** Sizes that never fit where others were: what is reserved follows the blocks of the peak all the same. */
    @Test
    void littleMoreIsReservedThanBlocksOccupied() {
        for (long seed = 1; seed <= 5; seed++) {
            SplittableRandom random = new SplittableRandom(seed);
            try (MemoryPool pool = MemoryPool.of(device)) {
                List<MemorySegment> live = new ArrayList<>();
                long most = 0;
                for (int i = 0; i < 5000; i++) {
                    if (live.size() < 20 && (live.isEmpty() || random.nextBoolean())) {
                        live.add(pool.allocate(random.nextLong(40_000, 10 * MIB), 64));
                        most = Math.max(most, pool.statistics().blockBytes());
                    } else {
                        pool.free(live.remove(random.nextInt(live.size())));
                    }
                }
                long reserved = pool.statistics().peakReservedBytes();
                assertTrue(reserved >= most && reserved <= most + Math.max(MIB, most / 128) + Slab.CHUNK,
                        reserved + " bytes for " + most);
                pool.trim();
                reserved = pool.statistics().reservedBytes();
                assertTrue(reserved <= pool.statistics().blockBytes() + 2L * live.size() * Slab.CHUNK, pool::map);
                live.forEach(pool::free);
                pool.trim();
                assertEquals(0, pool.statistics().reservedBytes());
            }
        }
    }

    /** A size of slabs that was chosen is kept, with what is free inside. */
    @Test
    void slabsOfAChosenSizeStayWhole() {
        try (MemoryPool pool = MemoryPool.of(device, 16 * MIB)) {
            pool.allocate(64, 64);
            assertEquals(0, pool.trim());
            assertEquals(16 * MIB, pool.statistics().reservedBytes());
        }
    }

    private MemoryPool waiting(Duration timeout) {
        return MemoryPool.builder(device)
                .limit(MemoryDomain.KV_CACHE, MIB)
                .whenFull(MemoryDomain.KV_CACHE, WhenFull.await(timeout))
                .build();
    }

    @Test
    void aRequestWaitsForAnotherThread() throws Exception {
        try (MemoryPool pool = waiting(Duration.ofSeconds(60));
                ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int round = 0; round < 20; round++) {
                MemorySegment whole = pool.allocate(MemoryDomain.KV_CACHE, MIB, 64);
                Future<MemorySegment> small = threads.submit(() -> pool.allocate(MemoryDomain.KV_CACHE, 64, 64));
                Future<MemorySegment> large = threads.submit(() -> pool.allocate(MemoryDomain.KV_CACHE, MIB / 2, 64));
                Thread.sleep(5);
                assertFalse(small.isDone() || large.isDone());
                pool.free(whole);
                pool.free(small.get());
                pool.free(large.get());
            }
        }
    }

    @Test
    void aRequestGivesUpInTheEnd() throws Exception {
        try (MemoryPool pool = waiting(Duration.ofMillis(100));
                ExecutorService thread = Executors.newSingleThreadExecutor()) {
            pool.allocate(MemoryDomain.KV_CACHE, MIB, 64);
            long start = System.nanoTime();
            assertThrows(GatunException.class, () -> pool.allocate(MemoryDomain.KV_CACHE, 64, 64));
            assertTrue(System.nanoTime() - start >= 100_000_000);
            AtomicBoolean interrupted = new AtomicBoolean();
            Future<?> failed = thread.submit(() -> {
                Thread.currentThread().interrupt();
                try {
                    pool.allocate(MemoryDomain.KV_CACHE, 64, 64);
                } finally {
                    interrupted.set(Thread.interrupted());
                }
            });
            ExecutionException e = assertThrows(ExecutionException.class, failed::get);
            assertEquals(GatunException.class, e.getCause().getClass());
            assertTrue(interrupted.get());
        }
    }

    @Test
    void aRequestWaitsForASlabOfAnotherPool() throws Exception {
        // Nobody tells a pool of what another one gave back: it looks from time to time.
        try (MemoryPool pool = waiting(Duration.ofSeconds(60));
                ExecutorService thread = Executors.newSingleThreadExecutor()) {
            MemorySegment block = pool.allocate(MemoryDomain.KV_CACHE, MIB, 64);
            AtomicBoolean reached = new AtomicBoolean();
            pool.freeAfter(block, reached::get, () -> {});
            Future<MemorySegment> next = thread.submit(() -> pool.allocate(MemoryDomain.KV_CACHE, MIB, 64));
            Thread.sleep(30);
            assertFalse(next.isDone());
            reached.set(true);
            pool.free(next.get());
        }
    }

    @Test
    void aRequestEvicts() {
        Deque<MemorySegment> old = new ArrayDeque<>();
        MemoryPool[] itself = new MemoryPool[1];
        try (MemoryPool pool = MemoryPool.builder(device)
                .limit(MemoryDomain.KV_CACHE, MIB)
                .whenFull(MemoryDomain.KV_CACHE, WhenFull.evict((domain, bytes) -> {
                    assertEquals(MemoryDomain.KV_CACHE, domain);
                    assertEquals(128 << 10, bytes);
                    if (old.isEmpty()) {
                        return false;
                    }
                    itself[0].free(old.remove());
                    return true;
                }))
                .build()) {
            itself[0] = pool;
            for (int i = 0; i < 1000; i++) {
                old.add(pool.allocate(MemoryDomain.KV_CACHE, 128 << 10, 64));
                assertTrue(old.size() <= 8);
            }
            assertEquals(8, old.size());
            old.clear();
            assertThrows(GatunException.class, () -> pool.allocate(MemoryDomain.KV_CACHE, 128 << 10, 64));
        }
    }

    @Test
    void slabsGoBackWhenNothingIsInThem() throws InterruptedException {
        try (MemoryPool pool = MemoryPool.builder(device)
                .trimAfter(Duration.ofMillis(50))
                .coldStart(MemoryDomain.WEIGHTS, 2 * MIB)
                .build()) {
            MemorySegment kept = pool.allocate(64, 64);
            pool.free(pool.allocate(MemoryDomain.GRADIENTS, 64, 64));
            pool.free(pool.allocate(MemoryDomain.OPTIMIZER, 10 * MIB, 64));
            pool.free(pool.allocate(MemoryDomain.WEIGHTS, MIB, 64));
            long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (pool.statistics().reservedBytes() > 3 * MIB) {
                assertTrue(System.nanoTime() < end, pool::map);
                Thread.sleep(10);
            }
            assertTrue(reserved(pool, MemoryDomain.ACTIVATIONS) <= MIB, pool::map);
            assertEquals(2 * MIB, reserved(pool, MemoryDomain.WEIGHTS), "declared for the start");
            pool.free(kept);
        }
    }

    @Test
    void whatIsFreedAfterAnEventComesBackThen() {
        try (MemoryPool pool = MemoryPool.builder(device).limit(MemoryDomain.ACTIVATIONS, MIB).build()) {
            AtomicBoolean reached = new AtomicBoolean();
            AtomicBoolean told = new AtomicBoolean();
            MemorySegment block = pool.allocate(MIB, 64);
            pool.freeAfter(block, reached::get, () -> told.set(true));
            Expect.illegalState("freed already", () -> pool.free(block));
            assertEquals(1, pool.statistics().blocks());
            assertThrows(GatunException.class, () -> pool.allocate(64, 64));
            Expect.illegalState("1 freed blocks wait for events", pool::close);
            assertFalse(told.get());
            reached.set(true);
            pool.free(pool.allocate(64, 64));
            assertTrue(told.get());
            assertEquals(0, pool.statistics().blocks());
        }
    }

    @Test
    void onAProcessorAnEventIsReachedWhenItIsRecorded() {
        try (MemoryPool pool = MemoryPool.of(device);
                Stream stream = device.newStream()) {
            Event event = device.newEvent();
            MemorySegment block = pool.allocate(64, 64);
            Expect.illegalArgument("recorded", () -> pool.free(block, event));
            assertEquals(1, pool.statistics().blocks());
            event.record(stream);
            pool.free(block, event);
            assertEquals(0, pool.statistics().blocks());
            Expect.illegalState("freed already", () -> pool.free(block, event));
            event.hold();
            Expect.illegalState("a memory pool waits for it", event::close);
            event.letGo();
            event.close();
            MemorySegment other = pool.allocate(64, 64);
            Expect.illegalState("the event", () -> pool.free(other, event));
        }
    }

    @Test
    void buildersCheckWhatTheyAreTold() {
        MemoryPool.Builder builder = MemoryPool.builder(device);
        Expect.illegalArgument("slabBytes: 1048575",
                () -> builder.slabBytes(MemoryDomain.WEIGHTS, MIB - 1));
        Expect.illegalArgument("slabBytes: 268435456", () -> builder.slabBytes(MemoryDomain.WEIGHTS, 256 * MIB));
        Expect.illegalArgument("slabBytes: 3145728", () -> builder.slabBytes(MemoryDomain.WEIGHTS, 3 * MIB));
        Expect.illegalArgument("bytes: 0", () -> builder.limit(MemoryDomain.WEIGHTS, 0));
        Expect.illegalArgument("bytes: -1", () -> builder.coldStart(MemoryDomain.WEIGHTS, -1));
        Expect.illegalArgument("time: PT0S", () -> builder.trimAfter(Duration.ZERO));
        Expect.illegalArgument("timeout: PT-1S", () -> WhenFull.await(Duration.ofSeconds(-1)));
        Expect.illegalArgument("coldStart: 2 bytes of WEIGHTS, expected at most its limit of 1",
                () -> builder.coldStart(MemoryDomain.WEIGHTS, 2).limit(MemoryDomain.WEIGHTS, 1).build());
        assertThrows(NullPointerException.class, () -> builder.limit(null, 1));
        assertThrows(NullPointerException.class, () -> builder.whenFull(MemoryDomain.WEIGHTS, null));
        assertThrows(NullPointerException.class, () -> WhenFull.evict(null));
        assertThrows(NullPointerException.class, () -> WhenFull.await(null));
        // A builder stays what it was.
        MemoryPool.Builder limited = builder.limit(MemoryDomain.ACTIVATIONS, MIB);
        try (MemoryPool free = builder.build();
                MemoryPool bound = limited.build()) {
            free.allocate(2 * MIB, 64);
            assertThrows(GatunException.class, () -> bound.allocate(2 * MIB, 64));
        }
        // Nothing is touched of what cannot be there, and nothing is left behind.
        Expect.failure(GatunException.class, "coldStart: 1125899906842624 bytes of WEIGHTS",
                () -> builder.coldStart(MemoryDomain.WEIGHTS, 1L << 50).build());
    }

    @Test
    void theMapShowsWhatIsInUse() {
        try (MemoryPool pool = MemoryPool.of(device, MIB)) {
            assertEquals("", pool.map());
            pool.allocate(MIB / 2, 64);
            pool.allocate(MIB / 128, 64);
            pool.allocate(MemoryDomain.KV_CACHE, 3 * MIB, 64);
            List<String> lines = pool.map().lines().toList();
            assertEquals("ACTIVATIONS: 1048576 bytes in 1 slabs", lines.get(0));
            assertTrue(lines.get(1).contains("1048576 " + "#".repeat(32) + "####"), lines.get(1)); // a run of eight
            assertTrue(lines.get(1).endsWith("."), lines.get(1));
            assertEquals("KV_CACHE: 3145728 bytes in 1 slabs", lines.get(2));
            assertTrue(lines.get(3).endsWith("#".repeat(64)), lines.get(3));
            assertEquals(4, lines.size());
        }
    }

    @Test
    void theLimitsOfContainersAreRead(@TempDir Path folder) throws IOException {
        Path groups = folder.resolve("cgroup");
        Path root = Files.createDirectories(folder.resolve("fs"));
        assertEquals(Long.MAX_VALUE, ContainerMemory.limit(groups, root));
        Files.writeString(groups, "4:memory:/old\n0::/a/b\n");
        assertEquals(Long.MAX_VALUE, ContainerMemory.limit(groups, root));
        Path b = Files.createDirectories(root.resolve("a/b"));
        Files.writeString(b.resolve("memory.max"), "max\n");
        assertEquals(Long.MAX_VALUE, ContainerMemory.limit(groups, root));
        Files.writeString(root.resolve("a/memory.max"), "3000\n");
        assertEquals(3000, ContainerMemory.limit(groups, root));
        Files.writeString(b.resolve("memory.max"), "2000\n");
        assertEquals(2000, ContainerMemory.limit(groups, root));
        Files.writeString(groups, "0::/\n"); // as a container sees itself
        Files.writeString(root.resolve("memory.max"), "1000\n");
        assertEquals(1000, ContainerMemory.limit(groups, root));
        Files.writeString(folder.resolve("memory.max"), "1\n"); // outside
        assertEquals(1000, ContainerMemory.limit(groups, root));
    }

    @Test
    void aContainerHasRoomForPoolsBesideTheHeap() {
        Reservation.checkContainer(1L << 60, Long.MAX_VALUE);
        try (MemoryPool pool = MemoryPool.of(device)) {
            pool.allocate(100 * MIB, 64);
            long limit = Runtime.getRuntime().maxMemory() + 200 * MIB; // whatever the heap grows to in the meantime
            Reservation.checkContainer(100 * MIB, limit);
            Expect.failure(GatunException.class, "(memory.max)",
                    () -> Reservation.checkContainer(limit - 100 * MIB + 1, limit));
            pool.trim();
        }
    }
}
