package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class KvCacheTest {
    private static final int ROWS = 64;

    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = MemoryPool.of(device);
    private final Stream stream = device.newStream();
    private final Arena arena = Arena.ofShared();
    private final Tensor positions = tensor(DType.S64, ROWS);
    private final Tensor slots = tensor(DType.S64, ROWS);
    private final Tensor blockTable = tensor(DType.S32, 3, 8);
    private final Tensor lengths = tensor(DType.S64, 3);

    @AfterEach
    void close() {
        stream.close();
        pool.close();
        device.close();
        arena.close();
    }

    private Tensor tensor(DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    private KvCache cache(int pages, int pageSize) {
        return KvCache.of(pool, 1, TensorSpec.of(DType.F32, pages, pageSize, 1, 2), null);
    }

    /** Appends, and returns the rows. */
    private long[] append(KvCache.Sequence sequence, int... tokens) {
        sequence.append(stream, tokens, positions, slots, 0);
        return first(tokens.length, slots);
    }

    private static long[] first(int count, Tensor tensor) {
        return tensor.memory().asSlice(0, 8L * count).toArray(ValueLayout.JAVA_LONG);
    }

    private int[] pages(KvCache.Sequence sequence, int count) {
        blockTable.memory().fill((byte) -1);
        sequence.fill(blockTable, lengths, 1);
        assertEquals(sequence.length(), lengths.memory().getAtIndex(ValueLayout.JAVA_LONG, 1));
        int[] row = blockTable.memory().asSlice(8 * 4, 8 * 4).toArray(ValueLayout.JAVA_INT);
        for (int i = 0; i < row.length; i++) {
            assertEquals(i < count, row[i] >= 0, "entry " + i + " of " + Arrays.toString(row));
        }
        return Arrays.copyOf(row, count);
    }

    private static void assertBooks(KvCache cache, long used, long shared, long cached, long free) {
        KvCache.Statistics statistics = cache.statistics();
        assertEquals(used, statistics.usedPages(), statistics::toString);
        assertEquals(shared, statistics.sharedPages(), statistics::toString);
        assertEquals(cached, statistics.cachedPages(), statistics::toString);
        assertEquals(free, statistics.freePages(), statistics::toString);
    }

    @Test
    void tokensGetRowsOfPages() {
        try (KvCache cache = cache(5, 3);
                KvCache.Sequence sequence = cache.open()) {
            assertEquals(0, sequence.length());
            long[] rows = append(sequence, 10, 11, 12, 13);
            int[] pages = pages(sequence, 2);
            assertArrayEquals(
                    new long[] {pages[0] * 3, pages[0] * 3 + 1, pages[0] * 3 + 2, pages[1] * 3}, rows);
            assertArrayEquals(new long[] {0, 1, 2, 3}, first(4, positions));
            sequence.append(stream, 14, positions, slots, 2);
            assertArrayEquals(new long[] {rows[0], rows[1], rows[3] + 1, rows[3]}, first(4, slots));
            assertArrayEquals(new long[] {0, 1, 4, 3}, first(4, positions));
            assertEquals(5, sequence.length());
            append(sequence);
            assertEquals(5, sequence.length());
            assertBooks(cache, 2, 0, 0, 3);
        }
    }

    @Test
    void committedFullPagesAreFound() {
        try (KvCache cache = cache(8, 2)) {
            int[] pages;
            try (KvCache.Sequence sequence = cache.open(1, 2, 3)) {
                assertEquals(0, sequence.length());
                append(sequence, 1, 2, 3, 4, 5);
                assertEquals(0, lengthOf(cache, 1, 2, 3, 4, 5), "nothing is found before the commit");
                sequence.commit();
                pages = pages(sequence, 3);
                assertEquals(4, lengthOf(cache, 1, 2, 3, 4, 5));
            }
            assertBooks(cache, 0, 0, 2, 6);
            try (KvCache.Sequence sequence = cache.open(1, 2, 3, 4, 5, 6)) {
                assertArrayEquals(Arrays.copyOf(pages, 2), pages(sequence, 2));
                assertBooks(cache, 2, 0, 0, 6);
            }
            assertEquals(2, lengthOf(cache, 1, 2, 3));
            assertEquals(2, lengthOf(cache, 1, 2, 4, 3));
            assertEquals(0, lengthOf(cache, 2, 1));
            assertEquals(0, lengthOf(cache, 3, 4), "the same tokens elsewhere are other keys");
            assertEquals(0, lengthOf(cache));
            KvCache.Statistics statistics = cache.statistics();
            assertEquals(3 + 5 + 5 + 6 + 3 + 4 + 2 + 2, statistics.requestedTokens());
            assertEquals(4 + 4 + 2 + 2, statistics.reusedTokens());
            assertEquals(12.0 / 30, statistics.reuseRate());
        }
        try (KvCache cache = cache(1, 1)) {
            assertEquals(0, cache.statistics().reuseRate());
        }
    }

    private static int lengthOf(KvCache cache, int... tokens) {
        try (KvCache.Sequence sequence = cache.open(tokens)) {
            return sequence.length();
        }
    }

    @Test
    void sequencesThatComputeTheSameKeepOneOfBoth() {
        try (KvCache cache = cache(8, 2);
                KvCache.Sequence a = cache.open(1, 2, 3);
                KvCache.Sequence b = cache.open(1, 2, 3)) {
            append(a, 1, 2, 3);
            append(b, 1, 2, 3);
            a.commit();
            assertBooks(cache, 4, 0, 0, 4);
            b.commit();
            assertBooks(cache, 3, 1, 0, 5);
            assertEquals(pages(a, 2)[0], pages(b, 2)[0]);
            assertNotEquals(pages(a, 2)[1], pages(b, 2)[1]);
        }
    }

    @Test
    void theFirstToAppendToAForkedPageGetsACopy() {
        try (KvCache cache = cache(8, 4);
                KvCache.Sequence a = cache.open()) {
            for (long row : append(a, 1, 2, 3, 4, 5, 6)) {
                cache.k(0).setFloat(row + 0.5f, row / 4, row % 4, 0, 1);
            }
            a.commit();
            int[] before = pages(a, 2);
            try (KvCache.Sequence b = a.fork();
                    KvCache.Sequence c = b.fork()) {
                assertEquals(6, b.length());
                assertArrayEquals(before, pages(c, 2));
                assertBooks(cache, 2, 2, 0, 6);
                long row = append(a, 7)[0];
                int[] after = pages(a, 2);
                assertEquals(before[0], after[0]);
                assertNotEquals(before[1], after[1]);
                assertEquals(after[1] * 4 + 2, row);
                assertEquals(before[1] * 4 + 0.5f, cache.k(0).getFloat(after[1], 0, 0, 1));
                assertEquals(before[1] * 4 + 1.5f, cache.k(0).getFloat(after[1], 1, 0, 1));
                append(b, 8);
                assertArrayEquals(before, pages(c, 2));
                append(c, 9); // the last one has the page alone
                assertArrayEquals(before, pages(c, 2));
                assertEquals(2, cache.statistics().copiedPages());
                assertBooks(cache, 4, 1, 0, 4);
                a.commit();
                append(a, 8);
                a.commit();
                assertEquals(8, lengthOf(cache, 1, 2, 3, 4, 5, 6, 7, 8));
                assertEquals(4, lengthOf(cache, 1, 2, 3, 4, 5, 6, 8, 8));
            }
        }
    }

    @Test
    void truncatedTokensAreGoneAndFullPagesAreFound() {
        try (KvCache cache = cache(8, 2);
                KvCache.Sequence sequence = cache.open()) {
            append(sequence, 1, 2, 3, 4, 5);
            sequence.commit();
            int[] before = pages(sequence, 3);
            sequence.truncate(5);
            assertArrayEquals(before, pages(sequence, 3));
            sequence.truncate(3);
            assertArrayEquals(Arrays.copyOf(before, 2), pages(sequence, 2));
            assertBooks(cache, 2, 0, 0, 6);
            append(sequence, 9);
            assertNotEquals(before[1], pages(sequence, 2)[1], "the full page is kept for others");
            assertEquals(4, lengthOf(cache, 1, 2, 3, 4));
            sequence.truncate(0);
            assertBooks(cache, 0, 0, 2, 6);
            append(sequence, 1, 2, 3);
            sequence.truncate(2);
            sequence.commit();
            assertArrayEquals(Arrays.copyOf(before, 1), pages(sequence, 1));
        }
    }

    @Test
    void withoutAPageForTheCopyThePageItselfIsWritten() {
        try (KvCache cache = cache(2, 2);
                KvCache.Sequence sequence = cache.open()) {
            append(sequence, 1, 2, 3, 4);
            sequence.commit();
            int[] before = pages(sequence, 2);
            sequence.truncate(3);
            append(sequence, 5);
            sequence.commit();
            assertArrayEquals(before, pages(sequence, 2));
            assertEquals(2, lengthOf(cache, 1, 2, 3, 4));
            assertEquals(4, lengthOf(cache, 1, 2, 3, 5));
            assertEquals(0, cache.statistics().copiedPages());
            sequence.truncate(1);
            append(sequence, 7, 8, 9); // its child is evicted for the new page
            assertEquals(before[0], pages(sequence, 2)[0]);
            sequence.commit();
            assertEquals(0, lengthOf(cache, 1, 2));
            assertEquals(4, lengthOf(cache, 1, 7, 8, 9));
            sequence.truncate(3);
            append(sequence, 6);
            sequence.truncate(0);
            assertBooks(cache, 0, 0, 1, 1); // what was written again is not known until a commit
        }
    }

    @Test
    void theLeastRecentlyUsedGoFirstFromTheirEnds() {
        try (KvCache cache = cache(5, 1)) {
            closed(cache, 1, 2);
            closed(cache, 3, 4);
            assertEquals(1, lengthOf(cache, 1)); // used again, but 2 is not
            assertBooks(cache, 0, 0, 4, 1);
            closed(cache, 5);
            closed(cache, 6);
            assertEquals(1, cache.statistics().evictedPages());
            closed(cache, 7);
            assertBooks(cache, 0, 0, 5, 0);
            assertEquals(2, cache.statistics().evictedPages());
            assertEquals(1, lengthOf(cache, 1, 2));
            assertEquals(1, lengthOf(cache, 3, 4));
            closed(cache, 8);
            assertEquals(0, lengthOf(cache, 5));
            assertEquals(1, lengthOf(cache, 1));
        }
    }

    private void closed(KvCache cache, int... tokens) {
        try (KvCache.Sequence sequence = cache.open()) {
            append(sequence, tokens);
            sequence.commit();
        }
    }

    @Test
    void whatFailsChangesNothing() throws Exception {
        try (KvCache cache = cache(4, 2);
                KvCache.Sequence a = cache.open();
                KvCache.Sequence b = cache.open()) {
            append(a, 1, 2, 3);
            a.commit();
            append(b, 4, 5);
            int[] before = pages(a, 2);
            Expect.failure(GatunException.class, "tokens: 4 of them behind 3 need 2 pages of the KV cache of 1 layer, "
                    + "F32[4, 2, 1, 2], which has 1 that no sequence has", () -> append(a, 6, 7, 8, 9));
            try (KvCache.Sequence fork = a.fork()) {
                Tensor gone;
                try (Arena closed = Arena.ofShared()) {
                    gone = Tensor.allocate(closed, DType.S64, 4);
                }
                Expect.illegalState("closed", () -> fork.append(stream, 6, positions, gone, 0));
                Stream closed = device.newStream();
                closed.close();
                Expect.illegalState("closed", () -> fork.append(closed, 6, positions, slots, 0));
                assertArrayEquals(before, pages(fork, 2));
                assertBooks(cache, 3, 2, 0, 1);
                assertThrows(NullPointerException.class, () -> fork.append(null, 6, positions, slots, 0));
                assertThrows(NullPointerException.class, () -> fork.append(stream, null, positions, slots, 0));
            }
            assertArrayEquals(before, pages(a, 2));
            assertBooks(cache, 3, 0, 0, 1);
            append(a, 6, 7, 8);
            assertBooks(cache, 4, 0, 0, 0);
        }
    }

    @Test
    void wrongArgumentsAreNamed() {
        TensorSpec k = TensorSpec.of(DType.BF16, 4, 2, 3, 8);
        Expect.illegalArgument("layers: 0, expected 1 or more", () -> KvCache.of(pool, 0, k, k));
        assertThrows(NullPointerException.class, () -> KvCache.of(null, 1, k, k));
        assertThrows(NullPointerException.class, () -> KvCache.of(pool, 1, null, k));
        Expect.illegalArgument("k: S32[4, 2, 3, 8], expected F32, BF16, F16 or S8",
                () -> KvCache.of(pool, 1, TensorSpec.of(DType.S32, 4, 2, 3, 8), null));
        Expect.illegalArgument("k: F32[4, 2, 8], expected [pages",
                () -> KvCache.of(pool, 1, TensorSpec.of(DType.F32, 4, 2, 8), null));
        Expect.illegalArgument("k: F32[4, 0, 3, 8], expected 1 or more in each",
                () -> KvCache.of(pool, 1, TensorSpec.of(DType.F32, 4, 0, 3, 8), null));
        Expect.illegalArgument("expected a contiguous tensor", () -> KvCache.of(pool, 1, k.transpose(1, 2), null));
        Expect.illegalArgument("expected at most 268435456 tokens",
                () -> KvCache.of(pool, 1, TensorSpec.of(DType.S8, (1 << 20) + 1, 256, 1, 1), null));
        Expect.illegalArgument("v: F16[4, 2, 3, 8], expected BF16",
                () -> KvCache.of(pool, 1, k, TensorSpec.of(DType.F16, 4, 2, 3, 8)));
        for (int d = 0; d < 3; d++) {
            long[] shape = {4, 2, 3, 5};
            shape[d]++;
            Expect.illegalArgument("in dimension " + d,
                    () -> KvCache.of(pool, 1, k, TensorSpec.of(DType.BF16, shape)));
        }
        assertEquals(0, pool.statistics().blocks());

        try (KvCache cache = cache(32, 2);
                KvCache.Sequence s = cache.open()) {
            append(s, IntStream.range(0, 20).toArray());
            Expect.illegalState("the last 20 tokens of the sequence are not committed", s::fork);
            Expect.illegalArgument("length: 21, expected 0 to 20", () -> s.truncate(21));
            Expect.illegalArgument("length: -1, expected 0 to 20", () -> s.truncate(-1));
            Expect.illegalArgument("at: 64, expected 0 to 63 for 1 token in positions",
                    () -> s.append(stream, 1, positions, slots, 64));
            Expect.illegalArgument("at: -1", () -> s.append(stream, 1, positions, slots, -1));
            Expect.illegalArgument("at: 1, expected 0 to 0 for 2 tokens in slots",
                    () -> s.append(stream, new int[2], positions, tensor(DType.S64, 2), 1));
            Expect.illegalArgument("positions: S32[4], expected S64",
                    () -> s.append(stream, 1, tensor(DType.S32, 4), slots, 0));
            Expect.illegalArgument("slots: S64[2, 2], expected [tokens]",
                    () -> s.append(stream, 1, positions, tensor(DType.S64, 2, 2), 0));
            Tensor fixed = Tensor.of(slots.memory().asReadOnly(), slots.spec());
            Expect.illegalArgument("slots: read-only", () -> s.append(stream, 1, positions, fixed, 0));
            assertEquals(20, s.length());

            Expect.illegalArgument("blockTable: S32[3, 8], expected 10 or more in dimension 1",
                    () -> s.fill(blockTable, lengths, 0));
            s.truncate(16);
            Expect.illegalArgument("row: 3, expected less than the 3 rows", () -> s.fill(blockTable, lengths, 3));
            Expect.illegalArgument("row: -1", () -> s.fill(blockTable, lengths, -1));
            Expect.illegalArgument("row: 2, expected less than the 2 rows",
                    () -> s.fill(blockTable, tensor(DType.S64, 2), 2));
            Expect.illegalArgument("blockTable: S64[3, 8], expected S32",
                    () -> s.fill(tensor(DType.S64, 3, 8), lengths, 0));
            Expect.illegalArgument("blockTable: S32[8], expected [sequences, pages]",
                    () -> s.fill(tensor(DType.S32, 8), lengths, 0));
            Expect.illegalArgument("stride of 1 in the last dimension",
                    () -> s.fill(tensor(DType.S32, 8, 8).transpose(0, 1), lengths, 0));
            Expect.illegalArgument("lengths: S32[3], expected S64",
                    () -> s.fill(blockTable, tensor(DType.S32, 3), 0));
            assertArrayEquals(new float[3], lengths.toFloatArray());
            assertThrows(IndexOutOfBoundsException.class, () -> cache.k(1));
            assertThrows(IndexOutOfBoundsException.class, () -> cache.vScales(-1));
        }
    }

    @Test
    void whatIsClosedSaysSo() {
        KvCache cache = KvCache.of(pool, 3, TensorSpec.of(DType.S8, 4, 2, 3, 8), TensorSpec.of(DType.S8, 4, 2, 3, 4));
        assertEquals("KV cache of 3 layers, S8[4, 2, 3, 8]", cache.toString());
        assertEquals(TensorSpec.of(DType.S8, 4, 2, 3, 4), cache.v(2).spec());
        assertEquals(TensorSpec.of(DType.F32, 4, 2, 3), cache.kScales(0).spec());
        assertEquals(cache.kScales(0).spec(), cache.vScales(1).spec());
        assertEquals(12, pool.statistics().blocks());
        KvCache.Sequence sequence = cache.open();
        assertEquals("sequence of the " + cache, sequence.toString());
        Expect.illegalState(cache + " cannot be closed: 1 sequence of it is open", cache::close);
        assertEquals(0, sequence.length());
        sequence.close();
        sequence.close();
        String closed = "the sequence of the " + cache + " is closed";
        Expect.illegalState(closed, sequence::length);
        Expect.illegalState(closed, sequence::commit);
        Expect.illegalState(closed, sequence::fork);
        Expect.illegalState(closed, () -> sequence.truncate(0));
        Expect.illegalState(closed, () -> sequence.fill(blockTable, lengths, 0));
        Expect.illegalState(closed, () -> sequence.append(stream, 1, positions, slots, 0));
        cache.close();
        cache.close();
        assertEquals(0, pool.statistics().blocks());
        Expect.illegalState("the " + cache + " is closed", cache::open);

        try (KvCache keys = cache(2, 2)) { // values are a part of the keys
            assertNotNull(keys.k(0));
            assertNull(keys.v(0));
            assertNull(keys.kScales(0));
            assertNull(keys.vScales(0));
        }
    }

    @Test
    void aForgottenSequenceGivesItsPagesBack() throws InterruptedException {
        try (KvCache cache = cache(4, 2)) {
            forget(cache);
            long end = System.nanoTime() + 20_000_000_000L;
            while (cache.statistics().sequences() > 0 && System.nanoTime() < end) {
                System.gc();
                Thread.sleep(10);
            }
            assertEquals(0, cache.statistics().sequences());
            assertBooks(cache, 0, 0, 1, 3);
        }
    }

    private void forget(KvCache cache) {
        KvCache.Sequence sequence = cache.open();
        append(sequence, 1, 2, 3);
        sequence.commit();
    }

    /** Decoding of forks, by the append of Rope and paged attention, against copies of the whole sequences. */
    @ParameterizedTest
    @CsvSource({"F32, 1", "F32, 3", "F32, 16", "BF16, 4", "F16, 5", "S8, 4", "S8, 256"})
    void forkedSequencesAttendAsContiguousOnesDo(DType dtype, int pageSize) {
        int layers = 2;
        int sequences = 3;
        int headsQ = 4;
        int headsK = 2;
        int size = 16;
        int prompt = 10;
        int steps = 9;
        int longest = prompt + steps;
        int mostPages = Math.ceilDiv(longest, pageSize);
        TensorSpec pages = TensorSpec.of(dtype, 3 * mostPages + 2, pageSize, headsK, size);
        TensorSpec copies = TensorSpec.of(dtype, sequences, longest, headsK, size);
        Tensor table = tensor(DType.F32, longest, size);
        Rope.fillTable(table, 10_000);
        Tensor q = tensor(DType.F32, longest, headsQ, size);
        Tensor k = tensor(DType.F32, longest, headsK, size);
        Tensor v = tensor(DType.F32, longest, headsK, size);
        Tensor rotated = tensor(DType.F32, longest, headsQ, size);
        Tensor own = tensor(DType.S64, longest); // the rows of the copies
        Tensor out = tensor(DType.F32, sequences, 1, headsQ, size);
        Tensor expected = tensor(DType.F32, sequences, 1, headsQ, size);
        Tensor table2 = tensor(DType.S32, sequences, mostPages);
        Random random = new Random(8);
        TensorSpec queries = out.spec();
        try (KvCache cache = KvCache.of(pool, layers, pages, pages);
                Rope.Plan append = Rope.halves(size).plan(device, longest, q.spec(), q.spec(), k.spec(), pages,
                        v.spec(), pages);
                Rope.Plan copy = Rope.halves(size).plan(device, longest, null, null, k.spec(), copies,
                        v.spec(), copies);
                Attention.Plan paged = Attention.causal().paged(longest).plan(device, queries, pages, pages);
                Attention.Plan dense = Attention.causal().plan(device, queries, copies, copies)) {
            Tensor[] copiedK = new Tensor[layers];
            Tensor[] copiedV = new Tensor[layers];
            Tensor[] copiedKScales = new Tensor[layers];
            Tensor[] copiedVScales = new Tensor[layers];
            for (int layer = 0; layer < layers; layer++) {
                cache.k(layer).memory().fill((byte) 0x7f); // NaN or nonsense, where nothing was written
                cache.v(layer).memory().fill((byte) 0x7f);
                copiedK[layer] = tensor(dtype, copies.shape());
                copiedV[layer] = tensor(dtype, copies.shape());
                if (dtype == DType.S8) {
                    cache.kScales(layer).memory().fill((byte) -1);
                    cache.vScales(layer).memory().fill((byte) -1);
                    copiedKScales[layer] = tensor(DType.F32, sequences, longest, headsK);
                    copiedVScales[layer] = tensor(DType.F32, sequences, longest, headsK);
                }
            }
            KvCache.Sequence[] all = new KvCache.Sequence[sequences];
            all[0] = cache.open();
            for (int step = -1; step < steps; step++) {
                // The prompt, then a token of each sequence: what a token is, is random and different in each layer.
                int tokens = step < 0 ? prompt : sequences;
                for (int i = 0; i < (step < 0 ? 1 : sequences); i++) {
                    if (step < 0) {
                        all[0].append(stream, random.ints(prompt).toArray(), positions, slots, 0);
                    } else {
                        all[i].append(stream, random.nextInt(), positions, slots, i);
                        all[i].fill(table2, lengths, i);
                    }
                }
                Tensor at = positions.slice(0, 0, tokens);
                for (int layer = 0; layer < layers; layer++) {
                    for (Tensor x : new Tensor[] {q, k, v}) {
                        for (int i = 0; i < x.spec().elements(); i++) {
                            x.memory().setAtIndex(ValueLayout.JAVA_FLOAT, i, (float) random.nextGaussian());
                        }
                    }
                    Tensor someK = k.slice(0, 0, tokens);
                    Tensor someV = v.slice(0, 0, tokens);
                    Tensor someQ = rotated.slice(0, 0, tokens);
                    append.run(stream, at, table, slots.slice(0, 0, tokens), q.slice(0, 0, tokens), someQ, someK,
                            cache.k(layer), someV, cache.v(layer), cache.kScales(layer), cache.vScales(layer));
                    for (int i = 0; i < sequences; i++) {
                        for (int t = 0; t < tokens; t++) {
                            long position = at.memory().getAtIndex(ValueLayout.JAVA_LONG, t);
                            own.memory().setAtIndex(ValueLayout.JAVA_LONG, t,
                                    step < 0 || t == i ? i * longest + position : -1);
                        }
                        copy.run(stream, at, table, own.slice(0, 0, tokens), null, null, someK, copiedK[layer],
                                someV, copiedV[layer], copiedKScales[layer], copiedVScales[layer]);
                    }
                    if (step < 0) {
                        continue;
                    }
                    Tensor batch = someQ.reshape(sequences, 1, headsQ, size);
                    paged.run(stream, new Attention.Arrays().q(batch).k(cache.k(layer)).v(cache.v(layer)).out(out)
                            .kScales(cache.kScales(layer)).vScales(cache.vScales(layer))
                            .blockTable(table2).kIndex(lengths));
                    dense.run(stream, new Attention.Arrays().q(batch).k(copiedK[layer]).v(copiedV[layer])
                            .out(expected).kScales(copiedKScales[layer]).vScales(copiedVScales[layer])
                            .kIndex(lengths).qIndex(ones(sequences)));
                    assertArrayEquals(expected.toFloatArray(), out.toFloatArray(), 1e-5f, "step " + step);
                }
                for (int i = 0; i < (step < 0 ? 1 : sequences); i++) {
                    all[i].commit();
                }
                if (step < 0) {
                    all[1] = all[0].fork();
                    all[2] = all[1].fork();
                }
            }
            for (int i = 0; i < sequences; i++) {
                for (int layer = 0; layer < layers; layer++) {
                    for (int position = 0; position < longest; position++) {
                        int page = table2.memory().getAtIndex(
                                ValueLayout.JAVA_INT, (long) i * mostPages + position / pageSize);
                        assertEquals(-1, row(copiedV[layer], i, position)
                                .mismatch(row(cache.v(layer), page, position % pageSize)));
                        assertEquals(-1, row(copiedK[layer], i, position)
                                .mismatch(row(cache.k(layer), page, position % pageSize)));
                    }
                }
                all[i].close();
            }
            assertEquals(prompt % pageSize == 0 ? 0 : 2, cache.statistics().copiedPages());
        }
    }

    private Tensor ones(int count) {
        long[] values = new long[count];
        Arrays.fill(values, 1);
        return tensor(DType.S64, count).copyFrom(values);
    }

    private static MemorySegment row(Tensor tensor, long page, long row) {
        return tensor.slice(0, page, page + 1).slice(1, row, row + 1).memory();
    }
}
