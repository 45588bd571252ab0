package io.gatun.examples.embeddings;

import io.gatun.Device;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** The command: texts in, the matrix of their similarities or the embeddings themselves out. */
@Command(
        name = "embed",
        mixinStandardHelpOptions = true,
        version = "sentence-embeddings 0.1.0",
        description = "Embeds texts with all-MiniLM-L6-v2 and prints how similar they are (cosine, 1 is the same).",
        sortOptions = false)
public final class SentenceEmbeddings implements Callable<Integer> {
    @Parameters(
            arity = "0..*",
            paramLabel = "TEXT",
            description = "The texts; without any, one per line of standard input. Only the first 512 tokens of a text"
                    + " count.")
    private List<String> texts = new ArrayList<>();

    @Option(
            names = "--precision",
            paramLabel = "FORMAT",
            defaultValue = "f32",
            description = "What matrices are multiplied in: ${COMPLETION-CANDIDATES} (default: ${DEFAULT-VALUE}).")
    private Precision precision = Precision.F32;

    @Option(
            names = "--device",
            paramLabel = "NAME",
            defaultValue = "cpu",
            description = "The device, such as cpu or cpu:avx2 (default: ${DEFAULT-VALUE}).")
    private String device = "cpu";

    @Option(
            names = "--threads",
            paramLabel = "N",
            description = "How many threads to use (default: one per processor).")
    private int threads = Runtime.getRuntime().availableProcessors();

    @Option(names = "--json", description = "Print one JSON object per text: text, tokens and embedding.")
    private boolean json;

    @Spec
    private @Nullable CommandSpec spec;

    /** Runs the command and exits: 0 on success, 1 on failure, 2 on a wrong option. */
    public static void main(String[] args) {
        int status;
        try (PrintWriter out = new PrintWriter(System.out, false, StandardCharsets.UTF_8)) {
            status = commandLine().setOut(out).execute(args);
        }
        System.exit(status);
    }

    static CommandLine commandLine() {
        return new CommandLine(new SentenceEmbeddings()).setCaseInsensitiveEnumValuesAllowed(true);
    }

    @Override
    public Integer call() throws IOException {
        CommandLine command = Objects.requireNonNull(spec).commandLine();
        List<String> texts = this.texts.isEmpty() ? readLines() : this.texts;
        List<Tokenizer.Tokens> tokens = new ArrayList<>();
        try (Tokenizer tokenizer = Tokenizer.load()) {
            for (String text : texts) {
                tokens.add(tokenizer.encode(text));
            }
        }
        float[][] embeddings;
        try (Device device = Device.open(this.device, threads);
                MiniLm encoder = MiniLm.load(device, precision)) {
            embeddings = encoder.embed(tokens.stream().map(Tokenizer.Tokens::ids).toList());
        }
        for (int i = 0; i < texts.size(); i++) {
            if (tokens.get(i).dropped() > 0) {
                command.getErr().printf(
                        Locale.ROOT,
                        "text %d is too long: its last %d tokens were left out%n",
                        i + 1,
                        tokens.get(i).dropped());
            }
        }
        if (json) {
            printJson(command.getOut(), texts, tokens, embeddings);
        } else {
            printSimilarities(command.getOut(), texts, embeddings);
        }
        return CommandLine.ExitCode.OK;
    }

    private static List<String> readLines() throws IOException {
        return new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readAllLines();
    }

    private static void printSimilarities(PrintWriter out, List<String> texts, float[][] embeddings) {
        for (int i = 0; i < embeddings.length; i++) {
            out.printf(Locale.ROOT, "%4d ", i + 1);
            for (float[] other : embeddings) {
                out.printf(Locale.ROOT, " %6.3f", dot(embeddings[i], other));
            }
            out.printf("  %s%n", abridged(texts.get(i)));
        }
        out.flush();
    }

    /** Embeddings have length 1, so their dot product is the cosine. */
    static double dot(float[] a, float[] b) {
        double sum = 0;
        for (int d = 0; d < a.length; d++) {
            sum += (double) a[d] * b[d];
        }
        return sum;
    }

    private static String abridged(String text) {
        int[] points = text.codePoints().limit(61).toArray();
        return points.length <= 60 ? text : new String(points, 0, 59) + "\u2026";
    }

    private static void printJson(
            PrintWriter out, List<String> texts, List<Tokenizer.Tokens> tokens, float[][] embeddings) {
        for (int i = 0; i < embeddings.length; i++) {
            out.print("{\"text\": ");
            printJsonString(out, texts.get(i));
            out.print(", \"tokens\": " + tokens.get(i).ids().length + ", \"embedding\": [");
            for (int d = 0; d < embeddings[i].length; d++) {
                out.print((d == 0 ? "" : ", ") + embeddings[i][d]);
            }
            out.println("]}");
        }
        out.flush();
    }

    private static void printJsonString(PrintWriter out, String text) {
        out.print('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c < ' ') {
                out.printf("\\u%04x", (int) c);
            } else {
                out.print(c == '"' || c == '\\' ? "\\" + c : String.valueOf(c));
            }
        }
        out.print('"');
    }
}
