package io.gatun.examples.embeddings;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Device;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class MiniLmTest {
    private static final long CLS = 101;
    private static final long SEP = 102;

    /** Texts of random tokens: lengths from 2 to 512, 3000 tokens and more together. */
    private static List<long[]> texts(long seed) {
        Random random = new Random(seed);
        List<long[]> texts = new ArrayList<>();
        for (int length : new int[] {2, 512, 3, 31, 32, 33, 64, 127, 128, 129, 5, 511, 300, 2, 17, 450, 200, 90, 400}) {
            long[] text = random.longs(length, 1000, 30000).toArray();
            text[0] = CLS;
            text[length - 1] = SEP;
            texts.add(text);
        }
        return texts;
    }

    private static void assertSame(float[][] expected, float[][] actual) {
        assertEquals(expected.length, actual.length);
        for (int i = 0; i < expected.length; i++) {
            int text = i;
            assertArrayEquals(expected[i], actual[i], () -> "text " + text);
        }
    }

    /** A text's embedding is the same to the last bit whatever it shares a batch with, and in whatever part. */
    @ParameterizedTest
    @EnumSource(Precision.class)
    void doesNotDependOnTheBatch(Precision precision) throws IOException {
        List<long[]> texts = texts(1);
        try (Device device = Device.open("cpu");
                MiniLm small = MiniLm.load(device, precision, 512);
                MiniLm large = MiniLm.load(device, precision, 4096)) {
            float[][] together = large.embed(texts);
            assertSame(together, small.embed(texts));

            float[][] alone = new float[texts.size()][];
            for (int i = 0; i < alone.length; i++) {
                alone[i] = large.embed(List.of(texts.get(i)))[0];
            }
            assertSame(together, alone);

            List<Integer> order = new ArrayList<>(
                    IntStream.range(0, alone.length).boxed().toList());
            Collections.shuffle(order, new Random(2));
            float[][] shuffled = large.embed(order.stream().map(texts::get).toList());
            assertSame(order.stream().map(i -> together[i]).toArray(float[][]::new), shuffled);
        }
    }

    @ParameterizedTest
    @EnumSource(Precision.class)
    void doesNotDependOnTheNumberOfThreads(Precision precision) throws IOException {
        List<long[]> texts = texts(3);
        float[][] one;
        try (Device device = Device.open("cpu", 1);
                MiniLm encoder = MiniLm.load(device, precision)) {
            one = encoder.embed(texts);
        }
        try (Device device = Device.open("cpu", 2);
                MiniLm encoder = MiniLm.load(device, precision)) {
            assertSame(one, encoder.embed(texts));
        }
    }

    @Test
    void embeddingsHaveLengthOneAndDuplicatesAreEqual() throws IOException {
        List<long[]> texts = new ArrayList<>(texts(4).subList(0, 5));
        texts.addAll(texts);
        try (Device device = Device.open("cpu");
                MiniLm encoder = MiniLm.load(device, Precision.F32)) {
            float[][] embeddings = encoder.embed(texts);
            for (float[] embedding : embeddings) {
                assertEquals(MiniLm.SIZE, embedding.length);
                assertEquals(1, SentenceEmbeddings.dot(embedding, embedding), 1e-6);
            }
            assertSame(Arrays.copyOfRange(embeddings, 0, 5), Arrays.copyOfRange(embeddings, 5, 10));
            assertEquals(0, encoder.embed(List.of()).length);
        }
    }

    @Test
    void rejectsWhatItCannotEncode() throws IOException {
        try (Device device = Device.open("cpu")) {
            assertThrows(IllegalArgumentException.class, () -> MiniLm.load(device, Precision.F32, 511));
            MiniLm encoder = MiniLm.load(device, Precision.F32);
            try (encoder) {
                assertRejects(encoder, "text 0 has 0 tokens");
                assertRejects(encoder, "text 0 has 513 tokens", new long[513]);
                assertRejects(encoder, "token -1", CLS, -1, SEP);
                assertRejects(encoder, "token 30522", CLS, 30522, SEP);
                assertEquals(1, encoder.embed(List.of(new long[] {CLS, 30521, SEP})).length);
            }
            encoder.close();
            assertThrows(IllegalStateException.class, () -> encoder.embed(List.of(new long[] {CLS, SEP})));
        }
    }

    private static void assertRejects(MiniLm encoder, String reason, long... text) {
        List<long[]> texts = Collections.singletonList(text);
        String message = assertThrows(IllegalArgumentException.class, () -> encoder.embed(texts)).getMessage();
        assertTrue(message.contains(reason), message);
    }
}
