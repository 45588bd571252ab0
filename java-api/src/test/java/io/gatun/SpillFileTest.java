package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The file of a spill tier after a process ended at any point of its work, and after any byte of it was damaged. */
class SpillFileTest {
    private static final int BLOCKS = 5;
    private static final int BYTES = 203;
    private static final int DATA = 2 * SpillFile.PAGE; // where the slots start

    @TempDir
    Path folder;

    private final Arena arena = Arena.ofAuto();

    /** What a file says when it is opened: versions by key, where a damaged block has -1. */
    private record Seen(Map<Long, Long> versions, long damagedRecords) {
        long damagedBlocks() {
            return versions.values().stream().filter(version -> version < 0).count();
        }
    }

    private Seen open(byte[] content) throws IOException {
        Path path = folder.resolve("copy");
        if (!Files.exists(path) || Files.size(path) != content.length) {
            Files.deleteIfExists(path);
            Files.createFile(path);
        }
        Files.write(path, content, StandardOpenOption.WRITE); // in place: thousands of new files take long
        try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
            Map<Long, Long> versions = new TreeMap<>();
            MemorySegment block = arena.allocate(BYTES);
            for (SpillFile.Found each : file.found()) {
                boolean intact = file.read(each.slot(), block);
                versions.put(each.key(), intact ? SpillContent.version(block, each.key()) : -1);
            }
            return new Seen(versions, file.damagedRecords());
        }
    }

    private static byte[] after(byte[] start, List<RecordedChannel.Write> writes) {
        byte[] content = start.clone();
        for (RecordedChannel.Write write : writes) {
            System.arraycopy(write.bytes(), 0, content, (int) write.position(), write.bytes().length);
        }
        return content;
    }

    /** A file with these blocks, of version 10 times their key. */
    private byte[] with(long... keys) throws IOException {
        Path path = folder.resolve("file");
        Files.deleteIfExists(path);
        try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
            MemorySegment block = arena.allocate(BYTES);
            for (long key : keys) {
                SpillContent.fill(block, key, 10 * key);
                file.record(file.write(block), key);
            }
        }
        return Files.readAllBytes(path);
    }

    /**
     * Random changes, each flushed; of what they wrote, every number of writes reaches the file, the last one in part:
     * each block is there in the version before or after the change, and nothing is damaged but a record cut off.
     */
    @Test
    void everyEndLeavesTheOldOrTheNewVersion() throws IOException {
        Random random = new Random(3);
        Path path = folder.resolve("file");
        byte[] start = with();
        List<Map<Long, Long>> states = new ArrayList<>(List.of(Map.of()));
        List<Integer> ends = new ArrayList<>(List.of(0)); // how many writes there were after each change
        RecordedChannel channel = new RecordedChannel(path);
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            try (SpillTier tier = open(pool, path, channel)) {
                Map<Long, Long> state = new HashMap<>();
                for (long version = 1; version <= 40; version++) {
                    long key = 1 + random.nextInt(BLOCKS);
                    if (!state.containsKey(key)) {
                        SpillContent.create(tier, key, version);
                        state.put(key, version);
                    } else if (random.nextInt(3) == 0) {
                        tier.remove(key);
                        state.remove(key);
                    } else {
                        SpillContent.edit(tier, key, version);
                        state.put(key, version);
                    }
                    tier.flush();
                    states.add(Map.copyOf(state));
                    ends.add(channel.all.size());
                }
            }
        }
        assertEquals(channel.all.size(), ends.getLast(), "close had nothing to write");
        int torn = 0;
        for (int change = 1; change < states.size(); change++) {
            for (int end = ends.get(change - 1); end < ends.get(change); end++) {
                byte[] before = after(start, channel.all.subList(0, end));
                RecordedChannel.Write last = channel.all.get(end);
                for (int cut = 0; cut <= last.bytes().length; cut += last.bytes().length > SpillFile.RECORD ? 41 : 3) {
                    byte[] part = Arrays.copyOf(last.bytes(), cut);
                    Seen seen = open(after(before, List.of(new RecordedChannel.Write(last.position(), part))));
                    assertEquals(0, seen.damagedBlocks(), seen::toString);
                    assertTrue(seen.damagedRecords <= (last.position() < DATA && cut > 0 ? 1 : 0));
                    torn += seen.damagedRecords > 0 ? 1 : 0;
                    for (long key = 1; key <= BLOCKS; key++) {
                        Long was = states.get(change - 1).get(key);
                        Long is = states.get(change).get(key);
                        Long found = seen.versions.get(key);
                        assertTrue(Objects.equals(found, was) || Objects.equals(found, is),
                                "key " + key + ", write " + end + " up to byte " + cut);
                    }
                }
            }
            assertEquals(states.get(change), open(after(start, channel.all.subList(0, ends.get(change)))).versions);
        }
        assertTrue(torn > 50, "records were cut off");
    }

    /** After a loss of power any of the later writes may be missing: what was synced and not changed is there. */
    @Test
    void whatWasSyncedAndNotChangedOutlivesALossOfPower() throws IOException {
        Path path = folder.resolve("file");
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            for (int seed = 0; seed < 100; seed++) {
                loseAnyWritesAfterASync(pool, path, seed);
            }
        }
    }

    private void loseAnyWritesAfterASync(MemoryPool pool, Path path, int seed) throws IOException {
        Random random = new Random(seed);
        byte[] start = with(1, 2, 3);
        RecordedChannel channel = new RecordedChannel(path);
        try (SpillTier tier = open(pool, path, channel)) {
            for (long version = 100; version < 110; version++) {
                long key = 3 + random.nextInt(2);
                if (!tier.contains(key)) {
                    SpillContent.create(tier, key, version);
                } else if (random.nextBoolean()) {
                    SpillContent.edit(tier, key, version);
                } else {
                    tier.remove(key);
                }
                tier.flush();
            }
        }
        List<RecordedChannel.Write> some = new ArrayList<>(channel.all);
        some.removeIf(write -> random.nextBoolean());
        Seen seen = open(after(start, some)); // looks at all content: nothing wrong is taken for intact
        assertEquals(10, seen.versions.get(1L));
        assertEquals(20, seen.versions.get(2L));
    }

    private static SpillTier open(MemoryPool pool, Path path, RecordedChannel channel) throws IOException {
        return SpillTier.builder(pool, MemoryDomain.KV_CACHE, path, BYTES, BLOCKS)
                .open(new SpillFile(channel, path, BYTES, BLOCKS));
    }

    /** The zeros behind what a header says and behind a block are many, and alike. */
    private static boolean meansNothing(int at) {
        return at % SpillFile.PAGE > BYTES + 61 && at % SpillFile.PAGE < SpillFile.PAGE - 2 * 61;
    }

    /** Of a file with three blocks every byte that means something is damaged, one at a time, and some that do not. */
    @Test
    void everyDamagedByteIsDetected() throws IOException {
        byte[] content = with(7, 8, 9);
        Map<Long, Long> all = Map.of(7L, 70L, 8L, 80L, 9L, 90L);
        assertEquals(new Seen(new TreeMap<>(all), 0), open(content));
        assertEquals(DATA + (BLOCKS + 1) * SpillFile.PAGE, content.length);
        for (int at = 0; at < content.length; at += meansNothing(at) ? 61 : 1) {
            byte[] damaged = content.clone();
            damaged[at] ^= (byte) (1 << at % 8);
            if (at < SpillFile.PAGE) {
                IOException e = assertThrows(IOException.class, () -> open(damaged));
                assertTrue(e.getMessage().contains("header is damaged"), e::getMessage);
                continue;
            }
            int inSlot = (at - DATA) % SpillFile.PAGE;
            int slot = at < DATA ? (at - SpillFile.PAGE) / SpillFile.RECORD : (at - DATA) / SpillFile.PAGE;
            boolean record = at < DATA && slot <= BLOCKS;
            boolean block = at >= DATA && slot < 3 && inSlot < BYTES;
            Map<Long, Long> expected = new TreeMap<>(all);
            if (record) {
                expected.remove(7L + slot);
            } else if (block) {
                expected.put(7L + slot, -1L);
            }
            assertEquals(new Seen(expected, record ? 1 : 0), open(damaged), "byte " + at);
        }
    }

    @Test
    void aDamagedRecordIsErasedAndItsSlotUsedAgain() throws IOException {
        byte[] content = with(1, 2, 3, 4, 5);
        content[SpillFile.PAGE + 2 * SpillFile.RECORD]++;
        Path path = Files.write(folder.resolve("file"), content);
        for (int opened = 0; opened < 2; opened++) {
            try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
                assertEquals(1 - opened, file.damagedRecords());
                assertEquals(List.of(1L, 2L, 4L, 5L), file.found().stream().map(SpillFile.Found::key).toList());
                MemorySegment block = arena.allocate(BYTES);
                assertNotEquals(file.write(block), file.write(block)); // two are free
            }
        }
    }

    /** Where a process ended before it erased the record of an older version, the newer one counts. */
    @Test
    void ofTwoVersionsTheNewerIsThere() throws IOException {
        for (boolean newerFirst : new boolean[] {false, true}) {
            Path path = folder.resolve("two" + newerFirst);
            MemorySegment block = arena.allocate(BYTES);
            try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
                SpillContent.fill(block, 1, 1);
                int first = file.write(block);
                file.record(newerFirst ? file.write(block) : first, 1); // the newer one goes to the lowest that is free
            }
            try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
                SpillContent.fill(block, 1, 2);
                int second = file.write(block);
                assertEquals(newerFirst, second < file.found().getFirst().slot());
                file.record(second, 1);
            }
            assertEquals(new Seen(new TreeMap<>(Map.of(1L, 2L)), 0), open(Files.readAllBytes(path)));
            assertEquals(new Seen(new TreeMap<>(Map.of(1L, 2L)), 0), open(Files.readAllBytes(folder.resolve("copy"))));
            try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
                for (int i = 0; i < BLOCKS; i++) {
                    file.write(block); // all others are free
                }
                assertThrows(ArrayIndexOutOfBoundsException.class, () -> file.write(block));
            }
        }
    }

    @Test
    void theMakingOfAFileCanBeCutShort() throws IOException {
        Path path = folder.resolve("made");
        RecordedChannel channel = new RecordedChannel(path);
        channel.mostBytes = 1000;
        new SpillFile(channel, path, BYTES, BLOCKS).close();
        byte[] made = Files.readAllBytes(path);
        List<RecordedChannel.Write> writes = channel.all.stream().toList();
        int header = (SpillFile.PAGE + 999) / 1000; // a process writes it at once
        for (int end = header; end <= writes.size() - header; end++) {
            byte[] part = new byte[made.length];
            RecordedChannel.Write last = writes.get(end - 1);
            part = Arrays.copyOf(after(part, writes.subList(0, end)), (int) last.position() + last.bytes().length);
            assertEquals(new Seen(Map.of(), 0), open(part));
            assertEquals(made.length, Files.size(folder.resolve("copy")));
        }
        assertEquals(new Seen(Map.of(), 0), open(new byte[0]));
        assertEquals(new Seen(Map.of(), 0), open(made));
    }

    @Test
    void aFullDiskIsAnErrorWhenTheFileIsMadeAndLeavesNothing() throws IOException {
        Path path = folder.resolve("full");
        RecordedChannel channel = new RecordedChannel(path);
        channel.failFrom = SpillFile.PAGE;
        IOException e = assertThrows(IOException.class, () -> new SpillFile(channel, path, 1 << 20, BLOCKS));
        assertTrue(e.getMessage().contains("no space"), e::getMessage);
        assertEquals(0, channel.size());
        channel.failFrom = Long.MAX_VALUE;
        channel.close();
        IOException known = assertThrows(IOException.class, () -> SpillFile.open(path, 1 << 30, 1 << 28));
        assertTrue(known.getMessage().contains("is full"), known::getMessage);
        assertEquals(0, Files.size(path), "it was known before anything was written");
        SpillFile.open(path, BYTES, BLOCKS).close();
    }

    @Test
    void transfersInPartsAreContinued() throws IOException {
        Path path = folder.resolve("parts");
        MemorySegment block = arena.allocate(10_000);
        for (int opened = 0; opened < 2; opened++) {
            RecordedChannel channel = new RecordedChannel(path);
            channel.mostBytes = 7;
            try (SpillFile file = new SpillFile(channel, path, 10_000, 2)) {
                if (opened == 0) {
                    SpillContent.fill(block, 5, 6);
                    file.record(file.write(block), 5);
                } else {
                    assertTrue(file.read(file.found().getFirst().slot(), block.fill((byte) 0)));
                    assertEquals(6, SpillContent.version(block, 5));
                }
            }
        }
    }

    @Test
    void whatIsNoSpillFileIsLeftAlone() throws IOException {
        Path path = folder.resolve("other");
        for (byte[] content : List.of("something".getBytes(), new byte[100_000])) {
            Files.write(path, content);
            IOException e = assertThrows(IOException.class, () -> SpillFile.open(path, BYTES, BLOCKS));
            assertTrue(e.getMessage().contains("is no spill file"), e::getMessage);
            assertEquals(-1, Arrays.mismatch(content, Files.readAllBytes(path)));
        }
        byte[] made = with(1);
        Path file = folder.resolve("file");
        Expect.illegalArgument("blockBytes: 204, expected 203", () -> SpillFile.open(file, 204, BLOCKS));
        Expect.illegalArgument("blocks: 4, expected 5", () -> SpillFile.open(file, BYTES, 4));
        IOException cut = assertThrows(IOException.class, () -> open(Arrays.copyOf(made, made.length - 1)));
        assertTrue(cut.getMessage().contains("cut off"), cut::getMessage);
        assertThrows(IOException.class, () -> SpillFile.open(folder, BYTES, BLOCKS));
        assertThrows(IOException.class, () -> SpillFile.open(folder.resolve("no/file"), BYTES, BLOCKS));
    }

    @Test
    void oneAtATime() throws IOException {
        Path path = folder.resolve("file");
        try (SpillFile file = SpillFile.open(path, BYTES, BLOCKS)) {
            assertEquals(List.of(), file.found());
            Expect.illegalState("is open already", () -> SpillFile.open(path, BYTES, BLOCKS));
        }
        SpillFile.open(path, BYTES, BLOCKS).close();
    }
}
