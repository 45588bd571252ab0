package io.gatun.bench.validate;

import io.gatun.Activation;
import io.gatun.BiasActivation;
import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.bench.reference.ActivationReference;
import io.gatun.bench.reference.Expected;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Bias and activation: {@code activation gelu_erf f32->bf16 r5 n33 bias strided inplace max8 seed=1}. With {@code xgap}
 * and {@code outgap} the rows of that operand alone have gaps between them.
 *
 * @param maxRows rows of the plan
 */
record ActivationCase(Activation activation, DType in, DType out, int rows, int maxRows, int n, boolean bias,
        boolean strided, boolean xgap, boolean outgap, boolean inplace, Values values, long seed)
        implements OperatorCase {

    static ActivationCase parse(Words words) {
        DType[] types = words.types();
        int rows = words.count("r");
        Activation function = words.oneOf(Activation.class, Activation.NONE);
        ActivationCase activation = new ActivationCase(function, types[0], types[1], rows, words.count("max", rows),
                words.count("n"), words.flag("bias"), words.flag("strided"), words.flag("xgap"), words.flag("outgap"),
                words.flag("inplace"), words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        return activation;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("activation").add(Words.word(activation)).add(types());
        name.add("r" + rows).add("n" + n);
        Rows.describe(name, rows, maxRows, strided, inplace);
        if (xgap) {
            name.add("xgap");
        }
        if (outgap) {
            name.add("outgap");
        }
        if (bias) {
            name.add("bias");
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "activation";
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
        return rows == 0 || n == 0 || values == Values.ZEROS && !bias || values == Values.DENORMAL;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] x = arguments(random);
        float @Nullable [] b = bias ? Values.normal(random, DType.F32, n, 1) : null;
        Expected expected = ActivationReference.compute(activation, out, rows, n, x, b);
        return trial -> {
            Rows shape = new Rows(rows, maxRows, n, strided || xgap);
            Rows outShape = new Rows(rows, maxRows, n, strided || outgap);
            Operand source = shape.input(trial, "x", in, x);
            Operand target = inplace
                    ? trial.overwrite(source, shape.run(), expected)
                    : outShape.output(trial, "out", out, expected);
            Operand added = b == null ? null : trial.input("bias", DType.F32, b, n);
            BiasActivation of = BiasActivation.of(activation);
            BiasActivation description = bias ? of.bias() : of;
            BiasActivation.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
            Tensor arguments = source.tensor(shape.run());
            Tensor summand = added == null ? null : added.tensor();
            Tensor result = target.tensor(shape.run());
            trial.execute(plan, stream -> plan.run(stream, arguments, summand, result));
        };
    }

    private float[] arguments(RandomGenerator random) {
        int count = rows * n;
        float[] x = Values.normal(random, DType.F32, count, 3);
        for (int i = 0; i < count; i++) {
            switch (values) {
                case ZEROS -> x[i] = i % 2 == 0 ? 0f : -0f;
                case SWEEP -> x[i] = (float) (24.0 * i / count - 12);
                case LARGE -> x[i] *= (float) Math.pow(10, random.nextInt(30));
                case INF -> x[i] = i % 4 == 1 ? Math.copySign(Float.POSITIVE_INFINITY, x[i]) : x[i];
                case TIES -> x[i] = halfway(x[i]);
                case NAN -> x[i] = i % 4 == 1 ? Float.NaN : x[i];
                default -> Rows.scale(x, i, 1, values);
            }
        }
        return Values.rounded(x, in);
    }

    /** A number near x that is as far from the BF16 number above as from the one below. */
    private static float halfway(float x) {
        return Float.intBitsToFloat(Float.floatToRawIntBits(x) & 0xffff0000 | 0x8000);
    }
}
