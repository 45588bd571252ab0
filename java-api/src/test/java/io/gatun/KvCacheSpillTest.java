package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * A small cache over a tier, against all tokens that were ever there. What is written for a token depends on all tokens
 * before it, so that a page of another prefix is seen.
 */
class KvCacheSpillTest {
    private static final int LAYERS = 2;
    private static final int LONGEST = 256;

    @TempDir
    Path folder;

    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = MemoryPool.of(device);
    private final Arena arena = Arena.ofShared();
    private final Stream stream = device.newStream();
    private final Tensor positions = Tensor.allocate(arena, DType.S64, LONGEST);
    private final Tensor slots = Tensor.allocate(arena, DType.S64, LONGEST);
    private final Tensor blockTable = Tensor.allocate(arena, DType.S32, 1, LONGEST);
    private final Tensor lengths = Tensor.allocate(arena, DType.S64, 1);
    private final List<int[]> known = new ArrayList<>();
    private Path file = Path.of("");
    private long misses; // conversations of which less was found than was known

    @BeforeEach
    void choose() {
        file = folder.resolve("pages");
    }

    @AfterEach
    void close() {
        stream.close();
        assertEquals(0, pool.statistics().blocks());
        pool.close();
        device.close();
        arena.close();
    }

    private static TensorSpec k(int pages, int pageSize) {
        return TensorSpec.of(DType.S8, pages, pageSize, 1, 4);
    }

    private static TensorSpec v(int pages, int pageSize) {
        return TensorSpec.of(DType.S8, pages, pageSize, 1, 12);
    }

    private KvCache cache(int pages, int pageSize, SpillTier tier) {
        return KvCache.of(pool, LAYERS, k(pages, pageSize), v(pages, pageSize), tier);
    }

    private SpillTier.Builder tier(int pageSize, int blocks) {
        return SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, blockBytes(pageSize), blocks).residentBlocks(3);
    }

    private static long blockBytes(int pageSize) {
        return KvCache.blockBytes(LAYERS, k(1, pageSize), v(1, pageSize));
    }

    private static int[] values(int[] tokens) {
        int[] values = new int[tokens.length];
        int value = 17;
        for (int i = 0; i < tokens.length; i++) {
            value = value * 1_000_003 + tokens[i] + 1;
            values[i] = value;
        }
        return values;
    }

    /** The places where the value of a row is, less the number of the place. */
    private static List<Tensor> tensors(KvCache cache) {
        List<Tensor> all = new ArrayList<>();
        for (int layer = 0; layer < LAYERS; layer++) {
            all.addAll(List.of(cache.k(layer), cache.v(layer), cache.kScales(layer), cache.vScales(layer)));
        }
        return all;
    }

    private static long at(Tensor tensor, long row) {
        long bytes = tensor.spec().stride(1) * tensor.spec().dtype().bytes();
        return (row + 1) * bytes - Integer.BYTES;
    }

    private void check(KvCache cache, KvCache.Sequence sequence, int[] tokens, int pageSize) {
        sequence.fill(blockTable, lengths, 0);
        int[] values = values(tokens);
        for (int i = 0; i < tokens.length; i++) {
            long page = blockTable.memory().getAtIndex(ValueLayout.JAVA_INT, i / pageSize);
            int place = 0;
            for (Tensor tensor : tensors(cache)) {
                int found = tensor.memory().get(
                        ValueLayout.JAVA_INT_UNALIGNED, at(tensor, page * pageSize + i % pageSize));
                assertEquals(values[i] - place++, found, "token " + i + " of " + Arrays.toString(tokens));
            }
        }
    }

    /** Opens, checks what is there, appends the rest, and closes. Returns how much of what was known was not found. */
    private int converse(KvCache cache, int[] whole, int pageSize) {
        int longest = 0;
        for (int[] other : known) {
            int mismatch = Arrays.mismatch(whole, other);
            longest = Math.max(longest, mismatch < 0 ? whole.length : mismatch);
        }
        int missing;
        try (KvCache.Sequence sequence = cache.open(whole)) {
            int reused = sequence.length();
            assertTrue(reused <= longest, "what was never there");
            missing = longest / pageSize * pageSize - reused;
            check(cache, sequence, Arrays.copyOf(whole, reused), pageSize);
            int[] rest = Arrays.copyOfRange(whole, reused, whole.length);
            sequence.append(stream, rest, positions, slots, 0);
            int[] values = values(whole);
            for (int i = 0; i < rest.length; i++) {
                long row = slots.memory().getAtIndex(ValueLayout.JAVA_LONG, i);
                int place = 0;
                for (Tensor tensor : tensors(cache)) {
                    tensor.memory().set(ValueLayout.JAVA_INT_UNALIGNED, at(tensor, row), values[reused + i] - place++);
                }
            }
            sequence.commit();
            check(cache, sequence, whole, pageSize);
        }
        known.add(whole);
        misses += missing > 0 ? 1 : 0;
        return missing;
    }

    private void converse(KvCache cache, Random random, int turns, int pages, int pageSize, boolean all) {
        for (int turn = 0; turn < turns; turn++) {
            int[] history = known.isEmpty() || random.nextInt(6) == 0 ? new int[0] : known.get(random.nextInt(known.size()));
            int kept = Math.min(random.nextInt(history.length + 1), pages * pageSize / 2);
            int[] more = random.ints(1 + random.nextInt(pages * pageSize / 3), 0, 3).toArray();
            int[] whole = Arrays.copyOf(history, kept + more.length);
            System.arraycopy(more, 0, whole, kept, more.length);
            int missing = converse(cache, whole, pageSize);
            assertTrue(!all || missing == 0, missing + " tokens were not found");
        }
    }

    /** With a tier that loses nothing, a cache that is much too small finds all that was ever there. */
    @ParameterizedTest
    @CsvSource({"30, 1", "12, 4", "8, 16", "3, 7"})
    void nothingIsForgotten(int pages, int pageSize) {
        Random random = new Random(pages);
        try (SpillTier tier = tier(pageSize, 20_000).open()) {
            try (KvCache cache = cache(pages, pageSize, tier)) {
                converse(cache, random, 400, pages, pageSize, true);
                KvCache.Statistics statistics = cache.statistics();
                assertEquals(statistics.evictedPages() > 0, statistics.spilledPages() > 0);
                assertTrue(statistics.restoredPages() > 50, statistics::toString);
                assertEquals(0, statistics.tierFailures());
                assertEquals(0, statistics.usedPages());
            }
            try (KvCache cache = cache(pages, pageSize, tier)) {
                converse(cache, random, 50, pages, pageSize, true);
            }
        }
        try (SpillTier tier = tier(pageSize, 20_000).open(); KvCache cache = cache(pages, pageSize, tier)) {
            converse(cache, random, 100, pages, pageSize, true); // after a restart
            assertTrue(cache.statistics().restoredPages() > 0);
        }
    }

    /** A tier that has to drop pages loses them, and no more. */
    @Test
    void aTierThatIsTooSmall() {
        Random random = new Random(5);
        try (SpillTier tier = tier(4, 30).dropWhenFull().open(); KvCache cache = cache(12, 4, tier)) {
            converse(cache, random, 600, 12, 4, false);
            assertTrue(misses > 0 && misses < 600 && cache.statistics().restoredPages() > 0);
            assertEquals(0, cache.statistics().tierFailures());
        }
        known.clear();
        file = folder.resolve("other");
        try (SpillTier tier = tier(4, 30).open(); KvCache cache = cache(12, 4, tier)) { // that refuses more
            converse(cache, random, 600, 12, 4, false);
            assertTrue(cache.statistics().tierFailures() > 0 && cache.statistics().restoredPages() > 0);
        }
    }

    @Test
    void aDamagedPageIsComputedAgain() throws IOException {
        Random random = new Random(6);
        try (SpillTier tier = tier(4, 500).open(); KvCache cache = cache(12, 4, tier)) {
            converse(cache, random, 40, 12, 4, true);
        }
        long first;
        try (SpillFile opened = SpillFile.open(file, blockBytes(4), 500)) {
            first = opened.slot(0);
        }
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            for (long at = first; at < channel.size(); at += 3 * SpillFile.PAGE) { // every third block
                ByteBuffer one = ByteBuffer.allocate(1);
                channel.read(one, at + blockBytes(4) - 1);
                one.put(0, (byte) ~one.get(0)).flip();
                channel.write(one, at + blockBytes(4) - 1);
            }
        }
        try (SpillTier tier = tier(4, 500).open(); KvCache cache = cache(12, 4, tier)) {
            for (int[] tokens : List.copyOf(known)) {
                converse(cache, tokens, 4);
            }
            assertTrue(misses > 0 && cache.statistics().restoredPages() > 0, cache.statistics()::toString);
            assertTrue(tier.statistics().damaged() > 0);
            assertEquals(tier.statistics().damaged(), cache.statistics().tierFailures());
            // Damage behind what was damaged is found when that is there again, a page at a time.
            long before = -1;
            for (int round = 0; before < misses; round++) {
                assertTrue(round < 12, "what was computed again is there");
                before = misses;
                for (int[] tokens : List.copyOf(known.subList(0, 40))) {
                    converse(cache, tokens, 4);
                }
            }
            converse(cache, random, 40, 12, 4, true);
        }
    }

    /** A disk that is full or does not answer costs what cannot be kept, and no sequence. */
    @Test
    void aDiskThatFails() throws IOException {
        Random random = new Random(7);
        RecordedChannel channel = new RecordedChannel(file);
        SpillTier.Builder builder = tier(4, 2000);
        try (SpillTier tier = builder.open(new SpillFile(channel, file, blockBytes(4), 2000));
                KvCache cache = cache(12, 4, tier)) {
            converse(cache, random, 60, 12, 4, true);
            tier.flush();
            channel.failFrom = 0;
            converse(cache, random, 60, 12, 4, false);
            assertTrue(cache.statistics().tierFailures() > 0);
            channel.failFrom = Long.MAX_VALUE;
            channel.failReads = true;
            converse(cache, random, 60, 12, 4, false);
            channel.failReads = false;
            long failures = cache.statistics().tierFailures();
            assertTrue(misses > 0);
            known.clear();
            int[] prompt = random.ints(30, 1000, 2000).toArray();
            converse(cache, prompt, 4);
            for (int i = 0; i < 10; i++) {
                converse(cache, random.ints(40, 1000, 2000).toArray(), 4);
            }
            assertEquals(0, converse(cache, prompt, 4), "it works again");
            assertEquals(failures, cache.statistics().tierFailures());
        }
    }

    /** A cache that reads and writes page after page has one of the tier's blocks in memory at a time. */
    @Test
    void oneBlockInMemoryIsEnough() {
        try (SpillTier tier = tier(4, 2000).residentBlocks(1).open(); KvCache cache = cache(12, 4, tier)) {
            converse(cache, new Random(9), 150, 12, 4, true);
            assertTrue(cache.statistics().restoredPages() > 20, cache.statistics()::toString);
            assertEquals(0, cache.statistics().tierFailures());
        }
    }

    /** While a sequence waits for the file, others go on. */
    @Test
    void othersDoNotWaitForTheFile() throws Exception {
        RecordedChannel channel = new RecordedChannel(file);
        CountDownLatch reads = new CountDownLatch(1);
        CountDownLatch writes = new CountDownLatch(1);
        CountDownLatch go = new CountDownLatch(1);
        CountDownLatch then = new CountDownLatch(1);
        int[] prompt = {1, 2, 3, 4, 5, 6, 7, 8};
        int[] other = {9, 9, 9, 9, 8, 8, 8, 8};
        try (SpillTier tier = tier(4, 500).open(new SpillFile(channel, file, blockBytes(4), 500));
                KvCache cache = cache(12, 4, tier);
                ExecutorService thread = Executors.newSingleThreadExecutor()) {
            try {
                converse(cache, prompt, 4);
                converse(cache, new int[48], 4); // all pages
                converse(cache, other, 4);
                tier.flush();
                tier.evict(Long.MAX_VALUE);
                channel.beforeRead = () -> await(reads, go);
                Future<Integer> reader = thread.submit(() -> lengthOf(cache, prompt));
                assertTrue(reads.await(20, TimeUnit.SECONDS));
                assertTimeoutPreemptively(Duration.ofSeconds(20), () -> {
                    assertEquals(0, converse(cache, other, 4));
                    converse(cache, new int[] {7, 7, 7, 7, 7}, 4);
                    Expect.illegalState("1 sequence of it is open", cache::close);
                });
                assertFalse(reader.isDone());
                go.countDown();
                assertEquals(8, reader.get(20, TimeUnit.SECONDS));

                converse(cache, IntStream.range(100, 140).toArray(), 4); // what is to be written later
                converse(cache, prompt, 4);
                channel.beforeRead = () -> {};
                channel.beforeWrite = () -> await(writes, then);
                Future<Integer> writer = thread.submit(() -> converse(cache, IntStream.range(200, 236).toArray(), 4));
                assertTrue(writes.await(20, TimeUnit.SECONDS));
                assertTimeoutPreemptively(Duration.ofSeconds(20), () -> assertEquals(8, lengthOf(cache, prompt)));
                assertFalse(writer.isDone());
                then.countDown();
                writer.get(20, TimeUnit.SECONDS);
            } finally {
                go.countDown();
                then.countDown();
            }
        }
    }

    private static int lengthOf(KvCache cache, int[] tokens) {
        try (KvCache.Sequence sequence = cache.open(tokens)) {
            return sequence.length();
        }
    }

    /** Two that open the same share the pages that one of them has read, and need no more than these. */
    @Test
    void twoThatOpenTheSameFindAllOfIt() throws Exception {
        RecordedChannel channel = new RecordedChannel(file);
        CountDownLatch reads = new CountDownLatch(1);
        CountDownLatch go = new CountDownLatch(1);
        int[] prompt = {1, 2, 3, 4, 5, 6, 7, 8};
        try (SpillTier tier = tier(4, 500).open(new SpillFile(channel, file, blockBytes(4), 500));
                KvCache cache = cache(2, 4, tier);
                ExecutorService threads = Executors.newFixedThreadPool(2)) {
            try {
                converse(cache, prompt, 4);
                converse(cache, new int[8], 4);
                tier.flush();
                tier.evict(Long.MAX_VALUE);
                channel.beforeRead = () -> await(reads, go);
                Future<KvCache.Sequence> one = threads.submit(() -> cache.open(prompt));
                assertTrue(reads.await(20, TimeUnit.SECONDS));
                Future<KvCache.Sequence> two = threads.submit(() -> cache.open(prompt));
                assertFalse(isDoneSoon(two));
                assertEquals(1, cache.statistics().usedPages());
                go.countDown();
                try (KvCache.Sequence first = one.get(20, TimeUnit.SECONDS);
                        KvCache.Sequence second = two.get(20, TimeUnit.SECONDS)) {
                    assertEquals(8, first.length());
                    assertEquals(8, second.length());
                    check(cache, second, prompt, 4);
                    assertEquals(2, cache.statistics().sharedPages());
                    assertEquals(2, cache.statistics().restoredPages());
                }
            } finally {
                go.countDown();
            }
        }
    }

    private static boolean isDoneSoon(Future<?> future) throws Exception {
        for (int i = 0; i < 20 && !future.isDone(); i++) {
            Thread.sleep(5);
        }
        return future.isDone();
    }

    /** What is on its way to the tier is waited for. */
    @Test
    void whatIsBeingWrittenIsFound() throws Exception {
        RecordedChannel channel = new RecordedChannel(file);
        CountDownLatch writes = new CountDownLatch(1);
        CountDownLatch go = new CountDownLatch(1);
        int[] prompt = {1, 2, 3, 4, 5, 6, 7, 8};
        try (SpillTier tier = tier(4, 500).residentBlocks(1).open(new SpillFile(channel, file, blockBytes(4), 500));
                KvCache cache = cache(4, 4, tier);
                ExecutorService threads = Executors.newFixedThreadPool(2)) {
            try {
                converse(cache, prompt, 4);
                converse(cache, new int[8], 4);
                channel.beforeWrite = () -> await(writes, go);
                // The second page of the prompt leaves first, and is written; the first one waits for its memory.
                Future<Integer> writer = threads.submit(() -> converse(cache, new int[] {9, 9, 9, 9, 9, 9, 9, 9}, 4));
                assertTrue(writes.await(20, TimeUnit.SECONDS));
                Future<Integer> reader = threads.submit(() -> lengthOf(cache, prompt));
                assertFalse(isDoneSoon(reader));
                go.countDown();
                assertEquals(8, reader.get(20, TimeUnit.SECONDS));
                writer.get(20, TimeUnit.SECONDS);
            } finally {
                go.countDown();
            }
        }
    }

    /** A sequence that is closed while it waits for the tier gives all pages back once. */
    @Test
    void aSequenceIsClosedDuringAnAppend() throws Exception {
        RecordedChannel channel = new RecordedChannel(file);
        CountDownLatch writes = new CountDownLatch(1);
        CountDownLatch go = new CountDownLatch(1);
        try (SpillTier tier = tier(4, 500).residentBlocks(1).open(new SpillFile(channel, file, blockBytes(4), 500));
                KvCache cache = cache(12, 4, tier);
                ExecutorService thread = Executors.newSingleThreadExecutor()) {
            try {
                int[] all = IntStream.range(0, 48).toArray();
                converse(cache, all, 4);
                KvCache.Sequence sequence = cache.open(Arrays.copyOf(all, 8));
                channel.beforeWrite = () -> await(writes, go);
                Future<?> append = thread.submit(() -> sequence.append(stream, new int[33], positions, slots, 0));
                assertTrue(writes.await(20, TimeUnit.SECONDS));
                sequence.close();
                assertFalse(isDoneSoon(append));
                assertEquals(11, cache.statistics().usedPages());
                go.countDown();
                ExecutionException failed =
                        assertThrows(ExecutionException.class, () -> append.get(20, TimeUnit.SECONDS));
                Expect.illegalState("is closed", () -> {
                    throw failed.getCause();
                });
                assertEquals(0, cache.statistics().sequences());
                assertEquals(0, cache.statistics().usedPages());
                assertEquals(0, converse(cache, all, 4));
            } finally {
                go.countDown();
            }
        }
    }

    private static void await(CountDownLatch here, CountDownLatch go) {
        here.countDown();
        try {
            assertTrue(go.await(60, TimeUnit.SECONDS));
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** What has the key of other tokens is not taken for them. */
    @Test
    void equalKeysAreNotEnough() {
        int[] prompt = {1, 2, 3, 4, 5};
        try (SpillTier tier = tier(4, 50).open()) {
            PrefixTree tree = new PrefixTree(1, 4);
            long key = new SpilledPages(tier, tree, 1, 4, List.of()).key(PrefixTree.NONE, prompt, 0);
            try (SpillTier.Pin pin = tier.create(key)) {
                MemorySegment.copy(prompt, 1, pin.memory(), ValueLayout.JAVA_INT, 16, 4);
                pin.commit();
            }
            try (KvCache cache = cache(12, 4, tier)) {
                assertEquals(0, converse(cache, prompt, 4));
                assertEquals(1, cache.statistics().tierFailures());
            }
        }
    }

    @Test
    void wrongArguments() {
        Expect.illegalArgument("layers: 0", () -> KvCache.blockBytes(0, k(1, 4), null));
        try (SpillTier tier = tier(4, 5).open()) {
            Expect.illegalArgument("tier: blocks of " + blockBytes(4) + " bytes, expected " + blockBytes(8),
                    () -> cache(12, 8, tier));
        }
    }

    @Test
    void aTierThatIsClosedIsNone() {
        SpillTier tier = tier(4, 5).open();
        try (KvCache cache = cache(12, 4, tier)) {
            tier.close();
            converse(cache, new Random(8), 30, 12, 4, false);
            assertTrue(cache.statistics().tierFailures() > 0);
        }
    }
}
