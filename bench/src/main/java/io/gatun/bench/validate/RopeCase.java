package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Rope;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.RopeReference;
import io.gatun.bench.reference.RopeReference.Quantized;
import io.gatun.bench.reference.RopeReference.Style;
import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Rotary position embedding, with the append to a cache: {@code rope f32->bf16 interleaved t17 hq4 hk2 dk64 dv48
 * rotary=32 positions=100 parts=qkv cache=8x16 kv=s8 inorder hnd padded inplace slack seed=1}.
 *
 * @param in type of queries, keys and values
 * @param out type of the rotated queries
 * @param kv type of the caches
 * @param rotary the elements of a head that are rotated
 * @param positions of the table
 * @param parts which of queries, keys and values there are: letters of qkv
 * @param pages of the caches
 * @param inOrder whether tokens go to the rows of the caches in order; else to slots in any order, and some nowhere
 * @param hnd whether the rows of a page lie head after head
 * @param padded whether there are gaps between heads and rows
 * @param slack whether the plan is for more tokens
 */
record RopeCase(DType in, DType out, DType kv, Style style, int tokens, int headsQ, int headsK, int dk, int dv,
        int rotary, int positions, String parts, int pages, int pageSize, boolean inOrder, boolean hnd, boolean padded,
        boolean inplace, boolean slack, Values values, long seed) implements OperatorCase {
    private static final List<String> PARTS = List.of("q", "k", "qk", "qv", "kv", "qkv");
    private static final List<DType> CACHES = List.of(DType.F32, DType.BF16, DType.F16, DType.S8);

    static RopeCase parse(Words words) {
        DType[] types = words.floatTypes();
        int tokens = words.count("t");
        int headsQ = words.count("hq");
        int dk = words.count("dk");
        String parts = words.value("parts");
        int[] cache = words.sizes("cache");
        RopeCase rope = new RopeCase(types[0], types[1], words.type("kv", types[1], CACHES),
                words.oneOf(Style.class, Style.HALVES), tokens, headsQ, words.count("hk", headsQ), dk,
                words.count("dv", dk), words.integer("rotary", dk / 2 * 2), words.integer("positions", 100),
                parts == null ? "qkv" : parts, cache == null ? 1 : cache[0],
                cache == null ? Math.max(1, tokens) : cache[cache.length - 1], words.flag("inorder"), words.flag("hnd"),
                words.flag("padded"), words.flag("inplace"), words.flag("slack"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        if (!PARTS.contains(rope.parts)) {
            throw words.wrong("parts=" + rope.parts + ", expected one of " + PARTS);
        }
        if (rope.headsQ == 0 || rope.headsK == 0 || rope.dk == 0 || rope.dv == 0 || rope.positions < 1
                || rope.pageSize < 1 || cache != null && cache.length != 2) {
            throw words.wrong("heads, their sizes, positions and the rows of a page are 1 or more");
        }
        if (rope.rotary < 0 || rope.rotary > rope.dk || rope.rotary % 2 != 0) {
            throw words.wrong("rotary=" + rope.rotary + ", expected an even number up to dk");
        }
        if (rope.inOrder && rope.rows() < rope.tokens && rope.stores()) {
            throw words.wrong("in order, the caches need a row for each token");
        }
        if (rope.inplace && rope.in != rope.out) {
            throw words.wrong("in place there is one type");
        }
        return rope;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("rope").add(types()).add(Words.word(style)).add("t" + tokens)
                .add("hq" + headsQ).add("hk" + headsK).add("dk" + dk).add("dv" + dv).add("rotary=" + rotary)
                .add("positions=" + positions).add("parts=" + parts).add("cache=" + pages + "x" + pageSize)
                .add("kv=" + Words.word(kv));
        Words.flag(name, inOrder, "inorder");
        Words.flag(name, hnd, "hnd");
        Words.flag(name, padded, "padded");
        Words.flag(name, inplace, "inplace");
        Words.flag(name, slack, "slack");
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "rope";
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
        return tokens == 0 || values == Values.ZEROS || !has('q') && (rows() == 0 || !inOrder && tokens < 3);
    }

    private boolean has(char part) {
        return parts.indexOf(part) >= 0;
    }

    private boolean stores() {
        return has('k') || has('v');
    }

    private int rows() {
        return pages * pageSize;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float[] q = heads(random, headsQ, dk);
        float[] k = heads(random, headsK, dk);
        float[] v = heads(random, headsK, dv);
        long[] position = random.longs(tokens, 0, positions).toArray();
        long[] slot = slots(random);
        float[] table = table();
        Expected queries = RopeReference.rotate(style, rotary, position, table, headsQ, dk, q);
        Stored keys = stored(RopeReference.rotate(style, rotary, position, table, headsK, dk, k), dk, slot);
        Stored rest = stored(RopeReference.rotate(style, 0, position, table, headsK, dv, v), dv, slot);
        return trial -> {
            Operand place = trial.input("positions", position);
            Operand angles = trial.input("table", DType.F32, table, positions, rotary);
            Operand rowOf = inOrder || !stores() ? null : trial.input("slots", slot);
            Input query = has('q') ? input(trial, "q", headsQ, dk, q) : null;
            Input key = has('k') ? input(trial, "k", headsK, dk, k) : null;
            Input value = has('v') ? input(trial, "v", headsK, dv, v) : null;
            Input rotated = query == null
                    ? null
                    : inplace
                            ? new Input(trial.overwrite(query.operand, query.run, queries), query.run)
                            : output(trial, "q_out", queries);
            Cache keyCache = key == null ? null : cache(trial, "k", dk, keys);
            Cache valueCache = value == null ? null : cache(trial, "v", dv, rest);
            Rope rope = style == Style.HALVES ? Rope.halves(rotary) : Rope.interleaved(rotary);
            Rope.Plan plan = trial.open(() -> rope.plan(trial.device(), positions, spec(query), spec(rotated),
                    spec(key), keyCache == null ? null : keyCache.rows.spec(), spec(value),
                    valueCache == null ? null : valueCache.rows.spec()));
            Tensor p = place.tensor();
            Tensor a = angles.tensor();
            Tensor s = rowOf == null ? null : rowOf.tensor();
            Tensor[] x = {tensor(query), tensor(rotated), tensor(key), tensor(value)};
            Tensor kc = keyCache == null ? null : keyCache.rows.tensor();
            Tensor vc = valueCache == null ? null : valueCache.rows.tensor();
            Tensor ks = keyCache == null || keyCache.scales == null ? null : keyCache.scales.tensor();
            Tensor vs = valueCache == null || valueCache.scales == null ? null : valueCache.scales.tensor();
            trial.execute(plan, stream -> plan.run(stream, p, a, s, x[0], x[1], x[2], kc, x[3], vc, ks, vs));
        };
    }

    /** A row of the caches for each token, none of them twice; some tokens, and those beyond the rows, go nowhere. */
    private long[] slots(RandomGenerator random) {
        int[] order = new int[rows()];
        for (int i = 0; i < order.length; i++) {
            int other = random.nextInt(i + 1);
            order[i] = order[other];
            order[other] = i;
        }
        long[] slot = new long[tokens];
        for (int t = 0; t < tokens; t++) {
            slot[t] = inOrder ? t : t < order.length && random.nextInt(5) > 0 ? order[t] : -1;
        }
        return slot;
    }

    /** [positions, rotary]: the cosines of each position, then the sines. */
    private float[] table() {
        float[] table = new float[positions * rotary];
        for (int p = 0; p < positions; p++) {
            for (int i = 0; i < rotary / 2; i++) {
                double angle = p * Math.pow(10000, -2.0 * i / rotary);
                table[p * rotary + i] = (float) Math.cos(angle);
                table[p * rotary + rotary / 2 + i] = (float) Math.sin(angle);
            }
        }
        return table;
    }

    private float[] heads(RandomGenerator random, int heads, int n) {
        float[] x = Values.normal(random, DType.F32, tokens * heads * n, 1);
        for (int row = 0; row < tokens * heads; row++) {
            int from = row * n;
            int special = from + random.nextInt(n);
            switch (values) {
                case ZEROS -> Arrays.fill(x, from, from + n, 0);
                case CONSTANT -> Arrays.fill(x, from, from + n, x[from]);
                case NAN -> x[special] = Values.special(row) ? Float.NaN : x[special];
                case INF -> x[special] = Values.special(row) ? Float.NEGATIVE_INFINITY : x[special];
                case TIES -> {
                    // Halfway between two steps of a scale of 1, which the largest value makes.
                    for (int i = from; i < from + n; i++) {
                        x[i] = (float) Math.rint(x[i] * 20) + 0.5f;
                    }
                    x[special] = 127;
                }
                default -> Rows.scale(x, from, n, values);
            }
        }
        return Values.rounded(x, in);
    }

    /** What the rows of a cache should hold: those that no token goes to stay as they were. */
    private record Stored(Expected values, @Nullable Expected scales) {}

    private Stored stored(Expected heads, int n, long[] slot) {
        if (kv != DType.S8) {
            return new Stored(scattered(heads, headsK * n, slot), null);
        }
        Quantized quantized = RopeReference.quantize(heads, n);
        return new Stored(scattered(quantized.values(), headsK * n, slot), scattered(quantized.scales(), headsK, slot));
    }

    private Expected scattered(Expected tokenRows, int row, long[] slot) {
        Expected all = Expected.of(rows() * row, tokenRows.rows());
        Arrays.fill(all.bound(), Expected.UNTOUCHED);
        for (int t = 0; t < tokens && stores(); t++) {
            if (slot[t] >= 0) {
                int to = (int) slot[t] * row;
                System.arraycopy(tokenRows.value(), t * row, all.value(), to, row);
                System.arraycopy(tokenRows.bound(), t * row, all.bound(), to, row);
                System.arraycopy(tokenRows.naive(), t * row, all.naive(), to, row);
            }
        }
        return all;
    }

    /** A tensor for each token of a run. */
    private record Input(Operand operand, long[] run) {}

    private static @Nullable TensorSpec spec(@Nullable Input input) {
        return input == null ? null : input.operand.spec();
    }

    private static @Nullable Tensor tensor(@Nullable Input input) {
        return input == null ? null : input.operand.tensor(input.run);
    }

    private long[] shape(int heads, int n) {
        return new long[] {tokens + (slack ? 3 : 0), heads, n};
    }

    private long[] strides(int heads, int n) {
        return padded ? new long[] {heads * (n + 3L) + 5, n + 3, 1} : new long[] {(long) heads * n, n, 1};
    }

    private Input input(Trial trial, String name, int heads, int n, float[] content) {
        long[] run = {tokens, heads, n};
        Operand operand = trial.input(name, in, shape(heads, n), strides(heads, n));
        operand.fill(content, run);
        return new Input(operand, run);
    }

    private Input output(Trial trial, String name, Expected expected) {
        long[] run = {tokens, headsQ, dk};
        return new Input(trial.output(name, out, shape(headsQ, dk), strides(headsQ, dk), run, expected), run);
    }

    /** A cache, and its scales where it has some. */
    private record Cache(Operand rows, @Nullable Operand scales) {}

    private Cache cache(Trial trial, String name, int n, Stored stored) {
        long[] shape = {pages, pageSize, headsK, n};
        long row = padded ? n + 3 : n;
        long[] strides = hnd
                ? new long[] {headsK * pageSize * row, row, pageSize * row, 1}
                : new long[] {pageSize * headsK * row, headsK * row, row, 1};
        Operand rows = trial.output(name + "_cache", kv, shape, strides, shape, stored.values());
        if (stored.scales() == null) {
            return new Cache(rows, null);
        }
        long[] heads = {pages, pageSize, headsK};
        return new Cache(rows, trial.output(name + "_scales", DType.F32, heads, Operand.rowMajor(heads), heads,
                stored.scales()));
    }
}
