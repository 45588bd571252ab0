package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What the pool says of its memory against what the system says ({@code /proc/self/smaps}). */
class PoolSystemTest {
    private static final long MIB = 1 << 20;
    private static final Path MAPS = Path.of("/proc/self/smaps");

    private final Device device = Device.open("cpu", 1);

    @BeforeEach
    void onLinux() {
        assumeTrue(Files.isReadable(MAPS), "there is no " + MAPS);
    }

    @AfterEach
    void close() {
        device.close();
    }

    /**
     * Bytes of the mappings that the slabs lie in.
     *
     * @param size the parts of mappings that are slabs
     * @param resident what of the mappings with a slab in them is in memory, the neighbours of slabs included
     */
    private record Mapped(long size, long resident) {}

    private static Mapped mapped(List<long[]> slabs) {
        long size = 0;
        long resident = 0;
        boolean ours = false;
        try {
            for (String line : Files.readAllLines(MAPS)) {
                String[] words = line.split("\\s+|-");
                if (line.matches("[0-9a-f]+-[0-9a-f]+ .*")) {
                    long from = Long.parseUnsignedLong(words[0], 16);
                    long to = Long.parseUnsignedLong(words[1], 16);
                    ours = false;
                    for (long[] slab : slabs) {
                        long common = Math.min(to, slab[0] + slab[1]) - Math.max(from, slab[0]);
                        if (common > 0) {
                            ours = true;
                            size += common;
                        }
                    }
                } else if (ours && line.startsWith("Rss:")) {
                    resident += Long.parseLong(words[1]) << 10;
                }
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return new Mapped(size, resident);
    }

    private static long residentOfProcess() {
        try {
            return Long.parseLong(Files.readString(Path.of("/proc/self/statm")).split(" ")[1]) * 4096;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Test
    void reservedIsWhatTheSystemMapped() {
        Random random = new Random(11);
        try (MemoryPool pool = MemoryPool.of(device)) {
            List<MemorySegment> live = new ArrayList<>();
            for (int i = 0; i < 3000; i++) {
                if (live.isEmpty() || random.nextInt(5) > 1) {
                    int most = random.nextInt(20) == 0 ? 1 << 20 : 20_000;
                    live.add(pool.allocate(1 + random.nextInt(most), 64).fill((byte) 1));
                } else {
                    pool.free(live.remove(random.nextInt(live.size())));
                }
                if (i % 500 == 499) {
                    List<long[]> slabs = pool.layout();
                    long reserved = pool.statistics().reservedBytes();
                    assertEquals(reserved, slabs.stream().mapToLong(slab -> slab[2]).sum());
                    assertEquals(slabs.stream().mapToLong(slab -> slab[1]).sum(), mapped(slabs).size);
                    assertTrue(mapped(slabs).resident >= pool.statistics().usedBytes(), "what was written is resident");
                }
            }
            List<long[]> before = pool.layout();
            live.forEach(pool::free);
            pool.trim();
            assertEquals(0, pool.statistics().reservedBytes());
            assertTrue(mapped(before).resident <= MIB, "what was trimmed is gone: " + mapped(before));
        }
    }

    /** Of what went back from inside of slabs the system has no page, and what is written there again is resident. */
    @Test
    void holesAreNotResident() {
        try (MemoryPool pool = MemoryPool.of(device)) {
            List<MemorySegment> blocks = new ArrayList<>();
            for (int i = 0; i < 64; i++) {
                blocks.add(pool.allocate(MIB, 64).fill((byte) 1));
            }
            pool.trim();
            List<long[]> slabs = pool.layout();
            long before = mapped(slabs).resident;
            for (int i = 0; i < 64; i += 2) {
                pool.free(blocks.get(i));
            }
            assertEquals(32 * MIB, pool.trim());
            assertEquals(32 * MIB, pool.statistics().reservedBytes());
            long without = mapped(slabs).resident;
            assertTrue(Math.abs(before - 32 * MIB - without) <= 2 * MIB, before + " bytes, then " + without);
            for (int i = 0; i < 64; i += 2) {
                blocks.set(i, pool.allocate(MIB, 64).fill((byte) 1));
            }
            assertEquals(64 * MIB, pool.statistics().reservedBytes());
            assertTrue(Math.abs(before - mapped(slabs).resident) <= 2 * MIB, before + " bytes, then " + mapped(slabs));
        }
    }

    @Test
    void theStartIsResidentAndNothingMore() {
        long declared = 48 * MIB + 12_345;
        long before = residentOfProcess();
        try (MemoryPool pool = MemoryPool.builder(device)
                .coldStart(MemoryDomain.WEIGHTS, declared)
                .coldStart(MemoryDomain.KV_CACHE, 3 * MIB)
                .build()) {
            long all = declared + 3 * MIB;
            Mapped mapped = mapped(pool.layout());
            assertEquals(mapped.size, pool.statistics().reservedBytes());
            assertTrue(mapped.size >= all && mapped.size <= all * 1.01, mapped::toString);
            assertTrue(residentOfProcess() - before >= all * .9, "touched");
            assertTrue(mapped.resident <= all * 1.1, mapped::toString);
            assertEquals(0, pool.statistics().usedBytes());
            pool.tensor(MemoryDomain.WEIGHTS, DType.F32, 1000, 1000);
            assertEquals(mapped.size, pool.statistics().reservedBytes());
            assertEquals(0, pool.trim());
        }
    }

    /**
     * In a process of its own, whose Java heap is resident from the start and that compiles nothing: else it is these that
     * grow, by tens of MiB.
     */
    @Test
    void growthAndTrimDoNotCreep() throws Exception {
        Process process = Child.of(CreepChild.class, List.of("-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch", "-Xint")).start();
        List<String> said = process.inputReader().readAllLines();
        assertEquals(0, process.waitFor(), () -> String.join("\n", said));
        long early = Long.parseLong(said.get(CreepChild.CYCLES / 5));
        long late = Long.parseLong(said.getLast());
        assertEquals(CreepChild.CYCLES, said.size());
        assertTrue(late - early < MIB, () -> early + " bytes were resident early on, " + late + " in the end");
    }
}
