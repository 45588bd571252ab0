package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SpillTierTest {
    private static final int BYTES = 40_000;
    private static final MemoryDomain DOMAIN = MemoryDomain.KV_CACHE;

    @TempDir
    Path folder;

    private final Device device = Device.open("cpu", 1);
    private MemoryPool pool = MemoryPool.of(device);
    private Path file = Path.of("");

    @BeforeEach
    void choose() {
        file = folder.resolve("spill");
    }

    @AfterEach
    void nothingIsLost() {
        assertEquals(0, blocksOfThePool());
        pool.close();
        device.close();
    }

    private long blocksOfThePool() {
        pool.trim(); // in check mode blocks are given back later
        return pool.statistics().blocks();
    }

    private SpillTier.Builder builder(int blocks) {
        return SpillTier.builder(pool, DOMAIN, file, BYTES, blocks);
    }

    private RecordedChannel channel() throws IOException {
        return new RecordedChannel(file);
    }

    private SpillTier open(SpillTier.Builder builder, RecordedChannel channel, int blocks) throws IOException {
        return builder.open(new SpillFile(channel, file, BYTES, blocks));
    }

    /** Whether a block is in memory: a pin of it reads nothing. It counts as used after that. */
    private static boolean inMemory(SpillTier tier, long key) {
        long reads = tier.statistics().reads();
        assertTrue(SpillContent.version(tier, key) >= 0);
        return tier.statistics().reads() == reads;
    }

    private static void await(BooleanSupplier condition) throws InterruptedException {
        for (int i = 0; i < 2000; i++) {
            if (condition.getAsBoolean()) {
                return;
            }
            Thread.sleep(5);
        }
        throw new AssertionError("it never came");
    }

    private void flip(long at) throws IOException {
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            ByteBuffer one = ByteBuffer.allocate(1);
            channel.read(one, at);
            one.put(0, (byte) ~one.get(0)).flip();
            channel.write(one, at);
        }
    }

    @Test
    void moreBlocksThanMemory() {
        try (SpillTier tier = builder(50).residentBlocks(4).open()) {
            for (long key = 0; key < 50; key++) {
                SpillContent.create(tier, key - 25, key);
            }
            for (long key = 0; key < 50; key++) {
                assertTrue(tier.contains(key - 25));
                assertEquals(key, SpillContent.version(tier, key - 25));
            }
            assertEquals(-1, SpillContent.version(tier, 99));
            SpillTier.Statistics statistics = tier.statistics();
            assertEquals(50, statistics.blocks());
            assertEquals(4, statistics.residentBlocks());
            assertEquals(0, statistics.pins());
            assertEquals(50, statistics.writes());
            assertEquals(50, statistics.hits() + statistics.reads());
            assertEquals(46 + statistics.reads(), statistics.evictions());
            assertEquals(1, statistics.misses());
            assertEquals(0, statistics.damaged() + statistics.failures() + statistics.dropped());
            assertEquals(4, blocksOfThePool());
        }
    }

    @Test
    void theLeastRecentlyUsedLeavesMemory() {
        try (SpillTier tier = builder(10).residentBlocks(3).open()) {
            for (long key = 1; key <= 3; key++) {
                SpillContent.create(tier, key, key);
            }
            tier.flush();
            assertTrue(inMemory(tier, 1)); // from here on 2, 3, 1
            SpillContent.create(tier, 4, 4);
            tier.flush();
            assertTrue(inMemory(tier, 3)); // 1, 4, 3
            assertFalse(inMemory(tier, 2)); // for 1: 4, 3, 2
            assertTrue(inMemory(tier, 4)); // 3, 2, 4
            assertFalse(inMemory(tier, 1)); // for 3: 2, 4, 1
            assertTrue(inMemory(tier, 2));
            assertTrue(inMemory(tier, 4));
            assertFalse(inMemory(tier, 3)); // for 1
            assertEquals(4, tier.statistics().evictions());
            tier.evict(2L * BYTES);
            assertEquals(1, tier.statistics().residentBlocks());
            assertTrue(inMemory(tier, 3));
            assertEquals(BYTES, tier.evict(Long.MAX_VALUE));
            assertEquals(0, blocksOfThePool());
        }
    }

    @Test
    void whatIsPinnedStays() {
        try (SpillTier tier = builder(10).residentBlocks(2).open()) {
            for (long key = 1; key <= 4; key++) {
                SpillContent.create(tier, key, key);
            }
            SpillTier.Pin one = tier.pin(1);
            SpillTier.Pin again = tier.pin(1);
            try (SpillTier.Pin two = tier.pin(2)) {
                assertEquals(one.memory().address(), again.memory().address());
                String full = "no room: it has 2 blocks in memory, as many as it may, and all are pinned";
                Expect.failure(GatunException.class, full, () -> tier.pin(3));
                Expect.failure(GatunException.class, full, () -> tier.create(5));
                assertFalse(tier.contains(5));
                assertEquals(0, tier.evict(1));
                one.close();
                Expect.failure(GatunException.class, full, () -> tier.pin(3));
                again.close();
                again.close(); // once is enough
                assertEquals(3, SpillContent.version(tier, 3));
                assertEquals(2, SpillContent.version(two.memory(), 2));
                assertEquals(2, two.key());
            }
            assertEquals(0, tier.statistics().pins());
        }
    }

    @Test
    void aBlockIsReadByManyOrChangedByOne() {
        try (SpillTier tier = builder(10).open()) {
            SpillTier.Pin created = tier.create(1);
            assertNotNull(created);
            assertNull(tier.create(1));
            assertNull(tier.pin(1), "not before it is committed");
            assertFalse(tier.contains(1));
            Expect.illegalState("block 0x1 of the spill tier in " + file + " is being created", () -> tier.remove(1));
            SpillContent.fill(created.memory(), 1, 1);
            created.commit();
            assertNull(tier.pin(1), "nor before it is closed");
            created.close();
            assertNull(tier.create(1));
            SpillTier.Pin pin = tier.pin(1);
            assertTrue(pin.memory().isReadOnly());
            Expect.illegalState("is only pinned", pin::commit);
            Expect.illegalState("is pinned", () -> tier.edit(1));
            Expect.illegalState("is pinned", () -> tier.remove(1));
            Expect.illegalState("freed already, or is a slice", () -> pool.free(pin.memory()));
            pin.close();
            Expect.illegalState("the pin of block 0x1", pin::memory);
            SpillTier.Pin edit = tier.edit(1);
            Expect.illegalState("is being edited", () -> tier.pin(1));
            Expect.illegalState("is being edited", () -> tier.edit(1));
            Expect.illegalState("is being edited", () -> tier.remove(1));
            Expect.illegalState("freed already, or is a slice", () -> pool.free(edit.memory()));
            SpillContent.fill(edit.memory(), 1, 2);
            edit.commit();
            edit.close();
            Expect.illegalState("is closed", edit::commit);
            assertEquals(2, SpillContent.version(tier, 1));
            assertNull(tier.edit(3));
            assertTrue(tier.remove(1));
            assertFalse(tier.remove(1));
            assertNull(tier.pin(1));
        }
    }

    @Test
    void whatIsNotCommittedIsGone() {
        try (SpillTier tier = builder(10).open()) {
            SpillContent.create(tier, 1, 1);
            tier.create(2).close();
            tier.flush();
            tier.edit(1).close();
            assertFalse(tier.contains(1));
            assertFalse(tier.contains(2));
            assertEquals(0, tier.statistics().residentBlocks());
            SpillContent.create(tier, 1, 3);
        }
        try (SpillTier tier = builder(10).open()) {
            assertEquals(3, SpillContent.version(tier, 1));
            assertEquals(1, tier.statistics().blocks());
        }
    }

    @Test
    void blocksOutliveTheTier() {
        try (SpillTier tier = builder(8).residentBlocks(3).open()) {
            for (long key = 1; key <= 8; key++) {
                SpillContent.create(tier, key, key);
            }
            for (long key = 1; key <= 8; key += 2) {
                SpillContent.edit(tier, key, 10 * key);
            }
            tier.remove(4);
            tier.flush();
            assertEquals(0, tier.statistics().unwrittenBlocks());
            tier.sync();
        }
        try (SpillTier tier = builder(8).dropWhenFull().open()) {
            assertEquals(7, tier.statistics().foundBlocks());
            SpillContent.create(tier, 4, 44);
            SpillContent.create(tier, 9, 99); // in the place of 2, which was written before the others
            assertFalse(tier.contains(2));
            for (long key : new long[] {1, 3, 5, 7}) {
                assertEquals(10 * key, SpillContent.version(tier, key));
            }
            assertEquals(8, tier.statistics().blocks());
        }
        try (SpillTier tier = builder(8).open()) {
            assertEquals(6, SpillContent.version(tier, 6));
            assertEquals(44, SpillContent.version(tier, 4));
            assertEquals(99, SpillContent.version(tier, 9));
            assertEquals(8, tier.statistics().foundBlocks());
        }
    }

    @Test
    void aDamagedBlockIsNone() throws IOException, InterruptedException {
        try (SpillTier tier = builder(8).open()) {
            for (long key = 0; key < 6; key++) {
                SpillContent.create(tier, key, key); // in slots of the same numbers
            }
        }
        long start;
        try (SpillFile opened = SpillFile.open(file, BYTES, 8)) {
            start = opened.slot(0);
            assertEquals(2, opened.found().get(2).slot());
            assertEquals(4, opened.found().get(4).slot());
        }
        long stride = (BYTES + SpillFile.PAGE - 1) / SpillFile.PAGE * SpillFile.PAGE;
        flip(start + 2 * stride);
        flip(start + 4 * stride + BYTES - 1);
        flip(SpillFile.PAGE + 5 * SpillFile.RECORD + 3);
        try (SpillTier tier = builder(8).open()) {
            assertEquals(1, tier.statistics().damaged(), "a record");
            assertEquals(5, tier.statistics().foundBlocks());
            assertFalse(tier.contains(5));
            assertTrue(tier.contains(2));
            assertNull(tier.pin(2));
            assertFalse(tier.contains(2));
            assertEquals(2, tier.statistics().damaged());
            tier.prefetch(4);
            await(() -> tier.statistics().damaged() == 3);
            assertNull(tier.edit(4));
            for (long key : new long[] {0, 1, 3}) {
                assertEquals(key, SpillContent.version(tier, key));
            }
            SpillContent.create(tier, 2, 22);
        }
        try (SpillTier tier = builder(8).open()) {
            assertEquals(0, tier.statistics().damaged());
            assertEquals(4, tier.statistics().foundBlocks());
            assertEquals(22, SpillContent.version(tier, 2));
        }
    }

    @Test
    void prefetchReadsAhead() throws InterruptedException {
        try (SpillTier tier = builder(20).residentBlocks(8).open()) {
            for (long key = 0; key < 20; key++) {
                SpillContent.create(tier, key, key);
            }
            tier.flush();
            tier.evict(Long.MAX_VALUE);
            tier.prefetch(3, 4, 5, 99, 3);
            await(() -> tier.statistics().reads() == 3);
            for (long key = 3; key <= 5; key++) {
                assertTrue(inMemory(tier, key));
            }
            try (SpillTier.Pin pin = tier.pin(3)) {
                for (long key = 0; key < 20; key++) {
                    tier.prefetch(key);
                }
                await(() -> tier.statistics().reads() == 20);
                assertEquals(8, tier.statistics().residentBlocks());
                assertEquals(3, SpillContent.version(pin.memory(), 3));
            }
            List<SpillTier.Pin> pins = new ArrayList<>();
            for (long key = 0; key < 8; key++) {
                pins.add(tier.pin(key));
            }
            long reads = tier.statistics().reads();
            tier.prefetch(10, 11); // no room
            Thread.sleep(50);
            assertEquals(reads, tier.statistics().reads());
            pins.forEach(SpillTier.Pin::close);
            assertFalse(inMemory(tier, 10));
        }
    }

    @Test
    void asManyBlocksAsThereCanBe() {
        try (SpillTier tier = builder(3).open()) {
            for (long key = 1; key <= 3; key++) {
                SpillContent.create(tier, key, key);
            }
            Expect.failure(GatunException.class, "no room for block 0x4 of the spill tier in " + file
                    + ": it has 3 blocks, as many as its file", () -> tier.create(4));
            for (long version = 10; version < 30; version++) { // changes need no more
                SpillContent.edit(tier, 1 + version % 3, version);
                tier.flush();
            }
            tier.remove(2);
            SpillContent.create(tier, 4, 4);
        }
        try (SpillTier tier = builder(3).residentBlocks(2).dropWhenFull().open()) {
            assertEquals(3, tier.statistics().foundBlocks());
            for (long key = 10; key < 15; key++) {
                SpillContent.create(tier, key, key);
                tier.flush();
            }
            assertEquals(5, tier.statistics().dropped());
            assertEquals(3, tier.statistics().blocks());
            for (long key = 12; key < 15; key++) {
                assertEquals(key, SpillContent.version(tier, key));
            }
            try (SpillTier.Pin a = tier.pin(13); SpillTier.Pin b = tier.pin(14)) {
                SpillContent.version(a.memory(), 13);
                SpillContent.version(b.memory(), 14);
                Expect.failure(GatunException.class, "all are pinned", () -> tier.create(15)); // though 12 made room
            }
        }
    }

    @Test
    void theLimitOfTheDomainAndOtherUsersOfIt() {
        pool.close();
        AtomicReference<SpillTier> known = new AtomicReference<>();
        pool = MemoryPool.builder(device)
                .limit(DOMAIN, 1 << 20)
                .whenFull(DOMAIN, WhenFull.evict((domain, bytes) -> known.get().evict(bytes) > 0))
                .build();
        try (SpillTier tier = builder(100).open()) {
            known.set(tier);
            for (long key = 0; key < 100; key++) {
                SpillContent.create(tier, key, key);
            }
            for (long key = 0; key < 100; key++) {
                assertEquals(key, SpillContent.version(tier, key));
            }
            long before = tier.statistics().residentBlocks();
            assertTrue(before > 10 && before <= (1 << 20) / BYTES, () -> before + " blocks in memory");
            MemorySegment other = pool.allocate(DOMAIN, 600_000, 64); // has blocks leave
            assertTrue(tier.statistics().residentBlocks() < 12);
            for (long key = 0; key < 100; key++) {
                assertEquals(key, SpillContent.version(tier, key));
            }
            List<SpillTier.Pin> pins = new ArrayList<>();
            GatunException full = Expect.failure(GatunException.class, "limit of 1048576", () -> {
                for (long key = 0; key < 100; key++) {
                    pins.add(tier.pin(key));
                }
            });
            assertTrue(full.getMessage().contains("KV_CACHE"), full::getMessage);
            assertEquals(pins.size(), tier.statistics().residentBlocks());
            pins.forEach(SpillTier.Pin::close);
            pool.free(other);
        }
    }

    /** Blocks that are pinned no more, or only just written, are what a request waits for that found nothing else. */
    @Test
    void aRequestThatWaitsForThePoolGetsWhatIsUnpinned() throws Exception {
        pool.close();
        pool = MemoryPool.builder(device)
                .limit(DOMAIN, 1 << 20)
                .whenFull(DOMAIN, WhenFull.await(Duration.ofMinutes(1)))
                .build();
        try (SpillTier tier = SpillTier.builder(pool, DOMAIN, file, 400_000, 10).open()) {
            for (long key = 1; key <= 3; key++) {
                SpillContent.create(tier, key, key);
            }
            for (boolean changes : new boolean[] {false, true}) {
                SpillTier.Pin one = tier.pin(1);
                SpillTier.Pin two = changes ? tier.edit(2) : tier.pin(2);
                FutureTask<Long> waits = new FutureTask<>(() -> SpillContent.version(tier, 3));
                Thread thread = Thread.ofPlatform().start(waits);
                await(() -> thread.getState() == Thread.State.TIMED_WAITING);
                if (changes) {
                    SpillContent.fill(two.memory(), 2, 22);
                    two.commit();
                }
                two.close();
                assertEquals(3, waits.get(30, TimeUnit.SECONDS));
                one.close();
            }
            assertEquals(22, SpillContent.version(tier, 2));
        }
    }

    /** In check mode the memory of a pin is not to be used any more when its block has left memory. */
    @Test
    void checkModeFindsUseAfterClose() {
        String before = System.setProperty("io.gatun.pool.check", "true");
        try (MemoryPool checked = MemoryPool.of(device);
                SpillTier tier = SpillTier.builder(checked, DOMAIN, file, BYTES, 10).open()) {
            SpillContent.create(tier, 1, 1);
            SpillTier.Pin pin = tier.pin(1);
            MemorySegment stale = pin.memory();
            pin.close();
            assertEquals(BYTES, tier.evict(1));
            assertThrows(IllegalStateException.class, () -> stale.get(ValueLayout.JAVA_BYTE, 0));
        } finally {
            if (before == null) {
                System.clearProperty("io.gatun.pool.check");
            }
        }
    }

    @Test
    void whatCannotBeWrittenStaysInMemory() throws IOException {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(10).residentBlocks(3), channel, 10)) {
            SpillContent.create(tier, 1, 1);
            SpillContent.create(tier, 2, 2);
            tier.flush();
            channel.failFrom = 0;
            SpillContent.edit(tier, 1, 10);
            SpillContent.edit(tier, 2, 20);
            SpillContent.create(tier, 3, 30);
            String why = "the spill file " + file + " cannot be written: no space left";
            for (int i = 0; i < 2; i++) {
                Expect.failure(UncheckedIOException.class, why, tier::flush);
                Expect.failure(UncheckedIOException.class, why, tier::sync);
                Expect.failure(UncheckedIOException.class, why, () -> tier.create(4));
                assertEquals(0, tier.evict(1));
            }
            assertTrue(tier.statistics().failures() >= 6);
            assertEquals(3, tier.statistics().unwrittenBlocks());
            assertEquals(10, SpillContent.version(tier, 1));
            channel.failFrom = Long.MAX_VALUE;
            tier.flush();
            channel.failBelow = SpillFile.PAGE * 2; // records
            SpillContent.edit(tier, 1, 11);
            for (int i = 0; i < 20; i++) { // more often than there are slots
                Expect.failure(UncheckedIOException.class, why, tier::flush);
            }
            tier.remove(2);
            Expect.failure(UncheckedIOException.class, why, tier::flush);
            channel.failBelow = 0;
            SpillContent.create(tier, 2, 21);
        }
        try (SpillTier tier = builder(10).open()) {
            assertEquals(11, SpillContent.version(tier, 1));
            assertEquals(21, SpillContent.version(tier, 2));
            assertEquals(30, SpillContent.version(tier, 3));
            assertEquals(3, tier.statistics().foundBlocks());
        }
    }

    @Test
    void cleanBlocksMakeRoomWhileOthersCannotBeWritten() throws IOException {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(10).residentBlocks(2), channel, 10)) {
            SpillContent.create(tier, 1, 1);
            tier.flush();
            channel.failFrom = 0;
            SpillContent.create(tier, 2, 2);
            assertEquals(1, SpillContent.version(tier, 1));
            SpillContent.create(tier, 3, 3);
            assertEquals(2, SpillContent.version(tier, 2));
            channel.failFrom = Long.MAX_VALUE;
        }
    }

    @Test
    void aFailureOfWhatWasUnderWayBeforeIsNobodyElses() throws Exception {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(10), channel, 10)) {
            CountDownLatch underWay = new CountDownLatch(1);
            CountDownLatch ends = new CountDownLatch(1);
            AtomicBoolean first = new AtomicBoolean(true);
            channel.beforeWrite = () -> {
                if (first.getAndSet(false)) {
                    underWay.countDown();
                    awaitQuietly(ends);
                    throw new IllegalStateException("the first write fails, says the test");
                }
            };
            SpillContent.create(tier, 1, 1);
            assertTrue(underWay.await(10, TimeUnit.SECONDS));
            FutureTask<Void> after = new FutureTask<>(tier::flush, null);
            Thread waits = Thread.ofPlatform().start(after);
            while (waits.getState() != Thread.State.WAITING) {
                Thread.onSpinWait();
            }
            ends.countDown();
            after.get();
            assertEquals(0, tier.statistics().unwrittenBlocks());
        }
    }

    private static void awaitQuietly(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    @Test
    void aCloseThatCannotWriteSaysSoAndCloses() throws IOException {
        RecordedChannel channel = channel();
        SpillTier tier = open(builder(10), channel, 10);
        SpillContent.create(tier, 1, 1);
        tier.flush();
        channel.failFrom = 0;
        SpillContent.create(tier, 2, 2);
        Expect.failure(UncheckedIOException.class, "cannot be written", tier::close);
        tier.close();
        try (SpillTier again = builder(10).open()) {
            assertEquals(1, SpillContent.version(again, 1));
            assertFalse(again.contains(2));
        }
    }

    @Test
    void aBlockThatCannotBeReadIsNotGivenUp() throws IOException {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(10), channel, 10)) {
            SpillContent.create(tier, 1, 1);
            tier.evict(BYTES);
            channel.failReads = true;
            for (int i = 0; i < 2; i++) {
                Expect.failure(UncheckedIOException.class, "cannot be read: no answer", () -> tier.pin(1));
            }
            assertEquals(0, tier.statistics().residentBlocks());
            assertEquals(2, tier.statistics().failures());
            channel.failReads = false;
            assertEquals(1, SpillContent.version(tier, 1));
            assertEquals(0, tier.statistics().damaged());
        }
    }

    /** An interrupt closes a channel that the interrupted thread reads or writes; here it does not. */
    @Test
    void anInterruptDoesNotCloseTheFile() {
        try (SpillTier tier = builder(10).residentBlocks(1).open()) {
            Thread.currentThread().interrupt();
            for (long key = 0; key < 10; key++) {
                SpillContent.create(tier, key, key);
            }
            for (long key = 0; key < 10; key++) {
                assertEquals(key, SpillContent.version(tier, key));
            }
            tier.sync();
            assertTrue(Thread.interrupted(), "it is still set");
            assertEquals(9, SpillContent.version(tier, 9));
        }
    }

    @Test
    void closing() {
        SpillTier tier = builder(10).open();
        Expect.illegalState("is open already", () -> builder(10).open());
        SpillContent.create(tier, 1, 1);
        try (SpillTier.Pin pin = tier.pin(1)) {
            Expect.illegalState("cannot be closed: 1 block is pinned", tier::close);
            assertEquals(1, SpillContent.version(pin.memory(), 1));
        }
        Expect.illegalState("cannot be closed: 1 spill tier of it is open", pool::close);
        tier.close();
        tier.close();
        List<Runnable> uses = List.of(() -> tier.pin(1), () -> tier.edit(1), () -> tier.create(2), () -> tier.remove(1),
                () -> tier.contains(1), () -> tier.prefetch(1), () -> tier.evict(1), tier::flush, tier::sync);
        for (Runnable use : uses) {
            Expect.illegalState("the spill tier in " + file + " is closed", use::run);
        }
        assertEquals(0, tier.statistics().residentBlocks());
        MemoryPool other = MemoryPool.of(device);
        other.close();
        Expect.illegalState("is closed", () -> SpillTier.builder(other, DOMAIN, file, BYTES, 10).open());
        builder(10).open().close(); // the file was left
    }

    @Test
    void whatIsForgottenIsClosed() throws InterruptedException {
        SpillContent.create(builder(10).open(), 1, 1);
        AtomicReference<SpillTier> again = new AtomicReference<>();
        await(() -> {
            System.gc();
            try {
                again.set(builder(10).open());
                return true;
            } catch (IllegalStateException e) {
                return false;
            }
        });
        assertEquals(1, SpillContent.version(again.get(), 1), "what was to be written was");
        again.get().close();
        pool.close();
        pool = MemoryPool.of(device); // the forgotten tier's memory went with the other one
    }

    @Test
    void wrongArguments() {
        Expect.illegalArgument("blockBytes: 0, expected 1 to 1073741824",
                () -> SpillTier.builder(pool, DOMAIN, file, 0, 10));
        Expect.illegalArgument("blockBytes: 1073741825",
                () -> SpillTier.builder(pool, DOMAIN, file, (1 << 30) + 1, 10));
        Expect.illegalArgument("blocks: 0, expected 1 to 268435456", () -> SpillTier.builder(pool, DOMAIN, file, 1, 0));
        Expect.illegalArgument("blocks: 268435457", () -> SpillTier.builder(pool, DOMAIN, file, 1, (1 << 28) + 1));
        Expect.illegalArgument("residentBlocks: 0, expected 1 or more", () -> builder(10).residentBlocks(0));
        Expect.failure(NullPointerException.class, "pool", () -> SpillTier.builder(null, DOMAIN, file, 1, 1));
        Expect.failure(NullPointerException.class, "domain", () -> SpillTier.builder(pool, null, file, 1, 1));
        Expect.failure(NullPointerException.class, "file", () -> SpillTier.builder(pool, DOMAIN, null, 1, 1));
        file = folder.resolve("no/such/folder");
        Expect.failure(UncheckedIOException.class, file + " cannot be opened", () -> builder(10).open());
        file = folder.resolve("spill");
        builder(10).open().close();
        Expect.illegalArgument("blocks: 11, expected 10, as the spill file " + file, () -> builder(11).open());
        SpillTier.builder(pool, DOMAIN, folder.resolve("small"), 1, 1).open().close();
    }

    @Test
    void theFlightRecorderIsTold() throws Exception {
        List<String> told = List.of("io.gatun.PoolRestore", "io.gatun.PoolSpill", "io.gatun.PoolSpillFailure");
        Path recorded = folder.resolve("spill.jfr");
        try (Recording recording = new Recording()) {
            told.forEach(name -> recording.enable(name).withoutThreshold());
            recording.start();
            RecordedChannel channel = channel();
            try (SpillTier tier = open(builder(10), channel, 10)) {
                SpillContent.create(tier, 1, 1);
                tier.flush();
                tier.evict(BYTES);
                assertEquals(1, SpillContent.version(tier, 1));
                channel.failFrom = 0;
                SpillContent.edit(tier, 1, 2);
                Expect.failure(UncheckedIOException.class, "no space", tier::flush);
                channel.failFrom = Long.MAX_VALUE;
            }
            recording.stop();
            recording.dump(recorded);
        }
        List<RecordedEvent> events = RecordingFile.readAllEvents(recorded).stream()
                .filter(event -> told.contains(event.getEventType().getName()))
                .toList();
        for (RecordedEvent event : events) {
            assertEquals("KV_CACHE", event.getString("domain"));
            assertEquals(BYTES, event.getLong("bytes"));
            if (event.hasField("reason")) {
                assertTrue(event.getString("reason").contains("no space left"), () -> event.getString("reason"));
            }
        }
        List<String> names = events.stream().map(event -> event.getEventType().getName()).distinct().sorted().toList();
        assertEquals(told, names);
    }

    /** If the process ended where a block was edited while it was written, the file would have its old version. */
    @Test
    void halfAChangeIsNeverThere() throws Exception {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(4), channel, 4)) {
            SpillContent.create(tier, 1, 1);
            tier.flush();
            CountDownLatch writes = new CountDownLatch(1);
            CountDownLatch goOn = new CountDownLatch(1);
            channel.beforeWrite = () -> {
                writes.countDown();
                try {
                    goOn.await();
                } catch (InterruptedException e) {
                    throw new AssertionError(e);
                }
            };
            SpillContent.edit(tier, 1, 2);
            writes.await();
            try (SpillTier.Pin pin = tier.edit(1)) {
                SpillContent.fill(pin.memory(), 1, 3);
                goOn.countDown();
                await(() -> channel.all.getLast().bytes().length == BYTES); // it was written
                tier.flush(); // knows that the block is edited
                Path copy = Files.copy(file, folder.resolve("copy"));
                try (SpillTier other = SpillTier.builder(pool, DOMAIN, copy, BYTES, 4).open()) {
                    assertEquals(1, SpillContent.version(other, 1));
                }
                pin.commit();
            }
            tier.flush();
            tier.evict(BYTES);
            assertEquals(3, SpillContent.version(tier, 1));
        }
    }

    /** The same where the edit is over before the write is: it is written once more, and only then recorded. */
    @Test
    void norIsAChangeThatWasQuick() throws Exception {
        RecordedChannel channel = channel();
        try (SpillTier tier = open(builder(4), channel, 4)) {
            SpillContent.create(tier, 1, 1);
            tier.flush();
            Semaphore writes = new Semaphore(0);
            Semaphore goOn = new Semaphore(0);
            channel.beforeWrite = () -> {
                writes.release();
                goOn.acquireUninterruptibly();
            };
            SpillContent.edit(tier, 1, 2);
            writes.acquire();
            SpillContent.edit(tier, 1, 3);
            try {
                for (int i = 0; i < 3; i++) { // the block twice, its record, and the one before
                    goOn.release();
                    writes.acquire();
                    Path copy = Files.copy(file, folder.resolve("copy" + i));
                    try (SpillTier other = SpillTier.builder(pool, DOMAIN, copy, BYTES, 4).open()) {
                        assertEquals(i < 2 ? 1 : 3, SpillContent.version(other, 1));
                    }
                }
            } finally {
                channel.beforeWrite = () -> {};
                goOn.release(100);
            }
        }
    }

    /** A block that is edited while it is written is not taken for written, and the file never has half of it. */
    @Test
    void changesDuringAWriteAreWrittenAfterIt() throws Exception {
        CountDownLatch stop = new CountDownLatch(1);
        try (SpillTier tier = builder(4).open()) {
            SpillContent.create(tier, 1, 0);
            Thread flusher = Thread.ofPlatform().start(() -> {
                while (stop.getCount() > 0) {
                    tier.flush();
                }
            });
            for (long version = 1; version <= 2000; version++) {
                SpillContent.edit(tier, 1, version);
                if (version % 50 == 0) {
                    tier.flush();
                    tier.evict(BYTES); // what it reads then must be the last
                }
                assertEquals(version, SpillContent.version(tier, 1));
            }
            stop.countDown();
            flusher.join();
        }
        try (SpillTier tier = builder(4).open()) {
            assertEquals(2000, SpillContent.version(tier, 1));
            assertEquals(1, tier.statistics().foundBlocks());
        }
    }

    /** A reader's memory never changes under it, and is what it was when it was committed. */
    @Test
    void manyThreads() throws Exception {
        int keys = 40;
        AtomicReference<Throwable> failed = new AtomicReference<>();
        try (SpillTier tier = builder(keys).residentBlocks(12).open()) {
            List<Thread> threads = new ArrayList<>();
            for (int t = 0; t < 8; t++) {
                int seed = t;
                Thread.Builder builder = t % 2 == 0 ? Thread.ofPlatform() : Thread.ofVirtual();
                threads.add(builder.start(() -> {
                    try {
                        work(tier, keys, new SplittableRandom(seed));
                    } catch (Throwable e) {
                        failed.compareAndSet(null, e);
                    }
                }));
            }
            for (Thread thread : threads) {
                thread.join();
            }
            if (failed.get() != null) {
                throw new AssertionError(failed.get());
            }
            assertEquals(0, tier.statistics().pins());
            assertTrue(tier.statistics().residentBlocks() <= 12);
            assertEquals(0, tier.statistics().damaged() + tier.statistics().failures());
        }
    }

    private static void work(SpillTier tier, int keys, SplittableRandom random) {
        for (int i = 0; i < 2000; i++) {
            long key = random.nextInt(keys);
            try {
                switch (random.nextInt(12)) {
                    case 0 -> tier.remove(key);
                    case 1 -> tier.prefetch(key, random.nextInt(keys));
                    case 2 -> tier.evict(BYTES);
                    case 3 -> tier.flush();
                    case 4, 5, 6 -> {
                        try (SpillTier.Pin pin = random.nextBoolean() ? tier.create(key) : tier.edit(key)) {
                            if (pin != null) {
                                SpillContent.fill(pin.memory(), key, random.nextInt(1 << 20));
                                if (random.nextInt(8) > 0) {
                                    pin.commit();
                                }
                            }
                        }
                    }
                    default -> {
                        try (SpillTier.Pin pin = tier.pin(key)) {
                            if (pin != null) {
                                long version = SpillContent.version(pin.memory(), key);
                                assertEquals(version, pin.memory().get(ValueLayout.JAVA_LONG_UNALIGNED, 0));
                            }
                        }
                    }
                }
            } catch (IllegalStateException e) { // by another thread
                assertTrue(e.getMessage().contains("is pinned") || e.getMessage().contains("is being"), e::getMessage);
            }
        }
    }
}
