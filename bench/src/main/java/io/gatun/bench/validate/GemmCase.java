package io.gatun.bench.validate;

import io.gatun.Activation;
import io.gatun.DType;
import io.gatun.Gemm;
import io.gatun.PackedWeights;
import io.gatun.Quantization;
import io.gatun.Tensor;
import io.gatun.bench.reference.Bf16;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.F8;
import io.gatun.bench.reference.GemmReference;
import io.gatun.bench.reference.GemmReference.LowRank;
import io.gatun.bench.reference.RowQuantizer;
import io.gatun.bench.reference.WeightQuantizer;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.StringJoiner;
import java.util.function.Supplier;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/**
 * GEMM with its epilogue: {@code gemm int8 f32->bf16 m33 k129 n65 max48 strided wt wbf16 bias gelu_erf residual inplace
 * seed=7}. {@code wt} takes weights that lie transposed, {@code wbf16} and {@code wf16} weights in 16 bits;
 * {@code inplace} writes over the residual. {@code groups=3,0,9} multiplies so many rows by a matrix each, and leaves
 * further rows alone; {@code int8 u8->f32} takes rows that were quantized before; {@code rowindex=5} takes the rows by
 * number out of five; {@code lora=16 loradtype=bf16} adds a product of rank 16. {@code u4 group=64 symmetric search}
 * quantizes the weights in groups of 64, {@code fit} and {@code search} as {@link Quantization.Method} has them, and {@code bf16
 * 2of4} prunes them; with {@code ready} the case does, as it rounds weights to {@code f8e4m3} and
 * {@code f8e5m2}, or with {@code codes} takes any bytes.
 *
 * @param format of the packed weights: F32, BF16, F16, S8, F8E4M3, F8E5M2, or U8 where they are quantized in groups
 * @param quantization of those, else null
 * @param ready whether the weights come quantized
 * @param sparse whether they are pruned to two of four along k, in BF16
 * @param maxM rows of the plan
 * @param groups rows of each group, or null for one matrix
 * @param rowsA rows that are taken by number, or 0 for rows in order
 * @param rank of the product that is added, or 0
 * @param loraDtype of its matrices
 */
record GemmCase(DType format, @Nullable Quantization quantization, boolean ready, boolean sparse, DType in, DType out, int m, int maxM,
        int k, int n, boolean strided, boolean transposed, DType weights, boolean bias, Activation activation, boolean residual,
        boolean inplace, @Nullable List<Integer> groups, int rowsA, int rank, DType loraDtype, Values values, long seed)
        implements OperatorCase {
    /** Rounds when it is applied. */
    private static final float LORA_SCALE = 0.7f;

    private static final Map<DType, String> FORMATS = Map.of(DType.F32, "f32", DType.BF16, "bf16", DType.F16, "f16",
            DType.S8, "int8", DType.F8E4M3, "f8e4m3", DType.F8E5M2, "f8e5m2");

    static GemmCase parse(Words words) {
        Quantization quantization = quantization(words);
        DType format = quantization != null
                ? DType.U8
                : FORMATS.keySet().stream()
                        .filter(f -> words.flag(FORMATS.get(f)))
                        .findFirst()
                        .orElseThrow(() ->
                                words.wrong("the format, f32, bf16, f16, int8, f8e4m3, f8e5m2, u4 or u8, is missing"));
        boolean ready = (quantization != null || F8.is(format)) && words.flag("ready");
        boolean sparse = words.flag("2of4");
        if (sparse && format != DType.BF16) {
            throw words.wrong("'2of4' is of bf16");
        }
        DType[] types = words.gemmTypes();
        int m = words.count("m");
        GemmCase gemm = new GemmCase(format, quantization, ready, sparse, types[0], types[1], m, words.count("max", m),
                words.count("k"), words.count("n"), words.flag("strided"), words.flag("wt"), weightType(words),
                words.flag("bias"), words.oneOf(Activation.class, Activation.NONE), words.flag("residual"),
                words.flag("inplace"), words.list("groups"), words.integer("rowindex", 0), words.integer("lora", 0),
                words.type("loradtype", DType.F32, List.of(DType.F32, DType.BF16, DType.F16)),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (gemm.rowsA < 0 || gemm.rank < 0 || gemm.rank > 0 && (gemm.groups != null || gemm.rowsA > 0)) {
            throw words.wrong("a rank goes with neither groups nor an index of rows, and none is negative");
        }
        if (gemm.in == DType.U8 && (format != DType.S8 || gemm.rank > 0)) {
            throw words.wrong("u8 is the type of rows that meet weights of int8, without a rank");
        }
        if (gemm.rank == 0 && gemm.loraDtype != DType.F32) {
            throw words.wrong("'loradtype' is of 'lora', and there is none");
        }
        if (gemm.groups != null && (gemm.covered() > m || gemm.groups.stream().anyMatch(rows -> rows < 0))) {
            throw words.wrong("groups have " + m + " rows at most");
        }
        if (gemm.values == Values.CODES
                && (!ready || !F8.is(format) || gemm.groups != null || gemm.rowsA > 0 || gemm.rank > 0)) {
            throw words.wrong("'codes' are those of one matrix of FP8 that is ready, of rows in order");
        }
        if (sparse && (gemm.values == Values.NAN || gemm.values == Values.INF)) {
            throw words.wrong("pruned weights of 0 may meet what is not finite or not");
        }
        if (gemm.inplace && !gemm.residual) {
            throw words.wrong("'inplace' writes over the residual, and there is none");
        }
        return gemm;
    }

    private static DType weightType(Words words) {
        return words.flag("wbf16") ? DType.BF16 : words.flag("wf16") ? DType.F16 : DType.F32;
    }

    private static @Nullable Quantization quantization(Words words) {
        int bits = words.flag("u4") ? 4 : words.flag("u8") ? 8 : 0;
        if (bits == 0) {
            return null;
        }
        int group = words.integer("group", 32);
        if (group != 32 && group != 64 && group != 128) {
            throw words.wrong("'group' is 32, 64 or 128");
        }
        boolean symmetric = words.flag("symmetric");
        Quantization.Method method = words.flag("search")
                ? Quantization.Method.SEARCH
                : words.flag("fit") ? Quantization.Method.FIT : Quantization.Method.NEAREST;
        return new Quantization(bits, group, symmetric, method);
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("gemm").add(types()).add("m" + m).add("k" + k).add("n" + n);
        if (quantization != null) {
            name.add("group=" + quantization.groupSize());
            if (quantization.symmetric()) {
                name.add("symmetric");
            }
            switch (quantization.method()) {
                case NEAREST -> {}
                case SEARCH -> name.add("search");
                case FIT -> name.add("fit");
            }
        }
        if (ready) {
            name.add("ready");
        }
        if (sparse) {
            name.add("2of4");
        }
        Rows.describe(name, m, maxM, strided, inplace);
        if (transposed) {
            name.add("wt");
        }
        if (weights != DType.F32) {
            name.add("w" + Words.word(weights));
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
        if (groups != null) {
            name.add(groups.stream().map(String::valueOf).collect(Collectors.joining(",", "groups=", "")));
        }
        if (rowsA > 0) {
            name.add("rowindex=" + rowsA);
        }
        if (rank > 0) {
            name.add("lora=" + rank);
        }
        if (loraDtype != DType.F32) {
            name.add("loradtype=" + Words.word(loraDtype));
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "gemm";
    }

    @Override
    public String types() {
        return formatName() + " " + Words.word(in) + "->" + Words.word(out);
    }

    private String formatName() {
        return quantization != null ? "u" + quantization.bits() : FORMATS.get(format);
    }

    @Override
    public DType dtype() {
        return format;
    }

    @Override
    public boolean fillsPlan() {
        return covered() == maxM;
    }

    @Override
    public boolean degenerate() {
        return covered() == 0 || n == 0 || !bias && !residual && (k == 0 || values == Values.ZEROS);
    }

    /** Rows that are written. */
    private int covered() {
        return groups == null ? m : groups.stream().mapToInt(Integer::intValue).sum();
    }

    private int matrices() {
        return groups == null ? 1 : groups.size();
    }

    private int[] offsets() {
        int[] offsets = new int[matrices() + 1];
        for (int g = 0; g < matrices(); g++) {
            offsets[g + 1] = offsets[g] + (groups == null ? m : groups.get(g));
        }
        return offsets;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] a = activations(random, rowsA > 0 ? rowsA : m);
        float[] w = new float[matrices() * k * n];
        for (int g = 0; g < matrices(); g++) {
            System.arraycopy(weightValues(random), 0, w, g * k * n, k * n);
        }
        if (sparse) {
            prune(w);
        }
        float @Nullable [] b = bias ? Values.normal(random, DType.F32, matrices() * n, 1) : null;
        float @Nullable [] r = residual ? Values.normal(random, out, m * n, 1) : null;
        int @Nullable [] index = rowsA > 0 ? random.ints(m, 0, rowsA).toArray() : null;
        LowRank low = rank == 0
                ? null
                : new LowRank(rank, LORA_SCALE,
                        Values.normal(random, loraDtype, k * rank, 1 / Math.sqrt(Math.max(k, 1))),
                        Values.normal(random, loraDtype, rank * n, 1 / Math.sqrt(rank)));
        List<WeightQuantizer> quantized = quantization == null ? List.of() : quantize(quantization, w);
        float[] multiplied = w.clone();
        for (int g = 0; g < quantized.size(); g++) {
            System.arraycopy(quantized.get(g).weights(), 0, multiplied, g * k * n, k * n);
        }
        if (sparse) {
            for (int i = 0; i < w.length; i++) {
                multiplied[i] = Bf16.round(w[i]);
            }
        }
        DType as = quantization == null && !sparse ? format : DType.F32;
        Float8 float8 = !ready || quantization != null ? null : values == Values.CODES ? codes(random) : rounded(w);
        Expected expected = values == Values.CODES && float8 != null
                ? GemmReference.compute(m, k, n, a, F8.Weights.of(format, float8.codes, float8.scales, k), b, activation, r)
                : groups == null && index == null
                        ? GemmReference.compute(as, m, k, n, a, multiplied, low, b, activation, r)
                        : GemmReference.grouped(as, m, k, n, offsets(), index, a, multiplied, b, activation, r);
        return trial -> run(trial, a, w, quantized, float8, b, r, index, low, expected);
    }

    /** Leaves the two largest of each four along k of every matrix, which are still there when the others become 0. */
    private void prune(float[] w) {
        for (int i = 0; i < w.length; i++) {
            int p = i / n % k;
            int larger = 0;
            for (int q = p - p % 4; q < Math.min(p - p % 4 + 4, k); q++) {
                float other = Math.abs(w[i + (q - p) * n]);
                larger += other > Math.abs(w[i]) || (other == Math.abs(w[i]) && q < p) ? 1 : 0;
            }
            w[i] = larger < 2 ? w[i] : 0;
        }
    }

    /**
     * Weights in FP8 as they come from elsewhere.
     *
     * @param codes [matrices, n, k]
     * @param scales [matrices, n]
     */
    private record Float8(byte[] codes, float[] scales) {}

    private Float8 rounded(float[] w) {
        Float8 made = new Float8(new byte[matrices() * n * k], new float[matrices() * n]);
        for (int g = 0; g < matrices(); g++) {
            F8.Weights one = F8.Weights.of(format, Arrays.copyOfRange(w, g * k * n, (g + 1) * k * n), k, n);
            for (int i = 0; i < k * n; i++) {
                made.codes[(g * n + i % n) * k + i / n] = F8.bits(format, one.numbers()[i]);
            }
            System.arraycopy(one.scales(), 0, made.scales, g * n, n);
        }
        return made;
    }

    private Float8 codes(RandomGenerator random) {
        Float8 made = new Float8(new byte[n * k], new float[n]);
        random.nextBytes(made.codes);
        for (int j = 0; j < n; j++) {
            made.scales[j] = (float) ((0.5 + random.nextDouble()) / F8.largest(format));
            for (int p = j * k; p < (j + 1) * k; p++) {
                while (!Values.special(j) && !Float.isFinite(F8.value(format, made.codes[p]))) {
                    made.codes[p] = (byte) random.nextInt();
                }
            }
        }
        return made;
    }

    private List<WeightQuantizer> quantize(Quantization how, float[] w) {
        return IntStream.range(0, matrices())
                .mapToObj(g -> new WeightQuantizer(how, k, n, Arrays.copyOfRange(w, g * k * n, (g + 1) * k * n)))
                .toList();
    }

    private void run(Trial trial, float[] a, float[] w, List<WeightQuantizer> quantized, @Nullable Float8 float8,
            float @Nullable [] b, float @Nullable [] r, int @Nullable [] index, @Nullable LowRank low, Expected expected) {
        int slack = maxM - m;
        int sources = rowsA > 0 ? rowsA : m;
        Rows rows = new Rows(sources, sources + slack, k, strided);
        Rows columns = new Rows(m, maxM, n, strided);
        QuantizedRows given = in == DType.U8 ? QuantizedRows.of(a, sources, k) : null;
        Operand source = rows.input(trial, "a", in, given == null ? a : given.values);
        Operand steps = given == null ? null : trial.input("scales", DType.F32, given.scales, sources);
        Operand middles = given == null ? null : trial.input("zero_points", given.zeros, sources);
        Supplier<PackedWeights> weights = float8 != null
                ? packReady(trial, float8)
                : ready && quantization != null
                        ? packReady(trial, quantization, quantized)
                        : pack(trial, weights(trial, w));
        Operand shift = b == null
                ? null
                : trial.input("bias", DType.F32, b, groups == null ? new long[] {n} : new long[] {matrices(), n});
        Operand added = r == null ? null : columns.input(trial, "residual", out, r);
        Operand target = inplace && added != null
                ? trial.overwrite(added, columns.run(), expected)
                : columns.output(trial, "out", out, expected);
        Operand ends = groups == null
                ? null
                : trial.input("group_offsets", Arrays.stream(offsets()).asLongStream().toArray());
        Operand taken = index == null ? null : trial.input("row_index", index, m);
        Operand down = low == null ? null : trial.input("lora_a", loraDtype, low.down(), k, rank);
        Operand up = low == null ? null : trial.input("lora_b", loraDtype, low.up(), rank, n);
        Gemm description = description();
        PackedWeights packed = trial.open(weights);
        Gemm.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec(), target.spec()));
        Tensor x = source.tensor(rows.run());
        Tensor y = target.tensor(columns.run());
        Tensor z = shift == null ? null : shift.tensor();
        Tensor sum = added == null ? null : added.tensor(columns.run());
        Tensor offsets = ends == null ? null : ends.tensor();
        Tensor number = taken == null ? null : taken.tensor();
        Tensor loraA = down == null ? null : down.tensor();
        Tensor loraB = up == null ? null : up.tensor();
        Tensor scales = steps == null ? null : steps.tensor();
        Tensor zeros = middles == null ? null : middles.tensor();
        trial.execute(plan, stream -> {
            if (scales == null || zeros == null) {
                plan.run(stream, packed, x, z, sum, y, offsets, number, loraA, loraB);
            } else {
                plan.runQuantized(stream, packed, x, scales, zeros, z, sum, y, offsets, number);
            }
        });
    }

    /** Rows as an operator before would have quantized them. */
    private record QuantizedRows(float[] values, float[] scales, int[] zeros) {
        static QuantizedRows of(float[] a, int rows, int k) {
            QuantizedRows made = new QuantizedRows(new float[rows * k], new float[rows], new int[rows]);
            RowQuantizer row = new RowQuantizer(k);
            for (int i = 0; i < rows; i++) {
                if (!row.quantize(a, i * k)) {
                    made.scales[i] = Float.NaN;
                    continue;
                }
                made.scales[i] = row.scale();
                made.zeros[i] = row.zero();
                for (int p = 0; p < k; p++) {
                    made.values[i * k + p] = row.values()[p];
                }
            }
            return made;
        }
    }

    private Supplier<PackedWeights> pack(Trial trial, Operand matrix) {
        if (sparse) {
            return () -> PackedWeights.packSparse(trial.device(), matrix.hostTensor());
        }
        return () -> quantization == null
                ? PackedWeights.pack(trial.device(), format, matrix.hostTensor())
                : PackedWeights.quantize(trial.device(), quantization, matrix.hostTensor());
    }

    private Supplier<PackedWeights> packReady(Trial trial, Quantization how, List<WeightQuantizer> quantized) {
        int blocks = quantized.getFirst().blocks();
        int width = how.groupSize() * how.bits() / 8;
        int zeroWidth = how.bits() == 4 ? Math.ceilDiv(blocks, 2) : blocks;
        byte[] integers = new byte[matrices() * n * blocks * width];
        byte[] zeros = new byte[matrices() * n * zeroWidth];
        float[] scales = new float[matrices() * n * blocks];
        for (int g = 0; g < matrices(); g++) {
            WeightQuantizer one = quantized.get(g);
            System.arraycopy(one.integerBytes(), 0, integers, g * n * blocks * width, n * blocks * width);
            System.arraycopy(one.zeroBytes(), 0, zeros, g * n * zeroWidth, n * zeroWidth);
            System.arraycopy(one.scales(), 0, scales, g * n * blocks, n * blocks);
        }
        Operand bytes = trial.input("integers", integers, shape(n, blocks, width));
        Operand factors = trial.input("scales", DType.F32, scales, shape(n, blocks));
        Operand points = how.symmetric() ? null : trial.input("zero_points", zeros, shape(n, zeroWidth));
        return () -> PackedWeights.ofQuantized(trial.device(), how, k, bytes.hostTensor(), factors.hostTensor(),
                points == null ? null : points.hostTensor());
    }

    private Supplier<PackedWeights> packReady(Trial trial, Float8 float8) {
        Operand bytes = trial.input("numbers", format, float8.codes, shape(n, k));
        Operand factors = trial.input("scales", DType.F32, float8.scales, shape(n));
        return () -> PackedWeights.ofFloat8(trial.device(), bytes.hostTensor(), factors.hostTensor());
    }

    /** Of one matrix, or of all. */
    private long[] shape(long... sizes) {
        return groups == null ? sizes : LongStream.concat(LongStream.of(matrices()), LongStream.of(sizes)).toArray();
    }

    private Operand weights(Trial trial, float[] w) {
        long row = strided ? n + 3 : Math.max(n, 1);
        long[] strides = transposed ? new long[] {1, Math.max(k, 1)} : new long[] {row, 1};
        if (groups == null) {
            Operand matrix = trial.input("w", weights, new long[] {k, n}, strides);
            matrix.fill(w, k, n);
            return matrix;
        }
        long apart = Math.max(1, transposed ? (long) k * n : k * row) + (strided ? 7 : 0);
        Operand matrices = trial.input("w", weights, new long[] {matrices(), k, n},
                new long[] {apart, strides[0], strides[1]});
        matrices.fill(w, matrices(), k, n);
        return matrices;
    }

    private Gemm description() {
        Gemm plain = sparse ? Gemm.ofSparse() : quantization == null ? Gemm.of(format) : Gemm.of(quantization);
        Gemm gemm = plain.activation(activation);
        gemm = bias ? gemm.bias() : gemm;
        gemm = residual ? gemm.residual() : gemm;
        gemm = groups != null ? gemm.groups(matrices()) : gemm;
        gemm = rowsA > 0 ? gemm.rowIndex() : gemm;
        return rank > 0 ? gemm.lowRank(rank, loraDtype, LORA_SCALE) : gemm;
    }

    private float[] activations(RandomGenerator random, int rows) {
        float[] a = Values.normal(random, DType.F32, rows * k, 1);
        for (int i = 0; i < rows && k > 0; i++) {
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
        return in == DType.U8 ? a : Values.rounded(a, in);
    }

    private float activation(float value, int p, RandomGenerator random) {
        return switch (values) {
            case DENORMAL -> switch (format) {
                case F16 -> value * 1e3f;
                case F8E4M3, F8E5M2 -> p == 0 ? 0 : value;
                // BF16 may flush denormals, so there every second value is a normal number.
                case BF16 -> p % 2 == 0 ? value : value * 1e-39f;
                default -> value * 1e-39f;
            };
            case OFFSET -> value + 10;
            case LARGE -> format == DType.F16 ? value * 1e4f : value * 1e18f;
            // A scale of exactly 1, and values halfway between steps.
            case TIES -> p == 0 ? -2.5f : p == 1 ? 252.5f : random.nextInt(-2, 252) + 0.5f;
            default -> value;
        };
    }

    private float[] weightValues(RandomGenerator random) {
        double deviation = 1 / Math.sqrt(Math.max(k, 1));
        if (format == DType.F16) { // numbers below 2^-14 are its subnormal ones
            deviation *= values == Values.LARGE ? 1e4 : values == Values.DENORMAL ? 1e-5 : 1;
        } else if (values == Values.LARGE) {
            deviation *= 1e18;
        } else if (values == Values.DENORMAL && F8.is(format)) { // of a scale of 1, with the largest in the first row
            deviation = format == DType.F8E4M3 ? 0x1p-7 : 0x1p-15;
        } else if (values == Values.DENORMAL && format != DType.BF16) {
            deviation *= 2e37;
        }
        float[] w = Values.normal(random, weights, k * n, deviation);
        if (values == Values.DENORMAL && F8.is(format) && k > 0) {
            Arrays.fill(w, 0, n, F8.largest(format));
        }
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
