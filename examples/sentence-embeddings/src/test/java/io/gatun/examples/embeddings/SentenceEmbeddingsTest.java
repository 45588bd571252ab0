package io.gatun.examples.embeddings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.api.Test;

class SentenceEmbeddingsTest {
    private record Result(int status, List<String> out, String err) {}

    private static Result run(String... arguments) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        int status = SentenceEmbeddings.commandLine()
                .setOut(new PrintWriter(out))
                .setErr(new PrintWriter(err))
                .execute(arguments);
        return new Result(status, out.toString().lines().toList(), err.toString());
    }

    private static double[] similarities(String line, int texts) {
        String[] cells = line.trim().split("\\s+");
        double[] row = new double[texts];
        for (int i = 0; i < texts; i++) {
            row[i] = Double.parseDouble(cells[i + 1]);
        }
        return row;
    }

    @Test
    void printsTheSimilarityOfEveryPair() {
        Result result = run("A ship is rising.", "The vessel goes up.", "I like lentil soup.", "A ship is rising.");
        assertEquals(0, result.status, result.err);
        assertEquals(4, result.out.size());
        double[] first = similarities(result.out.getFirst(), 4);
        assertEquals(1, first[0]);
        assertEquals(1, first[3]);
        assertTrue(first[1] > first[2] + 0.2, result.out.getFirst());
        assertEquals(first[2], similarities(result.out.get(2), 4)[0]);
        assertTrue(result.out.get(2).endsWith("I like lentil soup."), result.out.get(2));
    }

    @Test
    void takesEveryPrecisionInAnyCaseAndOneThread() {
        for (String precision : List.of("f32", "BF16", "int8")) {
            Result result = run("--precision", precision, "--threads", "1", "--device", "cpu", "one", "two");
            assertEquals(0, result.status, result.err);
            assertEquals(2, result.out.size());
        }
    }

    @Test
    void readsLinesAndPrintsJson() {
        InputStream in = System.in;
        System.setIn(new ByteArrayInputStream("say \"hi\"\n\n\u4e16\u754c\n".getBytes(StandardCharsets.UTF_8)));
        Result result;
        try {
            result = run("--json");
        } finally {
            System.setIn(in);
        }
        assertEquals(0, result.status, result.err);
        assertEquals(3, result.out.size());
        assertTrue(result.out.getFirst().startsWith("{\"text\": \"say \\\"hi\\\"\", \"tokens\": 6, \"embedding\": ["));
        assertTrue(result.out.get(1).startsWith("{\"text\": \"\", \"tokens\": 2, \"embedding\": ["));
        assertTrue(result.out.get(2).startsWith("{\"text\": \"\u4e16\u754c\", \"tokens\": 4, \"embedding\": ["));
        assertEquals(MiniLm.SIZE, result.out.get(2).split("\\[")[1].split(",").length);
    }

    @Test
    void saysWhatItLeftOut() {
        Result result = run("short", "sea ".repeat(600));
        assertEquals(0, result.status);
        assertTrue(result.err.contains("text 2 is too long: its last 90 tokens were left out"), result.err);
    }

    @Test
    void rejectsWrongOptions() {
        assertEquals(2, run("--precision", "f64", "x").status);
        assertEquals(2, run("--threads", "many", "x").status);
        Result result = run("--device", "abacus", "x");
        assertEquals(1, result.status);
        assertTrue(result.err.contains("abacus"), result.err);
    }
}
