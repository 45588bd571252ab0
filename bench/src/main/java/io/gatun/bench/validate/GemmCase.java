package io.gatun.bench.validate;

import io.gatun.Activation;
import io.gatun.DType;
import io.gatun.Gemm;
import io.gatun.PackedWeights;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.GemmReference;
import java.util.Arrays;
import java.util.Map;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * GEMM with its epilogue: {@code gemm int8 f32->bf16 m33 k129 n65 max48 strided wt wbf16 bias gelu_erf residual inplace
 * seed=7}. {@code wt} takes weights that lie transposed, {@code wbf16} weights in BF16; {@code inplace} writes over the
 * residual.
 *
 * @param format of the packed weights: F32, BF16 or S8
 * @param maxM rows of the plan
 */
record GemmCase(DType format, DType in, DType out, int m, int maxM, int k, int n, boolean strided, boolean transposed,
        DType weights, boolean bias, Activation activation, boolean residual, boolean inplace, Values values, long seed)
        implements OperatorCase {
    private static final Map<DType, String> FORMATS = Map.of(DType.F32, "f32", DType.BF16, "bf16", DType.S8, "int8");

    static GemmCase parse(Words words) {
        DType format = FORMATS.keySet().stream()
                .filter(f -> words.flag(FORMATS.get(f)))
                .findFirst()
                .orElseThrow(() -> words.wrong("the format, f32, bf16 or int8, is missing"));
        DType[] types = words.types();
        int m = words.count("m");
        GemmCase gemm = new GemmCase(format, types[0], types[1], m, words.count("max", m), words.count("k"),
                words.count("n"), words.flag("strided"), words.flag("wt"), words.flag("wbf16") ? DType.BF16 : DType.F32,
                words.flag("bias"), words.oneOf(Activation.class, Activation.NONE), words.flag("residual"),
                words.flag("inplace"), words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (gemm.inplace && !gemm.residual) {
            throw words.wrong("'inplace' writes over the residual, and there is none");
        }
        return gemm;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("gemm").add(types()).add("m" + m).add("k" + k).add("n" + n);
        Rows.describe(name, m, maxM, strided, inplace);
        if (transposed) {
            name.add("wt");
        }
        if (weights == DType.BF16) {
            name.add("wbf16");
        }
        if (bias) {
            name.add("bias");
        }
        if (activation != Activation.NONE) {
            name.add(Words.word(activation));
        }
        if (residual) {
            name.add("residual");
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "gemm";
    }

    @Override
    public String types() {
        return FORMATS.get(format) + " " + Words.word(in) + "->" + Words.word(out);
    }

    @Override
    public DType dtype() {
        return format;
    }

    @Override
    public boolean fillsPlan() {
        return m == maxM;
    }

    @Override
    public boolean degenerate() {
        return m == 0 || n == 0 || !bias && !residual && (k == 0 || values == Values.ZEROS);
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] a = activations(random);
        float[] w = weightValues(random);
        float @Nullable [] b = bias ? Values.normal(random, DType.F32, n, 1) : null;
        float @Nullable [] r = residual ? Values.normal(random, out, m * n, 1) : null;
        Expected expected = GemmReference.compute(format, m, k, n, a, w, b, activation, r);
        return trial -> run(trial, a, w, b, r, expected);
    }

    private void run(Trial trial, float[] a, float[] w, float @Nullable [] b, float @Nullable [] r, Expected expected) {
        Rows rows = new Rows(m, maxM, k, strided);
        Rows columns = new Rows(m, maxM, n, strided);
        Operand source = rows.input(trial, "a", in, a);
        long[] strides = transposed ? new long[] {1, Math.max(k, 1)} : new long[] {strided ? n + 3 : Math.max(n, 1), 1};
        Operand matrix = trial.input("w", weights, new long[] {k, n}, strides);
        matrix.fill(w, k, n);
        Operand shift = b == null ? null : trial.input("bias", DType.F32, b, n);
        Operand added = r == null ? null : columns.input(trial, "residual", out, r);
        Operand target = inplace && added != null
                ? trial.overwrite(added, columns.run(), expected)
                : columns.output(trial, "out", out, expected);
        Gemm gemm = Gemm.of(format).activation(activation);
        gemm = bias ? gemm.bias() : gemm;
        gemm = residual ? gemm.residual() : gemm;
        Gemm description = gemm;
        PackedWeights packed = trial.open(() -> PackedWeights.pack(trial.device(), format, matrix.hostTensor()));
        Gemm.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
        Tensor x = source.tensor(rows.run());
        Tensor y = target.tensor(columns.run());
        Tensor z = shift == null ? null : shift.tensor();
        Tensor sum = added == null ? null : added.tensor(columns.run());
        trial.execute(plan, stream -> plan.run(stream, packed, x, z, sum, y));
    }

    private float[] activations(RandomGenerator random) {
        float[] a = Values.normal(random, DType.F32, m * k, 1);
        for (int i = 0; i < m && k > 0; i++) {
            int row = i * k;
            int special = row + random.nextInt(k);
            switch (values) {
                case ZEROS -> Arrays.fill(a, row, row + k, 0);
                case CONSTANT -> Arrays.fill(a, row, row + k, a[row]);
                case NAN -> a[special] = Values.special(i) ? Float.NaN : a[special];
                case INF -> a[special] = Values.special(i) ? a[special] / 0f : a[special];
                case OVERFLOW -> {
                    if (Values.special(i) && k > 1) {
                        a[row] = 3e38f;
                        a[row + 1] = -3e38f;
                    }
                }
                default -> {
                    for (int p = 0; p < k; p++) {
                        a[row + p] = activation(a[row + p], p, random);
                    }
                }
            }
        }
        return Values.rounded(a, in);
    }

    private float activation(float value, int p, RandomGenerator random) {
        return switch (values) {
            // BF16 may flush denormals, so there every second value is a normal number.
            case DENORMAL -> format == DType.BF16 && p % 2 == 0 ? value : value * 1e-39f;
            case OFFSET -> value + 10;
            case LARGE -> value * 1e18f;
            // A scale of exactly 1, and values halfway between steps.
            case TIES -> p == 0 ? -2.5f : p == 1 ? 252.5f : random.nextInt(-2, 252) + 0.5f;
            default -> value;
        };
    }

    private float[] weightValues(RandomGenerator random) {
        double deviation = 1 / Math.sqrt(Math.max(k, 1));
        if (values == Values.LARGE) {
            deviation *= 1e18;
        } else if (values == Values.DENORMAL && format != DType.BF16) {
            deviation *= 2e37;
        }
        float[] w = Values.normal(random, weights, k * n, deviation);
        for (int j = 0; values == Values.ZEROW && j < n; j++) {
            for (int p = 0; p < k && Values.special(j); p++) {
                w[p * n + j] = 0;
            }
        }
        for (int j = 0; values == Values.NANW && j < n && k > 0; j++) {
            if (Values.special(j)) {
                w[random.nextInt(k) * n + j] = Float.NaN;
            }
        }
        return w;
    }
}
