package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Selection;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.SelectionReference;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.BiFunction;
import java.util.StringJoiner;
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
        DType in = words.type();
        Kind kind = words.oneOf(Kind.class, Kind.MEAN);
        int headsQ = words.count("hq");
        SelectCase select = new SelectCase(in, kind, words.count("b", 1), words.count("q"), words.count("k"), headsQ,
                words.count("hk", headsQ), words.count("dk"), words.count("bq", 1), words.count("bk", 1),
                words.count("count"), words.count("first", 0), words.count("local", 0), words.flag("causal"),
                words.flag("groups"), words.flag("packed"), words.flag("ragged"), words.flag("slack"),
                words.integer("buckets", 8), words.integer("layers", 2), words.oneOf(Values.class, Values.NORMAL),
                words.seed());
        words.end();
        if (headsQ == 0 || select.headsK == 0 || headsQ % select.headsK != 0 || select.dk == 0 || select.blockQ == 0
                || select.blockK == 0 || select.count == 0 || select.batch == 0 && select.packed) {
            throw words.wrong("heads, their size, blocks and count are 1 or more, and hk divides hq");
        }
        if (select.groups && !select.pools() || select.hashes() && select.first + select.local > 0
                || select.first + select.local > select.count) {
            throw words.wrong("only pooled blocks are for groups, and first and local not for lsh, nor above count");
        }
        return select;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("select").add(types()).add(Words.word(kind)).add("b" + batch)
                .add("q" + lengthQ).add("k" + lengthK).add("hq" + headsQ).add("hk" + headsK).add("dk" + dk)
                .add("bq" + blockQ).add("bk" + blockK).add("count" + count).add("first" + first).add("local" + local);
        flag(name, causal, "causal");
        flag(name, groups, "groups");
        flag(name, packed, "packed");
        flag(name, ragged, "ragged");
        flag(name, slack, "slack");
        if (!pools()) {
            name.add("buckets=" + buckets).add("layers=" + layers);
        }
        return Rows.end(name, values, seed);
    }

    private static void flag(StringJoiner name, boolean there, String word) {
        if (there) {
            name.add(word);
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

    private boolean pools() {
        return kind == Kind.MEAN || kind == Kind.BOUNDS;
    }

    private boolean hashes() {
        return kind == Kind.LSH;
    }

    private int heads() {
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
    private record Listed(int[] columns, double[] bias, double[] error) {}

    /** Rows of all sequences, and what follows from them. */
    private static final class Data {
        final List<double[][][]> q = new ArrayList<>(); // of each sequence [head][row][dk]
        final List<double[][][]> k = new ArrayList<>();
        final List<int[][][]> qLabels = new ArrayList<>(); // [head][layer][row]
        final List<int[][][]> kLabels = new ArrayList<>();
        final List<List<Listed>> lists = new ArrayList<>(); // head by head
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int[] lengthsQ = lengths(random, lengthQ);
        int[] lengthsK = lengths(random, lengthK);
        Data data = new Data();
        for (int s = 0; s < batch; s++) {
            int draws = 0;
            while (!draw(random, lengthsQ[s], lengthsK[s], data)) {
                if (++draws == MOST_DRAWS) {
                    throw new IllegalStateException(name() + ": rounding may decide whatever is drawn");
                }
            }
        }
        return trial -> run(trial, lengthsQ, lengthsK, data);
    }

    private int[] lengths(RandomGenerator random, int longest) {
        int[] lengths = new int[batch];
        Arrays.setAll(lengths, s -> ragged && s > 0 ? random.nextInt(longest + 1) : longest);
        return lengths;
    }

    /** Adds a sequence, unless rounding may decide something of it. */
    private boolean draw(RandomGenerator random, int queries, int keys, Data data) {
        double[][][] q = rows(random, headsQ, queries, values == Values.ZEROS);
        double[][][] k = rows(random, headsK, keys, false);
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

    private double[][][] rows(RandomGenerator random, int heads, int length, boolean zeros) {
        double[][][] rows = new double[heads][length][dk];
        for (double[][] head : rows) {
            for (double[] row : head) {
                float[] x = Values.normal(random, in, dk, zeros ? 0 : values == Values.LARGE ? 8 : 1);
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

    private void run(Trial trial, int[] lengthsQ, int[] lengthsK, Data data) {
        int mostQ = longest(lengthsQ, lengthQ);
        int mostK = longest(lengthsK, lengthK);
        int more = slack ? 3 : 0;
        Operand q = input(trial, "q", headsQ, mostQ, mostQ + more, lengthsQ, data.q);
        Operand k = input(trial, "k", headsK, mostK, mostK + more, lengthsK, data.k);
        Operand qIndex = packed || ragged ? trial.input("q_index", index(lengthsQ)) : null;
        Operand kIndex = packed || ragged ? trial.input("k_index", index(lengthsK)) : null;
        Selection.Plan plan = trial.open(() -> description().plan(trial.device(), q.spec(), k.spec()));
        Selection.Lists lists = new Selection.Lists();
        lists(trial, lists, mostQ + more, data);
        if (hashes()) {
            lists.qOrder(orders(trial, "q_order", mostQ + more, lengthsQ,
                    (s, head) -> SelectionReference.queryOrder(data.qLabels.get(s)[head], causal)));
            lists.kOrder(orders(trial, "k_order", mostK + more, lengthsK,
                    (s, head) -> SelectionReference.order(data.kLabels.get(s)[head][layers - 1])));
            lists.qDocuments(documents(trial, "q_documents", mostQ + more, lengthsQ, data.qLabels));
            lists.kDocuments(documents(trial, "k_documents", mostK + more, lengthsK, data.kLabels));
        }
        Tensor queries = q.tensor(shape(headsQ, mostQ, 0));
        Tensor keys = k.tensor(shape(headsK, mostK, 0));
        Tensor i = qIndex == null ? null : qIndex.tensor();
        Tensor j = kIndex == null ? null : kIndex.tensor();
        trial.execute(plan, stream -> plan.run(stream, queries, keys, i, j, lists));
    }

    /** The length of a run: of the longest sequence, or of all tokens. */
    private int longest(int[] lengths, int longest) {
        return packed ? Arrays.stream(lengths).sum() : longest;
    }

    private long[] shape(int heads, int length, int moreSequences) {
        return packed ? new long[] {length, heads, dk} : new long[] {batch + moreSequences, length, heads, dk};
    }

    private Operand input(Trial trial, String name, int heads, int length, int planned, int[] lengths,
            List<double[][][]> rows) {
        Operand operand = trial.input(name, in, shape(heads, planned, slack ? 2 : 0),
                Operand.rowMajor(shape(heads, planned, slack ? 2 : 0)));
        float[] x = new float[(packed ? 1 : batch) * length * heads * dk];
        Arrays.fill(x, Float.NaN); // beyond a sequence's length
        int start = 0;
        for (int s = 0; s < batch; s++) {
            for (int i = 0; i < lengths[s]; i++) {
                for (int h = 0; h < heads; h++) {
                    for (int d = 0; d < dk; d++) {
                        x[((start + i) * heads + h) * dk + d] = (float) rows.get(s)[h][i][d];
                    }
                }
            }
            start += packed ? lengths[s] : length;
        }
        operand.fill(x, shape(heads, length, 0));
        return operand;
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

    /** Offsets, lists and biases: what lies beyond the last offset stays as it was. */
    private void lists(Trial trial, Selection.Lists lists, int plannedQ, Data data) {
        int blocks = Math.ceilDiv(plannedQ, blockQ);
        int sequences = batch + (slack ? 2 : 0);
        int entries = sequences * heads() * blocks * count;
        Expected offsets = Expected.of(batch * heads() * blocks + 1, 0);
        Expected columns = Expected.of(entries, 0);
        Expected biases = Expected.of(entries, 0);
        Arrays.fill(columns.bound(), Expected.UNTOUCHED);
        Arrays.fill(biases.bound(), Expected.UNTOUCHED);
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
        long[] all = {(long) sequences * heads() * blocks + 1};
        long[] run = {(long) batch * heads() * blocks + 1};
        lists.blockOffsets(trial.output("block_offsets", DType.S64, all, new long[] {1}, run, offsets).tensor(run));
        long[] room = {entries};
        lists.blockColumns(trial.output("block_columns", DType.S32, room, new long[] {1}, room, columns).tensor());
        if (kind == Kind.RETRIEVAL) {
            lists.blockBias(trial.output("block_bias", DType.F32, room, new long[] {1}, room, biases).tensor());
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
