package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Softmax;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.SoftmaxReference;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;

/**
 * Softmax: {@code softmax f32->bf16 r5 n33 scale=0.125 strided inplace max8 seed=1}.
 *
 * @param maxRows rows of the plan
 */
record SoftmaxCase(DType in, DType out, int rows, int maxRows, int n, float scale, boolean strided, boolean inplace,
        Values values, long seed) implements OperatorCase {

    static SoftmaxCase parse(Words words) {
        DType[] types = words.types();
        int rows = words.count("r");
        SoftmaxCase softmax = new SoftmaxCase(types[0], types[1], rows, words.count("max", rows), words.count("n"),
                words.real("scale", 1), words.flag("strided"), words.flag("inplace"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        return softmax;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("softmax").add(types()).add("r" + rows).add("n" + n);
        Rows.describe(name, rows, maxRows, strided, inplace);
        if (scale != 1) {
            name.add("scale=" + scale);
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "softmax";
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
        return rows == maxRows;
    }

    @Override
    public boolean degenerate() {
        return rows == 0 || n == 0;
    }

    @Override
    public Problem problem() {
        float[] x = scores();
        Expected expected = SoftmaxReference.compute(rows, n, scale, x);
        return trial -> {
            Rows shape = new Rows(rows, maxRows, n, strided);
            Operand source = shape.input(trial, "x", in, x);
            Operand target = inplace
                    ? trial.overwrite(source, shape.run(), expected)
                    : shape.output(trial, "out", out, expected);
            Softmax softmax = scale == 1 ? Softmax.of() : Softmax.scaled(scale);
            Softmax.Plan plan = trial.open(() -> softmax.plan(trial.device(), source.spec(), target.spec()));
            Tensor scores = source.tensor(shape.run());
            Tensor result = target.tensor(shape.run());
            trial.execute(plan, stream -> plan.run(stream, scores, result));
        };
    }

    private float[] scores() {
        RandomGenerator random = random();
        float[] x = Values.normal(random, DType.F32, rows * n, 3);
        for (int i = 0; i < rows; i++) {
            int row = i * n;
            int special = n == 0 ? 0 : row + random.nextInt(n);
            switch (values) {
                case ZEROS -> Arrays.fill(x, row, row + n, 0);
                case CONSTANT -> Arrays.fill(x, row, row + n, n == 0 ? 0 : x[row]);
                case NAN -> {
                    if (Values.special(i)) {
                        x[special] = Float.NaN;
                    }
                }
                case INF -> infinities(x, i, special);
                default -> Rows.scale(x, row, n, values);
            }
        }
        return Values.rounded(x, in);
    }

    /** Of every four rows: one with a masked score, one of masked scores alone, one with +infinity. */
    private void infinities(float[] x, int i, int special) {
        switch (i % 4) {
            case 1 -> Arrays.fill(x, i * n, i * n + n, Float.NEGATIVE_INFINITY);
            case 2 -> x[special] = Float.POSITIVE_INFINITY;
            default -> {
                if (n > 1) {
                    x[special] = Float.NEGATIVE_INFINITY;
                }
            }
        }
    }
}
