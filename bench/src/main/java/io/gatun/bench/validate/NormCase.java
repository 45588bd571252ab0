package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.LayerNorm;
import io.gatun.RmsNorm;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.NormReference;
import io.gatun.bench.reference.QuantizedReference;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Layer and RMS normalisation: {@code layernorm f32->bf16 r5 n33 residual sum nobeta eps=1.0E-5 inplace seed=1}. With
 * {@code inplace} the sum is written over x where there is one, and else the output. {@code f32->u8} quantizes.
 *
 * @param family layernorm or rmsnorm
 * @param maxRows rows of the plan
 */
record NormCase(String family, DType in, DType out, int rows, int maxRows, int n, float epsilon, boolean residual,
        boolean sum, boolean beta, boolean strided, boolean inplace, Values values, long seed) implements OperatorCase {
    private static final float USUAL_EPSILON = 1e-5f;

    static NormCase parse(String family, Words words) {
        DType[] types = words.rowTypes();
        int rows = words.count("r");
        NormCase norm = new NormCase(family, types[0], types[1], rows, words.count("max", rows), words.count("n"),
                words.real("eps", USUAL_EPSILON), words.flag("residual"), words.flag("sum"),
                !words.flag("nobeta") && family.equals("layernorm"), words.flag("strided"), words.flag("inplace"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (norm.in == DType.U8 || norm.out == DType.U8 && norm.inplace && !norm.sum) {
            throw words.wrong("u8 is the type of outputs, which are not in place");
        }
        return norm;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add(family).add(types()).add("r" + rows).add("n" + n);
        Rows.describe(name, rows, maxRows, strided, inplace);
        if (residual) {
            name.add("residual");
        }
        if (sum) {
            name.add("sum");
        }
        if (!beta && layer()) {
            name.add("nobeta");
        }
        if (epsilon != USUAL_EPSILON) {
            name.add("eps=" + epsilon);
        }
        return Rows.end(name, values, seed);
    }

    private boolean layer() {
        return family.equals("layernorm");
    }

    @Override
    public String operator() {
        return family;
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
        boolean centred = layer() && !beta;
        return rows == 0 || centred && (n == 1 || values == Values.CONSTANT)
                || values == Values.ZEROS && !beta && !residual
                || values == Values.DENORMAL && in == DType.BF16;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] x = activations(random);
        float @Nullable [] r = residual ? Values.normal(random, in, rows * n, 1) : null;
        float[] g = Values.normal(random, DType.F32, n, 0.3);
        for (int j = 0; j < n; j++) {
            g[j] += 1;
        }
        float @Nullable [] b = beta ? Values.normal(random, DType.F32, n, 1) : null;
        boolean flush = in == DType.BF16;
        Expected normal = layer()
                ? NormReference.layerNorm(rows, n, epsilon, x, r, g, b, flush)
                : NormReference.rmsNorm(rows, n, epsilon, x, r, g, flush);
        Expected hidden = NormReference.sum(x, r, flush);
        QuantizedReference.Quantized quantized = out == DType.U8 ? QuantizedReference.rows(normal, n) : null;
        return trial -> {
            Rows shape = new Rows(rows, maxRows, n, strided);
            Operand source = shape.input(trial, "x", in, x);
            Operand added = r == null ? null : shape.input(trial, "residual", in, r);
            Operand gamma = trial.input("gamma", DType.F32, g, n);
            Operand shift = b == null ? null : trial.input("beta", DType.F32, b, n);
            Operand target = inplace && !sum
                    ? trial.overwrite(source, shape.run(), normal)
                    : shape.output(trial, "out", out, quantized == null ? normal : quantized.values());
            Operand scales = quantized == null ? null : perRow(trial, "scales", DType.F32, quantized.scales());
            Operand zeros = quantized == null ? null : perRow(trial, "zero_points", DType.S32, quantized.zeros());
            Operand total = !sum
                    ? null
                    : inplace
                            ? trial.overwrite(source, shape.run(), hidden)
                            : shape.output(trial, "sum", in, hidden);
            run(trial, shape, source, added, gamma, shift, target, scales, zeros, total);
        };
    }

    private Operand perRow(Trial trial, String name, DType dtype, Expected expected) {
        return trial.output(name, dtype, new long[] {maxRows}, new long[] {1}, new long[] {rows}, expected);
    }

    private void run(Trial trial, Rows shape, Operand source, @Nullable Operand added, Operand gamma,
            @Nullable Operand shift, Operand target, @Nullable Operand scales, @Nullable Operand zeros,
            @Nullable Operand total) {
        Tensor x = source.tensor(shape.run());
        Tensor r = added == null ? null : added.tensor(shape.run());
        Tensor g = gamma.tensor();
        Tensor b = shift == null ? null : shift.tensor();
        Tensor y = target.tensor(shape.run());
        Tensor s = scales == null ? null : scales.tensor(rows);
        Tensor z = zeros == null ? null : zeros.tensor(rows);
        Tensor h = total == null ? null : total.tensor(shape.run());
        if (layer()) {
            LayerNorm norm = LayerNorm.of(epsilon);
            norm = residual ? norm.residual() : norm;
            norm = sum ? norm.sum() : norm;
            norm = beta ? norm : norm.withoutBeta();
            LayerNorm description = norm;
            LayerNorm.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
            trial.execute(plan, stream -> {
                if (s == null || z == null) {
                    plan.run(stream, x, r, g, b, y, h);
                } else {
                    plan.runQuantized(stream, x, r, g, b, y, s, z, h);
                }
            });
        } else {
            RmsNorm norm = RmsNorm.of(epsilon);
            norm = residual ? norm.residual() : norm;
            norm = sum ? norm.sum() : norm;
            RmsNorm description = norm;
            RmsNorm.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
            trial.execute(plan, stream -> {
                if (s == null || z == null) {
                    plan.run(stream, x, r, g, y, h);
                } else {
                    plan.runQuantized(stream, x, r, g, y, s, z, h);
                }
            });
        }
    }

    private float[] activations(RandomGenerator random) {
        float[] x = Values.normal(random, DType.F32, rows * n, 1);
        for (int i = 0; i < rows; i++) {
            int row = i * n;
            int special = row + random.nextInt(n);
            switch (values) {
                case ZEROS -> Arrays.fill(x, row, row + n, 0);
                case CONSTANT -> Arrays.fill(x, row, row + n, x[row]);
                case NAN -> x[special] = Values.special(i) ? Float.NaN : x[special];
                case INF -> x[special] = Values.special(i) ? Float.POSITIVE_INFINITY : x[special];
                case LARGE -> {
                    for (int j = row; j < row + n; j++) {
                        x[j] *= 1e15f;
                    }
                }
                default -> Rows.scale(x, row, n, values);
            }
        }
        return Values.rounded(x, in);
    }
}
