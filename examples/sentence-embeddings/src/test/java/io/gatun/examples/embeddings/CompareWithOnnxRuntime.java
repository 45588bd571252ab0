package io.gatun.examples.embeddings;

import ai.onnxruntime.OrtException;
import io.gatun.Device;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

/**
 * How long a batch takes, beside ONNX Runtime: the same threads, the same tokens, in one process, in turns.
 *
 * <p>Each turn begins with a pause, in which the other's worker threads stop spinning, and with an unmeasured call
 * where calls are short. Not part of the tests, by its name; the README says how to run it. The profile {@code peers}
 * adds the quantized model.
 */
class CompareWithOnnxRuntime {
    /** {texts, rounds, calls in a round}; every text has 128 tokens. */
    private static final int[][] BATCHES = {{1, 15, 5}, {32, 9, 1}};

    private interface Encoder {
        float[][] embed(List<long[]> texts) throws OrtException;
    }

    @Test
    void measure() throws Exception {
        for (int threads = 1; threads <= Math.min(2, Runtime.getRuntime().availableProcessors()); threads++) {
            measure(threads);
        }
    }

    private static void measure(int threads) throws IOException, OrtException, InterruptedException {
        try (Device device = Device.open("cpu", threads);
                MiniLm f32 = MiniLm.load(device, Precision.F32);
                MiniLm bf16 = MiniLm.load(device, Precision.BF16);
                MiniLm int8 = MiniLm.load(device, Precision.INT8);
                OnnxRuntimeEncoder ort = OnnxRuntimeEncoder.load("all-minilm-l6-v2.onnx", threads)) {
            Map<String, Encoder> encoders = new LinkedHashMap<>();
            encoders.put("f32", f32::embed);
            encoders.put("bf16", bf16::embed);
            encoders.put("int8", int8::embed);
            encoders.put("ort f32", ort::embedSameLength);
            try (OnnxRuntimeEncoder quantized = OnnxRuntimeEncoder.load("all-minilm-l6-v2-q.onnx", threads)) {
                encoders.put("ort int8", quantized::embedSameLength);
                measure(threads, encoders);
            } catch (FileNotFoundException e) {
                System.out.println("without the quantized model: " + e.getMessage());
                measure(threads, encoders);
            }
        }
    }

    private static void measure(int threads, Map<String, Encoder> encoders) throws OrtException, InterruptedException {
        Random random = new Random(11);
        for (int[] batch : BATCHES) {
            List<long[]> texts = new ArrayList<>();
            for (int i = 0; i < batch[0]; i++) {
                texts.add(random.longs(128, 1000, 30000).toArray());
            }
            Map<String, double[]> milliseconds = new LinkedHashMap<>();
            encoders.keySet().forEach(name -> milliseconds.put(name, new double[batch[1] * batch[2]]));
            for (int round = -1; round < batch[1]; round++) { // the first round is a warm-up
                for (Map.Entry<String, Encoder> encoder : encoders.entrySet()) {
                    Thread.sleep(20);
                    if (batch[2] > 1) {
                        encoder.getValue().embed(texts);
                    }
                    for (int call = 0; call < batch[2]; call++) {
                        long start = System.nanoTime();
                        encoder.getValue().embed(texts);
                        if (round >= 0) {
                            milliseconds.get(encoder.getKey())[round * batch[2] + call] =
                                    (System.nanoTime() - start) / 1e6;
                        }
                    }
                }
            }
            System.out.printf("%d x 128 tokens, %d thread%s%n", batch[0], threads, threads == 1 ? "" : "s");
            milliseconds.values().forEach(Arrays::sort);
            milliseconds.forEach((name, times) -> {
                System.out.printf(
                        "  %-9s median %8.2f ms (%.2f to %.2f)",
                        name, quantile(times, 0.5), quantile(times, 0.1), quantile(times, 0.9));
                for (String peer : List.of("ort f32", "ort int8")) {
                    if (!name.startsWith("ort") && milliseconds.containsKey(peer)) {
                        System.out.printf(
                                "  %s / %s = %.2f",
                                peer, name, quantile(milliseconds.get(peer), 0.5) / quantile(times, 0.5));
                    }
                }
                System.out.println();
            });
        }
    }

    private static double quantile(double[] sorted, double q) {
        return sorted[(int) (q * (sorted.length - 1))];
    }
}
