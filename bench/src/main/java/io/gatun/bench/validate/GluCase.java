package io.gatun.bench.validate;

import io.gatun.Activation;
import io.gatun.DType;
import io.gatun.Glu;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.GluReference;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;

/**
 * Gated activation: {@code glu silu bf16->f32 r5 n33 strided halves inplace max8 seed=1}.
 *
 * @param maxRows rows of the plan
 * @param halves whether gate and x are the two halves of one matrix, gate the first
 * @param inplace whether the output takes the place of x
 */
record GluCase(Activation activation, DType in, DType out, int rows, int maxRows, int n, boolean strided, boolean halves,
        boolean inplace, Values values, long seed) implements OperatorCase {

    static GluCase parse(Words words) {
        DType[] types = words.floatTypes();
        int rows = words.count("r");
        GluCase glu = new GluCase(words.oneOf(Activation.class, Activation.NONE), types[0], types[1], rows,
                words.count("max", rows), words.count("n"), words.flag("strided"), words.flag("halves"),
                words.flag("inplace"), words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (glu.inplace && (glu.halves || glu.in != glu.out)) {
            throw words.wrong("in place of x there are two matrices, and one type");
        }
        return glu;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("glu").add(Words.word(activation)).add(types());
        name.add("r" + rows).add("n" + n);
        Rows.describe(name, rows, maxRows, strided, inplace);
        if (halves) {
            name.add("halves");
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "glu";
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
        return rows == 0 || n == 0 || values == Values.ZEROS || values == Values.DENORMAL;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] gate = gates(random);
        float[] x = Values.normal(random, in, rows * n, 1);
        for (int i = 0; i < x.length; i++) {
            // A factor that is not finite, now and then.
            if (values == Values.NAN && i % 7 == 2) {
                x[i] = Float.NaN;
            } else if (values == Values.INF && i % 7 == 2) {
                x[i] = Math.copySign(Float.POSITIVE_INFINITY, x[i]);
            }
        }
        Expected expected = GluReference.compute(activation, gate, x);
        return trial -> run(trial, gate, x, expected);
    }

    private void run(Trial trial, float[] gate, float[] x, Expected expected) {
        Rows shape = new Rows(rows, maxRows, n, strided);
        Tensor gates;
        Tensor factors;
        TensorSpec gateSpec;
        TensorSpec factorSpec;
        Operand target;
        if (halves) {
            Rows wide = new Rows(rows, maxRows, 2 * n, strided);
            Operand both = wide.input(trial, "gate_x", in, sideBySide(gate, x));
            gates = both.tensor(wide.run()).slice(1, 0, n);
            factors = both.tensor(wide.run()).slice(1, n, 2L * n);
            gateSpec = both.spec().slice(1, 0, n);
            factorSpec = both.spec().slice(1, n, 2L * n);
            target = shape.output(trial, "out", out, expected);
        } else {
            Operand first = shape.input(trial, "gate", in, gate);
            Operand second = shape.input(trial, "x", in, x);
            gates = first.tensor(shape.run());
            factors = second.tensor(shape.run());
            gateSpec = first.spec();
            factorSpec = second.spec();
            target = inplace
                    ? trial.overwrite(second, shape.run(), expected)
                    : shape.output(trial, "out", out, expected);
        }
        Glu glu = Glu.of(activation);
        Glu.Plan plan = trial.open(() -> glu.plan(trial.device(), gateSpec, factorSpec, target.spec()));
        Tensor result = target.tensor(shape.run());
        trial.execute(plan, stream -> plan.run(stream, gates, factors, result));
    }

    private float[] sideBySide(float[] gate, float[] x) {
        float[] both = new float[2 * gate.length];
        for (int i = 0; i < rows; i++) {
            System.arraycopy(gate, i * n, both, 2 * i * n, n);
            System.arraycopy(x, i * n, both, (2 * i + 1) * n, n);
        }
        return both;
    }

    private float[] gates(RandomGenerator random) {
        int count = rows * n;
        float[] gate = Values.normal(random, DType.F32, count, 3);
        for (int i = 0; i < count; i++) {
            switch (values) {
                case SWEEP -> gate[i] = (float) (24.0 * i / count - 12);
                case INF -> gate[i] = i % 4 == 1 ? Math.copySign(Float.POSITIVE_INFINITY, gate[i]) : gate[i];
                case NAN -> gate[i] = i % 4 == 1 ? Float.NaN : gate[i];
                default -> Rows.scale(gate, i, 1, values);
            }
        }
        if (values == Values.ZEROS) {
            Arrays.fill(gate, 0);
        }
        return Values.rounded(gate, in);
    }
}
