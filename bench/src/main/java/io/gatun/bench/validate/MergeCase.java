package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Merge;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.MergeReference;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Merge of attention over parts of the keys: {@code merge f32->bf16 parts3 b2 q17 hq4 dv64 sinklogits lse hnd inplace
 * slack hidden seed=1}.
 *
 * @param in type of x
 * @param lengthQ tokens of each sequence
 * @param layout NHD is row-major; HND has a head's tokens together, and a token's log-sum-exps; PADDED has gaps
 *     everywhere
 * @param lse whether the merged log-sum-exps are asked for
 * @param inplace whether outputs take the place of the first part
 * @param slack whether the plan is for more parts, sequences and tokens
 */
record MergeCase(DType in, DType out, int parts, int batch, int lengthQ, int heads, int dv, Layout layout,
        boolean sinkLogits, boolean lse, boolean inplace, boolean slack, Values values, long seed)
        implements OperatorCase {

    /** How heads and tokens lie. NHD goes unsaid. */
    enum Layout {
        NHD,
        HND,
        PADDED
    }

    static MergeCase parse(Words words) {
        DType[] types = words.floatTypes();
        MergeCase merge = new MergeCase(types[0], types[1], words.count("parts"), words.count("b", 1), words.count("q"),
                words.count("hq"), words.count("dv"), words.oneOf(Layout.class, Layout.NHD), words.flag("sinklogits"),
                words.flag("lse"), words.flag("inplace"), words.flag("slack"), words.oneOf(Values.class, Values.NORMAL),
                words.seed());
        words.end();
        if (merge.heads == 0 || merge.dv == 0) {
            throw words.wrong("heads and their size are 1 or more");
        }
        if (merge.inplace && (merge.in != merge.out || merge.parts == 0)) {
            throw words.wrong("in place there are parts, of the type of the output");
        }
        return merge;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("merge").add(types()).add("parts" + parts).add("b" + batch)
                .add("q" + lengthQ).add("hq" + heads).add("dv" + dv);
        if (layout != Layout.NHD) {
            name.add(Words.word(layout));
        }
        if (sinkLogits) {
            name.add("sinklogits");
        }
        if (lse) {
            name.add("lse");
        }
        if (inplace) {
            name.add("inplace");
        }
        if (slack) {
            name.add("slack");
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "merge";
    }

    @Override
    public String types() {
        return Words.word(in) + "->" + Words.word(out);
    }

    @Override
    public DType dtype() {
        return in;
    }

    @Override
    public boolean fillsPlan() {
        return !slack;
    }

    @Override
    public boolean degenerate() {
        return parts == 0 || rows() == 0 || values == Values.ZEROS && !lse;
    }

    private int rows() {
        return batch * lengthQ * heads;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int rows = rows();
        float[] x = Values.normal(random, DType.F32, parts * rows * dv, 1);
        float[] sums = Values.normal(random, DType.F32, parts * rows, values == Values.LARGE ? 1000 : 3);
        float @Nullable [] sinks = sinkLogits ? Values.normal(random, DType.F32, heads, 3) : null;
        for (int row = 0; row < rows; row++) {
            special(random, row, x, sums);
        }
        float[] rounded = Values.rounded(x, in);
        float @Nullable [] sinkOfRow = null;
        if (sinks != null) {
            sinkOfRow = new float[rows];
            for (int row = 0; row < rows; row++) {
                sinkOfRow[row] = sinks[row % heads];
            }
        }
        MergeReference.Result result = MergeReference.compute(parts, rows, dv, rounded, sums, sinkOfRow);
        float[] byHead = byHead(sums);
        Expected total = new Expected(byHead(result.lse().value()), byHead(result.lse().bound()),
                byHead(result.lse().naive()), result.lse().rows());
        return trial -> run(trial, rounded, byHead, sinks, result.out(), total);
    }

    /** Changes the parts of one row, one token's head, as the values say. */
    private void special(RandomGenerator random, int row, float[] x, float[] sums) {
        int rows = rows();
        int chosen = parts == 0 ? 0 : random.nextInt(parts);
        for (int part = 0; part < parts; part++) {
            int at = part * rows + row;
            int element = at * dv + random.nextInt(dv);
            boolean one = Values.special(row) && part == chosen;
            switch (values) {
                case ZEROS -> Arrays.fill(x, at * dv, at * dv + dv, 0);
                case DENORMAL -> Rows.scale(x, at * dv, dv, values);
                case OFFSET -> sums[at] += 1000;
                case CONSTANT -> sums[at] = sums[row];
                case NAN -> sums[at] = one ? Float.NaN : sums[at];
                case INF -> sums[at] = one ? Float.POSITIVE_INFINITY : sums[at];
                case NANV -> {
                    if (one) {
                        x[element] = part % 2 == 0 ? Float.NaN : Float.POSITIVE_INFINITY;
                    }
                }
                case HIDDEN -> {
                    // Of every four rows one sees nothing at all, and one sees all.
                    if (row % 4 == 1 || row % 4 > 1 && (part == chosen || random.nextBoolean())) {
                        sums[at] = Float.NEGATIVE_INFINITY;
                        Arrays.fill(x, at * dv, at * dv + dv, Float.NaN);
                    }
                }
                default -> {}
            }
        }
    }

    private void run(Trial trial, float[] x, float[] sums, float @Nullable [] sinks, Expected result, Expected total) {
        int more = slack ? 2 : 0;
        long[] xShape = {parts + more, batch + more, lengthQ + more, heads, dv};
        long[] sumShape = {parts + more, batch + more, heads, lengthQ + more};
        long[] xStrides = strides(xShape);
        long[] sumStrides = sumStrides(sumShape);
        long[] xRun = {parts, batch, lengthQ, heads, dv};
        long[] sumRun = {parts, batch, heads, lengthQ};
        Operand source = trial.input("x", in, xShape, xStrides);
        source.fill(x, xRun);
        Operand logs = trial.input("x_lse", DType.F32, sumShape, sumStrides);
        logs.fill(sums, sumRun);
        Operand sink = sinks == null ? null : trial.input("sink_logits", DType.F32, sinks, heads);
        Operand target = inplace
                ? first(trial, source, xRun, x.length, result)
                : trial.output("out", out, rest(xShape), rest(xStrides), rest(xRun), result);
        Operand merged = inplace && lse
                ? first(trial, logs, sumRun, sums.length, total)
                : lse
                        ? trial.output("lse", DType.F32, rest(sumShape), rest(sumStrides), rest(sumRun), total)
                        : null;
        Merge description = sinkLogits ? Merge.of().sinkLogits() : Merge.of();
        Operand[] outs = {target.view("out", 0, rest(xShape), rest(xStrides)),
            (merged == null ? logs : merged).view("lse", 0, rest(sumShape), rest(sumStrides))};
        Merge.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), logs.spec(), outs[0].spec(),
                outs[1].spec()));
        Tensor y = source.tensor(xRun);
        Tensor l = logs.tensor(sumRun);
        Tensor s = sink == null ? null : sink.tensor();
        Tensor o = outs[0].tensor(rest(xRun));
        Tensor t = merged == null ? null : outs[1].tensor(rest(sumRun));
        trial.execute(plan, stream -> plan.run(stream, y, l, s, o, t));
    }

    /** Makes an input of parts an output whose first part is to be overwritten. */
    private static Operand first(Trial trial, Operand operand, long[] run, int elements, Expected part) {
        Expected all = Expected.of(elements, part.rows());
        Arrays.fill(all.bound(), Expected.UNTOUCHED);
        System.arraycopy(part.value(), 0, all.value(), 0, part.value().length);
        System.arraycopy(part.bound(), 0, all.bound(), 0, part.value().length);
        System.arraycopy(part.naive(), 0, all.naive(), 0, part.value().length);
        return trial.overwrite(operand, run, all);
    }

    private static long[] rest(long[] shape) {
        return Arrays.copyOfRange(shape, 1, shape.length);
    }

    private long[] strides(long[] shape) {
        long gap = layout == Layout.PADDED ? 3 : 0;
        long row = dv + gap;
        long tokens = Math.max(1, shape[2]);
        long token = layout == Layout.HND ? row : heads * row + gap;
        long head = layout == Layout.HND ? tokens * row : row;
        long sequence = layout == Layout.HND ? heads * head : tokens * token;
        return new long[] {shape[1] * sequence + gap, sequence, token, head, 1};
    }

    private long[] sumStrides(long[] shape) {
        long gap = layout == Layout.PADDED ? 1 : 0;
        long tokens = Math.max(1, shape[3]);
        long token = layout == Layout.HND ? heads : 1 + gap;
        long head = layout == Layout.HND ? 1 : tokens * token + gap;
        long sequence = layout == Layout.HND ? tokens * token : heads * head;
        return new long[] {shape[1] * sequence, sequence, head, token};
    }

    /** [groups, tokens, heads] as [groups, heads, tokens]. */
    private float[] byHead(float[] rows) {
        float[] turned = new float[rows.length];
        for (int i = 0; i < rows.length; i++) {
            turned[turned(i)] = rows[i];
        }
        return turned;
    }

    private double[] byHead(double[] rows) {
        double[] turned = new double[rows.length];
        for (int i = 0; i < rows.length; i++) {
            turned[turned(i)] = rows[i];
        }
        return turned;
    }

    private int turned(int index) {
        int head = index % heads;
        int token = index / heads % lengthQ;
        int group = index / heads / lengthQ;
        return (group * heads + head) * lengthQ + token;
    }
}
