package io.gatun.bench.validate;

import io.gatun.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.StringJoiner;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** The words of a case's line, each taken once: what is left over at the end is a mistake. */
final class Words {
    private static final Pattern TYPES = Pattern.compile("(f32|bf16)->(f32|bf16)");
    private static final Pattern ROW_TYPES = Pattern.compile("(f32|bf16|u8)->(f32|bf16|u8)");
    private static final Pattern GEMM_TYPES = Pattern.compile("(f32|bf16|f16|u8)->(f32|bf16|f16)");
    private static final Pattern FLOAT_TYPES = Pattern.compile("(f32|bf16|f16)->(f32|bf16|f16)");
    private static final List<String> FLOATS = List.of("f32", "bf16", "f16");

    private final String line;
    private final List<String> words;

    Words(String line) {
        this.line = line.strip();
        this.words = new ArrayList<>(Arrays.asList(this.line.split("\\s+")));
    }

    /** Takes the first word. */
    String first() {
        return words.removeFirst();
    }

    /** Takes the word if it is there, and says whether it was. */
    boolean flag(String word) {
        return words.remove(word);
    }

    /** Takes the number of a word such as m33. */
    int count(String name) {
        return Math.toIntExact(number(name, null));
    }

    /** Takes the number of a word such as max64, or gives {@code fallback}. */
    int count(String name, int fallback) {
        return Math.toIntExact(number(name, (long) fallback));
    }

    /** Takes the number of seed=7, 1 when there is none. */
    long seed() {
        String value = value("seed");
        return value == null ? 1 : parse(() -> Long.parseLong(value), "seed=" + value);
    }

    private long number(String name, @Nullable Long fallback) {
        for (String word : words) {
            if (word.matches(name + "\\d+")) {
                words.remove(word);
                return parse(() -> Long.parseLong(word.substring(name.length())), word);
            }
        }
        if (fallback == null) {
            throw wrong("'" + name + "' with a number, such as " + name + "33, is missing");
        }
        return fallback;
    }

    /** Takes the value of a word name=value, or gives null. */
    @Nullable String value(String name) {
        for (String word : words) {
            if (word.startsWith(name + "=")) {
                words.remove(word);
                return word.substring(name.length() + 1);
            }
        }
        return null;
    }

    /** Takes the number of a word such as sinks=4, or gives {@code fallback}. */
    int integer(String name, int fallback) {
        String value = value(name);
        return value == null ? fallback : parse(() -> Integer.parseInt(value), name + "=" + value);
    }

    /** The number that the value, or a part of it, of a word such as window=15,0 is. */
    long whole(String name, String value) {
        return parse(() -> Long.parseLong(value), name + "=" + value);
    }

    /** The constant of a case-insensitive enum that a word such as bias=keys names. */
    <E extends Enum<E>> E constant(Class<E> type, String name, String value) {
        return Arrays.stream(type.getEnumConstants())
                .filter(constant -> word(constant).equals(value))
                .findFirst()
                .orElseThrow(() -> wrong(name + "=" + value + " is not known"));
    }

    /** Takes the value of a word such as eps=1e-5, or gives {@code fallback}. */
    float real(String name, float fallback) {
        String value = value(name);
        return value == null ? fallback : parse(() -> Float.parseFloat(value), name + "=" + value);
    }

    /** Takes a list such as klen=3,0,7 or gives null. */
    @Nullable List<Integer> list(String name) {
        String value = value(name);
        return value == null
                ? null
                : parse(() -> Arrays.stream(value.split(",")).map(Integer::valueOf).toList(), name + "=" + value);
    }

    /** Takes the one word of a case-insensitive enum that is there, or gives {@code fallback}. */
    <E extends Enum<E>> E oneOf(Class<E> type, E fallback) {
        for (E constant : type.getEnumConstants()) {
            if (words.remove(word(constant))) {
                return constant;
            }
        }
        return fallback;
    }

    /** Takes the input and output types, as f32->bf16. */
    DType[] types() {
        return types(TYPES);
    }

    /** Takes the input and output types of an operator that takes or gives rows in 8 bits as well. */
    DType[] rowTypes() {
        return types(ROW_TYPES);
    }

    /** Takes those of a product, which takes rows in 8 bits as well. */
    DType[] gemmTypes() {
        return types(GEMM_TYPES);
    }

    /** Takes the input and output types of an operator that has f16 as well. */
    DType[] floatTypes() {
        return types(FLOAT_TYPES);
    }

    private DType[] types(Pattern allowed) {
        for (String word : words) {
            Matcher matcher = allowed.matcher(word);
            if (matcher.matches()) {
                words.remove(word);
                return new DType[] {dtype(matcher.group(1)), dtype(matcher.group(2))};
            }
        }
        throw wrong("the types, such as f32->bf16, are missing");
    }

    /** Takes one type: f32, bf16 or f16. */
    DType type() {
        for (String name : FLOATS) {
            if (words.remove(name)) {
                return dtype(name);
            }
        }
        throw wrong("the type, one of " + FLOATS + ", is missing");
    }

    /** Takes the type of a word such as kv=s8, or gives {@code fallback}. */
    DType type(String name, DType fallback, List<DType> allowed) {
        String value = value(name);
        if (value == null) {
            return fallback;
        }
        return allowed.stream()
                .filter(type -> word(type).equals(value))
                .findFirst()
                .orElseThrow(() -> wrong(name + "=" + value + ", expected one of " + allowed.stream()
                        .map(Words::word)
                        .toList()));
    }

    /** Takes the numbers of a word such as blocks=16x32, or gives null. */
    int @Nullable [] sizes(String name) {
        String value = value(name);
        return value == null
                ? null
                : parse(() -> Arrays.stream(value.split("x")).mapToInt(Integer::parseInt).toArray(),
                        name + "=" + value);
    }

    /** Checks that no word is left. */
    void end() {
        if (!words.isEmpty()) {
            throw wrong("unknown: " + String.join(" ", words));
        }
    }

    IllegalArgumentException wrong(String why) {
        return new IllegalArgumentException("case '" + line + "': " + why);
    }

    /** Adds a word to a name where it is there. */
    static void flag(StringJoiner name, boolean there, String word) {
        if (there) {
            name.add(word);
        }
    }

    /** How an enum constant is written in a line. */
    static String word(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT);
    }

    private static DType dtype(String name) {
        return DType.valueOf(name.toUpperCase(Locale.ROOT));
    }

    private <T> T parse(Supplier<T> number, String word) {
        try {
            return number.get();
        } catch (NumberFormatException e) {
            throw wrong("'" + word + "' is no number that fits");
        }
    }
}
