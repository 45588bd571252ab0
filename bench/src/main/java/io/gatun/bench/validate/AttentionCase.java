package io.gatun.bench.validate;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.AttentionReference;
import io.gatun.bench.reference.AttentionReference.Cache;
import io.gatun.bench.reference.AttentionReference.Pattern;
import io.gatun.bench.reference.AttentionReference.Sequence;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.validate.AttentionOptions.Bias;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.StringJoiner;
import java.util.function.Consumer;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Attention: {@code attention bf16 b2 q33 k65 hq4 hk2 dk64 dv32 window=15,0 scale=0.5 hnd slack lse qlen=33,0 klen=65,7
 * kv=s8 out=f32 seed=1}, and the words of {@link AttentionOptions}.
 *
 * <p>{@code packed} runs sequences of the lengths qlen and klen one after another, where q and k are the numbers of
 * tokens and so at least their sums; where keys are paged, k is the most keys that a sequence may have. {@code slack}
 * makes every maximum of the plan larger than the run. {@code random=17} stands for a combination of everything.
 *
 * @param kv the type of keys and values
 * @param outType the type of the output
 * @param left keys to the left that a query sees, -1 for all
 * @param right keys to the right that a query sees, -1 for all
 * @param scale of the scores, NaN for the usual one
 */
record AttentionCase(DType dtype, DType kv, DType outType, int batch, int lenQ, int lenK, int headsQ, int headsK,
        int dk, int dv, long left, long right, float scale, Layout layout, boolean packed,
        @Nullable List<Integer> lengthsQ, @Nullable List<Integer> lengthsK, boolean lse, boolean slack, Values values,
        AttentionOptions options, long seed) implements OperatorCase {

    /** How heads and tokens lie in memory. */
    enum Layout {
        /** Token after token, each with its heads; the usual order, which goes unsaid. */
        NHD,
        /** Head after head, each with its tokens. */
        HND,
        /** As NHD, with gaps after heads, tokens and sequences. */
        PADDED,
        /** Query, key and value of a token beside each other in one tensor: what one projection gives. */
        QKV,
        /** The values are the first part of the keys. */
        VIEW
    }

    static AttentionCase parse(Words words) {
        String random = words.value("random");
        if (random != null) {
            boolean small = words.flag("small");
            AttentionCase drawn = RandomAttention.draw(words.whole("random", random), small, words.seed());
            words.end();
            return drawn;
        }
        DType dtype = words.type();
        DType kv = words.type("kv", dtype, List.of(DType.F32, DType.BF16, DType.F16, DType.S8));
        DType outType = words.type("out", dtype, List.of(DType.F32, dtype));
        boolean packed = words.flag("packed");
        List<Integer> lengthsQ = words.list("qlen");
        List<Integer> lengthsK = words.list("klen");
        int batch = words.count("b", packed && lengthsQ != null ? lengthsQ.size() : 1);
        int headsQ = words.count("hq");
        int headsK = words.count("hk", headsQ);
        int dk = words.count("dk");
        long left = -1;
        long right = -1;
        String window = words.value("window");
        if (window != null) {
            String[] sides = window.split(",");
            if (sides.length != 2) {
                throw words.wrong("window=" + window + ", expected two numbers, such as window=15,0");
            }
            left = words.whole("window", sides[0]);
            right = words.whole("window", sides[1]);
        } else if (words.flag("causal")) {
            right = 0;
        } else {
            words.flag("dense");
        }
        AttentionOptions options = AttentionOptions.parse(words);
        AttentionCase attention = new AttentionCase(dtype, kv, outType, batch, words.count("q"), words.count("k"),
                headsQ, headsK, dk, words.count("dv", dk), left, right, words.real("scale", Float.NaN),
                words.oneOf(Layout.class, Layout.NHD), packed, lengthsQ, lengthsK, words.flag("lse"),
                words.flag("slack"), words.oneOf(Values.class, Values.NORMAL), options, words.seed());
        words.end();
        attention.check(words);
        return attention;
    }

    private void check(Words words) {
        if (packed && (lengthsQ == null || lengthsK == null)) {
            throw words.wrong("packed sequences need qlen and klen");
        }
        if (lengthsQ != null && lengthsQ.size() != batch || lengthsK != null && lengthsK.size() != batch) {
            throw words.wrong("expected as many lengths as there are sequences, " + batch);
        }
        if (headsK == 0 || headsQ % headsK != 0) {
            throw words.wrong("expected heads of keys that divide the heads of queries");
        }
        if (layout == Layout.QKV && (lenQ != lenK || slack || options.paged() || kv != dtype)) {
            throw words.wrong("qkv needs as many keys as queries, of their type, in no pages, and no slack");
        }
        if (layout == Layout.VIEW && dv > dk) {
            throw words.wrong("a view needs values no longer than keys");
        }
        options.check(words, headsQ, headsK);
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("attention").add(Words.word(dtype));
        if (!packed) {
            name.add("b" + batch);
        }
        name.add("q" + lenQ).add("k" + lenK).add("hq" + headsQ).add("hk" + headsK).add("dk" + dk);
        if (dv != dk) {
            name.add("dv" + dv);
        }
        name.add(left < 0 && right < 0 ? "dense" : left < 0 && right == 0 ? "causal" : "window=" + left + "," + right);
        if (!Float.isNaN(scale)) {
            name.add("scale=" + scale);
        }
        if (layout != Layout.NHD) {
            name.add(Words.word(layout));
        }
        if (packed) {
            name.add("packed");
        }
        if (lengthsQ != null) {
            name.add("qlen=" + text(lengthsQ));
        }
        if (lengthsK != null) {
            name.add("klen=" + text(lengthsK));
        }
        if (lse) {
            name.add("lse");
        }
        if (slack) {
            name.add("slack");
        }
        if (kv != dtype) {
            name.add("kv=" + Words.word(kv));
        }
        if (outType != dtype) {
            name.add("out=" + Words.word(outType));
        }
        options.describe(name);
        return Rows.end(name, values, seed);
    }

    private static String text(List<Integer> lengths) {
        return lengths.stream().map(String::valueOf).collect(Collectors.joining(","));
    }

    @Override
    public String operator() {
        return "attention";
    }

    @Override
    public String types() {
        return Words.word(dtype) + (kv == dtype ? "" : " " + Words.word(kv));
    }

    @Override
    public boolean fillsPlan() {
        return !slack && lengthsQ == null && lengthsK == null && options.fixed();
    }

    /** What lists and labels hide is chance: a case in which they leave nothing shows nothing, and is not excused. */
    @Override
    public boolean degenerate() {
        AttentionReference window = new AttentionReference(1, 1, dk, dv, 1)
                .patterns(List.of(options.perHead() ? Pattern.DENSE : Pattern.window(left, right)));
        for (int b = 0; b < batch; b++) {
            Sequence sequence = new Sequence(0, lengthQ(b), 0, lengthK(b));
            if (anySeen(window, 1, sequence)) {
                return headsQ == 0 || dv == 0;
            }
        }
        return true;
    }

    /** Whether some query sees some key, and no bias masks it. */
    boolean anySeen() {
        AttentionReference reference = reference();
        return new AttentionArrays(this).sequences().stream().anyMatch(one -> anySeen(reference, headsQ, one));
    }

    private static boolean anySeen(AttentionReference reference, int heads, Sequence sequence) {
        for (int head = 0; head < heads; head++) {
            for (int i = sequence.lenQ() - 1; i >= 0; i--) {
                for (int j = 0; j < sequence.lenK(); j++) {
                    if (reference.sees(sequence, head, i, j) && !reference.masked(sequence, head, i, j)) {
                        return true;
                    }
                }
            }
        }
        return false;
    }

    private AttentionReference reference() {
        float factor = Float.isNaN(scale) ? (float) (1 / Math.sqrt(Math.max(1, dk))) : scale;
        return new AttentionReference(headsQ, headsK, dk, dv, factor)
                .patterns(patterns())
                .blocks(options.blockQ(), options.blockK())
                .softcap(options.softcap())
                .selfBias(options.selfBias())
                .sinkLogits(sinkLogits())
                .slopes(slopes());
    }

    private List<Pattern> patterns() {
        return options.patterns(left, right, headsQ, new SplittableRandom(seed));
    }

    /** Some of them are above all scores, some below. */
    private float @Nullable [] sinkLogits() {
        return options.sinkLogits() ? Values.normal(new SplittableRandom(seed), DType.F32, headsQ, 3) : null;
    }

    /** The slopes of ALiBi: a geometric sequence from head to head. */
    private float @Nullable [] slopes() {
        if (!options.slopes()) {
            return null;
        }
        float[] slopes = new float[headsQ];
        for (int head = 0; head < headsQ; head++) {
            slopes[head] = (float) Math.pow(2, -8.0 * (head + 1) / headsQ);
        }
        return slopes;
    }

    int lengthQ(int sequence) {
        return lengthsQ == null ? lenQ : lengthsQ.get(sequence);
    }

    int lengthK(int sequence) {
        return lengthsK == null ? lenK : lengthsK.get(sequence);
    }

    /** The plan's queries of a sequence, or tokens. */
    int plannedQ() {
        return lenQ + (slack ? 3 : 0);
    }

    /** The plan's keys of a sequence, or tokens. */
    int plannedK() {
        return lenK + (slack ? 5 : 0);
    }

    private int tokensQ() {
        return packed ? lenQ : batch * lenQ;
    }

    /** Rows of keys and values. */
    private int rowsK(AttentionArrays arrays) {
        return options.paged() ? arrays.pages() * options.pageSize() : packed ? lenK : batch * lenK;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        AttentionReference reference = reference();
        AttentionArrays arrays = new AttentionArrays(this);
        List<Sequence> sequences = arrays.sequences();
        boolean denormal = values == Values.DENORMAL;
        double sizeQ = denormal ? dtype == DType.F16 ? 3e-6 : 1e-39 : values == Values.LARGE ? 30 : 1;
        double sizeK = denormal ? dtype == DType.F16 ? 1e4 : 2e37 : 1;
        int rows = rowsK(arrays);
        float[] q = Values.normal(random, dtype, tokensQ() * headsQ * dk, sizeQ);
        float[] k = Values.normal(random, kv, rows * headsK * dk, sizeK);
        float[] v = Values.normal(random, kv, rows * headsK * dv, 1);
        special(sequences, random, q, k, v);
        hide(reference, sequences, k, v);
        if (values == Values.HIDDEN && options.bias() != null) {
            arrays.hideBias(reference);
        }
        float[] scalesK = kv == DType.S8 ? quantize(k, dk) : null;
        float[] scalesV = kv == DType.S8 ? quantize(v, dv) : null;
        if (layout == Layout.VIEW) {
            for (int row = 0; row < rows * headsK; row++) {
                System.arraycopy(k, row * dk, v, row * dv, dv);
            }
            scalesV = scalesK == null ? null : scalesK.clone();
        }
        Cache cache = new Cache(k, v, scalesK, scalesV);
        AttentionReference.Result result = reference.compute(tokensQ(), sequences, q, cache);
        return trial -> new Operands(trial, arrays).run(q, cache, result);
    }

    private void special(List<Sequence> sequences, RandomGenerator random, float[] q, float[] k, float[] v) {
        switch (values) {
            case ZEROS -> Arrays.fill(q, 0);
            case OFFSET -> {
                for (int i = 0; i < v.length; i++) {
                    v[i] += 100;
                }
                for (int i = 0; i < k.length; i++) {
                    k[i] += 4;
                }
                System.arraycopy(Values.rounded(v, kv), 0, v, 0, v.length);
                System.arraycopy(Values.rounded(k, kv), 0, k, 0, k.length);
            }
            case NAN -> {
                for (int token = 0; token < tokensQ(); token++) {
                    if (Values.special(token)) {
                        q[(token * headsQ + random.nextInt(headsQ)) * dk + random.nextInt(dk)] = Float.NaN;
                    }
                }
            }
            case NANV -> {
                for (Sequence sequence : sequences) {
                    if (sequence.lenK() > 0) {
                        int row = sequence.rowK(sequence.lenK() / 2);
                        v[row * headsK * dv] = Float.NaN;
                        v[row * headsK * dv + dv - 1] = Float.POSITIVE_INFINITY;
                    }
                }
            }
            default -> {}
        }
    }

    /** Makes keys and values that are in no sequence NaN, and with HIDDEN those that no query sees. */
    private void hide(AttentionReference reference, List<Sequence> sequences, float[] k, float[] v) {
        boolean[] keep = new boolean[dk > 0 ? k.length / dk : dv > 0 ? v.length / dv : 0];
        for (Sequence sequence : sequences) {
            for (int j = 0; j < sequence.lenK(); j++) {
                for (int head = 0; head < headsQ; head++) {
                    int row = sequence.rowK(j) * headsK + head / (headsQ / headsK);
                    keep[row] |= values != Values.HIDDEN;
                    for (int i = 0; i < sequence.lenQ() && !keep[row]; i++) {
                        keep[row] = reference.sees(sequence, head, i, j);
                    }
                }
            }
        }
        for (int row = 0; row < keep.length; row++) {
            if (!keep[row]) {
                Arrays.fill(k, row * dk, (row + 1) * dk, Float.NaN);
                Arrays.fill(v, row * dv, (row + 1) * dv, Float.NaN);
            }
        }
    }

    /** Makes each row integers of at most 127 and gives their scales; those of a row that is not finite are NaN. */
    private static float[] quantize(float[] values, int size) {
        float[] scales = new float[size == 0 ? 0 : values.length / size];
        for (int row = 0; row < scales.length; row++) {
            float largest = 0;
            for (int d = 0; d < size; d++) {
                largest = Math.max(largest, Math.abs(values[row * size + d]));
            }
            scales[row] = Float.isFinite(largest) ? largest / 127 : Float.NaN;
            for (int d = 0; d < size; d++) {
                float step = values[row * size + d] / scales[row];
                values[row * size + d] = Float.isFinite(step) ? (float) Math.rint(step) : 0;
            }
        }
        return scales;
    }

    /** The plan and the operands of one trial. */
    private final class Operands {
        private final Trial trial;
        private final AttentionArrays arrays;

        Operands(Trial trial, AttentionArrays arrays) {
            this.trial = trial;
            this.arrays = arrays;
        }

        void run(float[] q, Cache cache, AttentionReference.Result result) {
            long width = (long) headsQ * dk + (long) headsK * (dk + dv);
            long[] whole = shape(lenQ, 1, (int) width, 0);
            Operand all = layout == Layout.QKV ? trial.input("qkv", dtype, whole, Operand.rowMajor(whole)) : null;
            Operand query = all == null
                    ? trial.input("q", dtype, shapeQ(true, dk), strides(shapeQ(true, dk)))
                    : projected(all, "q", 0, headsQ, dk, width);
            Operand key = all == null
                    ? trial.input("k", kv, shapeK(true, dk), strides(shapeK(true, dk)))
                    : projected(all, "k", (long) headsQ * dk, headsK, dk, width);
            Operand value = all != null
                    ? projected(all, "v", (long) (headsQ + headsK) * dk, headsK, dv, width)
                    : layout == Layout.VIEW
                            ? key.view("v", 0, shapeK(true, dv), key.spec().strides())
                            : trial.input("v", kv, shapeK(true, dv), strides(shapeK(true, dv)));
            query.fill(q, shapeQ(false, dk));
            key.fill(cache.k(), shapeK(false, dk));
            if (layout != Layout.VIEW) {
                value.fill(cache.v(), shapeK(false, dv));
            }
            long[] outShape = shapeQ(true, dv);
            Operand out = trial.output("out", outType, outShape, strides(outShape), shapeQ(false, dv), result.out());
            Operand sums = lse ? lse(result.lse()) : null;
            Operand indexQ = lengthsQ == null && !packed ? null : trial.input("q_index", index(false));
            Operand indexK = lengthsK == null && !options.paged() ? null : trial.input("k_index", index(true));
            TensorSpec bias = options.bias() == null ? null : biasSpec(arrays.shapeOfBias());
            Attention description = description(bias);
            Attention.Plan plan = trial.open(
                    () -> description.plan(trial.device(), query.spec(), key.spec(), value.spec(), out.spec()));
            Tensor x = query.tensor(shapeQ(false, dk));
            Tensor y = key.tensor(shapeK(false, dk));
            Tensor z = value.tensor(shapeK(false, dv));
            Tensor o = out.tensor(shapeQ(false, dv));
            Tensor offsetsQ = indexQ == null ? null : indexQ.tensor();
            Tensor offsetsK = indexK == null ? null : indexK.tensor();
            Tensor l = sums == null ? null : sums.tensor();
            if (options.plain() && kv != DType.S8) {
                trial.execute(plan, stream -> plan.run(stream, x, y, z, o, offsetsQ, offsetsK, l));
                return;
            }
            Attention.Arrays run = new Attention.Arrays()
                    .q(x).k(y).v(z).out(o).qIndex(offsetsQ).kIndex(offsetsK).lse(l);
            arrays(run, cache, bias);
            trial.execute(plan, stream -> plan.run(stream, run));
        }

        private void arrays(Attention.Arrays run, Cache cache, @Nullable TensorSpec bias) {
            int sequences = batch;
            if (options.paged()) {
                run.lenK(lenK);
                give(run::blockTable, "block_table", arrays.blockTable(), sequences,
                        AttentionArrays.ceil(plannedK(), options.pageSize()));
            }
            if (cache.scalesK() != null && cache.scalesV() != null) {
                run.kScales(scales("k_scales", cache.scalesK()));
                run.vScales(scales("v_scales", cache.scalesV()));
            }
            give(run::sinkLogits, "sink_logits", sinkLogits(), headsQ);
            give(run::slopes, "slopes", slopes(), headsQ);
            if (bias != null) {
                run.bias(bias(bias));
            }
            if (options.prefix()) {
                run.prefixes(trial.input("prefixes", arrays.prefixes()).tensor());
            }
            if (options.globals() > 0) {
                give(run::globals, "globals", arrays.globals(), sequences, arrays.maxGlobals());
            }
            if (options.documents()) {
                int layers = options.documentLayers();
                int heads = options.documentHeads();
                give(run::qDocuments, "q_documents", arrays.documentsQ(), alongTokens(false, layers, heads));
                give(run::kDocuments, "k_documents", arrays.documentsK(), alongTokens(true, layers, heads));
            }
            if (options.tree()) {
                run.tree(trial.input("tree", arrays.tree(), sequences, arrays.maxTree(), arrays.maxTree()).tensor());
            }
            if (options.blocks()) {
                run.blockOffsets(trial.input("block_offsets", arrays.blockOffsets()).tensor());
                give(run::blockColumns, "block_columns", arrays.blockColumns(), arrays.maxBlocks());
            }
            if (options.blockMasks()) {
                give(run::blockMaskIndex, "block_mask_index", arrays.blockMaskIndex(), arrays.maxBlocks());
                run.blockMasks(trial.input("block_masks", arrays.blockMasks(), arrays.maxMasks(), options.blockQ(),
                        options.blockK()).tensor());
            }
            if (options.blockBias()) {
                give(run::blockBias, "block_bias", arrays.blockBias(), arrays.maxBlocks());
            }
            if (options.orderHeads() > 0) {
                give(run::qOrder, "q_order", arrays.orderQ(), alongTokens(false, options.orderHeads()));
                give(run::kOrder, "k_order", arrays.orderK(), alongTokens(true, options.orderHeads()));
            }
        }

        private void give(Consumer<Tensor> taker, String name, int[] content, long... shape) {
            taker.accept(trial.input(name, content, shape).tensor());
        }

        private void give(Consumer<Tensor> taker, String name, float @Nullable [] content, long... shape) {
            if (content != null) {
                taker.accept(trial.input(name, DType.F32, content, shape).tensor());
            }
        }

        /** The shape of an array for the tokens of each sequence, or of all: the lengths are the plan's. */
        private long[] alongTokens(boolean keys, long... rows) {
            boolean together = packed && !(keys && options.paged());
            long[] shape = new long[rows.length + (together ? 1 : 2)];
            shape[0] = batch;
            System.arraycopy(rows, 0, shape, together ? 0 : 1, rows.length);
            shape[shape.length - 1] = keys ? plannedK() : plannedQ();
            return shape;
        }

        /** The scales of all rows of the run, in an array as long as the plan's rows. */
        private Tensor scales(String name, float[] content) {
            long[] planned = shapeK(true, 1);
            long[] run = shapeK(false, 1);
            if (!options.paged() && !packed) {
                planned[0] = batch;
            }
            long[] shape = Arrays.copyOf(planned, planned.length - 1);
            Operand operand = trial.input(name, DType.F32, shape, Operand.rowMajor(shape));
            operand.fill(content, Arrays.copyOf(run, run.length - 1));
            return operand.tensor();
        }

        private TensorSpec biasSpec(long[] shape) {
            return TensorSpec.of(options.bias() == Bias.TYPED ? dtype : DType.F32, shape)
                    .withStrides(arrays.biasStrides());
        }

        private Tensor bias(TensorSpec planned) {
            float[] content = arrays.biasValues();
            Operand operand = trial.input("bias", planned.dtype(), content, content.length);
            return operand.view("bias", 0, planned.shape(), planned.strides()).tensor();
        }

        private Attention description(@Nullable TensorSpec bias) {
            List<Pattern> patterns = patterns();
            Attention attention = options.perHead()
                    ? Attention.heads(patterns.stream().map(this::description).toArray(Attention[]::new))
                    : description(patterns.getFirst());
            attention = Float.isNaN(scale) ? attention : attention.scale(scale);
            attention = packed ? attention.packed(batch + (slack ? 2 : 0)) : attention;
            attention = options.orderHeads() > 0 ? attention.order(options.orderHeads()) : attention;
            attention = options.sinkLogits() ? attention.sinkLogits() : attention;
            attention = options.slopes() ? attention.slopes() : attention;
            attention = bias != null ? attention.bias(bias) : attention;
            attention = options.softcap() != 0 ? attention.softcap(options.softcap()) : attention;
            attention = options.selfBias() != 0 ? attention.selfBias(options.selfBias()) : attention;
            return options.paged() ? attention.paged(plannedK()) : attention;
        }

        private Attention description(Pattern pattern) {
            Attention attention = pattern.right() == 0
                    ? pattern.left() < 0 ? Attention.causal() : Attention.causal().window(pattern.left())
                    : pattern.left() < 0 && pattern.right() < 0
                            ? Attention.dense()
                            : Attention.dense().window(pattern.left(), pattern.right());
            attention = pattern.sinks() > 0 ? attention.sinks(pattern.sinks()) : attention;
            attention = pattern.dilation() > 1 ? attention.dilation(pattern.dilation()) : attention;
            attention = pattern.prefix() ? attention.prefix() : attention;
            attention = pattern.globals() ? attention.globals(arrays.maxGlobals()) : attention;
            attention = pattern.documents()
                    ? attention.documents(options.documentHeads(), options.documentLayers())
                    : attention;
            attention = pattern.tree() ? attention.tree(arrays.maxTree()) : attention;
            if (pattern.blocks()) {
                attention = attention.blocks(options.blockQ(), options.blockK(), options.blockHeads(),
                        arrays.maxBlocks());
                attention = options.blockMasks() ? attention.blockMasks(arrays.maxMasks()) : attention;
                attention = options.blockBias() ? attention.blockBias() : attention;
            }
            return attention;
        }

        private long[] shapeQ(boolean planned, int size) {
            return shape(lenQ, headsQ, size, planned && slack ? 3 : 0);
        }

        private long[] shapeK(boolean planned, int size) {
            return options.paged()
                    ? new long[] {arrays.pages(), options.pageSize(), headsK, size}
                    : shape(lenK, headsK, size, planned && slack ? 5 : 0);
        }

        /** The shape of q, k, v or out, with {@code more} tokens and, when there are more, a sequence more. */
        private long[] shape(int length, int heads, int size, int more) {
            return packed
                    ? new long[] {length + more, heads, size}
                    : new long[] {batch + (more > 0 ? 1 : 0), length + more, heads, size};
        }

        private Operand projected(Operand all, String name, long offset, int heads, int size, long width) {
            long[] strides = packed ? new long[] {width, size, 1} : new long[] {lenQ * width, width, size, 1};
            return all.view(name, offset, shape(lenQ, heads, size, 0), strides);
        }

        private long[] strides(long[] shape) {
            int rank = shape.length;
            long length = shape[rank - 3];
            long heads = shape[rank - 2];
            long size = shape[rank - 1];
            long[] strides = switch (layout) {
                case HND -> new long[] {heads * length * size, size, length * size, 1};
                case PADDED -> new long[] {length * (heads * (size + 3) + 5) + 7, heads * (size + 3) + 5, size + 3, 1};
                default -> new long[] {length * heads * size, heads * size, size, 1};
            };
            return rank == 3 ? Arrays.copyOfRange(strides, 1, 4) : strides;
        }

        /** Offsets of packed tokens, else lengths. */
        private long[] index(boolean keys) {
            boolean offsets = packed && !(keys && options.paged());
            long[] index = new long[batch + (offsets ? 1 : 0)];
            for (int b = 0; b < batch; b++) {
                int length = keys ? lengthK(b) : lengthQ(b);
                if (offsets) {
                    index[b + 1] = index[b] + length;
                } else {
                    index[b] = length;
                }
            }
            return index;
        }

        private Operand lse(Expected tokens) {
            Expected expected = byHead(tokens, packed ? 1 : batch, headsQ, plannedQ());
            long[] shape = packed ? new long[] {headsQ, plannedQ()} : new long[] {batch, headsQ, plannedQ()};
            return trial.output("lse", DType.F32, shape, Operand.rowMajor(shape), shape, expected);
        }
    }

    /**
     * Log-sum-exps as a run writes them: head after head, with rows as long as the plan's queries; what is beyond a
     * sequence's own length is not to be touched.
     *
     * @param tokens [sequences, length, heads]
     */
    static Expected byHead(Expected tokens, int sequences, int heads, int row) {
        Expected expected = Expected.of(sequences * heads * row, tokens.rows());
        Arrays.fill(expected.bound(), Expected.UNTOUCHED);
        int length = sequences * heads == 0 ? 0 : tokens.value().length / heads / sequences;
        for (int from = 0; from < tokens.value().length; from++) {
            int i = from / heads % length;
            int to = (from / heads / length * heads + from % heads) * row + i;
            expected.value()[to] = tokens.value()[from];
            expected.bound()[to] = tokens.bound()[from];
            expected.naive()[to] = tokens.naive()[from];
        }
        return expected;
    }
}
