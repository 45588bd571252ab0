package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Random operations against plain lists of tokens. What is written for a token depends on all tokens before it, so that
 * a page of another prefix, or one that was written to by another sequence, is seen.
 */
class KvCacheModelTest {
    private static final int OPERATIONS = Integer.getInteger("io.gatun.kv.operations", 480_000); // of all cases
    private static final int CASES = 6;
    private static final int LAYERS = 2;
    private static final int LONGEST = 512;

    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = MemoryPool.of(device);
    private final Arena arena = Arena.ofShared();

    @AfterEach
    void close() {
        assertEquals(0, pool.statistics().blocks(), "blocks that the caches left in the pool");
        pool.close();
        device.close();
        arena.close();
    }

    private KvCache cache(int pages, int pageSize) {
        TensorSpec k = TensorSpec.of(DType.F32, pages, pageSize, 1, 1);
        return KvCache.of(pool, LAYERS, k, TensorSpec.of(DType.F32, pages, pageSize, 1, 3));
    }

    /** A thread's view of a cache: the tensors of its steps, and what is to be found in the pages. */
    private final class Steps implements AutoCloseable {
        final KvCache cache;
        final int pageSize;
        final Stream stream = device.newStream();
        final Tensor positions = Tensor.allocate(arena, DType.S64, LONGEST);
        final Tensor slots = Tensor.allocate(arena, DType.S64, LONGEST);
        final Tensor blockTable = Tensor.allocate(arena, DType.S32, 2, LONGEST);
        final Tensor lengths = Tensor.allocate(arena, DType.S64, 2);

        Steps(KvCache cache, int pageSize) {
            this.cache = cache;
            this.pageSize = pageSize;
        }

        /** Appends, and writes what a run would. */
        void append(KvCache.Sequence sequence, int[] before, int[] tokens, int at) {
            if (tokens.length == 1) {
                sequence.append(stream, tokens[0], positions, slots, at);
            } else {
                sequence.append(stream, tokens, positions, slots, at);
            }
            int[] values = values(concatenation(before, tokens));
            for (int i = 0; i < tokens.length; i++) {
                assertEquals(before.length + i, positions.memory().getAtIndex(ValueLayout.JAVA_LONG, at + i));
                long slot = slots.memory().getAtIndex(ValueLayout.JAVA_LONG, at + i);
                for (int layer = 0; layer < LAYERS; layer++) {
                    cache.k(layer).memory().setAtIndex(
                            ValueLayout.JAVA_INT, slot, values[before.length + i] + layer);
                    cache.v(layer).memory().setAtIndex(
                            ValueLayout.JAVA_INT, 3 * slot + 2, values[before.length + i] - layer);
                }
            }
        }

        /** Finds all tokens where the block table says, and returns the pages. */
        int[] check(KvCache.Sequence sequence, int[] tokens) {
            sequence.fill(blockTable, lengths, 1);
            assertEquals(tokens.length, lengths.memory().getAtIndex(ValueLayout.JAVA_LONG, 1));
            assertEquals(tokens.length, sequence.length());
            int[] pages = new int[Math.ceilDiv(tokens.length, pageSize)];
            for (int i = 0; i < pages.length; i++) {
                pages[i] = blockTable.memory().getAtIndex(ValueLayout.JAVA_INT, LONGEST + i);
            }
            int[] values = values(tokens);
            for (int i = 0; i < tokens.length; i++) {
                long row = (long) pages[i / pageSize] * pageSize + i % pageSize;
                for (int layer = 0; layer < LAYERS; layer++) {
                    int k = cache.k(layer).memory().getAtIndex(ValueLayout.JAVA_INT, row);
                    int v = cache.v(layer).memory().getAtIndex(ValueLayout.JAVA_INT, 3 * row + 2);
                    if (k != values[i] + layer || v != values[i] - layer) {
                        throw new AssertionError("token " + i + " of " + Arrays.toString(tokens) + " is not in page "
                                + pages[i / pageSize] + " of layer " + layer);
                    }
                }
            }
            return pages;
        }

        @Override
        public void close() {
            stream.close();
        }
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

    private static int[] concatenation(int[] a, int[] b) {
        int[] both = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, both, a.length, b.length);
        return both;
    }

    private static int[] random(Random random, int length, int words) {
        return random.ints(length, 0, words).toArray();
    }

    private static int common(int[] a, int[] b) {
        int mismatch = Arrays.mismatch(a, b);
        return mismatch < 0 ? a.length : mismatch;
    }

    /** What a sequence is to be. */
    private static final class Expected {
        final KvCache.Sequence sequence;
        int[] tokens;
        int committed;
        int[] pages;

        Expected(KvCache.Sequence sequence, int[] tokens) {
            this.sequence = sequence;
            this.tokens = tokens;
            this.committed = tokens.length;
        }
    }

    @ParameterizedTest
    @CsvSource({"40, 1, 2", "12, 4, 2", "25, 3, 3", "6, 16, 2", "3, 7, 2", "22, 2, 4"})
    void randomOperations(int pages, int pageSize, int words) {
        Random random = new Random(31L * pages + pageSize);
        Tensor gone;
        try (Arena closed = Arena.ofShared()) {
            gone = Tensor.allocate(closed, DType.S64, LONGEST);
        }
        List<Expected> all = new ArrayList<>();
        Map<String, Integer> done = new HashMap<>();
        try (KvCache cache = cache(pages, pageSize);
                Steps steps = new Steps(cache, pageSize)) {
            for (int operation = 0; operation < OPERATIONS / CASES; operation++) {
                KvCache.Statistics before = cache.statistics();
                Expected some = all.isEmpty() ? null : all.get(random.nextInt(all.size()));
                int choice = random.nextInt(some == null ? 1 : 20);
                if (choice < 3 && all.size() < 10) {
                    int[] wanted = some != null && random.nextBoolean()
                            ? concatenation(some.tokens, random(random, random.nextInt(2 * pageSize), words))
                            : random(random, random.nextInt(5 * pageSize), words);
                    some = open(cache, all, wanted, pageSize);
                    done.merge(some.tokens.length > 0 ? "reuse" : "nothing found", 1, Integer::sum);
                } else if (choice < 5 && all.size() < 10) {
                    if (some.committed < some.tokens.length) {
                        Expect.illegalState("expected a commit before a fork", some.sequence::fork);
                    } else {
                        some = new Expected(some.sequence.fork(), some.tokens);
                        all.add(some);
                        done.merge("fork", 1, Integer::sum);
                    }
                } else if (choice < 7) {
                    int length = random.nextInt(some.tokens.length + 1);
                    some.sequence.truncate(length);
                    some.tokens = Arrays.copyOf(some.tokens, length);
                    some.committed = Math.min(some.committed, length);
                } else if (choice < 9) {
                    some.sequence.close();
                    all.remove(some);
                    some.sequence.close();
                    some = null;
                } else if (choice < 13) {
                    some.sequence.commit();
                    some.committed = some.tokens.length;
                } else {
                    int[] tokens = random(random, 1 + random.nextInt(random.nextInt(4) == 0 ? 3 * pageSize : 2), words);
                    append(steps, all, some, tokens, before, random.nextInt(20) == 0 ? gone : null, done);
                }
                if (some != null) {
                    some.pages = steps.check(some.sequence, some.tokens);
                }
                checkBooks(cache, all, pages);
                if (operation % 100 == 0) {
                    all.forEach(each -> steps.check(each.sequence, each.tokens));
                }
            }
            KvCache.Statistics end = cache.statistics();
            assertTrue(end.evictedPages() > 0 && end.reusedTokens() > 0, end::toString);
            assertEquals(pageSize > 1, end.copiedPages() > 0, end::toString);
            if (OPERATIONS >= 100_000) {
                for (String what : List.of("reuse", "nothing found", "fork", "appended", "no page", "closed memory")) {
                    assertTrue(done.getOrDefault(what, 0) > 0, () -> what + " in " + done);
                }
            }
            all.forEach(each -> each.sequence.close());
            assertEquals(0, cache.statistics().usedPages());
        }
    }

    private static Expected open(KvCache cache, List<Expected> all, int[] wanted, int pageSize) {
        KvCache.Sequence sequence = cache.open(wanted);
        int reused = sequence.length();
        assertEquals(0, reused % pageSize);
        for (Expected other : all) {
            int known = common(wanted, Arrays.copyOf(other.tokens, other.committed));
            assertTrue(reused >= known / pageSize * pageSize, "what an open sequence has can be found");
        }
        Expected opened = new Expected(sequence, Arrays.copyOf(wanted, reused));
        all.add(opened);
        return opened;
    }

    private static void append(Steps steps, List<Expected> all, Expected some, int[] tokens,
            KvCache.Statistics before, Tensor gone, Map<String, Integer> done) {
        int rows = some.tokens.length % steps.pageSize;
        int needed = Math.ceilDiv(some.tokens.length + tokens.length, steps.pageSize) - some.pages.length;
        if (rows != 0) {
            int last = some.pages[some.pages.length - 1];
            needed += all.stream().anyMatch(other -> other != some && has(other, last)) ? 1 : 0;
        }
        if (needed > before.freePages() + before.cachedPages()) {
            Expect.failure(GatunException.class, "tokens: " + tokens.length + " of them behind " + some.tokens.length,
                    () -> steps.append(some.sequence, some.tokens, tokens, 0));
            done.merge("no page", 1, Integer::sum);
            return;
        }
        if (gone != null) {
            Expect.illegalState("closed",
                    () -> some.sequence.append(steps.stream, tokens, steps.positions, gone, 3));
            done.merge("closed memory", 1, Integer::sum);
            return;
        }
        steps.append(some.sequence, some.tokens, tokens, 5);
        some.tokens = concatenation(some.tokens, tokens);
        done.merge("appended", 1, Integer::sum);
    }

    private static boolean has(Expected some, int page) {
        return Arrays.stream(some.pages).anyMatch(each -> each == page);
    }

    /** The statistics against the block tables. */
    private static void checkBooks(KvCache cache, List<Expected> all, int pages) {
        int[] users = new int[pages];
        for (Expected each : all) {
            for (int page : each.pages) {
                users[page]++;
            }
        }
        int used = 0;
        int shared = 0;
        for (int count : users) {
            used += count > 0 ? 1 : 0;
            shared += count > 1 ? 1 : 0;
        }
        KvCache.Statistics statistics = cache.statistics();
        assertEquals(all.size(), statistics.sequences());
        assertEquals(used, statistics.usedPages());
        assertEquals(shared, statistics.sharedPages());
        assertEquals(pages - used, statistics.cachedPages() + statistics.freePages());
    }

    /** Conversations that go on and branch, in a cache that loses nothing, against all that was ever there. */
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 5, 16, 64, 256})
    void reuseIsTheLongestKnownPrefix(int pageSize) {
        Random random = new Random(pageSize);
        List<int[]> known = new ArrayList<>();
        long requested = 0;
        long oracle = 0;
        try (KvCache cache = cache((1 << 19) / pageSize, pageSize);
                Steps steps = new Steps(cache, pageSize)) {
            for (int turn = 0; turn < 500; turn++) {
                int[] history = {};
                if (!known.isEmpty() && random.nextInt(8) != 0) {
                    int[] other = known.get(random.nextInt(known.size()));
                    // A conversation goes on, or is taken up again somewhere before its end.
                    history = random.nextBoolean() ? other : Arrays.copyOf(other, random.nextInt(other.length + 1));
                }
                history = history.length > 1200 ? Arrays.copyOf(history, 1000) : history;
                int words = random.nextBoolean() ? 2 : 50_000;
                int[] prompt = concatenation(history, random(random, random.nextInt(60), words));
                int longest = 0;
                for (int[] other : known) {
                    longest = Math.max(longest, common(prompt, other));
                }
                try (KvCache.Sequence sequence = cache.open(prompt)) {
                    int reused = sequence.length();
                    assertEquals(longest / pageSize * pageSize, reused);
                    assertTrue(longest - reused < pageSize);
                    requested += prompt.length;
                    oracle += reused;
                    int[] tokens = Arrays.copyOf(prompt, reused);
                    int[] whole = concatenation(prompt, random(random, random.nextInt(40), words));
                    while (tokens.length < whole.length) {
                        int more = Math.min(whole.length - tokens.length, 1 + random.nextInt(400));
                        int[] next = Arrays.copyOfRange(whole, tokens.length, tokens.length + more);
                        steps.append(sequence, tokens, next, 0);
                        sequence.commit();
                        tokens = concatenation(tokens, next);
                    }
                    if (whole.length / pageSize < LONGEST) {
                        steps.check(sequence, whole);
                    }
                    known.add(whole);
                }
            }
            KvCache.Statistics statistics = cache.statistics();
            assertEquals(requested, statistics.requestedTokens());
            assertEquals(oracle, statistics.reusedTokens());
            assertEquals((double) oracle / requested, statistics.reuseRate());
            assertEquals(0, statistics.evictedPages());
            assertEquals(0, statistics.usedPages());
        }
    }

    /** The same in a cache that is much too small, against a plain list of prefixes in the order of their last use. */
    @ParameterizedTest
    @CsvSource({"30, 1", "20, 3", "16, 8"})
    void evictionIsByLastUse(int pages, int pageSize) {
        Random random = new Random(pages);
        LinkedHashSet<String> cached = new LinkedHashSet<>();
        List<int[]> conversations = new ArrayList<>();
        long evicted = 0;
        int reuses = 0;
        try (KvCache cache = cache(pages, pageSize);
                Steps steps = new Steps(cache, pageSize)) {
            for (int turn = 0; turn < 5000; turn++) {
                int[] history = conversations.size() < 6 ? new int[0] : conversations.remove(random.nextInt(6));
                int most = pages * pageSize * 2 / 3;
                history = history.length > most - 20 ? Arrays.copyOf(history, random.nextInt(most / 2)) : history;
                int[] whole = concatenation(history, random(random, 1 + random.nextInt(10), 3));
                conversations.add(whole);

                int expected = 0;
                while (expected + pageSize <= whole.length && cached.remove(key(whole, expected + pageSize))) {
                    expected += pageSize;
                }
                int free = pages - cached.size() - expected / pageSize;
                for (int missing = Math.ceilDiv(whole.length - expected, pageSize) - free; missing > 0; missing--) {
                    cached.removeFirst();
                    evicted++;
                }
                try (KvCache.Sequence sequence = cache.open(whole)) {
                    assertEquals(expected, sequence.length(), () -> "of " + Arrays.toString(whole));
                    reuses += expected > 0 ? 1 : 0;
                    int[] tokens = Arrays.copyOf(whole, expected);
                    steps.append(sequence, tokens, Arrays.copyOfRange(whole, expected, whole.length), 0);
                    steps.check(sequence, whole);
                    sequence.commit();
                }
                for (int length = whole.length / pageSize * pageSize; length > 0; length -= pageSize) {
                    cached.addLast(key(whole, length));
                }
                assertEquals(cached.size(), cache.statistics().cachedPages());
                assertEquals(evicted, cache.statistics().evictedPages());
            }
            assertTrue(evicted > 1000 && reuses > 1000, evicted + " evicted, " + reuses + " reused");
        }
    }

    private static String key(int[] tokens, int length) {
        StringBuilder key = new StringBuilder();
        for (int i = 0; i < length; i++) {
            key.append((char) tokens[i]);
        }
        return key.toString();
    }

    @Test
    void threadsShareACache() throws Exception {
        try (KvCache cache = cache(64, 4)) {
            shareACache(cache, 4);
        }
    }

    /** Threads that take pages while others wait for the file, and that look for what another one is reading. */
    @Test
    void threadsShareACacheOverATier(@TempDir Path folder) throws Exception {
        TensorSpec k = TensorSpec.of(DType.F32, 44, 4, 1, 1);
        TensorSpec v = TensorSpec.of(DType.F32, 44, 4, 1, 3);
        Path file = folder.resolve("pages");
        try (SpillTier tier = SpillTier.builder(
                                pool, MemoryDomain.KV_CACHE, file, KvCache.blockBytes(LAYERS, k, v), 50_000)
                        .residentBlocks(4)
                        .open();
                KvCache cache = KvCache.of(pool, LAYERS, k, v, tier)) {
            shareACache(cache, 4);
            KvCache.Statistics statistics = cache.statistics();
            assertTrue(statistics.restoredPages() > 100 && statistics.spilledPages() > 100, statistics::toString);
            assertEquals(0, statistics.tierFailures());
            assertEquals(0, tier.statistics().pins());
        }
    }

    private void shareACache(KvCache cache, int pageSize) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(4);
        try {
            List<Future<?>> results = new ArrayList<>();
            for (int thread = 0; thread < 4; thread++) {
                int seed = thread;
                results.add(threads.submit(() -> {
                    try (Steps steps = new Steps(cache, pageSize)) {
                        turns(steps, new Random(seed));
                    }
                }));
            }
            for (Future<?> result : results) {
                result.get();
            }
            KvCache.Statistics statistics = cache.statistics();
            assertEquals(0, statistics.usedPages());
            assertEquals(0, statistics.sequences());
            assertNotEquals(0, statistics.reusedTokens());
            assertNotEquals(0, statistics.evictedPages());
        } finally {
            threads.shutdown();
        }
    }

    private static void turns(Steps steps, Random random) {
        for (int turn = 0; turn < 3000; turn++) {
            int[] tokens = random(random, 1 + random.nextInt(20), 2);
            try (KvCache.Sequence sequence = steps.cache.open(tokens)) {
                int[] found = Arrays.copyOf(tokens, sequence.length());
                steps.check(sequence, found);
                steps.append(sequence, found, Arrays.copyOfRange(tokens, found.length, tokens.length), 0);
                sequence.commit();
                steps.check(sequence, tokens);
                try (KvCache.Sequence fork = sequence.fork()) {
                    int[] one = random(random, 1, 2);
                    int[] other = random(random, 2, 2);
                    steps.append(fork, tokens, one, 0);
                    steps.append(sequence, tokens, other, 0);
                    steps.check(fork, concatenation(tokens, one));
                    steps.check(sequence, concatenation(tokens, other));
                }
            }
        }
    }
}
