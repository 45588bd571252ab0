package io.gatun.examples.embeddings;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Device;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Our embeddings against those of ONNX Runtime in FP32, by their cosine. */
class AccuracyTest {
    private static double leastCosine(Precision precision) {
        return switch (precision) {
            case F32 -> 0.99999;
            case BF16 -> 0.999;
            case INT8 -> 0.985;
        };
    }

    private static double leastMedian(Precision precision) {
        return precision == Precision.INT8 ? 0.995 : leastCosine(precision);
    }

    @ParameterizedTest
    @EnumSource(Precision.class)
    void agreesInBatchesOfAnySize(Precision precision) throws IOException {
        Reference reference = Reference.shared();
        Random random = new Random(7);
        double[] cosines = new double[reference.texts().size()];
        try (Device device = Device.open("cpu");
                MiniLm encoder = MiniLm.load(device, precision)) {
            for (int first = 0; first < cosines.length; ) {
                int end = Math.min(first + (first == 0 ? 1 : 1 + random.nextInt(64)), cosines.length);
                float[][] embeddings = encoder.embed(reference.tokens().subList(first, end));
                for (int i = first; i < end; i++) {
                    cosines[i] = reference.cosine(i, embeddings[i - first]);
                }
                first = end;
            }
        }
        int worst = IntStream.range(0, cosines.length)
                .boxed()
                .min((a, b) -> Double.compare(cosines[a], cosines[b]))
                .orElseThrow();
        double[] sorted = Arrays.stream(cosines).sorted().toArray();
        double median = sorted[sorted.length / 2];
        System.out.printf(
                "%s: cosine at least %.7f, median %.7f over %d texts%n",
                precision, cosines[worst], median, cosines.length);
        assertTrue(
                cosines[worst] >= leastCosine(precision),
                () -> "cosine " + cosines[worst] + " of text " + worst + ": " + reference.texts().get(worst));
        assertTrue(median >= leastMedian(precision), () -> "median cosine " + median);
    }

    static Stream<Arguments> levels() {
        return Gatun.backends().stream()
                .filter(backend -> backend.name().equals("cpu"))
                .flatMap(backend -> backend.devices().stream())
                .filter(DeviceInfo::available)
                .flatMap(device -> Arrays.stream(Precision.values())
                        .map(precision -> Arguments.of(device.name(), precision)));
    }

    @ParameterizedTest
    @MethodSource("levels")
    void agreesOnEveryLevel(String name, Precision precision) throws IOException {
        Reference reference = Reference.shared();
        List<Integer> subset = new ArrayList<>();
        int tokens = 0;
        for (int i = 0; i < reference.texts().size() && tokens < 250; i++) {
            if (reference.tokens().get(i).length <= 60) {
                subset.add(i);
                tokens += reference.tokens().get(i).length;
            }
        }
        try (Device device = Device.open(name);
                MiniLm encoder = MiniLm.load(device, precision)) {
            float[][] embeddings = encoder.embed(
                    subset.stream().map(reference.tokens()::get).toList());
            for (int i = 0; i < embeddings.length; i++) {
                int text = subset.get(i);
                double cosine = reference.cosine(text, embeddings[i]);
                assertTrue(
                        cosine >= leastCosine(precision),
                        () -> "cosine " + cosine + " of text " + text + ": " + reference.texts().get(text));
            }
        }
    }
}
