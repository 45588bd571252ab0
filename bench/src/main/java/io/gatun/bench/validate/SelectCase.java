package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Selection;
import io.gatun.Stream;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.SelectionReference;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.StringJoiner;
import java.util.function.BiFunction;
import java.util.function.UnaryOperator;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Selection of keys: {@code select f32 lsh b2 q33 k40 hq4 hk2 dk64 bq8 bk8 count4 first1 local1 causal groups packed
 * ragged slack buckets=8 layers=2 seed=1}. Data are drawn until there is no decision that rounding could change, so
 * that lists, labels and orders must be just those of the reference.
 *
 * @param kind how keys are chosen
 * @param lengthQ queries of each sequence, at most where ragged
 * @param lengthK keys of each sequence
 * @param groups whether the query heads of a key head share a list
 * @param packed whether sequences lie one after the other
 * @param ragged whether all but the first have lengths of their own
 * @param slack whether the plan is for more sequences and longer ones
 */
record SelectCase(DType in, Kind kind, int batch, int lengthQ, int lengthK, int headsQ, int headsK, int dk, int blockQ,
        int blockK, int count, int first, int local, boolean causal, boolean groups, boolean packed, boolean ragged,
        boolean slack, int buckets, int layers, Values values, long seed) implements OperatorCase {
    private static final int MOST_DRAWS = 1000;

    /** What lists are made by. */
    enum Kind {
        MEAN,
        BOUNDS,
        LSH,
        RETRIEVAL
    }

    static SelectCase parse(Words words) {
        SelectCase select = read(words, words.type(), words.oneOf(Kind.class, Kind.MEAN));
        words.end();
        select.check(words);
        return select;
    }

    /** Takes all words but those of the type and the kind. */
    static SelectCase read(Words words, DType in, Kind kind) {
        int headsQ = words.count("hq");
        return new SelectCase(in, kind, words.count("b", 1), words.count("q"), words.count("k"), headsQ,
                words.count("hk", headsQ), words.count("dk"), words.count("bq", 1), words.count("bk", 1),
                words.count("count"), words.count("first", 0), words.count("local", 0), words.flag("causal"),
                words.flag("groups"), words.flag("packed"), words.flag("ragged"), words.flag("slack"),
                words.integer("buckets", 8), words.integer("layers", 2), words.oneOf(Values.class, Values.NORMAL),
                words.seed());
    }

    void check(Words words) {
        if (headsQ == 0 || headsK == 0 || headsQ % headsK != 0 || dk == 0 || blockQ == 0 || blockK == 0 || count == 0
                || batch == 0 && packed) {
            throw words.wrong("heads, their size, blocks and count are 1 or more, and hk divides hq");
        }
        if (groups && !pools() || hashes() && first + local > 0 || first + local > count) {
            throw words.wrong("only pooled blocks are for groups, and first and local not for lsh, nor above count");
        }
    }

    /** The same with as many layers. */
    SelectCase layers(int layers) {
        return new SelectCase(in, kind, batch, lengthQ, lengthK, headsQ, headsK, dk, blockQ, blockK, count, first,
                local, causal, groups, packed, ragged, slack, buckets, layers, values, seed);
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("select").add(types()).add(Words.word(kind));
        describe(name);
        return Rows.end(name, values, seed);
    }

    /** Adds the words that {@link #read} takes, but for the last two. */
    void describe(StringJoiner name) {
        name.add("b" + batch).add("q" + lengthQ).add("k" + lengthK).add("hq" + headsQ).add("hk" + headsK)
                .add("dk" + dk).add("bq" + blockQ).add("bk" + blockK).add("count" + count).add("first" + first)
                .add("local" + local);
        Words.flag(name, causal, "causal");
        Words.flag(name, groups, "groups");
        Words.flag(name, packed, "packed");
        Words.flag(name, ragged, "ragged");
        Words.flag(name, slack, "slack");
        if (!pools()) {
            name.add("buckets=" + buckets).add("layers=" + layers);
        }
    }

    @Override
    public String operator() {
        return "select";
    }

    @Override
    public String types() {
        return Words.word(in);
    }

    @Override
    public DType dtype() {
        return in;
    }

    @Override
    public boolean fillsPlan() {
        return !slack && !ragged && !packed;
    }

    @Override
    public boolean degenerate() {
        return batch == 0 || lengthQ == 0 || lengthK == 0 || values == Values.ZEROS;
    }

    boolean pools() {
        return kind == Kind.MEAN || kind == Kind.BOUNDS;
    }

    boolean hashes() {
        return kind == Kind.LSH;
    }

    /** The heads that lists are for. */
    int heads() {
        return groups ? headsK : headsQ;
    }

    private Selection description() {
        Selection selection = switch (kind) {
            case MEAN -> Selection.blocks(blockQ, blockK, count).heads(heads());
            case BOUNDS -> Selection.blocks(blockQ, blockK, count).heads(heads()).pool(Selection.Pool.BOUNDS);
            case LSH -> Selection.lsh(buckets, layers, seed, blockQ, blockK, count);
            case RETRIEVAL -> Selection.retrieval(Integer.numberOfTrailingZeros(buckets), layers, seed, count);
        };
        if (!hashes()) {
            selection = selection.first(first).local(local);
        }
        if (packed) {
            selection = selection.packed(batch + (slack ? 2 : 0));
        }
        return causal ? selection.causal() : selection;
    }

    /** A list, with what the bias of each entry may be. */
    record Listed(int[] columns, double[] bias, double[] error) {}

    /** Rows of all sequences, and what follows from them. */
    static final class Data {
        final int[] lengthsQ;
        final int[] lengthsK;
        final List<double[][][]> q = new ArrayList<>(); // of each sequence [head][row][dk]
        final List<double[][][]> k = new ArrayList<>();
        final List<int[][][]> qLabels = new ArrayList<>(); // [head][layer][row]
        final List<int[][][]> kLabels = new ArrayList<>();
        final List<List<Listed>> lists = new ArrayList<>(); // head by head

        private Data(int[] lengthsQ, int[] lengthsK) {
            this.lengthsQ = lengthsQ;
            this.lengthsK = lengthsK;
        }

        /** What hashing gives of the first layers alone. */
        Data layers(SelectCase fewer) {
            Data data = new Data(lengthsQ, lengthsK);
            data.q.addAll(q);
            data.k.addAll(k);
            for (int s = 0; s < q.size(); s++) {
                data.qLabels.add(first(qLabels.get(s), fewer.layers));
                data.kLabels.add(first(kLabels.get(s), fewer.layers));
                List<Listed> lists = new ArrayList<>();
                for (int head = 0; head < fewer.headsQ; head++) {
                    int[][] keys = data.kLabels.get(s)[head];
                    lists.addAll(fewer.hashed(data.qLabels.get(s)[head], keys[keys.length - 1]));
                }
                data.lists.add(lists);
            }
            return data;
        }

        private static int[][][] first(int[][][] labels, int layers) {
            return Arrays.stream(labels).map(head -> Arrays.copyOf(head, layers)).toArray(int[][][]::new);
        }
    }

    @Override
    public Problem problem() {
        Data data = draw(random(), row -> row);
        return trial -> {
            Inputs inputs = inputs(trial, data);
            Choice choice = choice(trial, "", inputs, data);
            trial.execute(choice.plan(), stream -> choice.run(stream, inputs));
        };
    }

    /**
     * Draws until there is no decision that rounding could change.
     *
     * @param keys what becomes of each row of keys
     */
    Data draw(RandomGenerator random, UnaryOperator<float[]> keys) {
        Data data = new Data(lengths(random, lengthQ), lengths(random, lengthK));
        for (int s = 0; s < batch; s++) {
            int draws = 0;
            while (!draw(random, data.lengthsQ[s], data.lengthsK[s], keys, data)) {
                if (++draws == MOST_DRAWS) {
                    throw new IllegalStateException(name() + ": rounding may decide whatever is drawn");
                }
            }
        }
        return data;
    }

    private int[] lengths(RandomGenerator random, int longest) {
        int[] lengths = new int[batch];
        Arrays.setAll(lengths, s -> ragged && s > 0 ? random.nextInt(longest + 1) : longest);
        return lengths;
    }

    /** Adds a sequence, unless rounding may decide something of it. */
    private boolean draw(RandomGenerator random, int queries, int keys, UnaryOperator<float[]> ofKeys, Data data) {
        double size = values == Values.LARGE ? 8 : 1;
        double[][][] q = rows(random, headsQ, queries, dk, values == Values.ZEROS ? 0 : size, row -> row);
        double[][][] k = rows(random, headsK, keys, dk, size, ofKeys);
        if (kind == Kind.RETRIEVAL && queries > 0) {
            resemble(random, k, q);
        }
        int[][][] qLabels = new int[headsQ][layers][];
        int[][][] kLabels = new int[headsQ][layers][];
        List<Listed> lists = new ArrayList<>();
        for (int head = 0; head < headsQ && hashes(); head++) {
            for (int layer = 0; layer < layers; layer++) {
                qLabels[head][layer] = labels(q[head], layer, head);
                kLabels[head][layer] = labels(k[head / (headsQ / headsK)], layer, head);
                if (unsure(qLabels[head][layer]) || unsure(kLabels[head][layer])) {
                    return false;
                }
            }
        }
        for (int head = 0; head < heads(); head++) {
            double[][] headKeys = k[head * headsK / heads()];
            List<Listed> ofHead = switch (kind) {
                case MEAN, BOUNDS -> pooled(q, headKeys, head);
                case LSH -> hashed(qLabels[head], kLabels[head][layers - 1]);
                case RETRIEVAL -> retrieved(q[head], headKeys, head);
            };
            if (ofHead == null) {
                return false;
            }
            lists.addAll(ofHead);
        }
        data.q.add(q);
        data.k.add(k);
        data.qLabels.add(qLabels);
        data.kLabels.add(kLabels);
        data.lists.add(lists);
        return true;
    }

    /** Gives every fourth key the direction of a query: without likeness, long hash codes find nothing. */
    private static void resemble(RandomGenerator random, double[][][] k, double[][][] q) {
        for (int head = 0; head < k.length; head++) {
            for (int j = 0; j < k[head].length; j += 4) {
                double[] query = q[head * q.length / k.length][random.nextInt(q[0].length)];
                Arrays.setAll(k[head][j], d -> 4 * query[d]);
            }
        }
    }

    double[][][] rows(RandomGenerator random, int heads, int length, int size, double deviation,
            UnaryOperator<float[]> each) {
        double[][][] rows = new double[heads][length][size];
        for (double[][] head : rows) {
            for (double[] row : head) {
                float[] x = each.apply(Values.normal(random, in, size, deviation));
                Arrays.setAll(row, d -> x[d]);
            }
        }
        return rows;
    }

    private int[] labels(double[][] rows, int layer, int head) {
        return Arrays.stream(rows)
                .mapToInt(x -> SelectionReference.label(x, seed, layer, head, buckets))
                .toArray();
    }

    private static boolean unsure(int[] decisions) {
        return Arrays.stream(decisions).anyMatch(decision -> decision == SelectionReference.UNSURE);
    }

    /** Keys that query i of some sees. */
    private int visible(int i, int queries, int keys) {
        return causal ? Math.clamp(i + keys - queries + 1, 0, keys) : keys;
    }

    private @Nullable List<Listed> pooled(double[][][] q, double[][] keys, int head) {
        List<Listed> lists = new ArrayList<>();
        int queries = q[0].length;
        int group = headsQ / heads();
        float scale = (float) (1 / Math.sqrt(dk));
        int blocks = Math.ceilDiv(keys.length, blockK);
        for (int from = 0; from < queries; from += blockQ) {
            int to = Math.min(from + blockQ, queries);
            double[] importance = new double[blocks];
            double[] error = new double[blocks];
            for (int i = from; i < to; i++) {
                int reached = Math.ceilDiv(visible(i, queries, keys.length), blockK);
                for (int h = head * group; h < (head + 1) * group; h++) {
                    SelectionReference.Weights weights = SelectionReference.weights(
                            q[h][i], keys, blockK, reached, kind == Kind.BOUNDS, scale);
                    for (int b = 0; b < blocks; b++) {
                        importance[b] += weights.weight()[b];
                        error[b] += weights.error()[b];
                    }
                }
            }
            for (int b = 0; b < blocks; b++) {
                error[b] += error[b] == 0 ? 0 : (to - from) * group * Expected.U * importance[b];
            }
            int reached = Math.ceilDiv(visible(to - 1, queries, keys.length), blockK);
            int[] list = SelectionReference.mostImportant(importance, error, reached, first, local, count);
            if (list == null) {
                return null;
            }
            lists.add(new Listed(list, new double[0], new double[0]));
        }
        return lists;
    }

    private List<Listed> hashed(int[][] qLabels, int[] kLabels) {
        List<Listed> lists = new ArrayList<>();
        for (int from = 0; from < qLabels[0].length; from += blockQ) {
            int to = Math.min(from + blockQ, qLabels[0].length);
            int[] list = SelectionReference.sharing(qLabels, kLabels, from, to, blockK, count, causal);
            lists.add(new Listed(list, new double[0], new double[0]));
        }
        return lists;
    }

    private @Nullable List<Listed> retrieved(double[][] q, double[][] keys, int head) {
        int bits = Integer.numberOfTrailingZeros(buckets);
        double[][] centred = SelectionReference.centred(keys);
        double off = keys.length == 0 ? 0 : SelectionReference.meanError(keys);
        int[][] qCodes = codes(q, 0, head, bits);
        int[][] kCodes = codes(centred, off, head, bits);
        for (int[][] codes : new int[][][] {qCodes, kCodes}) {
            for (int[] row : codes) {
                if (unsure(row)) {
                    return null;
                }
            }
        }
        List<Listed> lists = new ArrayList<>();
        for (int i = 0; i < q.length; i++) {
            int seen = visible(i, q.length, keys.length);
            int begin = Math.min(first, seen);
            int end = seen - Math.min(local, seen - begin);
            int[] shared = new int[keys.length];
            List<Integer> found = new ArrayList<>();
            for (int j = begin; j < end; j++) {
                for (int table = 0; table < layers; table++) {
                    shared[j] += qCodes[i][table] == kCodes[j][table] ? 1 : 0;
                }
                if (shared[j] >= 2) {
                    found.add(j);
                }
            }
            found.sort((a, b) -> shared[a] != shared[b] ? shared[b] - shared[a] : b - a);
            List<Integer> list = new ArrayList<>(
                    found.subList(0, Math.min(found.size(), count - begin - (seen - end))));
            for (int j = 0; j < seen; j++) {
                if (j < begin || j >= end) {
                    list.add(j);
                }
            }
            Collections.sort(list);
            double[] bias = new double[list.size()];
            double[] error = new double[list.size()];
            for (int entry = 0; entry < bias.length; entry++) {
                int j = list.get(entry);
                if (j < begin || j >= end) {
                    continue;
                }
                // Of two unit vectors, each off by some roundings and by what the mean is off by.
                double length = Math.sqrt(Arrays.stream(centred[j]).map(e -> e * e).sum());
                boolean zero = Arrays.stream(q[i]).allMatch(e -> e == 0) || length == 0;
                double slack = zero ? 0 : (2 * dk + 16) * Expected.U + 2 * off * Math.sqrt(dk) / length;
                double cosine = SelectionReference.cosine(q[i], centred[j]);
                bias[entry] = SelectionReference.bias(cosine, bits, layers);
                error[entry] = 1e-7 + Math.max(
                        SelectionReference.bias(cosine - slack, bits, layers) - bias[entry],
                        bias[entry] - SelectionReference.bias(cosine + slack, bits, layers));
            }
            lists.add(new Listed(list.stream().mapToInt(Integer::intValue).toArray(), bias, error));
        }
        return lists;
    }

    private int[][] codes(double[][] rows, double off, int head, int bits) {
        int[][] codes = new int[rows.length][layers];
        for (int i = 0; i < rows.length; i++) {
            for (int table = 0; table < layers; table++) {
                codes[i][table] = SelectionReference.code(rows[i], off, seed, table, head, bits);
            }
        }
        return codes;
    }

    /** Queries and keys of a trial, whole and as the run has them, and where sequences begin or end. */
    record Inputs(Operand q, Operand k, Tensor qRun, Tensor kRun, @Nullable Tensor qIndex, @Nullable Tensor kIndex) {}

    Inputs inputs(Trial trial, Data data) {
        int lengthQ = longestQ(data);
        int lengthK = longestK(data);
        Operand q = input(trial, "q", headsQ, dk, lengthQ, flat(headsQ, dk, lengthQ, data.lengthsQ, data.q));
        Operand k = input(trial, "k", headsK, dk, lengthK, flat(headsK, dk, lengthK, data.lengthsK, data.k));
        Operand qIndex = packed || ragged ? trial.input("q_index", index(data.lengthsQ)) : null;
        Operand kIndex = packed || ragged ? trial.input("k_index", index(data.lengthsK)) : null;
        return new Inputs(q, k, q.tensor(shape(headsQ, lengthQ, dk, 0)), k.tensor(shape(headsK, lengthK, dk, 0)),
                qIndex == null ? null : qIndex.tensor(), kIndex == null ? null : kIndex.tensor());
    }

    /** A trial's selection, and where it writes. */
    record Choice(Selection.Plan plan, Selection.Lists lists) {
        void run(Stream stream, Inputs inputs) {
            plan.run(stream, inputs.qRun, inputs.kRun, inputs.qIndex, inputs.kIndex, lists);
        }
    }

    /**
     * Opens the plan, and makes its outputs.
     *
     * @param which what the names of outputs begin with
     */
    Choice choice(Trial trial, String which, Inputs inputs, Data data) {
        Selection.Plan plan =
                trial.open(() -> description().plan(trial.device(), inputs.q.spec(), inputs.k.spec()));
        Selection.Lists lists = new Selection.Lists();
        lists(trial, which, lists, data);
        if (hashes()) {
            int plannedQ = planned(longestQ(data));
            int plannedK = planned(longestK(data));
            lists.qOrder(orders(trial, which + "q_order", plannedQ, data.lengthsQ,
                    (s, head) -> SelectionReference.queryOrder(data.qLabels.get(s)[head], causal)));
            lists.kOrder(orders(trial, which + "k_order", plannedK, data.lengthsK,
                    (s, head) -> SelectionReference.order(data.kLabels.get(s)[head][layers - 1])));
            lists.qDocuments(documents(trial, which + "q_documents", plannedQ, data.lengthsQ, data.qLabels));
            lists.kDocuments(documents(trial, which + "k_documents", plannedK, data.lengthsK, data.kLabels));
        }
        return new Choice(plan, lists);
    }

    /** The queries of a run's sequences, or its tokens. */
    int longestQ(Data data) {
        return longest(data.lengthsQ, lengthQ);
    }

    /** The keys of a run's sequences, or its tokens. */
    int longestK(Data data) {
        return longest(data.lengthsK, lengthK);
    }

    /** As many queries, keys or tokens of a run, in the plan. */
    int planned(int length) {
        return length + (slack ? 3 : 0);
    }

    /** Sequences that a plan has more than a run. */
    int moreSequences() {
        return slack ? 2 : 0;
    }

    /** The length of a run: of the longest sequence, or of all tokens. */
    private int longest(int[] lengths, int longest) {
        return packed ? Arrays.stream(lengths).sum() : longest;
    }

    long[] shape(int heads, int length, int size, int moreSequences) {
        return packed ? new long[] {length, heads, size} : new long[] {batch + moreSequences, length, heads, size};
    }

    /** An input that has room for what a plan has more than a run. */
    Operand input(Trial trial, String name, int heads, int size, int length, float[] content) {
        long[] whole = shape(heads, planned(length), size, moreSequences());
        Operand operand = trial.input(name, in, whole, Operand.rowMajor(whole));
        operand.fill(content, shape(heads, length, size, 0));
        return operand;
    }

    /** The rows of a run, NaN beyond a sequence's length. */
    float[] flat(int heads, int size, int length, int[] lengths, List<double[][][]> rows) {
        float[] x = new float[(packed ? 1 : batch) * length * heads * size];
        Arrays.fill(x, Float.NaN);
        int start = 0;
        for (int s = 0; s < batch; s++) {
            for (int i = 0; i < lengths[s]; i++) {
                for (int h = 0; h < heads; h++) {
                    for (int d = 0; d < size; d++) {
                        x[((start + i) * heads + h) * size + d] = (float) rows.get(s)[h][i][d];
                    }
                }
            }
            start += packed ? lengths[s] : length;
        }
        return x;
    }

    private long[] index(int[] lengths) {
        if (!packed) {
            return Arrays.stream(lengths).asLongStream().toArray();
        }
        long[] offsets = new long[batch + 1];
        for (int s = 0; s < batch; s++) {
            offsets[s + 1] = offsets[s] + lengths[s];
        }
        return offsets;
    }

    /** What a run writes: what lies beyond the last offset stays as it was. */
    record Written(Expected offsets, Expected columns, Expected biases) {}

    Written written(Data data) {
        int blocks = Math.ceilDiv(planned(longestQ(data)), blockQ);
        int entries = (batch + moreSequences()) * heads() * blocks * count;
        Expected offsets = Expected.of(batch * heads() * blocks + 1, 0);
        Expected columns = untouched(entries);
        Expected biases = untouched(entries);
        int entry = 0;
        int at = 0;
        for (int s = 0; s < batch; s++) {
            List<Listed> ofSequence = data.lists.get(s);
            int each = ofSequence.size() / heads();
            for (int head = 0; head < heads(); head++) {
                for (int block = 0; block < blocks; block++) {
                    if (block < each) {
                        Listed list = ofSequence.get(head * each + block);
                        for (int i = 0; i < list.columns().length; i++) {
                            exact(columns, entry, list.columns()[i]);
                            if (kind == Kind.RETRIEVAL) {
                                biases.value()[entry] = list.bias()[i];
                                biases.bound()[entry] = list.error()[i];
                            }
                            entry++;
                        }
                    }
                    exact(offsets, ++at, entry);
                }
            }
        }
        return new Written(offsets, columns, biases);
    }

    private void lists(Trial trial, String which, Selection.Lists lists, Data data) {
        Written written = written(data);
        long run = written.offsets.value().length;
        long[] all = {run + (long) moreSequences() * heads() * Math.ceilDiv(planned(longestQ(data)), blockQ)};
        lists.blockOffsets(trial.output(which + "block_offsets", DType.S64, all, new long[] {1}, new long[] {run},
                written.offsets).tensor(run));
        long[] room = {written.columns.value().length};
        lists.blockColumns(trial.output(which + "block_columns", DType.S32, room, new long[] {1}, room,
                written.columns).tensor());
        if (kind == Kind.RETRIEVAL) {
            lists.blockBias(trial.output(which + "block_bias", DType.F32, room, new long[] {1}, room,
                    written.biases).tensor());
        }
    }

    private static void exact(Expected expected, int index, double value) {
        expected.value()[index] = value;
        expected.bound()[index] = 0;
        expected.naive()[index] = (float) value;
    }

    private Tensor orders(Trial trial, String name, int planned, int[] lengths,
            BiFunction<Integer, Integer, int[]> orderOf) {
        Expected expected = untouched((packed ? 1 : batch) * headsQ * planned);
        int start = 0;
        for (int s = 0; s < batch; s++) {
            for (int head = 0; head < headsQ; head++) {
                int[] order = orderOf.apply(s, head);
                for (int i = 0; i < lengths[s]; i++) {
                    exact(expected, ((packed ? 0 : s) * headsQ + head) * planned + start + i, order[i]);
                }
            }
            start += packed ? lengths[s] : 0;
        }
        return whole(trial, name, expected, headsQ, planned);
    }

    private Tensor documents(Trial trial, String name, int planned, int[] lengths, List<int[][][]> labels) {
        Expected expected = untouched((packed ? 1 : batch) * layers * headsQ * planned);
        int start = 0;
        for (int s = 0; s < batch; s++) {
            for (int layer = 0; layer < layers; layer++) {
                for (int head = 0; head < headsQ; head++) {
                    int at = (((packed ? 0 : s) * layers + layer) * headsQ + head) * planned + start;
                    for (int i = 0; i < lengths[s]; i++) {
                        exact(expected, at + i, labels.get(s)[head][layer][i]);
                    }
                }
            }
            start += packed ? lengths[s] : 0;
        }
        return whole(trial, name, expected, layers, headsQ, planned);
    }

    private static Expected untouched(int elements) {
        Expected expected = Expected.of(elements, 0);
        Arrays.fill(expected.bound(), Expected.UNTOUCHED);
        return expected;
    }

    /** An S32 output for each sequence of the run, or for all tokens. */
    private Tensor whole(Trial trial, String name, Expected expected, long... each) {
        long[] shape = each;
        if (!packed) {
            shape = new long[each.length + 1];
            shape[0] = batch;
            System.arraycopy(each, 0, shape, 1, each.length);
        }
        return trial.output(name, DType.S32, shape, Operand.rowMajor(shape), shape, expected).tensor();
    }
}
