package io.gatun.bench.compare;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.DType;
import io.gatun.bench.compare.Bench.Offer;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BenchTest {
    private static final List<String> NAMES = List.of(
            "name", "shape", "dtype", "threads", "cold", "oursMs", "peer", "peerMs", "speedup", "fractionOfLimit",
            "peerFraction", "limit");

    private final StringWriter out = new StringWriter();
    private final StringWriter err = new StringWriter();

    @TempDir
    private Path folder;

    private int run(List<Offer> peers, String... args) {
        return Bench.run(List.of(Ours::new), peers, new PrintWriter(out, true), new PrintWriter(err, true), args);
    }

    /** Gatun under another name, whose result is off by an amount. */
    private record Twin(String name, float off) implements Peer {
        @Override
        public Optional<Call> prepare(Task task, Operands operands, int threads) {
            return new Ours("cpu").prepare(task, operands, threads).map(call -> new Call() {
                @Override
                public void run(int set) throws Exception {
                    call.run(set);
                }

                @Override
                public float[] result() throws Exception {
                    float[] result = call.result();
                    result[0] += off;
                    return result;
                }

                @Override
                public void close() {
                    call.close();
                }
            });
        }
    }

    private static Offer offer(Peer peer) {
        return new Offer(peer.name(), () -> peer);
    }

    @Test
    void everyNameIsThereInBothExtents() {
        Set<String> expected = new TreeSet<>(List.of(
                "gemm.int8", "gemm.bf16", "gemm.fp32", "gemm.int4", "conv.3x3", "conv.1x1", "conv.7x7", "conv.depthwise",
                "conv.3x3x3", "attention.causal", "attention.window", "attention.decode", "norm.layer", "norm.rms",
                "softmax", "gelu.erf", "gelu.tanh", "silu", "minilm", "call.overhead"));
        for (boolean quick : new boolean[] {false, true}) {
            assertEquals(
                    expected, Task.all(quick).stream().map(Task::name).collect(Collectors.toCollection(TreeSet::new)));
        }
        List<String> lines = new ArrayList<>();
        Task.all(false).forEach(task -> lines.add(task.name() + " " + task.shape()));
        assertTrue(lines.containsAll(List.of(
                "gemm.int8 4096x4096x4096", "attention.causal h16 q4096 k4096 d128",
                "attention.window h16 q16384 k16384 d64 w1024", "attention.decode h16 q1 k4096 d128",
                "gemm.int4 1x4096x4096", "conv.1x1 256-64 56x56 k1 s1", "conv.3x3x3 32-32 32x32x32 k3 s1",
                "norm.layer 4096x4096", "minilm 32x128", "call.overhead 1x1")), lines.toString());
    }

    @Test
    void operationsAreCounted() {
        assertEquals(2.0 * 3 * 5 * 7, new Task.Gemm(DType.F32, 3, 5, 7, false).flops());
        // 64 outputs of 112 by 112 positions that sum 7 by 7 of 3 channels; 128 of 56 by 56 that sum 3 by 3 of their own.
        assertEquals(2.0 * 64 * 112 * 112 * 147, new Task.Convolve(DType.F32, 2, 3, 64, 224, 7, 2, 1).flops());
        assertEquals(2.0 * 128 * 56 * 56 * 9, new Task.Convolve(DType.F32, 2, 128, 128, 56, 3, 1, 128).flops());
        assertEquals(0.625 * 32 * 64, new Task.Int4(1, 32, 64, true).coldBytes());
        // Queries see 1, 2, 3 and 4 keys, or with a window of 2 1, 2, 2 and 2; at the end of 6 keys 3 to 6.
        Task.Attend.Kind causal = Task.Attend.Kind.CAUSAL;
        assertEquals(2 * 10, new Task.Attend(causal, DType.F32, 2, 4, 4, 8, 0).pairs());
        assertEquals(2 * 18, new Task.Attend(causal, DType.F32, 2, 4, 6, 8, 0).pairs());
        assertEquals(2 * 7, new Task.Attend(Task.Attend.Kind.WINDOW, DType.F32, 2, 4, 4, 8, 2).pairs());
        assertEquals(4 * 8 * 20, new Task.Attend(causal, DType.F32, 2, 4, 4, 8, 0).flops());
        // Six layers of 12 products of 384 by 384 weights, and attention, for each of 128 tokens.
        assertEquals(6 * 128 * (24.0 * 384 * 384 + 4 * 384 * 128), new Task.MiniLm(DType.F32, 1, 128).flops());
    }

    @Test
    void coldRunsTakeTurnsThroughMoreThanCachesHold() {
        Task.Gemm cold = new Task.Gemm(DType.S8, 1, 4096, 4096, true);
        try (Operands operands = Operands.of(cold)) {
            assertTrue(operands.sets() * cold.coldBytes() >= 512 << 20);
            assertFalse(operands.memory("w", 0).address() == operands.memory("w", 1).address());
            assertEquals(-1, operands.memory("w", 0).mismatch(operands.memory("w", 1)));
        }
    }

    @Test
    void aTwinAgrees() throws Exception {
        Path json = folder.resolve("bench.json");
        int status = run(List.of(offer(new Twin("Twin 1", 0))), "--quick", "--filter", "gemm.bf16 512x512x512",
                "--threads", "1", "--samples", "1", "--tolerate", "1e9", "--json", json.toString());
        assertEquals(0, status, out + "\n" + err);
        JsonNode rows = new ObjectMapper().readTree(json.toFile());
        assertEquals(1, rows.size());
        List<String> names = new ArrayList<>();
        rows.get(0).fieldNames().forEachRemaining(names::add);
        assertEquals(NAMES, names);
        assertEquals("gemm.bf16", rows.get(0).get("name").asText());
        assertEquals("512x512x512", rows.get(0).get("shape").asText());
        assertEquals("Twin 1", rows.get(0).get("peer").asText());
        assertTrue(rows.get(0).get("oursMs").asDouble() > 0);
        assertTrue(rows.get(0).get("fractionOfLimit").asDouble() > 0);
        assertTrue(rows.get(0).get("fractionOfLimit").asDouble() <= Figure.MOST);
        for (String chart : List.of("bench-bars.svg", "bench-roofline.svg")) {
            String svg = Files.readString(folder.resolve(chart));
            DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(folder.resolve(chart).toFile());
            assertTrue(svg.contains("512x512x512"), svg);
        }
    }

    @Test
    void aResultThatDisagreesIsAnErrorOfThatPeer() {
        int status = run(List.of(offer(new Twin("Wrong 1", 99)), offer(new Twin("Right 1", 0))), "--quick",
                "--filter", "gemm.fp32 512x512x512", "--threads", "1", "--samples", "1", "--tolerate", "1e9");
        assertEquals(1, status, out.toString());
        assertTrue(out.toString().contains("Wrong 1: results disagree: element 0"), out.toString());
        assertTrue(out.toString().contains("Right 1"), out.toString());
    }

    @Test
    void whatCannotBeLoadedIsNotAvailableAndNoWin() throws Exception {
        Path json = folder.resolve("bench.json");
        Offer missing = new Offer("Missing", () -> {
            throw new UnsatisfiedLinkError("no such library");
        });
        int status = run(List.of(missing), "--quick", "--filter", "call.overhead", "--threads", "1", "--samples", "1",
                "--tolerate", "1e9", "--json", json.toString());
        assertEquals(0, status, out + "\n" + err);
        assertTrue(out.toString().contains("Missing is not available: UnsatisfiedLinkError: no such library"),
                out.toString());
        JsonNode row = new ObjectMapper().readTree(json.toFile()).get(0);
        assertTrue(row.get("peer").isNull() && row.get("peerMs").isNull() && row.get("speedup").isNull());
    }

    @Test
    void wrongUse() {
        for (String[] args : new String[][] {
            {"--filter", "nothing_is_called_this"}, {"--filter", "["}, {"--threads", "0"}, {"--tolerate", "0"},
            {"--samples", "-1"}, {"--nonsense"}, {"--device", "nowhere", "--filter", "call.overhead"}
        }) {
            assertEquals(2, run(List.of(), args), String.join(" ", args));
            assertTrue(err.toString().contains(args[0].equals("--device") ? "nowhere" : args[0]), err.toString());
        }
    }
}
