package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A process that works on a spill tier is killed (SIGKILL) at random moments, over and over on the same file. What it
 * flushed must be there, or what it wrote since, to the last byte; what was removed and flushed must not; and whatever
 * is damaged then is found. {@code -Dio.gatun.spill.kills=200} asks for more.
 */
class SpillKillTest {
    private static final int KILLS = Integer.getInteger("io.gatun.spill.kills", 10);
    private static final long NONE = -1;

    @TempDir
    Path folder;

    private final SplittableRandom random = new SplittableRandom(Long.getLong("io.gatun.spill.seed", 1));
    private final List<Set<Long>> possible = // versions by key that the file may have
            IntStream.range(0, SpillChild.BLOCKS).<Set<Long>>mapToObj(key -> new HashSet<>(Set.of(NONE))).toList();
    private final long[] last = // the version that each key got last
            IntStream.range(0, SpillChild.BLOCKS).mapToLong(key -> NONE).toArray();
    private long flushes;
    private long writes;
    private long reused;
    private long damagedBlocks;

    @Test
    void whatWasFlushedOutlivesTheProcess() throws Exception {
        Path file = folder.resolve("spill");
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            for (int kill = 0; kill < KILLS; kill++) {
                if (kill % 5 == 4) {
                    killTheMaking(pool);
                    continue;
                }
                Process process = SpillChild.start(0, "work", file, random.nextLong(), 1 + kill * 1_000_000_000L);
                run(process, 1 + random.nextInt(random.nextBoolean() ? 10 : 1000), random.nextInt(5000));
                check(pool, file, 0);
                if (kill % 3 == 0) {
                    damage(pool, file);
                }
            }
        }
        String figures = KILLS + " kills after " + flushes + " flushes and " + writes + " changes: " + reused
                + " blocks used again, " + damagedBlocks + " damaged ones found";
        System.out.println(figures);
        assertTrue(flushes > KILLS && reused > KILLS && damagedBlocks > KILLS / 20, figures);
    }

    /** Reads what a process says, and kills it some time after so many lines. */
    private void run(Process process, int lines, int micros) throws IOException, InterruptedException {
        try (BufferedReader said = process.inputReader()) {
            int count = 0;
            for (String line = said.readLine(); line != null; line = said.readLine()) {
                take(line);
                if (++count == lines) {
                    TimeUnit.MICROSECONDS.sleep(micros);
                    process.toHandle().destroyForcibly(); // what it said before that can still be read
                }
            }
        } finally {
            process.destroyForcibly();
        }
        assertTrue(process.waitFor(60, TimeUnit.SECONDS));
        assertEquals(128 + 9, process.exitValue());
    }

    private void take(String line) {
        String[] words = line.split(" ");
        switch (words[0]) {
            case "write", "remove" -> {
                int key = Integer.parseInt(words[1]);
                last[key] = words[0].equals("write") ? Long.parseLong(words[2]) : NONE;
                possible.get(key).add(last[key]);
                writes++;
            }
            case "flushed" -> {
                for (int key = 0; key < last.length; key++) {
                    settle(key, last[key]);
                }
                flushes++;
            }
            case "open", "making", "made" -> {}
            default -> throw new AssertionError("the process says: " + line);
        }
    }

    private void settle(int key, long version) {
        last[key] = version;
        possible.get(key).clear();
        possible.get(key).add(version);
    }

    /** All blocks are one of what they may be. */
    private void check(MemoryPool pool, Path file, long damaged) {
        try (SpillTier tier = SpillChild.builder(pool, file, SpillChild.BLOCKS).open()) {
            for (int key = 0; key < SpillChild.BLOCKS; key++) {
                long version = SpillContent.version(tier, key);
                int its = key;
                assertTrue(possible.get(key).contains(version), () -> "block " + its + " has version " + version
                        + ", expected one of " + possible.get(its));
                settle(key, version);
                reused += version == NONE ? 0 : 1;
            }
            assertEquals(damaged, tier.statistics().damaged());
        }
    }

    /** Damages one block or record; it must be found, and all others be there. */
    private void damage(MemoryPool pool, Path file) throws IOException {
        SpillFile.Found found;
        long at;
        try (SpillFile opened = SpillFile.open(file, SpillChild.BYTES, SpillChild.BLOCKS)) {
            if (opened.found().isEmpty()) {
                return;
            }
            found = opened.found().get(random.nextInt(opened.found().size()));
            at = random.nextInt(4) == 0
                    ? SpillFile.PAGE + found.slot() * SpillFile.RECORD + random.nextInt(SpillFile.RECORD)
                    : opened.slot(found.slot()) + random.nextInt(SpillChild.BYTES);
        }
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            ByteBuffer one = ByteBuffer.allocate(1);
            channel.read(one, at);
            one.put(0, (byte) (one.get(0) ^ 1 << random.nextInt(8))).flip();
            channel.write(one, at);
        }
        settle((int) found.key(), NONE);
        check(pool, file, 1);
        check(pool, file, 0);
        damagedBlocks++;
    }

    /** A file whose making ended is made anew. */
    private void killTheMaking(MemoryPool pool) throws Exception {
        Path file = folder.resolve("made");
        Files.deleteIfExists(file);
        run(SpillChild.start(0, "make", file), 1, random.nextInt(60_000));
        try (SpillTier tier = SpillChild.builder(pool, file, SpillChild.MANY).open()) {
            assertEquals(0, tier.statistics().blocks() + tier.statistics().damaged());
            SpillContent.create(tier, 1, 2);
        }
        try (SpillTier tier = SpillChild.builder(pool, file, SpillChild.MANY).open()) {
            assertEquals(2, SpillContent.version(tier, 1));
        }
    }
}
