package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Mix;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.MixReference;
import io.gatun.bench.reference.MixReference.Gate;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Gated sum of branches or of rows that are taken by number: {@code mix bf16->f32 tanh parts3 t17 h4 n64 rows=20 shared
 * residual padded inplace slack hidden seed=1}.
 *
 * @param in type of x
 * @param rows rows of x that are taken by number, some of them several times, and none by some parts but the first;
 *     -1: parts as they are
 * @param shared whether one gate serves all tokens and heads of a part
 * @param padded whether there are gaps between rows
 * @param inplace whether the output takes the place of the residual
 * @param slack whether the plan is for more tokens, and rows
 */
record MixCase(DType in, DType out, Gate gate, int parts, int tokens, int heads, int n, int rows, boolean shared,
        boolean residual, boolean padded, boolean inplace, boolean slack, Values values, long seed)
        implements OperatorCase {
    static MixCase parse(Words words) {
        DType[] types = words.floatTypes();
        MixCase mix = new MixCase(types[0], types[1], words.oneOf(Gate.class, Gate.NONE), words.count("parts"),
                words.count("t"), words.count("h"), words.count("n"), words.integer("rows", -1), words.flag("shared"),
                words.flag("residual"), words.flag("padded"), words.flag("inplace"), words.flag("slack"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (mix.heads == 0 || mix.n == 0) {
            throw words.wrong("heads and their size are 1 or more");
        }
        if (mix.inplace && !mix.residual) {
            throw words.wrong("in place there is a residual");
        }
        if (mix.rows < -1) {
            throw words.wrong("rows are 0 or more");
        }
        return mix;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("mix").add(types());
        Words.flag(name, gate != Gate.NONE, Words.word(gate));
        name.add("parts" + parts).add("t" + tokens).add("h" + heads).add("n" + n);
        Words.flag(name, rows >= 0, "rows=" + rows);
        Words.flag(name, shared, "shared");
        Words.flag(name, residual, "residual");
        Words.flag(name, padded, "padded");
        Words.flag(name, inplace, "inplace");
        Words.flag(name, slack, "slack");
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "mix";
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
        return tokens == 0 || !residual && (parts == 0 || rows == 0 || values == Values.ZEROS);
    }

    private boolean indexed() {
        return rows >= 0;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int outRows = tokens * heads;
        int xRows = indexed() ? rows * heads : parts * outRows;
        float[] x = Values.normal(random, DType.F32, xRows * n, 1);
        for (int row = 0; row < xRows; row++) {
            int special = row * n + random.nextInt(n);
            switch (values) {
                case ZEROS -> Arrays.fill(x, row * n, row * n + n, 0);
                case NANV -> x[special] = Values.special(row) ? Float.NaN : x[special];
                case INF -> x[special] = Values.special(row) ? Float.NEGATIVE_INFINITY : x[special];
                default -> Rows.scale(x, row * n, n, values);
            }
        }
        int[] index = new int[tokens * parts];
        for (int i = 0; i < index.length; i++) {
            index[i] = rows <= 0 || i > 0 && random.nextInt(6) == 0 ? -1 : random.nextInt(rows);
        }
        float[] gates = gates(random); // [tokens, parts, heads]
        if (values == Values.HIDDEN && !indexed()) {
            hide(x, gates);
        }
        x = Values.rounded(x, in);
        float @Nullable [] added = residual ? Values.normal(random, out, outRows * n, 1) : null;
        // As the reference takes them: [parts, tokens, heads].
        float[] parted = new float[parts * outRows * n];
        float[] byPart = new float[parts * outRows];
        boolean[] absent = new boolean[parts * outRows];
        for (int p = 0; p < parts; p++) {
            for (int t = 0; t < tokens; t++) {
                for (int h = 0; h < heads; h++) {
                    int to = (p * tokens + t) * heads + h;
                    int row = index[t * parts + p];
                    int from = indexed() ? row * heads + h : to;
                    byPart[to] = gates[(t * parts + p) * heads + h];
                    absent[to] = indexed() && row < 0;
                    if (!absent[to]) {
                        System.arraycopy(x, from * n, parted, to * n, n);
                    }
                }
            }
        }
        Expected result = MixReference.compute(gate, parts, outRows, n, parted, byPart, absent, added);
        float[] content = x;
        return trial -> run(trial, content, gates, index, added, result);
    }

    private float[] gates(RandomGenerator random) {
        float[] gates = new float[tokens * parts * heads];
        float[] ofPart = Values.normal(random, DType.F32, parts, 2);
        for (int i = 0; i < gates.length; i++) {
            gates[i] = shared ? ofPart[i / heads % parts] : (float) (random.nextGaussian() * 2);
            if (shared) {
                continue;
            }
            boolean one = Values.special(i / heads / parts);
            switch (values) {
                case NAN -> gates[i] = one && i % parts == 0 ? Float.NaN : gates[i];
                case LARGE -> gates[i] *= gate == Gate.NONE ? 1 : 100;
                case HIDDEN -> gates[i] = random.nextBoolean() ? off() : gates[i];
                default -> {}
            }
        }
        return gates;
    }

    /** A gate that takes no part. */
    private float off() {
        return gate == Gate.SIGMOID ? Float.NEGATIVE_INFINITY : 0;
    }

    /** Fills what takes no part with NaN. */
    private void hide(float[] x, float[] gates) {
        for (int i = 0; i < gates.length; i++) {
            int head = i % heads;
            int part = i / heads % parts;
            int token = i / heads / parts;
            if (gates[i] == off()) {
                int row = (part * tokens + token) * heads + head;
                Arrays.fill(x, row * n, row * n + n, Float.NaN);
            }
        }
    }

    private void run(Trial trial, float[] x, float[] gates, int[] index, float @Nullable [] added, Expected result) {
        int more = slack ? 2 : 0;
        long most = tokens + more;
        long row = padded ? n + 3 : n;
        long token = heads * row + (padded ? 5 : 0);
        long[] outShape = {most, heads, n};
        long[] outStrides = {token, row, 1};
        long[] outRun = {tokens, heads, n};
        long[] xShape = indexed() ? new long[] {rows + more, heads, n} : new long[] {parts, most, heads, n};
        long[] xStrides = indexed()
                ? new long[] {token, row, 1}
                : new long[] {Math.max(1, most) * token, token, row, 1};
        long[] xRun = indexed() ? new long[] {rows, heads, n} : new long[] {parts, tokens, heads, n};
        Operand source = trial.input("x", in, xShape, xStrides);
        source.fill(x, xRun);
        long[] gateShape = {most, parts, heads};
        long[] gateRun = {tokens, parts, heads};
        Operand weights = trial.input("gates", DType.F32, gateShape,
                shared ? new long[] {0, 1, 0} : Operand.rowMajor(gateShape));
        weights.fill(gates, gateRun);
        Operand rowOf = indexed() ? trial.input("row_index", index, tokens, parts) : null;
        Operand base = added == null ? null : trial.input("residual", out, outShape, outStrides);
        if (base != null && added != null) {
            base.fill(added, outRun);
        }
        Operand target = base != null && inplace
                ? trial.overwrite(base, outRun, result)
                : trial.output("out", out, outShape, outStrides, outRun, result);
        Mix mix = switch (gate) {
            case NONE -> Mix.of();
            case SIGMOID -> Mix.sigmoid();
            case TANH -> Mix.tanh();
        };
        mix = residual ? mix.residual() : mix;
        Mix description = indexed() ? mix.rowIndex() : mix;
        Mix.Plan plan =
                trial.open(() -> description.plan(trial.device(), source.spec(), weights.spec(), target.spec()));
        Tensor y = source.tensor(xRun);
        Tensor g = weights.tensor(gateRun);
        Tensor i = rowOf == null ? null : rowOf.tensor();
        Tensor r = base == null ? null : base.tensor(outRun);
        Tensor o = target.tensor(outRun);
        trial.execute(plan, stream -> plan.run(stream, y, g, i, r, o));
    }
}
