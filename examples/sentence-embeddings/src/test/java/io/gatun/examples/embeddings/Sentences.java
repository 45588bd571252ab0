package io.gatun.examples.embeddings;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.StringJoiner;

/** Texts of many kinds: hand-written lines, and sentences put together from word lists by a seeded generator. */
final class Sentences {
    private Sentences() {}

    private static final List<String> WRITTEN = List.of(
            "The lock fills with water and the ship rises twenty-six metres.",
            "A vessel is lifted as the chamber is flooded.",
            "My sister bakes bread every Sunday morning.",
            "Bread comes out of my sister's oven each Sunday.",
            "He forgot his umbrella, so naturally it rained.",
            "Interest rates were left unchanged at the March meeting.",
            "The central bank did not touch interest rates.",
            "Please reset my password; the link you sent has expired.",
            "How do I return a pair of shoes that is too small?",
            "What is the capital of Australia?",
            "Canberra is the capital of Australia.",
            "Sydney is the largest city in Australia.",
            "def quicksort(xs): return xs if len(xs) < 2 else [...]",
            "SELECT name, COUNT(*) FROM visits GROUP BY name HAVING COUNT(*) > 3;",
            "E = mc^2, and 3.14159 < pi < 3.14160",
            "https://example.org/path?query=1&other=%20#fragment",
            "ALL CAPITALS AND NO PUNCTUATION",
            "no capitals and no punctuation",
            "Caf\u00e9, na\u00efve, \u00fcber, se\u00f1or, \u0141\u00f3d\u017a",
            "It isn't what you'd've expected, is it?",
            "one... two... three!!!",
            "    spaces    all    around    ",
            "tabs\tand\tline\nbreaks",
            "1234567890 0987654321",
            "$19.99 (was \u20ac24.50), 20% off until 2031-12-31",
            "antidisestablishmentarianism floccinaucinihilipilification",
            "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65\u5427\u3002",
            "\u9019\u8258\u8239\u901a\u904e\u4e86\u5df4\u62ff\u99ac\u904b\u6cb3\u3002",
            "\u6df1\u5ea6\u5b66\u4e60 needs \u77e9\u9635\u4e58\u6cd5 and patience.",
            "\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c",
            "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
            "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
            "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
            "\ud83d\udea2",
            "\ud83d\ude00\ud83d\ude02\ud83e\udd73",
            "I \u2764\ufe0f ships \ud83d\udea2 and tea \ud83c\udf75",
            "\ud83d\udc68\u200d\ud83d\udc69\u200d\ud83d\udc67\u200d\ud83d\udc66 family dinner \ud83c\udf5d tonight?",
            "zero\u200bwidth and soft\u00adhyphen",
            "[CLS] [SEP] [MASK] [PAD] [UNK]",
            ".",
            "?!",
            "a");

    private static final List<String> SUBJECTS = List.of(
            "the captain", "a young engineer", "our neighbour", "the committee", "every child", "a grey heron",
            "the night train", "an old compiler", "nobody", "the museum", "her lawyer", "the river pilot");
    private static final List<String> VERBS = List.of(
            "repairs", "admires", "forgets", "measures", "paints", "translates", "avoids", "describes", "sells",
            "remembers", "questions", "follows");
    private static final List<String> OBJECTS = List.of(
            "the broken gate", "a recipe for lentil soup", "twelve postcards", "the quarterly report", "a violin",
            "the shape of the clouds", "an unfinished bridge", "the rules of chess", "two tonnes of coffee",
            "a letter from Lisbon", "the museum's oldest map", "a fast matrix product");
    private static final List<String> ENDINGS = List.of(
            "before sunrise", "without a word", "in the rain", "for the third time", "as if nothing had happened",
            "on the way to the harbour", "at the end of August", "to everyone's surprise", "with great care",
            "although the office is closed", "while the kettle boils", "under a full moon");
    private static final List<String> WORDS = List.of(
            "anchor", "photosynthesis", "quarterly", "lemonade", "Kubernetes", "sonata", "grief", "tax", "yes", "1999",
            "zebra", "inflation", "pneumonia", "goal", "Shakespeare");
    private static final String CHINESE = "\u7684\u4e00\u662f\u4e0d\u4e86\u4eba\u6211\u5728\u6709\u4ed6\u8fd9\u4e2d"
            + "\u5927\u6765\u4e0a\u56fd\u4e2a\u5230\u8bf4\u4eec\u4e3a\u5b50\u548c\u4f60\u5730\u51fa\u9053\u4e5f"
            + "\u65f6\u5e74\u5f97\u5c31\u90a3\u8981\u4e0b\u4ee5\u751f\u4f1a\u81ea\u7740\u53bb\u4e4b\u8fc7\u5bb6"
            + "\u5b66\u5bf9\u53ef\u5979"
            + "\u6c34\u8239\u6cb3\u5c71\u6d77\u7801\u9501\u5347";
    private static final List<String> EMOJI = List.of(
            "\ud83d\udea2", "\ud83c\udf0a", "\ud83d\ude80", "\ud83d\ude00", "\u2600\ufe0f", "\ud83c\udf55",
            "\ud83d\udcda", "\ud83e\udd8a");

    /** 240 texts in a shuffled order, the same for the same seed. */
    static List<String> varied(long seed) {
        Random random = new Random(seed);
        List<String> texts = new ArrayList<>(WRITTEN);
        texts.addAll(WORDS);
        for (int i = 0; i < 90; i++) {
            texts.add(english(random, 1));
        }
        for (int i = 0; i < 30; i++) {
            texts.add(english(random, 2 + random.nextInt(5)));
        }
        for (int i = 0; i < 6; i++) {
            texts.add(words(random, 250));
        }
        for (int i = 0; i < 20; i++) {
            texts.add(chinese(random, 1 + random.nextInt(40)));
        }
        for (int i = 0; i < 12; i++) {
            texts.add(english(random, 1) + " " + pick(random, EMOJI) + pick(random, EMOJI));
        }
        texts.add(words(random, 700));
        texts.add("");
        texts.add("");
        while (texts.size() < 240) {
            texts.add(pick(random, texts));
        }
        Collections.shuffle(texts, random);
        return List.copyOf(texts);
    }

    private static String english(Random random, int sentences) {
        StringJoiner text = new StringJoiner(" ");
        for (int i = 0; i < sentences; i++) {
            String sentence = String.join(
                    " ", pick(random, SUBJECTS), pick(random, VERBS), pick(random, OBJECTS), pick(random, ENDINGS));
            text.add(Character.toUpperCase(sentence.charAt(0)) + sentence.substring(1) + ".");
        }
        return text.toString();
    }

    /** A text of {@code count} words. */
    static String words(Random random, int count) {
        StringJoiner text = new StringJoiner(" ");
        for (int i = 0; i < count; i++) {
            List<String> phrase = List.of(pick(random, List.of(SUBJECTS, VERBS, OBJECTS, ENDINGS, WORDS).get(
                            random.nextInt(5)))
                    .split(" "));
            text.add(pick(random, phrase));
        }
        return text.toString();
    }

    private static String chinese(Random random, int characters) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < characters; i++) {
            text.append(CHINESE.charAt(random.nextInt(CHINESE.length())));
        }
        return text.append('\u3002').toString();
    }

    private static <T> T pick(Random random, List<T> list) {
        return list.get(random.nextInt(list.size()));
    }
}
