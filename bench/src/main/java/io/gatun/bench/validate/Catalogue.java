package io.gatun.bench.validate;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

/**
 * The cases of a validation run, from a text resource.
 *
 * <p>A line of the resource stands for many cases: {@code {a|b|c}} for each of its words in turn, {@code {1..9}} for
 * each number, {@code [a|b|c]} for one of the words, dealt from a deck that the seed shuffles, so that all of them come
 * up equally often and no two decks in step. {@code #} starts a comment. Every case gets the run's seed, unless its
 * line names one.
 */
public final class Catalogue {
    private Catalogue() {}

    /** How much of the catalogue a run takes: each holds the one before. */
    public enum Extent {
        /** Small shapes of every kind, on two processors in less than a minute. */
        QUICK,
        /** More of each kind, shapes that fill caches and block loops, and times: minutes. */
        DEFAULT,
        /** Every combination: hours. */
        EXHAUSTIVE
    }

    /** The cases of an extent, in the order in which they run: what is timed comes last. */
    public static List<Case> cases(Extent extent, long seed) {
        List<Case> cases = new ArrayList<>();
        for (Extent part : Extent.values()) {
            if (part.compareTo(extent) <= 0) {
                cases.addAll(read(part.name().toLowerCase(Locale.ROOT) + ".cases", seed));
            }
        }
        List<Case> distinct = new ArrayList<>(distinct(cases));
        distinct.sort(Comparator.comparing(test -> test instanceof TimeCase));
        return List.copyOf(distinct);
    }

    private static List<Case> read(String resource, long seed) {
        try (InputStream in = Catalogue.class.getResourceAsStream(resource)) {
            if (in == null) {
                throw new IllegalStateException("the resource " + resource + " is missing");
            }
            String text = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            return expand(text, seed);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The cases that a catalogue's text stands for. */
    static List<Case> expand(String text, long seed) {
        List<Case> cases = new ArrayList<>();
        for (String whole : text.lines().toList()) {
            String line = whole.replaceFirst("#.*", "").strip();
            if (!line.isEmpty()) {
                // By its text alone, so that a new line changes no other one's deals.
                for (String name : new Line(seed * 1_000_003 + line.hashCode()).expand(line)) {
                    cases.add(Case.parse(name.contains("seed=") ? name : name + " seed=" + seed));
                }
            }
        }
        return distinct(cases);
    }

    private static List<Case> distinct(List<Case> cases) {
        Map<String, Case> byName = new LinkedHashMap<>();
        cases.forEach(test -> byName.putIfAbsent(test.name(), test));
        return List.copyOf(byName.values());
    }

    /** One line of a catalogue. */
    private static final class Line {
        private final Random random;
        private final Map<Integer, List<String>> decks = new LinkedHashMap<>();

        Line(long seed) {
            random = new Random(seed);
        }

        List<String> expand(String line) {
            List<String> products = new ArrayList<>(List.of(""));
            int at = 0;
            for (int open = line.indexOf('{'); open >= 0; open = line.indexOf('{', at)) {
                int close = line.indexOf('}', open);
                String before = line.substring(at, open);
                String[] words = words(line.substring(open + 1, close));
                products = products.stream()
                        .flatMap(prefix -> Arrays.stream(words).map(word -> prefix + before + word))
                        .toList();
                at = close + 1;
            }
            String rest = line.substring(at);
            return products.stream().map(product -> deal(product + rest)).toList();
        }

        private static String[] words(String choice) {
            if (!choice.matches("\\d+\\.\\.\\d+")) {
                return choice.split("\\|", -1);
            }
            String[] ends = choice.split("\\.\\.");
            return IntStream.rangeClosed(Integer.parseInt(ends[0]), Integer.parseInt(ends[1]))
                    .mapToObj(String::valueOf)
                    .toArray(String[]::new);
        }

        private String deal(String line) {
            StringBuilder dealt = new StringBuilder();
            int at = 0;
            int position = 0;
            for (int open = line.indexOf('['); open >= 0; open = line.indexOf('[', at)) {
                int close = line.indexOf(']', open);
                List<String> words = List.of(line.substring(open + 1, close).split("\\|", -1));
                List<String> deck = decks.computeIfAbsent(position++, _ -> new ArrayList<>());
                if (deck.isEmpty()) {
                    deck.addAll(words);
                    Collections.shuffle(deck, random);
                }
                dealt.append(line, at, open).append(deck.removeLast());
                at = close + 1;
            }
            return dealt.append(line.substring(at)).toString();
        }
    }
}
