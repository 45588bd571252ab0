package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.AttentionReference.Sequence;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class AttentionCaseTest {
    private static AttentionCase parse(String line) {
        return (AttentionCase) Case.parse(line);
    }

    private static AttentionArrays arrays(String line) {
        return new AttentionArrays(parse(line));
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "attention f16 b2 q9 k20 hq4 hk2 dk16 window=3,0 seed=1",
        "attention f32 b2 q9 k20 hq4 hk2 dk16 causal lse slack kv=s8 sinks=4 dilation=2 prefix globals=3 seed=1",
        "attention bf16 b1 q9 k20 hq4 hk2 dk16 dense out=f32 documents=2x3 tree blocks=8x4x4 blockmasks order=2 seed=9",
        "attention bf16 q9 k20 hq4 hk2 dk8 causal packed qlen=4,5 klen=9,9 blocks=8x4x1 blockbias slopes bias seed=9",
        "attention f32 b1 q9 k20 hq4 hk2 dk4 dense bias=keys softcap=2.0 selfbias=2.0 sinklogits perhead paged=8 seed=9"
    })
    void everyWordIsInTheLineAgain(String line) {
        assertEquals(line, parse(line).name());
    }

    @ParameterizedTest
    @CsvSource({
        "documents, documents=1x1",
        "documents=2, documents=2x1",
        "order, order=1",
        "blocks=8x4, blocks=8x4x1",
        "bias=full, bias"
    })
    void shortWordsStandForUsualNumbers(String given, String meant) {
        String line = "attention f32 b1 q3 k3 hq2 hk1 dk4 dense ";
        assertEquals(line + meant + " seed=1", parse(line + given).name());
    }

    @Test
    void aNumberStandsForALineOfItsOwn() {
        Set<String> names = new HashSet<>();
        for (int number = 1; number <= 200; number++) {
            String line = "attention random=" + number + (number % 2 == 0 ? " small" : "") + " seed=3";
            AttentionCase drawn = parse(line);
            assertFalse(drawn.name().contains("random"), drawn::name);
            assertEquals(drawn, parse(drawn.name()));
            assertEquals(drawn, parse(line));
            assertTrue(drawn.degenerate() || drawn.anySeen(), drawn::name);
            names.add(drawn.name());
        }
        assertEquals(200, names.size());
        assertNotEquals(parse("attention random=1 seed=1"), parse("attention random=1 seed=2"));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3, 16, 256})
    void pagesAreInRandomOrderAndSomeUnused(int size) {
        AttentionArrays arrays = arrays("attention f32 b2 q1 k300 hq1 dk4 klen=300,40 slack paged=" + size);
        int rows = arrays.pages() * size;
        Set<Integer> used = new HashSet<>();
        for (Sequence sequence : arrays.sequences()) {
            Set<Integer> own = new HashSet<>();
            for (int j = 0; j < sequence.lenK(); j++) {
                own.add(sequence.rowK(j));
            }
            assertEquals(sequence.lenK(), own.size(), "a key has a row of its own");
            used.addAll(own);
        }
        assertTrue(used.size() < rows && used.stream().allMatch(row -> row >= 0 && row < rows));
        int slots = AttentionArrays.ceil(305, size);
        int needed = AttentionArrays.ceil(40, size);
        for (int slot = needed; slot < slots; slot++) {
            assertEquals(AttentionArrays.NOWHERE, arrays.blockTable()[slots + slot]);
        }
        if (size <= 16) {
            int[] table = Arrays.copyOf(arrays.blockTable(), AttentionArrays.ceil(300, size));
            assertFalse(Arrays.equals(table, IntStream.of(table).sorted().toArray()), "not in order");
        }
    }

    @Test
    void globalTokensRiseAndTheRestIsMinusOne() {
        AttentionArrays arrays = arrays("attention f32 b3 q3 k20 hq1 dk4 klen=20,2,0 slack globals=5");
        int[] globals = arrays.globals();
        assertEquals(3 * 7, globals.length);
        for (int b = 0; b < 3; b++) {
            int before = -1;
            boolean rest = false;
            for (int at = 7 * b; at < 7 * (b + 1); at++) {
                rest |= globals[at] == -1;
                assertTrue(rest ? globals[at] == -1 : globals[at] > before && globals[at] < new int[] {20, 2, 0}[b]);
                before = globals[at];
            }
        }
        assertTrue(globals[0] >= 0, "some token is global");
    }

    @Test
    void ordersAreOfAllQueriesAndOfSomeKeys() {
        AttentionArrays arrays = arrays("attention f32 packed q9 k50 hq2 dk4 qlen=4,5 klen=40,10 order=2");
        for (int head = 0; head < 2; head++) {
            int[] second = Arrays.copyOfRange(arrays.orderQ(), head * 9 + 4, head * 9 + 9);
            assertEquals(List.of(0, 1, 2, 3, 4), Arrays.stream(second).sorted().boxed().toList());
            int[] keys = Arrays.copyOfRange(arrays.orderK(), head * 50, head * 50 + 40);
            int[] named = Arrays.stream(keys).filter(key -> key != -1).toArray();
            assertEquals(named.length, Arrays.stream(named).distinct().count());
            assertTrue(named.length >= 15 && named.length < 40);
            assertTrue(Arrays.stream(named).allMatch(key -> key >= 0 && key < 40));
        }
    }

    @Test
    void listsRiseAndSomeAreEmpty() {
        AttentionArrays arrays = arrays("attention f32 b2 q100 k100 hq2 dk4 slack blocks=4x4x2 blockmasks");
        long[] offsets = arrays.blockOffsets();
        assertEquals(2 * 2 * 26 + 1, offsets.length);
        int[] columns = arrays.blockColumns();
        int empty = 0;
        for (int list = 0; list + 1 < offsets.length; list++) {
            empty += offsets[list] == offsets[list + 1] ? 1 : 0;
            for (long at = offsets[list] + 1; at < offsets[list + 1]; at++) {
                assertTrue(columns[(int) at - 1] < columns[(int) at]);
            }
        }
        assertTrue(empty > 0 && empty < offsets.length - 1);
        assertTrue(offsets[offsets.length - 1] < columns.length, "some entries are of no list");
        assertEquals(AttentionArrays.NOWHERE, columns[columns.length - 1]);
    }

    @Test
    void biasBeyondASequenceIsNan() {
        AttentionArrays arrays = arrays("attention f32 b2 q4 k6 hq1 dk4 qlen=4,2 klen=6,3 bias");
        float[] values = arrays.biasValues();
        for (int b = 0; b < 2; b++) {
            for (int i = 0; i < 4; i++) {
                for (int j = 0; j < 6; j++) {
                    boolean inside = b == 0 || i < 2 && j < 3;
                    assertEquals(inside, !Float.isNaN(values[(b * 4 + i) * 6 + j]));
                }
            }
        }
    }
}
