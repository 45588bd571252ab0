package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.FakeQuantize;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.FakeQuantizeReference;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Fake quantization: {@code fake_quantize int8 asymmetric row gradient f32->bf16 r5 n33 strided max8 seed=1}, with scales of
 * rows, of columns ({@code column}), or one. {@code inplace} writes over x, or over the gradient.
 *
 * @param asymmetric whether there are zero points, and integers without sign
 * @param maxRows rows of the plan
 */
record FakeQuantizeCase(int bits, boolean asymmetric, boolean row, boolean column, boolean gradient, DType in, DType out,
        int rows, int maxRows, int n, boolean strided, boolean inplace, Values values, long seed) implements OperatorCase {
    static FakeQuantizeCase parse(Words words) {
        int bits = words.flag("int8") ? 8 : words.flag("int4") ? 4 : 0;
        if (bits == 0) {
            throw words.wrong("the integers, int8 or int4, are missing");
        }
        DType[] types = words.types();
        int rows = words.count("r");
        FakeQuantizeCase made = new FakeQuantizeCase(bits, words.flag("asymmetric"), words.flag("row"),
                words.flag("column"), words.flag("gradient"), types[0], types[1], rows, words.count("max", rows),
                words.count("n"), words.flag("strided"), words.flag("inplace"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (made.row && made.column) {
            throw words.wrong("scales are of rows or of columns");
        }
        if (made.inplace && !made.gradient && made.in != made.out) {
            throw words.wrong("'inplace' is of one type");
        }
        return made;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("fake_quantize").add("int" + bits);
        if (asymmetric) {
            name.add("asymmetric");
        }
        if (row) {
            name.add("row");
        }
        if (column) {
            name.add("column");
        }
        if (gradient) {
            name.add("gradient");
        }
        name.add(types()).add("r" + rows).add("n" + n);
        Rows.describe(name, rows, maxRows, strided, inplace);
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "fake_quantize";
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
        return rows == 0 || n == 0 || values == Values.ZEROS && !gradient || values == Values.DENORMAL;
    }

    private int least() {
        return asymmetric ? 0 : 1 - (1 << bits - 1);
    }

    private int most() {
        return asymmetric ? (1 << bits) - 1 : (1 << bits - 1) - 1;
    }

    /** The scale of a whole tensor, a power of two: halves of it are numbers, and most values are within the integers. */
    private float step() {
        return bits == 4 ? 0x1p-1f : 0x1p-5f;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] x = values(random);
        float @Nullable [] g = gradient ? Values.normal(random, out, rows * n, 1) : null;
        int grids = row ? rows : column ? n : 1;
        float[] scales = new float[grids];
        int[] zeros = new int[grids];
        for (int i = 0; i < grids; i++) {
            boolean none = (row || column) && i % 7 == 5;
            boolean own = (row || column) && values != Values.TIES;
            scales[i] = !own ? step() : none ? 0 : (float) (step() * (0.5 + random.nextDouble()));
            zeros[i] = asymmetric ? random.nextInt(least(), most() + 1) : 0;
        }
        float[] results = new float[rows * n];
        for (int i = 0; i < results.length; i++) {
            int grid = row ? i / n : column ? i % n : 0;
            results[i] = g == null
                    ? FakeQuantizeReference.value(x[i], scales[grid], zeros[grid], least(), most())
                    : FakeQuantizeReference.gradient(x[i], scales[grid], zeros[grid], least(), most(), g[i]);
        }
        Expected expected = FakeQuantizeReference.of(out, results);
        return trial -> run(trial, x, g, scales, zeros, expected);
    }

    private void run(Trial trial, float[] x, float @Nullable [] g, float[] scales, int[] zeros, Expected expected) {
        Rows shape = new Rows(rows, maxRows, n, strided);
        Operand source = shape.input(trial, "x", in, x);
        Operand through = g == null ? null : shape.input(trial, "gradient", out, g);
        Operand steps = trial.input("scales", DType.F32, scales, scales.length);
        Operand middles = asymmetric ? trial.input("zero_points", zeros, zeros.length) : null;
        Operand target = inplace
                ? trial.overwrite(through == null ? source : through, shape.run(), expected)
                : shape.output(trial, "out", out, expected);
        FakeQuantize of = asymmetric ? FakeQuantize.unsigned(bits) : FakeQuantize.signed(bits);
        FakeQuantize spread = row ? of.perRow() : column ? of.perColumn() : of;
        FakeQuantize description = gradient ? spread.gradient() : spread;
        FakeQuantize.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
        Tensor from = source.tensor(shape.run());
        Tensor slope = through == null ? null : through.tensor(shape.run());
        Tensor factors = steps.tensor();
        Tensor points = middles == null ? null : middles.tensor();
        Tensor to = target.tensor(shape.run());
        trial.execute(plan, stream -> plan.run(stream, from, factors, points, slope, to));
    }

    private float[] values(RandomGenerator random) {
        int count = rows * n;
        float[] x = Values.normal(random, DType.F32, count, 3);
        for (int i = 0; i < count; i++) {
            switch (values) {
                case ZEROS -> x[i] = i % 2 == 0 ? 0f : -0f;
                case LARGE -> x[i] *= (float) Math.pow(10, random.nextInt(30));
                case INF -> x[i] = i % 4 == 1 ? Math.copySign(Float.POSITIVE_INFINITY, x[i]) : x[i];
                case TIES -> x[i] = (float) (random.nextInt(2 << bits) - (1 << bits) + 0.5) * step();
                case NAN -> x[i] = i % 4 == 1 ? Float.NaN : x[i];
                default -> Rows.scale(x, i, 1, values);
            }
        }
        return Values.rounded(x, in);
    }
}
