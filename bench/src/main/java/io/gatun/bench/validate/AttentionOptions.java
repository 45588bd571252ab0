package io.gatun.bench.validate;

import io.gatun.bench.reference.AttentionReference.Pattern;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * What attention may have beside a window, as words of a case: {@code sinks=4 dilation=2 prefix globals=3
 * documents=2x1 tree blocks=16x32x2 blockmasks blockbias order=2 slopes bias softcap=20.0 selfbias=-5.0 sinklogits
 * perhead paged=16}. The content of arrays is made from the case's seed.
 *
 * @param globals the most global tokens of a sequence, 0 for none
 * @param documentHeads the heads that labels are for (the first number of documents=2x1; the word alone means 1x1)
 * @param documentLayers the layers of labels, 0 for no documents
 * @param blockQ the queries of a block, 0 for no lists (blocks=16x32, or blocks=16x32x2 for lists for 2 heads)
 * @param orderHeads the heads that orders are for, 0 for none (order alone means 1)
 * @param softcap 0 for none
 * @param selfBias 0 for none
 * @param perHead the heads' patterns differ: the first has what the line says, the others variations of it
 * @param pageSize 0 for keys and values that are not paged
 */
record AttentionOptions(int sinks, int dilation, boolean prefix, int globals, int documentHeads, int documentLayers,
        boolean tree, int blockQ, int blockK, int blockHeads, boolean blockMasks, boolean blockBias, int orderHeads,
        boolean slopes, @Nullable Bias bias, float softcap, float selfBias, boolean sinkLogits, boolean perHead,
        int pageSize) {

    /** How an additive bias lies in memory. FULL goes as {@code bias} alone. */
    enum Bias {
        /** FP32, a score for each sequence, head, query and key. */
        FULL,
        /** As FULL, in the type of the queries. */
        TYPED,
        /** FP32, the same for all sequences and heads, by strides of 0. */
        SHARED,
        /** FP32, for each sequence and key, by strides of 0. */
        KEYS
    }

    static AttentionOptions parse(Words words) {
        int[] documents = numbers(words, "documents", 2, 1, 1);
        int[] blocks = numbers(words, "blocks", 3, 0, 0, 1);
        int[] order = numbers(words, "order", 1, 1);
        String bias = words.flag("bias") ? Words.word(Bias.FULL) : words.value("bias");
        return new AttentionOptions(words.integer("sinks", 0), words.integer("dilation", 1), words.flag("prefix"),
                words.integer("globals", 0), documents[0], documents[1], words.flag("tree"), blocks[0], blocks[1],
                blocks[2], words.flag("blockmasks"), words.flag("blockbias"), order[0], words.flag("slopes"),
                bias == null ? null : words.constant(Bias.class, "bias", bias), words.real("softcap", 0),
                words.real("selfbias", 0), words.flag("sinklogits"), words.flag("perhead"),
                words.integer("paged", 0));
    }

    /** The numbers of name=1x2, where the last may be left out, those of the word alone, or zeros. */
    private static int[] numbers(Words words, String name, int most, int... usual) {
        if (words.flag(name)) {
            if (usual[0] == 0) {
                throw words.wrong(name + " needs sizes, such as " + name + "=16x32");
            }
            return usual;
        }
        int[] given = words.sizes(name);
        if (given == null) {
            return new int[most];
        }
        if (given.length > most || given.length < Math.max(1, most - 1)) {
            throw words.wrong(name + ": expected " + most + " numbers with x between them");
        }
        int[] all = usual.clone();
        System.arraycopy(given, 0, all, 0, given.length);
        for (int number : all) {
            if (number < 1) {
                throw words.wrong(name + ": expected numbers of at least 1");
            }
        }
        return all;
    }

    void check(Words words, int headsQ, int headsK) {
        for (int heads : new int[] {documentHeads, blockHeads, orderHeads}) {
            if (heads > 1 && heads != headsQ && heads != headsK) {
                throw words.wrong("expected documents, blocks and orders for 1, " + headsK + " or " + headsQ
                        + " heads, not " + heads);
            }
        }
        if (dilation < 1 || sinks < 0 || globals < 0 || pageSize < 0 || softcap < 0) {
            throw words.wrong("expected a dilation of at least 1, and nothing negative but selfbias");
        }
        if (blockQ == 0 && (blockMasks || blockBias)) {
            throw words.wrong("blockmasks and blockbias need blocks");
        }
    }

    /** Adds the words of what there is. */
    void describe(StringJoiner name) {
        add(name, sinks > 0, "sinks=" + sinks);
        add(name, dilation > 1, "dilation=" + dilation);
        add(name, prefix, "prefix");
        add(name, globals > 0, "globals=" + globals);
        add(name, documents(), "documents=" + documentHeads + "x" + documentLayers);
        add(name, tree, "tree");
        add(name, blocks(), "blocks=" + blockQ + "x" + blockK + "x" + blockHeads);
        add(name, blockMasks, "blockmasks");
        add(name, blockBias, "blockbias");
        add(name, orderHeads > 0, "order=" + orderHeads);
        add(name, slopes, "slopes");
        add(name, bias != null, bias == Bias.FULL ? "bias" : bias == null ? "" : "bias=" + Words.word(bias));
        add(name, softcap != 0, "softcap=" + softcap);
        add(name, selfBias != 0, "selfbias=" + selfBias);
        add(name, sinkLogits, "sinklogits");
        add(name, perHead, "perhead");
        add(name, pageSize > 0, "paged=" + pageSize);
    }

    private static void add(StringJoiner name, boolean there, String word) {
        if (there) {
            name.add(word);
        }
    }

    boolean documents() {
        return documentLayers > 0;
    }

    boolean blocks() {
        return blockQ > 0;
    }

    boolean paged() {
        return pageSize > 0;
    }

    /** Whether a run needs no array beside those of plain attention. */
    boolean plain() {
        return !prefix && globals == 0 && !documents() && !tree && !blocks() && orderHeads == 0 && !slopes
                && bias == null && !sinkLogits && !paged();
    }

    /** Whether what is seen follows from the plan alone. */
    boolean fixed() {
        return !prefix && globals == 0 && !documents() && !tree && !blocks() && orderHeads == 0 && !paged();
    }

    /** The patterns of all heads, one of them when they are alike. */
    List<Pattern> patterns(long left, long right, int headsQ, RandomGenerator random) {
        List<Pattern> patterns = new ArrayList<>();
        patterns.add(new Pattern(left, right, dilation, sinks, prefix, globals > 0, documents(), tree, blocks()));
        while (perHead && patterns.size() < headsQ) {
            boolean same = random.nextInt(3) == 0;
            long end = same ? right : random.nextInt(-1, 4);
            patterns.add(new Pattern(same ? left : random.nextInt(-1, 20), random.nextBoolean() ? 0 : end,
                    random.nextBoolean() ? 1 : random.nextInt(1, 4), random.nextBoolean() ? sinks : random.nextInt(3),
                    prefix && random.nextBoolean(), globals > 0 && random.nextBoolean(),
                    documents() && random.nextBoolean(), tree && random.nextBoolean(),
                    blocks() && random.nextBoolean()));
        }
        return patterns;
    }
}
