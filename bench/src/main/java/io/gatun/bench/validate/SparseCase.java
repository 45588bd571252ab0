package io.gatun.bench.validate;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Merge;
import io.gatun.Mix;
import io.gatun.Plan;
import io.gatun.Tensor;
import io.gatun.bench.reference.AttentionReference;
import io.gatun.bench.reference.AttentionReference.Block;
import io.gatun.bench.reference.AttentionReference.Cache;
import io.gatun.bench.reference.AttentionReference.Pattern;
import io.gatun.bench.reference.AttentionReference.Sequence;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.MergeReference;
import io.gatun.bench.reference.MixReference;
import io.gatun.bench.reference.SelectionReference;
import io.gatun.bench.validate.SelectCase.Choice;
import io.gatun.bench.validate.SelectCase.Data;
import io.gatun.bench.validate.SelectCase.Inputs;
import io.gatun.bench.validate.SelectCase.Listed;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.function.Consumer;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Attention that finds out itself what it looks at, as a chain of operators: {@code sparse bf16 lsh b2 q33 k40 hq4
 * hk2 dk16 dv24 bq8 bk8 count9 causal packed slack buckets=4 layers=3 selfbias=-9.0 seed=1}, with the words of
 * {@link SelectCase}. Every operator reads what the one before it has written, on the stream of the run.
 *
 * <ul>
 *   <li>{@code mean}, {@code bounds}, {@code retrieval}: selection, then attention to its lists, with its biases.
 *       With {@code given} lists are inputs, as from an indexer: with blocks of one query and one key the top tokens.
 *   <li>{@code lsh}: rounds of 1, 2, ... {@code layers} layers, each a selection and attention to its labels, orders
 *       and lists, and the merge of all.
 *   <li>{@code nsa}: native sparse attention. Means of whole blocks of keys and values, attention to those that have
 *       ended by a query; selection and attention to the selected blocks; attention to a {@code window}; and the gated
 *       sum of the three.
 * </ul>
 *
 * <p>The reference computes all of it from the inputs. Selections are of data in which rounding decides nothing, and
 * means of numbers whose sums are exact, so every choice has one answer, which the outputs in between have to be. What
 * attention gives is rounded to the type of the queries and then merged or summed; that and its error are in the bounds
 * of what comes after.
 *
 * @param given whether lists are inputs
 * @param window keys that the window of nsa has up to a query's own, and after it unless causal; 0 for none
 * @param selfBias of attention to the selected keys, 0 for none
 * @param sinkLogits whether a logit without a value takes a share of each head's softmax: once, where rounds are merged
 */
record SparseCase(Kind kind, SelectCase select, int dv, boolean given, int window, float selfBias, boolean sinkLogits)
        implements OperatorCase {
    private static final int BRANCHES = 3;

    /** What the chain is. */
    enum Kind {
        MEAN(SelectCase.Kind.MEAN),
        BOUNDS(SelectCase.Kind.BOUNDS),
        LSH(SelectCase.Kind.LSH),
        RETRIEVAL(SelectCase.Kind.RETRIEVAL),
        NSA(SelectCase.Kind.MEAN);

        private final SelectCase.Kind selection;

        Kind(SelectCase.Kind selection) {
            this.selection = selection;
        }
    }

    static SparseCase parse(Words words) {
        DType in = words.type();
        Kind kind = words.oneOf(Kind.class, Kind.MEAN);
        SelectCase select = SelectCase.read(words, in, kind.selection);
        SparseCase sparse = new SparseCase(kind, select, words.count("dv", select.dk()), words.flag("given"),
                words.integer("window", 0), words.real("selfbias", 0), words.flag("sinklogits"));
        words.end();
        select.check(words);
        sparse.check(words);
        return sparse;
    }

    private void check(Words words) {
        if (dv == 0) {
            throw words.wrong("values have a size of 1 or more");
        }
        if (given && kind != Kind.MEAN && kind != Kind.BOUNDS) {
            throw words.wrong("given are lists of blocks alone");
        }
        // Merge has no lengths: it would read what no attention of a shorter sequence has written.
        if (kind == Kind.LSH && select.ragged() && !select.packed()) {
            throw words.wrong("rounds of sequences with lengths of their own are packed");
        }
        if (kind != Kind.NSA) {
            if (window != 0) {
                throw words.wrong("nsa alone has a window");
            }
        } else if (window < 1 || selfBias != 0 || sinkLogits || select.packed() || select.ragged() || select.slack()
                || select.values() == Values.LARGE || Integer.bitCount(select.blockK()) != 1) {
            throw words.wrong("nsa has a window, blocks of a power of two, and no biases, lengths, slack or large");
        }
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("sparse").add(types()).add(Words.word(kind));
        select.describe(name);
        if (dv != select.dk()) {
            name.add("dv" + dv);
        }
        if (given) {
            name.add("given");
        }
        if (window != 0) {
            name.add("window=" + window);
        }
        if (selfBias != 0) {
            name.add("selfbias=" + selfBias);
        }
        if (sinkLogits) {
            name.add("sinklogits");
        }
        return Rows.end(name, select.values(), select.seed());
    }

    @Override
    public String operator() {
        return "sparse";
    }

    @Override
    public String types() {
        return select.types();
    }

    @Override
    public DType dtype() {
        return select.in();
    }

    /** What is seen, and so how much there is to do, only a run finds out. */
    @Override
    public boolean fillsPlan() {
        return false;
    }

    @Override
    public boolean degenerate() {
        return select.batch() == 0 || select.lengthQ() == 0 || select.lengthK() == 0;
    }

    private boolean causal() {
        return select.causal();
    }

    private float scale() {
        return (float) (1 / Math.sqrt(select.dk()));
    }

    // ---- What a chain should give

    /** The operands of a case: rows as a run has them, what is selected, and what only some chains take. */
    private record Content(Data data, float[] q, float[] k, float[] v, float[] gates, float[] sinks) {}

    /**
     * What each operator should give.
     *
     * @param selected what each selection does
     * @param parts attention of each round, or branch
     * @param meanK means of blocks of keys, [sequences, blocks, heads, dk]; empty but for nsa
     * @param out [tokens, heads, dv]
     * @param lse [tokens, heads], or null for nsa
     */
    private record Steps(List<Data> selected, List<AttentionReference.Result> parts, float[] meanK, float[] meanV,
            Expected out, @Nullable Expected lse) {}

    @Override
    public Problem problem() {
        return problem(this);
    }

    /** Expects what this chain should give in the end of another one, whose steps may be right: what tests look at. */
    Problem problem(SparseCase ran) {
        Content content = content();
        Steps steps = ran.steps(content);
        Steps own = ran.equals(this) ? steps : steps(content);
        return trial -> ran.new Operands(trial, content, steps).run(own.out, own.lse);
    }

    /** The final output that the reference says, of each token and head: [tokens, heads, dv]. */
    Expected expected() {
        return steps(content()).out;
    }

    /** What is drawn for this line. */
    Data data() {
        return content().data;
    }

    /** The values that are drawn for this line, [tokens, heads, dv]. */
    float[] drawnValues() {
        return content().v;
    }

    /** The gate of a token, branch and head. */
    float gate(int token, int branch, int head) {
        return content().gates[(token * BRANCHES + branch) * select.headsQ() + head];
    }

    private Content content() {
        RandomGenerator random = random();
        boolean means = kind == Kind.NSA;
        Data data = select.draw(random, means ? SparseCase::sixtyFourths : row -> row);
        List<double[][][]> values = new ArrayList<>();
        for (int length : data.lengthsK) {
            values.add(select.rows(random, select.headsK(), length, dv, 1, means ? SparseCase::sixtyFourths : x -> x));
        }
        int lengthQ = select.longestQ(data);
        int lengthK = select.longestK(data);
        float[] gates = means
                ? Values.normal(random, DType.F32, select.batch() * lengthQ * BRANCHES * select.headsQ(), 2)
                : new float[0];
        return new Content(data,
                select.flat(select.headsQ(), select.dk(), lengthQ, data.lengthsQ, data.q),
                select.flat(select.headsK(), select.dk(), lengthK, data.lengthsK, data.k),
                select.flat(select.headsK(), dv, lengthK, data.lengthsK, values), gates,
                sinkLogits ? Values.normal(random, DType.F32, select.headsQ(), 2) : new float[0]);
    }

    /**
     * The nearest multiples of 1/64 below 4: eight bits, which every type holds. Sums of a power of two of them, and
     * their means, are exact in FP32, in any order, and so is how a mean is rounded to a type.
     */
    private static float[] sixtyFourths(float[] row) {
        for (int d = 0; d < row.length; d++) {
            row[d] = Math.clamp(Math.round(row[d] * 64), -255, 255) / 64f;
        }
        return row;
    }

    private Steps steps(Content content) {
        List<Data> selected = List.of(content.data);
        List<AttentionReference.Result> parts = new ArrayList<>();
        int rows = content.q.length / select.dk();
        if (kind == Kind.NSA) {
            float[] meanK = means(content.k, select.dk());
            float[] meanV = means(content.v, dv);
            parts.add(compressed(content, meanK, meanV));
            parts.add(listed(content, select, content.data));
            parts.add(windowed(content));
            Expected out = MixReference.compute(MixReference.Gate.SIGMOID, BRANCHES, rows, dv, stored(parts),
                    gatesByBranch(content.gates), new boolean[BRANCHES * rows], null);
            return new Steps(selected, parts, meanK, meanV, out, null);
        }
        if (kind == Kind.LSH) {
            selected = new ArrayList<>();
            for (int layers = 1; layers <= select.layers(); layers++) {
                SelectCase round = select.layers(layers);
                selected.add(content.data.layers(round));
                parts.add(listed(content, round, selected.getLast()));
            }
            Expected sums = joined(parts.stream().map(AttentionReference.Result::lse).toList(), DType.F32);
            MergeReference.Result merged =
                    MergeReference.compute(parts.size(), rows, dv, stored(parts), sums, sinkOfRows(content, rows));
            return new Steps(selected, parts, new float[0], new float[0], merged.out(), merged.lse());
        }
        parts.add(listed(content, select, content.data));
        return new Steps(selected, parts, new float[0], new float[0], parts.getFirst().out(), parts.getFirst().lse());
    }

    private float @Nullable [] sinkOfRows(Content content, int rows) {
        if (!sinkLogits) {
            return null;
        }
        float[] sinks = new float[rows];
        for (int row = 0; row < rows; row++) {
            sinks[row] = content.sinks[row % select.headsQ()];
        }
        return sinks;
    }

    private AttentionReference reference() {
        return new AttentionReference(select.headsQ(), select.headsK(), select.dk(), dv, scale());
    }

    private AttentionReference.Result compute(AttentionReference reference, Content content, List<Sequence> sequences,
            float[] k, float[] v) {
        int tokens = content.q.length / select.dk() / select.headsQ();
        return reference.compute(tokens, sequences, content.q, new Cache(k, v));
    }

    /** The sequences of a run, as they lie in its rows. */
    private List<Sequence> sequences(Data data) {
        List<Sequence> sequences = new ArrayList<>();
        int q = 0;
        int k = 0;
        for (int s = 0; s < select.batch(); s++) {
            sequences.add(new Sequence(q, data.lengthsQ[s], k, data.lengthsK[s]));
            q += select.packed() ? data.lengthsQ[s] : select.longestQ(data);
            k += select.packed() ? data.lengthsK[s] : select.longestK(data);
        }
        return sequences;
    }

    /** Attention to the lists of a selection, and where it has some by its orders and labels. */
    private AttentionReference.Result listed(Content content, SelectCase selection, Data data) {
        List<Sequence> sequences = sequences(data);
        for (int s = 0; s < sequences.size(); s++) {
            Sequence sequence = sequences.get(s).blocks(blocks(selection, data.lists.get(s)));
            if (selection.hashes()) {
                int[][][] q = data.qLabels.get(s);
                int[][][] k = data.kLabels.get(s);
                sequence.documents(byLayer(q, selection.layers()), byLayer(k, selection.layers()));
                sequence.orders(
                        Arrays.stream(q)
                                .map(head -> SelectionReference.queryOrder(head, causal()))
                                .toArray(int[][]::new),
                        Arrays.stream(k)
                                .map(head -> SelectionReference.order(head[head.length - 1]))
                                .toArray(int[][]::new));
            }
        }
        Pattern pattern = new Pattern(-1, causal() ? 0 : -1, 1, 0, false, false, selection.hashes(), false, true);
        AttentionReference.Result result = compute(reference()
                .patterns(List.of(pattern))
                .blocks(selection.blockQ(), selection.blockK())
                .sinkLogits(sinkLogits && kind != Kind.LSH ? content.sinks : null)
                .selfBias(selfBias), content, sequences, content.k, content.v);
        if (kind != Kind.RETRIEVAL) {
            return result;
        }
        // What biases are off by has no counterpart in the naive computation, which takes them as they are.
        return new AttentionReference.Result(alone(result.out()), alone(result.lse()));
    }

    /** Held to the bounds of its elements alone. */
    private static Expected alone(Expected expected) {
        return new Expected(expected.value(), expected.bound(), expected.naive(), 0);
    }

    private static Block[][][] blocks(SelectCase selection, List<Listed> lists) {
        int each = lists.size() / selection.heads();
        Block[][][] blocks = new Block[selection.heads()][each][];
        for (int list = 0; list < lists.size(); list++) {
            Listed listed = lists.get(list);
            Block[] entries = new Block[listed.columns().length];
            for (int i = 0; i < entries.length; i++) {
                boolean biased = listed.bias().length > 0;
                float bias = biased ? (float) listed.bias()[i] : 0;
                double error = biased ? listed.error()[i] + Math.abs(bias - listed.bias()[i]) + Math.ulp(bias) : 0;
                entries[i] = new Block(listed.columns()[i], null, bias, error);
            }
            blocks[list / each][list % each] = entries;
        }
        return blocks;
    }

    /** [heads][layers][rows] as [layers][heads][rows]. */
    private static int[][][] byLayer(int[][][] labels, int layers) {
        return IntStream.range(0, layers)
                .mapToObj(layer -> Arrays.stream(labels).map(head -> head[layer]).toArray(int[][]::new))
                .toArray(int[][][]::new);
    }

    private int wholeBlocks() {
        return select.lengthK() / select.blockK();
    }

    /** Whole blocks of keys that have ended by a query's position, or all. */
    private int ended(int query) {
        int seen = query + select.lengthK() - select.lengthQ() + 1;
        return causal() ? Math.clamp(seen / select.blockK(), 0, wholeBlocks()) : wholeBlocks();
    }

    private float[] means(float[] rows, int size) {
        int blocks = wholeBlocks();
        int width = select.headsK() * size;
        float[] means = new float[select.batch() * blocks * width];
        for (int i = 0; i < means.length; i++) {
            int sequence = i / width / blocks;
            int first = sequence * select.lengthK() + i / width % blocks * select.blockK();
            for (int j = first; j < first + select.blockK(); j++) {
                means[i] += rows[j * width + i % width] / select.blockK();
            }
        }
        return Values.rounded(means, select.in());
    }

    /** Attention to the means of blocks that have ended. */
    private AttentionReference.Result compressed(Content content, float[] k, float[] v) {
        List<Sequence> sequences = new ArrayList<>();
        for (int s = 0; s < select.batch(); s++) {
            Block[][] lists = new Block[select.lengthQ()][];
            for (int i = 0; i < lists.length; i++) {
                lists[i] = IntStream.range(0, ended(i)).mapToObj(b -> new Block(b, null, 0)).toArray(Block[]::new);
            }
            sequences.add(new Sequence(s * select.lengthQ(), select.lengthQ(), s * wholeBlocks(), wholeBlocks())
                    .blocks(new Block[][][] {lists}));
        }
        Pattern pattern = new Pattern(-1, -1, 1, 0, false, false, false, false, true);
        return compute(reference().patterns(List.of(pattern)).blocks(1, 1), content, sequences, k, v);
    }

    private AttentionReference.Result windowed(Content content) {
        Pattern pattern = Pattern.window(window - 1, causal() ? 0 : window - 1);
        return compute(reference().patterns(List.of(pattern)), content, sequences(content.data), content.k, content.v);
    }

    /** The outputs of all parts, one after the other, as they are once they are stored. */
    private Expected stored(List<AttentionReference.Result> parts) {
        return joined(parts.stream().map(AttentionReference.Result::out).toList(), select.in());
    }

    private static Expected joined(List<Expected> parts, DType dtype) {
        return Comparison.stored(joined(parts), dtype);
    }

    private static Expected joined(List<Expected> parts) {
        int each = parts.getFirst().value().length;
        Expected all = Expected.of(parts.size() * each, parts.stream().mapToLong(Expected::rows).sum());
        for (int part = 0; part < parts.size(); part++) {
            System.arraycopy(parts.get(part).value(), 0, all.value(), part * each, each);
            System.arraycopy(parts.get(part).bound(), 0, all.bound(), part * each, each);
            System.arraycopy(parts.get(part).naive(), 0, all.naive(), part * each, each);
        }
        return all;
    }

    /** [tokens, branches, heads] as [branches, tokens, heads]. */
    private float[] gatesByBranch(float[] gates) {
        int heads = select.headsQ();
        int tokens = gates.length / BRANCHES / heads;
        float[] turned = new float[gates.length];
        for (int i = 0; i < gates.length; i++) {
            int token = i / heads / BRANCHES;
            turned[(i / heads % BRANCHES * tokens + token) * heads + i % heads] = gates[i];
        }
        return turned;
    }

    // ---- The chain on a device

    /** Plans and operands of one trial. */
    private final class Operands {
        private final Trial trial;
        private final Content content;
        private final Steps steps;
        private final Inputs inputs;
        private final Operand v;
        private final Tensor vRun;
        private final int lengthQ;
        private final int plannedQ;
        private final int more = select.moreSequences();
        private final List<Plan> plans = new ArrayList<>();
        private final List<Trial.Run> runs = new ArrayList<>();

        Operands(Trial trial, Content content, Steps steps) {
            this.trial = trial;
            this.content = content;
            this.steps = steps;
            inputs = select.inputs(trial, content.data);
            int lengthK = select.longestK(content.data);
            v = select.input(trial, "v", select.headsK(), dv, lengthK, content.v);
            vRun = v.tensor(select.shape(select.headsK(), lengthK, dv, 0));
            lengthQ = select.longestQ(content.data);
            plannedQ = select.planned(lengthQ);
        }

        void run(Expected result, @Nullable Expected lse) {
            switch (kind) {
                case LSH -> rounds(result, lse);
                case NSA -> branches(result);
                default -> {
                    Operand out = trial.output("out", select.in(), shapeOut(true), Operand.rowMajor(shapeOut(true)),
                            shapeOut(false), result);
                    select("", select, content.data, out, sums("lse", List.of(steps.parts.getFirst().lse()), 0));
                }
            }
            trial.execute(plans, stream -> runs.forEach(run -> run.on(stream)));
        }

        private long[] shapeOut(boolean planned) {
            return select.shape(select.headsQ(), planned ? plannedQ : lengthQ, dv, planned ? more : 0);
        }

        private void then(Plan plan, Trial.Run run) {
            plans.add(plan);
            runs.add(run);
        }

        /** Selects, unless lists are given, and attends to what is selected. */
        private void select(String which, SelectCase selection, Data data, Operand out, Operand lse) {
            Attention base = causal() ? Attention.causal() : Attention.dense();
            base = select.packed() ? base.packed(select.batch() + more) : base;
            base = selfBias != 0 ? base.selfBias(selfBias) : base;
            base = sinkLogits && kind != Kind.LSH ? base.sinkLogits() : base;
            Attention.Arrays arrays = new Attention.Arrays()
                    .q(inputs.qRun()).k(inputs.kRun()).v(vRun).out(out.tensor(shapeOut(false)))
                    .qIndex(inputs.qIndex()).kIndex(inputs.kIndex()).lse(lse.tensor());
            if (sinkLogits && kind != Kind.LSH) {
                arrays.sinkLogits(sinks());
            }
            if (given) {
                SelectCase.Written written = selection.written(data);
                long[] offsets = longs(written.offsets());
                int[] columns = columns(written.columns());
                arrays.blockOffsets(trial.input("block_offsets", offsets).tensor());
                arrays.blockColumns(trial.input("block_columns", columns, columns.length).tensor());
                attend(base.blocks(select.blockQ(), select.blockK(), select.heads(), columns.length), inputs.k(), v,
                        out, arrays);
                return;
            }
            Choice choice = selection.choice(trial, which, inputs, data);
            then(choice.plan(), stream -> choice.run(stream, inputs));
            attend(choice.plan().attention(base), inputs.k(), v, out, choice.lists().into(arrays));
        }

        private void attend(Attention attention, Operand k, Operand v, Operand out, Attention.Arrays arrays) {
            Attention.Plan plan = trial.open(
                    () -> attention.plan(trial.device(), inputs.q().spec(), k.spec(), v.spec(), out.spec()));
            then(plan, stream -> plan.run(stream, arrays));
        }

        private Tensor sinks() {
            return trial.input("sink_logits", DType.F32, content.sinks, select.headsQ()).tensor();
        }

        private static long[] longs(Expected offsets) {
            return Arrays.stream(offsets.value()).mapToLong(offset -> (long) offset).toArray();
        }

        /** What no list has leads nowhere. */
        private static int[] columns(Expected columns) {
            return IntStream.range(0, columns.value().length)
                    .map(i -> columns.bound()[i] == Expected.UNTOUCHED
                            ? AttentionArrays.NOWHERE
                            : (int) columns.value()[i])
                    .toArray();
        }

        /** An output for log-sum-exps, head by head, of as many parts, or of one alone for 0. */
        private Operand sums(String name, List<Expected> ofParts, int parts) {
            int sequences = select.packed() ? 1 : select.batch();
            Expected all = joined(ofParts.stream()
                    .map(tokens -> AttentionCase.byHead(tokens, sequences, select.headsQ(), plannedQ))
                    .toList());
            return trial.output(name, DType.F32, sumShape(parts, 0), Operand.rowMajor(sumShape(parts, more)),
                    sumShape(parts, 0), all);
        }

        private long[] sumShape(int parts, int moreSequences) {
            long[] each = select.packed()
                    ? new long[] {select.headsQ(), plannedQ}
                    : new long[] {select.batch() + moreSequences, select.headsQ(), plannedQ};
            return parts == 0 ? each : prepended(parts, each);
        }

        private static long[] prepended(long first, long[] rest) {
            long[] shape = new long[rest.length + 1];
            shape[0] = first;
            System.arraycopy(rest, 0, shape, 1, rest.length);
            return shape;
        }

        /** An output for the results of all parts, as they are before they are merged or summed. */
        private Operand parts() {
            long[] whole = prepended(steps.parts.size(), shapeOut(true));
            return trial.output("parts", select.in(), whole, Operand.rowMajor(whole),
                    prepended(steps.parts.size(), shapeOut(false)),
                    joined(steps.parts.stream().map(AttentionReference.Result::out).toList()));
        }

        private Operand part(Operand parts, int part) {
            return part(parts, part, shapeOut(true));
        }

        private static Operand part(Operand parts, int part, long[] shape) {
            long[] strides = parts.spec().strides();
            boolean empty = Arrays.stream(shape).anyMatch(size -> size == 0); // and all parts in the one place there is
            return parts.view(parts.name(), empty ? 0 : part * strides[0], shape,
                    Arrays.copyOfRange(strides, 1, strides.length));
        }

        private void rounds(Expected result, @Nullable Expected lse) {
            int rounds = steps.parts.size();
            Operand parts = parts();
            Operand sums = sums("parts_lse", steps.parts.stream().map(AttentionReference.Result::lse).toList(), rounds);
            for (int round = 0; round < rounds; round++) {
                select("round " + round + ": ", select.layers(round + 1), steps.selected.get(round),
                        part(parts, round), part(sums, round, sumShape(0, 0)));
            }
            int heads = select.headsQ();
            int batch = select.packed() ? 1 : select.batch();
            int planned = batch + (select.packed() ? 0 : more);
            Operand x = merged(parts, rounds, planned, plannedQ, heads, dv);
            Operand l = merged(sums, rounds, planned, heads, plannedQ);
            long[] outShape = {planned, plannedQ, heads, dv};
            long[] lseShape = {planned, heads, plannedQ};
            long[] lseRun = {batch, heads, lengthQ};
            Operand out = trial.output("out", select.in(), outShape, Operand.rowMajor(outShape),
                    new long[] {batch, lengthQ, heads, dv}, result);
            Operand total = trial.output("lse", DType.F32, lseShape, Operand.rowMajor(lseShape), lseRun,
                    AttentionCase.byHead(lse, batch, heads, lengthQ));
            Merge merge = sinkLogits ? Merge.of().sinkLogits() : Merge.of();
            Tensor sinks = sinkLogits ? sinks() : null;
            Merge.Plan plan = trial.open(
                    () -> merge.plan(trial.device(), x.spec(), l.spec(), out.spec(), total.spec()));
            Tensor xRun = x.tensor(rounds, batch, lengthQ, heads, dv);
            Tensor lRun = l.tensor(rounds, batch, heads, lengthQ);
            Tensor outRun = out.tensor(batch, lengthQ, heads, dv);
            Tensor totalRun = total.tensor(lseRun);
            then(plan, stream -> plan.run(stream, xRun, lRun, sinks, outRun, totalRun));
        }

        /** Parts as merge takes them: of sequences, be it of one of all tokens. */
        private static Operand merged(Operand parts, long... shape) {
            return parts.view(parts.name(), 0, shape, Operand.rowMajor(shape));
        }

        private void branches(Expected result) {
            int tokens = select.batch() * select.lengthQ();
            int heads = select.headsQ();
            Operand parts = parts();
            Operand k = means("k", inputs.k(), select.dk(), steps.meanK);
            Operand v = means("v", this.v, dv, steps.meanV);
            long[] offsets = new long[tokens + 1];
            for (int token = 0; token < tokens; token++) {
                offsets[token + 1] = offsets[token] + ended(token % select.lengthQ());
            }
            int[] columns = IntStream.range(0, tokens)
                    .flatMap(token -> IntStream.range(0, ended(token % select.lengthQ())))
                    .toArray();
            attend(Attention.dense().blocks(1, 1, columns.length), k, v, part(parts, 0), new Attention.Arrays()
                    .q(inputs.qRun()).k(k.tensor()).v(v.tensor()).out(part(parts, 0).tensor())
                    .blockOffsets(trial.input("ended_offsets", offsets).tensor())
                    .blockColumns(trial.input("ended_columns", columns, columns.length).tensor()));
            select("", select, content.data, part(parts, 1),
                    sums("lse", List.of(steps.parts.get(1).lse()), 0));
            Attention near = causal()
                    ? Attention.causal().window(window - 1)
                    : Attention.dense().window(window - 1, window - 1);
            attend(near, inputs.k(), this.v, part(parts, 2), new Attention.Arrays()
                    .q(inputs.qRun()).k(inputs.kRun()).v(vRun).out(part(parts, 2).tensor()));
            long[] outShape = {tokens, heads, dv};
            Operand x = merged(parts, BRANCHES, tokens, heads, dv);
            Operand gates = trial.input("gates", DType.F32, content.gates, tokens, BRANCHES, heads);
            Operand out =
                    trial.output("out", select.in(), outShape, Operand.rowMajor(outShape), outShape, result);
            Mix.Plan plan = trial.open(() -> Mix.sigmoid().plan(trial.device(), x.spec(), gates.spec(), out.spec()));
            Tensor xRun = x.tensor();
            Tensor g = gates.tensor();
            Tensor o = out.tensor();
            then(plan, stream -> plan.run(stream, xRun, g, null, null, o));
        }

        /** Means of whole blocks: gated sums of their rows, by number, with one gate for all. */
        private Operand means(String of, Operand rows, int size, float[] expected) {
            int blocks = select.batch() * wholeBlocks();
            int heads = select.headsK();
            int keys = select.batch() * select.lengthK();
            long[] shape = {blocks, heads, size};
            int[] numbers = IntStream.range(0, blocks * select.blockK())
                    .map(i -> i / select.blockK() / wholeBlocks() * select.lengthK()
                            + i % (wholeBlocks() * select.blockK()))
                    .toArray();
            Operand index = trial.input(of + "_rows", numbers, blocks, select.blockK());
            long[] gateShape = {blocks, select.blockK(), heads};
            Operand share = trial.input(of + "_share", DType.F32, gateShape, new long[3]);
            float[] shares = new float[blocks * select.blockK() * heads];
            Arrays.fill(shares, 1f / select.blockK());
            share.fill(shares, gateShape);
            Operand means = trial.output(of + "_means", select.in(), shape, Operand.rowMajor(shape), shape,
                    Expected.exact(expected));
            Operand x = merged(rows, keys, heads, size);
            Mix.Plan plan = trial.open(
                    () -> Mix.of().rowIndex().plan(trial.device(), x.spec(), share.spec(), means.spec()));
            Tensor xRun = x.tensor();
            Tensor g = share.tensor();
            Tensor i = index.tensor();
            Tensor o = means.tensor();
            then(plan, stream -> plan.run(stream, xRun, g, i, null, o));
            return merged(means, select.batch(), wholeBlocks(), heads, size);
        }
    }
}
