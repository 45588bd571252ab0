package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Pooling;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.PoolingReference;
import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Pooling: {@code pooling average f32->bf16 n2 c16 size=9x7 kernel=3x3 stride=2x1 dilation=1x2 before=1x1 after=0x1
 * countpad slack seed=7}, {@code max} likewise; {@code global} has no kernel. Channels are last in memory;
 * {@code xfirst} and {@code outfirst} have them first in x and in out.
 *
 * @param kernel as large as x where the pooling is global
 * @param slack whether the plan is for a larger batch
 */
record PoolingCase(boolean average, DType in, DType out, int batch, int channels, List<Integer> size, boolean global,
        List<Integer> kernel, List<Integer> stride, List<Integer> dilation, List<Integer> before, List<Integer> after,
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
        int[] size = words.sizes("size");
        boolean global = words.flag("global");
        int[] kernel = global ? size : words.sizes("kernel");
        if (size == null || kernel == null || size.length != kernel.length || size.length < 1 || size.length > 3) {
            throw words.wrong("'size' and 'kernel' with one to three numbers each, such as 9x7, are missing");
        }
        int rank = size.length;
        PoolingCase pooling = new PoolingCase(average, types[0], types[1], batch, channels, list(size), global,
                list(kernel), sizes(words, "stride", rank, 1), sizes(words, "dilation", rank, 1),
                sizes(words, "before", rank, 0), sizes(words, "after", rank, 0), words.flag("countpad"),
                words.flag("xfirst"), words.flag("outfirst"), words.flag("slack"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (channels < 1 || pooling.countPadding && !average) {
            throw words.wrong("there are channels, and 'countpad' is of 'average'");
        }
        if (global && Arrays.stream(size).anyMatch(one -> one == 0)) {
            throw words.wrong("what is global has sizes of 1 or more");
        }
        return pooling;
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
        StringJoiner name = new StringJoiner(" ").add("pooling").add(average ? "average" : "max").add(types())
                .add("n" + batch).add("c" + channels);
        sizes(name, "size", size, -1);
        if (global) {
            name.add("global");
        } else {
            sizes(name, "kernel", kernel, -1);
        }
        sizes(name, "stride", stride, 1);
        sizes(name, "dilation", dilation, 1);
        sizes(name, "before", before, 0);
        sizes(name, "after", after, 0);
        flag(name, countPadding, "countpad");
        flag(name, xFirst, "xfirst");
        flag(name, outFirst, "outfirst");
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
        boolean empty = batch == 0 || values == Values.ZEROS;
        for (int d = 0; d < size.size(); d++) {
            empty |= outSize(d) == 0 || size.get(d) == 0;
        }
        return empty;
    }

    private int outSize(int d) {
        int padded = size.get(d) + before.get(d) + after.get(d);
        int reach = dilation.get(d) * (kernel.get(d) - 1) + 1;
        return padded < reach ? 0 : (padded - reach) / stride.get(d) + 1;
    }

    private List<Integer> outSizes() {
        return IntStream.range(0, size.size()).map(this::outSize).boxed().toList();
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
        int elements = batch * channels * size.stream().reduce(1, (a, b) -> a * b);
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
        PoolingReference.Shape shape = new PoolingReference.Shape(batch, channels, three(size, 1), three(kernel, 1),
                three(stride, 1), three(dilation, 1), three(before, 0), three(outSizes(), 1));
        Expected expected = PoolingReference.compute(average, countPadding, shape, input);
        return trial -> run(trial, input, expected);
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

    private void run(Trial trial, float[] x, Expected expected) {
        long most = batch + (slack ? 2 : 0);
        long[] xShape = shape(most, channels, size);
        long[] outShape = shape(most, channels, outSizes());
        long[] xRun = shape(batch, channels, size);
        long[] outRun = shape(batch, channels, outSizes());
        Operand source = trial.input("x", in, xShape, strides(xShape, xFirst));
        source.fill(x, xRun);
        Operand target = trial.output("out", out, outShape, strides(outShape, outFirst), outRun, expected);
        Pooling pooling = description();
        Pooling.Plan plan = trial.open(() -> pooling.plan(trial.device(), source.spec(), target.spec()));
        Tensor input = source.tensor(xRun);
        Tensor output = target.tensor(outRun);
        trial.execute(plan, stream -> plan.run(stream, input, output));
    }

    private static long[] longs(List<Integer> sizes) {
        return sizes.stream().mapToLong(Integer::longValue).toArray();
    }

    private Pooling description() {
        if (global) {
            return average ? Pooling.globalAverage() : Pooling.globalMax();
        }
        Pooling pooling = (average ? Pooling.average(longs(kernel)) : Pooling.max(longs(kernel))).stride(longs(stride))
                .dilation(longs(dilation)).padding(longs(before), longs(after));
        return countPadding ? pooling.countPadding() : pooling;
    }
}
