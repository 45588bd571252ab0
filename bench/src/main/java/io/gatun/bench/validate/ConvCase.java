package io.gatun.bench.validate;

import io.gatun.Activation;
import io.gatun.Conv;
import io.gatun.ConvWeights;
import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.bench.reference.ConvReference;
import io.gatun.bench.reference.Expected;
import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
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
record ConvCase(DType format, DType in, DType out, int batch, int channels, int columns, List<Integer> size,
        List<Integer> kernel, List<Integer> stride, List<Integer> dilation, List<Integer> before, List<Integer> after,
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
        int[] size = words.sizes("size");
        int[] kernel = words.sizes("kernel");
        if (size == null || kernel == null || size.length != kernel.length || size.length < 1 || size.length > 3) {
            throw words.wrong("'size' and 'kernel' with one to three numbers each, such as 9x7, are missing");
        }
        int rank = size.length;
        ConvCase conv = new ConvCase(format, types[0], types[1], batch, channels, columns, list(size), list(kernel),
                sizes(words, "stride", rank, 1), sizes(words, "dilation", rank, 1), sizes(words, "before", rank, 0),
                sizes(words, "after", rank, 0), words.integer("groups", 1), words.flag("xfirst"),
                words.flag("outfirst"), words.flag("norm"), words.flag("bias"),
                words.oneOf(Activation.class, Activation.NONE), words.flag("residual"), words.flag("first"),
                words.flag("inplace"), words.flag("slack"), words.oneOf(Values.class, Values.NORMAL), words.seed());
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

    private static List<Integer> list(int[] sizes) {
        return Arrays.stream(sizes).boxed().toList();
    }

    private static List<Integer> sizes(Words words, String name, int rank, int fallback) {
        int[] given = words.sizes(name);
        if (given == null) {
            given = new int[rank];
            Arrays.fill(given, fallback);
        }
        if (given.length != rank) {
            throw words.wrong("'" + name + "' has " + rank + " numbers");
        }
        return list(given);
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("conv").add(types()).add("n" + batch).add("c" + channels)
                .add("o" + columns);
        sizes(name, "size", size, -1);
        sizes(name, "kernel", kernel, -1);
        sizes(name, "stride", stride, 1);
        sizes(name, "dilation", dilation, 1);
        sizes(name, "before", before, 0);
        sizes(name, "after", after, 0);
        flag(name, groups > 1, "groups=" + groups);
        flag(name, xFirst, "xfirst");
        flag(name, outFirst, "outfirst");
        flag(name, norm, "norm");
        flag(name, bias, "bias");
        flag(name, activation != Activation.NONE, Words.word(activation));
        flag(name, residual, "residual");
        flag(name, first, "first");
        flag(name, inplace, "inplace");
        flag(name, slack, "slack");
        return Rows.end(name, values, seed);
    }

    private static void sizes(StringJoiner name, String word, List<Integer> sizes, int usual) {
        flag(name, sizes.stream().anyMatch(size -> size != usual),
                word + "=" + sizes.stream().map(String::valueOf).collect(Collectors.joining("x")));
    }

    private static void flag(StringJoiner name, boolean there, String word) {
        if (there) {
            name.add(word);
        }
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
        boolean empty = batch == 0;
        for (int d = 0; d < size.size(); d++) {
            empty |= outSize(d) == 0;
        }
        return empty || !norm && !bias && !residual && values == Values.ZEROS;
    }

    private int outSize(int d) {
        int padded = size.get(d) + before.get(d) + after.get(d);
        int reach = dilation.get(d) * (kernel.get(d) - 1) + 1;
        return padded < reach ? 0 : (padded - reach) / stride.get(d) + 1;
    }

    private List<Integer> outSizes() {
        return IntStream.range(0, size.size()).map(this::outSize).boxed().toList();
    }

    private static int product(List<Integer> sizes) {
        return sizes.stream().reduce(1, (a, b) -> a * b);
    }

    /** Three dimensions, the first of which are 1 where there are fewer. */
    private static int[] three(List<Integer> sizes, int missing) {
        int[] three = {missing, missing, missing};
        for (int d = 0; d < sizes.size(); d++) {
            three[3 - sizes.size() + d] = sizes.get(d);
        }
        return three;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        int volume = product(size);
        int outElements = batch * columns * product(outSizes());
        float[] x = Values.normal(random, DType.F32, batch * channels * volume, 1);
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
        int terms = channels / groups * product(kernel);
        float[] w = Values.normal(random, DType.F32, columns * terms, 1 / Math.sqrt(terms));
        ConvReference.@Nullable Norm folded = norm ? norm(random) : null;
        float @Nullable [] b = bias ? Values.normal(random, DType.F32, columns, 1) : null;
        float @Nullable [] r = residual ? Values.normal(random, out, outElements, 1) : null;
        ConvReference.Shape shape = new ConvReference.Shape(batch, channels, columns, groups, three(size, 1),
                three(kernel, 1), three(stride, 1), three(dilation, 1), three(before, 0), three(outSizes(), 1));
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

    private static long[] shape(long batch, long channels, List<Integer> sizes) {
        long[] shape = new long[2 + sizes.size()];
        shape[0] = batch;
        shape[1] = channels;
        for (int d = 0; d < sizes.size(); d++) {
            shape[2 + d] = sizes.get(d);
        }
        return shape;
    }

    /** Channels first, or last. */
    private static long[] strides(long[] shape, boolean channelsFirst) {
        if (channelsFirst) {
            return Operand.rowMajor(shape);
        }
        long[] strides = new long[shape.length];
        strides[1] = 1;
        long stride = Math.max(1, shape[1]);
        for (int d = shape.length - 1; d >= 2; d--) {
            strides[d] = stride;
            stride *= Math.max(1, shape[d]);
        }
        strides[0] = stride;
        return strides;
    }

    private void run(Trial trial, float[] x, float[] w, ConvReference.@Nullable Norm folded, float @Nullable [] b,
            float @Nullable [] r, Expected expected) {
        long most = batch + (slack ? 2 : 0);
        long[] xShape = shape(most, channels, size);
        long[] outShape = shape(most, columns, outSizes());
        long[] xRun = shape(batch, channels, size);
        long[] outRun = shape(batch, columns, outSizes());
        long[] outStrides = strides(outShape, outFirst);
        Operand source = trial.input("x", in, xShape, strides(xShape, xFirst));
        source.fill(x, xRun);
        Operand filter = trial.input("w", DType.F32, w, shape(columns, channels / groups, kernel));
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

    private static long[] longs(List<Integer> sizes) {
        return sizes.stream().mapToLong(Integer::longValue).toArray();
    }

    private Conv description() {
        Conv conv = Conv.of(format, longs(kernel)).stride(longs(stride)).dilation(longs(dilation))
                .padding(longs(before), longs(after)).groups(groups).activation(activation);
        conv = bias ? conv.bias() : conv;
        conv = residual ? conv.residual() : conv;
        return first ? conv.residualFirst() : conv;
    }
}
