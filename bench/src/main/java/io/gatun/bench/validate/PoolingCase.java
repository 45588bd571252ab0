package io.gatun.bench.validate;

import static io.gatun.bench.validate.Windows.longs;
import static io.gatun.bench.validate.Windows.shape;
import static io.gatun.bench.validate.Windows.strides;
import static io.gatun.bench.validate.Windows.three;

import io.gatun.DType;
import io.gatun.Pooling;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.PoolingReference;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;

/**
 * Pooling: {@code pooling average f32->bf16 n2 c16 size=9x7 kernel=3x3 stride=2x1 dilation=1x2 before=1x1 after=0x1
 * countpad slack seed=7}, {@code max} likewise; {@code global} has no kernel. Channels are last in memory;
 * {@code xfirst} and {@code outfirst} have them first in x and in out.
 *
 * @param slack whether the plan is for a larger batch
 */
record PoolingCase(boolean average, DType in, DType out, int batch, int channels, boolean global, Windows windows,
        boolean countPadding, boolean xFirst, boolean outFirst, boolean slack, Values values, long seed)
        implements OperatorCase {
    static PoolingCase parse(Words words) {
        boolean average = words.flag("average");
        if (!average && !words.flag("max")) {
            throw words.wrong("the kind, max or average, is missing");
        }
        DType[] types = words.floatTypes();
        int batch = words.count("n");
        int channels = words.count("c");
        boolean global = words.flag("global");
        PoolingCase pooling = new PoolingCase(average, types[0], types[1], batch, channels, global,
                Windows.parse(words, global), words.flag("countpad"), words.flag("xfirst"), words.flag("outfirst"),
                words.flag("slack"), words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (channels < 1 || pooling.countPadding && !average) {
            throw words.wrong("there are channels, and 'countpad' is of 'average'");
        }
        if (global && pooling.windows.volume() == 0) {
            throw words.wrong("what is global has sizes of 1 or more");
        }
        return pooling;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("pooling").add(average ? "average" : "max").add(types())
                .add("n" + batch).add("c" + channels);
        windows.name(name, global);
        Words.flag(name, countPadding, "countpad");
        Words.flag(name, xFirst, "xfirst");
        Words.flag(name, outFirst, "outfirst");
        Words.flag(name, slack, "slack");
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "pooling";
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
        return batch == 0 || values == Values.ZEROS || windows.count() == 0 || windows.volume() == 0;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int elements = batch * channels * windows.volume();
        float[] x = Values.normal(random, DType.F32, elements, 1);
        for (int row = 0; row * 8 + 8 <= x.length; row++) {
            int special = row * 8 + random.nextInt(8);
            switch (values) {
                case NAN -> x[special] = Values.special(row / 4) ? Float.NaN : x[special];
                case INF -> x[special] = Values.special(row / 4) ? x[special] / 0f : x[special];
                case DENORMAL -> { // in F16 numbers below 2^-14
                    for (int i = row * 8; i < row * 8 + 8; i++) {
                        x[i] *= in == DType.F16 ? 1e-5f : 1e-39f;
                    }
                }
                default -> Rows.scale(x, row * 8, 8, values);
            }
        }
        if (values == Values.ZEROS) {
            Arrays.fill(x, 0);
        }
        float[] input = Values.rounded(x, in);
        PoolingReference.Shape shape = new PoolingReference.Shape(batch, channels, three(windows.size(), 1),
                three(windows.kernel(), 1), three(windows.stride(), 1), three(windows.dilation(), 1),
                three(windows.before(), 0), three(windows.outSizes(), 1));
        Expected expected = PoolingReference.compute(average, countPadding, shape, input);
        return trial -> run(trial, input, expected);
    }

    private void run(Trial trial, float[] x, Expected expected) {
        long most = batch + (slack ? 2 : 0);
        long[] xShape = shape(most, channels, windows.size());
        long[] outShape = shape(most, channels, windows.outSizes());
        long[] xRun = shape(batch, channels, windows.size());
        long[] outRun = shape(batch, channels, windows.outSizes());
        Operand source = trial.input("x", in, xShape, strides(xShape, xFirst));
        source.fill(x, xRun);
        Operand target = trial.output("out", out, outShape, strides(outShape, outFirst), outRun, expected);
        Pooling pooling = description();
        Pooling.Plan plan = trial.open(() -> pooling.plan(trial.device(), source.spec(), target.spec()));
        Tensor input = source.tensor(xRun);
        Tensor output = target.tensor(outRun);
        trial.execute(plan, stream -> plan.run(stream, input, output));
    }

    private Pooling description() {
        if (global) {
            return average ? Pooling.globalAverage() : Pooling.globalMax();
        }
        long[] kernel = longs(windows.kernel());
        Pooling pooling = (average ? Pooling.average(kernel) : Pooling.max(kernel)).stride(longs(windows.stride()))
                .dilation(longs(windows.dilation())).padding(longs(windows.before()), longs(windows.after()));
        return countPadding ? pooling.countPadding() : pooling;
    }
}
