package io.gatun.bench.validate;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Tensor;
import io.gatun.bench.reference.AttentionReference;
import io.gatun.bench.reference.AttentionReference.Sequence;
import io.gatun.bench.reference.Expected;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Attention: {@code attention bf16 b2 q33 k65 hq4 hk2 dk64 dv32 window=15,0 scale=0.5 hnd slack lse qlen=33,0 klen=65,7
 * seed=1}.
 *
 * <p>{@code packed} runs sequences of the lengths qlen and klen one after another, where q and k are the numbers of
 * tokens and so at least their sums. {@code slack} makes every maximum of the plan larger than the run.
 *
 * @param left keys to the left that a query sees, -1 for all
 * @param right keys to the right that a query sees, -1 for all
 * @param scale of the scores, NaN for the usual one
 */
record AttentionCase(DType dtype, int batch, int lenQ, int lenK, int headsQ, int headsK, int dk, int dv, long left,
        long right, float scale, Layout layout, boolean packed, @Nullable List<Integer> lengthsQ,
        @Nullable List<Integer> lengthsK, boolean lse, boolean slack, Values values, long seed)
        implements OperatorCase {

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
        DType dtype = words.type();
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
            left = Long.parseLong(sides[0]);
            right = Long.parseLong(sides[1]);
        } else if (words.flag("causal")) {
            right = 0;
        } else {
            words.flag("dense");
        }
        AttentionCase attention = new AttentionCase(dtype, batch, words.count("q"), words.count("k"), headsQ, headsK,
                dk, words.count("dv", dk), left, right, words.real("scale", Float.NaN),
                words.oneOf(Layout.class, Layout.NHD), packed, lengthsQ, lengthsK, words.flag("lse"),
                words.flag("slack"), words.oneOf(Values.class, Values.NORMAL), words.seed());
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
        if (layout == Layout.QKV && (lenQ != lenK || slack)) {
            throw words.wrong("qkv needs as many keys as queries, and no slack");
        }
        if (layout == Layout.VIEW && dv > dk) {
            throw words.wrong("a view needs values no longer than keys");
        }
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("attention").add(types());
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
        return Words.word(dtype);
    }

    @Override
    public boolean fillsPlan() {
        return !slack && lengthsQ == null && lengthsK == null;
    }

    @Override
    public boolean degenerate() {
        AttentionReference reference = reference();
        for (Sequence sequence : sequences()) {
            for (int i = 0; i < sequence.lenQ(); i++) {
                for (int j = 0; j < sequence.lenK(); j++) {
                    if (reference.sees(sequence, i, j)) {
                        return headsQ == 0 || dv == 0;
                    }
                }
            }
        }
        return true; // no query sees a key
    }

    private AttentionReference reference() {
        float factor = Float.isNaN(scale) ? (float) (1 / Math.sqrt(dk)) : scale;
        return new AttentionReference(headsQ, headsK, dk, dv, left, right, factor);
    }

    private List<Sequence> sequences() {
        List<Sequence> sequences = new ArrayList<>();
        int fromQ = 0;
        int fromK = 0;
        for (int b = 0; b < batch; b++) {
            int q = lengthsQ == null ? lenQ : lengthsQ.get(b);
            int k = lengthsK == null ? lenK : lengthsK.get(b);
            sequences.add(new Sequence(packed ? fromQ : b * lenQ, q, packed ? fromK : b * lenK, k));
            fromQ += q;
            fromK += k;
        }
        return sequences;
    }

    private int tokensQ() {
        return packed ? lenQ : batch * lenQ;
    }

    private int tokensK() {
        return packed ? lenK : batch * lenK;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        AttentionReference reference = reference();
        List<Sequence> sequences = sequences();
        double sizeQ = values == Values.DENORMAL ? 1e-39 : values == Values.LARGE ? 30 : 1;
        double sizeK = values == Values.DENORMAL ? 2e37 : 1;
        float[] q = Values.normal(random, dtype, tokensQ() * headsQ * dk, sizeQ);
        float[] k = Values.normal(random, dtype, tokensK() * headsK * dk, sizeK);
        float[] v = Values.normal(random, dtype, tokensK() * headsK * dv, 1);
        special(reference, sequences, random, q, k, v);
        if (layout == Layout.VIEW) {
            for (int row = 0; row < tokensK() * headsK; row++) {
                System.arraycopy(k, row * dk, v, row * dv, dv);
            }
        }
        AttentionReference.Result result = reference.compute(tokensQ(), sequences, q, k, v);
        return trial -> run(trial, q, k, v, result);
    }

    private void special(AttentionReference reference, List<Sequence> sequences, RandomGenerator random, float[] q,
            float[] k, float[] v) {
        switch (values) {
            case ZEROS -> Arrays.fill(q, 0);
            case OFFSET -> {
                for (int i = 0; i < v.length; i++) {
                    v[i] += 100;
                }
                for (int i = 0; i < k.length; i++) {
                    k[i] += 4;
                }
                System.arraycopy(Values.rounded(v, dtype), 0, v, 0, v.length);
                System.arraycopy(Values.rounded(k, dtype), 0, k, 0, k.length);
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
                    int token = sequence.fromK() + sequence.lenK() / 2;
                    if (sequence.lenK() > 0) {
                        v[token * headsK * dv] = Float.NaN;
                        v[token * headsK * dv + dv - 1] = Float.POSITIVE_INFINITY;
                    }
                }
            }
            default -> {}
        }
        hide(reference, sequences, k, v);
    }

    /** Makes keys and values that are in no sequence NaN, and with HIDDEN those that no query sees. */
    private void hide(AttentionReference reference, List<Sequence> sequences, float[] k, float[] v) {
        boolean[] keep = new boolean[tokensK()];
        for (Sequence sequence : sequences) {
            for (int j = 0; j < sequence.lenK(); j++) {
                boolean seen = values != Values.HIDDEN;
                for (int i = 0; i < sequence.lenQ() && !seen; i++) {
                    seen = reference.sees(sequence, i, j);
                }
                keep[sequence.fromK() + j] = seen;
            }
        }
        for (int token = 0; token < keep.length; token++) {
            if (!keep[token]) {
                Arrays.fill(k, token * headsK * dk, (token + 1) * headsK * dk, Float.NaN);
                Arrays.fill(v, token * headsK * dv, (token + 1) * headsK * dv, Float.NaN);
            }
        }
    }

    private void run(Trial trial, float[] q, float[] k, float[] v, AttentionReference.Result result) {
        long width = (long) headsQ * dk + (long) headsK * (dk + dv);
        long[] whole = shape(lenQ, 1, (int) width, 0);
        Operand all = layout == Layout.QKV ? trial.input("qkv", dtype, whole, Operand.rowMajor(whole)) : null;
        Operand query = all == null
                ? operand(trial, "q", lenQ, headsQ, dk)
                : projected(all, "q", 0, headsQ, dk, width);
        Operand key = all == null
                ? operand(trial, "k", lenK, headsK, dk)
                : projected(all, "k", (long) headsQ * dk, headsK, dk, width);
        Operand value = all != null
                ? projected(all, "v", (long) (headsQ + headsK) * dk, headsK, dv, width)
                : layout == Layout.VIEW
                        ? key.view("v", 0, shape(lenK, headsK, dv, slackK()), key.spec().strides())
                        : operand(trial, "v", lenK, headsK, dv);
        query.fill(q, shape(lenQ, headsQ, dk, 0));
        key.fill(k, shape(lenK, headsK, dk, 0));
        if (layout != Layout.VIEW) {
            value.fill(v, shape(lenK, headsK, dv, 0));
        }
        long[] outShape = shape(lenQ, headsQ, dv, slackQ());
        Operand out = trial.output("out", dtype, outShape, strides(outShape), shape(lenQ, headsQ, dv, 0), result.out());
        Operand sums = lse ? lse(trial, result.lse()) : null;
        Operand indexQ = lengthsQ == null ? null : trial.input("q_index", index(lengthsQ));
        Operand indexK = lengthsK == null ? null : trial.input("k_index", index(lengthsK));
        Attention attention = left < 0 && right < 0
                ? Attention.dense()
                : left < 0 && right == 0 ? Attention.causal() : Attention.dense().window(left, right);
        attention = Float.isNaN(scale) ? attention : attention.scale(scale);
        Attention description = packed ? attention.packed(batch + (slack ? 2 : 0)) : attention;
        Attention.Plan plan = trial.open(
                () -> description.plan(trial.device(), query.spec(), key.spec(), value.spec(), out.spec()));
        Tensor x = query.tensor(shape(lenQ, headsQ, dk, 0));
        Tensor y = key.tensor(shape(lenK, headsK, dk, 0));
        Tensor z = value.tensor(shape(lenK, headsK, dv, 0));
        Tensor o = out.tensor(shape(lenQ, headsQ, dv, 0));
        Tensor lengthsOfQ = indexQ == null ? null : indexQ.tensor();
        Tensor lengthsOfK = indexK == null ? null : indexK.tensor();
        Tensor l = sums == null ? null : sums.tensor();
        trial.execute(plan, stream -> plan.run(stream, x, y, z, o, lengthsOfQ, lengthsOfK, l));
    }

    private int slackQ() {
        return slack ? 3 : 0;
    }

    private int slackK() {
        return slack ? 5 : 0;
    }

    /** The shape of q, k, v or out, with {@code more} tokens and, when there are more, a sequence more. */
    private long[] shape(int length, int heads, int size, int more) {
        return packed
                ? new long[] {length + more, heads, size}
                : new long[] {batch + (more > 0 ? 1 : 0), length + more, heads, size};
    }

    private Operand operand(Trial trial, String name, int length, int heads, int size) {
        long[] shape = shape(length, heads, size, name.equals("q") ? slackQ() : slackK());
        return trial.input(name, dtype, shape, strides(shape));
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
        return packed ? Arrays.copyOfRange(strides, 1, 4) : strides;
    }

    private long[] index(List<Integer> lengths) {
        if (!packed) {
            return lengths.stream().mapToLong(Integer::longValue).toArray();
        }
        long[] offsets = new long[lengths.size() + 1];
        for (int b = 0; b < lengths.size(); b++) {
            offsets[b + 1] = offsets[b] + lengths.get(b);
        }
        return offsets;
    }

    /**
     * The log-sum-exps lie head after head, with rows as long as the plan's queries; what is beyond a sequence's own
     * length is not to be touched.
     */
    private Operand lse(Trial trial, Expected tokens) {
        int sequences = packed ? 1 : batch;
        int row = lenQ + slackQ();
        Expected expected = Expected.of(sequences * headsQ * row, tokens.rows());
        Arrays.fill(expected.bound(), Expected.UNTOUCHED);
        for (int b = 0; b < sequences; b++) {
            for (int head = 0; head < headsQ; head++) {
                for (int i = 0; i < lenQ; i++) {
                    int from = (b * lenQ + i) * headsQ + head;
                    int to = (b * headsQ + head) * row + i;
                    expected.value()[to] = tokens.value()[from];
                    expected.bound()[to] = tokens.bound()[from];
                    expected.naive()[to] = tokens.naive()[from];
                }
            }
        }
        long[] shape = packed ? new long[] {headsQ, row} : new long[] {batch, headsQ, row};
        return trial.output("lse", DType.F32, shape, Operand.rowMajor(shape), shape, expected);
    }
}
