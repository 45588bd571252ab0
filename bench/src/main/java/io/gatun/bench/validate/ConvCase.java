package io.gatun.bench.validate;

import static io.gatun.bench.validate.Windows.longs;
import static io.gatun.bench.validate.Windows.shape;
import static io.gatun.bench.validate.Windows.strides;
import static io.gatun.bench.validate.Windows.three;

import io.gatun.Activation;
import io.gatun.Conv;
import io.gatun.ConvWeights;
import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.bench.reference.ConvReference;
import io.gatun.bench.reference.Expected;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Convolution with its epilogue: {@code conv bf16 f32->bf16 n2 c16 o32 size=9x7 kernel=3x3 stride=2x1 dilation=1x2
 * before=1x1 after=0x1 groups=4 first norm bias relu residual inplace slack seed=7}. Channels are last in memory;
 * {@code xfirst} and {@code outfirst} have them first in x and in out.
 *
 * @param format of the packed weights: F32 or BF16
 * @param first whether the residual is added before the activation
 * @param slack whether the plan is for a larger batch
 */
record ConvCase(DType format, DType in, DType out, int batch, int channels, int columns, Windows windows,
        int groups, boolean xFirst, boolean outFirst, boolean norm, boolean bias, Activation activation,
        boolean residual, boolean first, boolean inplace, boolean slack, Values values, long seed)
        implements OperatorCase {
    private static final float EPSILON = 1e-3f;

    static ConvCase parse(Words words) {
        DType format = words.type();
        DType[] types = words.types();
        int batch = words.count("n");
        int channels = words.count("c");
        int columns = words.count("o");
        ConvCase conv = new ConvCase(format, types[0], types[1], batch, channels, columns, Windows.parse(words, false),
                words.integer("groups", 1), words.flag("xfirst"), words.flag("outfirst"), words.flag("norm"),
                words.flag("bias"), words.oneOf(Activation.class, Activation.NONE), words.flag("residual"),
                words.flag("first"), words.flag("inplace"), words.flag("slack"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (format == DType.F16 || conv.groups < 1 || channels < 1 || columns < 1 || channels % conv.groups != 0
                || columns % conv.groups != 0) {
            throw words.wrong("the format is f32 or bf16, and groups divide channels, of which there are some");
        }
        if ((conv.inplace || conv.first) && !conv.residual) {
            throw words.wrong("'inplace' and 'first' are of the residual, and there is none");
        }
        return conv;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("conv").add(types()).add("n" + batch).add("c" + channels)
                .add("o" + columns);
        windows.name(name, false);
        Words.flag(name, groups > 1, "groups=" + groups);
        Words.flag(name, xFirst, "xfirst");
        Words.flag(name, outFirst, "outfirst");
        Words.flag(name, norm, "norm");
        Words.flag(name, bias, "bias");
        Words.flag(name, activation != Activation.NONE, Words.word(activation));
        Words.flag(name, residual, "residual");
        Words.flag(name, first, "first");
        Words.flag(name, inplace, "inplace");
        Words.flag(name, slack, "slack");
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "conv";
    }

    @Override
    public String types() {
        return Words.word(format) + " " + Words.word(in) + "->" + Words.word(out);
    }

    @Override
    public DType dtype() {
        return format;
    }

    @Override
    public boolean fillsPlan() {
        return !slack;
    }

    @Override
    public boolean degenerate() {
        boolean empty = batch == 0 || windows.count() == 0;
        return empty || !norm && !bias && !residual && values == Values.ZEROS;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int outElements = batch * columns * windows.count();
        float[] x = Values.normal(random, DType.F32, batch * channels * windows.volume(), 1);
        for (int row = 0; row * 8 + 8 <= x.length; row++) {
            int special = row * 8 + random.nextInt(8);
            switch (values) {
                case ZEROS -> Arrays.fill(x, row * 8, row * 8 + 8, 0);
                case NAN -> x[special] = Values.special(row / 4) ? Float.NaN : x[special];
                case INF -> x[special] = Values.special(row / 4) ? Float.POSITIVE_INFINITY : x[special];
                default -> Rows.scale(x, row * 8, 8, values);
            }
        }
        if (values == Values.ZEROS) {
            Arrays.fill(x, 0);
        }
        float[] input = Values.rounded(x, in);
        int terms = channels / groups * windows.taps();
        float[] w = Values.normal(random, DType.F32, columns * terms, 1 / Math.sqrt(terms));
        ConvReference.@Nullable Norm folded = norm ? norm(random) : null;
        float @Nullable [] b = bias ? Values.normal(random, DType.F32, columns, 1) : null;
        float @Nullable [] r = residual ? Values.normal(random, out, outElements, 1) : null;
        ConvReference.Shape shape = new ConvReference.Shape(batch, channels, columns, groups,
                three(windows.size(), 1), three(windows.kernel(), 1), three(windows.stride(), 1),
                three(windows.dilation(), 1), three(windows.before(), 0), three(windows.outSizes(), 1));
        Expected expected = ConvReference.compute(format, shape, input, w, folded, b, activation, r, first);
        return trial -> run(trial, input, w, folded, b, r, expected);
    }

    private ConvReference.Norm norm(RandomGenerator random) {
        float[] gamma = Values.normal(random, DType.F32, columns, 0.3);
        float[] variance = Values.normal(random, DType.F32, columns, 1);
        for (int o = 0; o < columns; o++) {
            gamma[o] += 1;
            variance[o] = Math.abs(variance[o]) + 0.1f;
        }
        return new ConvReference.Norm(gamma, Values.normal(random, DType.F32, columns, 1),
                Values.normal(random, DType.F32, columns, 1), variance, EPSILON);
    }

    private void run(Trial trial, float[] x, float[] w, ConvReference.@Nullable Norm folded, float @Nullable [] b,
            float @Nullable [] r, Expected expected) {
        long most = batch + (slack ? 2 : 0);
        long[] xShape = shape(most, channels, windows.size());
        long[] outShape = shape(most, columns, windows.outSizes());
        long[] xRun = shape(batch, channels, windows.size());
        long[] outRun = shape(batch, columns, windows.outSizes());
        long[] outStrides = strides(outShape, outFirst);
        Operand source = trial.input("x", in, xShape, strides(xShape, xFirst));
        source.fill(x, xRun);
        Operand filter = trial.input("w", DType.F32, w, shape(columns, channels / groups, windows.kernel()));
        Operand shift = b == null ? null : trial.input("bias", DType.F32, b, columns);
        Operand added = r == null ? null : trial.input("residual", out, outShape, outStrides);
        if (added != null && r != null) {
            added.fill(r, outRun);
        }
        Operand target = inplace && added != null
                ? trial.overwrite(added, outRun, expected)
                : trial.output("out", out, outShape, outStrides, outRun, expected);
        ConvWeights packed;
        if (folded == null) {
            packed = trial.open(() -> ConvWeights.pack(trial.device(), format, groups, filter.hostTensor()));
        } else {
            Operand gamma = trial.input("gamma", DType.F32, folded.gamma(), columns);
            Operand beta = trial.input("beta", DType.F32, folded.beta(), columns);
            Operand mean = trial.input("mean", DType.F32, folded.mean(), columns);
            Operand variance = trial.input("variance", DType.F32, folded.variance(), columns);
            packed = trial.open(() -> ConvWeights.pack(trial.device(), format, groups, filter.hostTensor(),
                    gamma.hostTensor(), beta.hostTensor(), mean.hostTensor(), variance.hostTensor(), EPSILON));
        }
        Conv conv = description();
        Conv.Plan plan = trial.open(() -> conv.plan(trial.device(), source.spec(), target.spec()));
        Tensor input = source.tensor(xRun);
        Tensor output = target.tensor(outRun);
        Tensor z = shift == null ? null : shift.tensor();
        Tensor sum = added == null ? null : added.tensor(outRun);
        trial.execute(plan, stream -> plan.run(stream, packed, input, z, sum, output));
    }

    private Conv description() {
        Conv conv = Conv.of(format, longs(windows.kernel())).stride(longs(windows.stride()))
                .dilation(longs(windows.dilation())).padding(longs(windows.before()), longs(windows.after()))
                .groups(groups).activation(activation);
        conv = bias ? conv.bias() : conv;
        conv = residual ? conv.residual() : conv;
        return first ? conv.residualFirst() : conv;
    }
}
