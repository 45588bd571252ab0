package io.gatun.bench.validate;

import io.gatun.bench.reference.AttentionReference;
import io.gatun.bench.reference.AttentionReference.Block;
import io.gatun.bench.reference.AttentionReference.Sequence;
import io.gatun.bench.reference.SelectionReference;
import io.gatun.bench.validate.AttentionOptions.Bias;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;

/**
 * The arrays that a run of attention takes beside its tensors, of random content, twice: sequence by sequence, as the
 * reference takes them, and laid out as the run does. Whatever a run is not to read holds what would be noticed: NaN,
 * labels and masks that show everything, and indices that lead nowhere.
 */
final class AttentionArrays {
    /** An index that leads nowhere. */
    static final int NOWHERE = Operand.POISON_F32;

    private static final int[] LABELS = {0, 1, -1, 7, Integer.MIN_VALUE, Integer.MAX_VALUE};

    private final AttentionCase test;
    private final AttentionOptions options;
    private final RandomGenerator random;
    private final List<Sequence> sequences = new ArrayList<>();
    private final int tokensQ;
    private final int tokensK;
    private final int pages;
    private final int[] blockTable;
    private final long[] prefixes;
    private final int[] globals;
    private final int[] documentsQ;
    private final int[] documentsK;
    private final byte[] tree;
    private final List<Block> entries = new ArrayList<>();
    private final List<Integer> maskIndex = new ArrayList<>();
    private final List<boolean[][]> masks = new ArrayList<>();
    private final long[] blockOffsets;
    private final int[] orderQ;
    private final int[] orderK;
    private final float[] bias;
    private final long[] biasShape;

    /** The arrays of a case, always the same for the same line. */
    AttentionArrays(AttentionCase test) {
        this.test = test;
        this.options = test.options();
        this.random = new SplittableRandom(test.name().hashCode() + 1L);
        int batch = test.batch();
        tokensQ = test.plannedQ();
        tokensK = test.plannedK();
        int slots = options.paged() ? ceil(tokensK, options.pageSize()) : 0;
        blockTable = filled(batch * slots, NOWHERE);
        pages = options.paged() ? pages(slots) : 0;
        addSequences(slots);
        int alongQ = test.packed() ? 1 : batch;
        int alongK = test.packed() && !options.paged() ? 1 : batch;
        int labels = options.documentLayers() * options.documentHeads();
        prefixes = new long[options.prefix() ? batch : 0];
        globals = filled(batch * maxGlobals(), -1);
        documentsQ = filled(alongQ * labels * tokensQ, LABELS[0]);
        documentsK = filled(alongK * labels * tokensK, LABELS[0]);
        tree = new byte[batch * maxTree() * maxTree()];
        Arrays.fill(tree, (byte) 0xff);
        orderQ = filled(alongQ * options.orderHeads() * tokensQ, NOWHERE);
        orderK = filled(alongK * options.orderHeads() * tokensK, NOWHERE);
        blockOffsets = new long[options.blocks() ? batch * options.blockHeads() * blocksQ() + 1 : 0];
        for (int mask = 0; mask < maskCount(); mask++) {
            masks.add(mask());
        }
        biasShape = options.bias() == null ? new long[0] : biasShape();
        bias = options.bias() == null ? new float[0] : bias();
        for (int b = 0; b < batch; b++) {
            fill(b, sequences.get(b));
        }
    }

    private void fill(int b, Sequence sequence) {
        if (options.prefix()) {
            prefixes[b] = random.nextInt(sequence.lenK() + 3);
            sequence.prefix(prefixes[b]);
        }
        if (options.globals() > 0) {
            int most = Math.min(options.globals(), sequence.lenK());
            int[] positions = distinct(most - random.nextInt(Math.min(2, most + 1)), sequence.lenK());
            Arrays.sort(positions);
            System.arraycopy(positions, 0, globals, b * maxGlobals(), positions.length);
            sequence.globals(positions);
        }
        int[][][] labels = options.documents() ? documents(b, sequence) : new int[0][][];
        if (options.tree()) {
            tree(b, sequence);
        }
        if (options.orderHeads() > 0) {
            orders(b, sequence, labels);
        }
        if (options.blocks()) {
            lists(b, sequence);
        }
        if (options.bias() != null) {
            sequence.bias(biasOf(b, sequence));
        }
    }

    // ---- Sequences and pages

    private void addSequences(int slots) {
        int[] free = distinct(pages, pages);
        int taken = 0;
        int fromQ = 0;
        int fromK = 0;
        for (int b = 0; b < test.batch(); b++) {
            int lenQ = test.lengthQ(b);
            int lenK = test.lengthK(b);
            int first = test.packed() ? fromQ : b * test.lenQ();
            if (options.paged()) {
                int[] table = new int[ceil(lenK, options.pageSize())];
                for (int page = 0; page < table.length; page++) {
                    table[page] = free[taken++];
                }
                // Sequences that begin alike share the page, as a cache of common prompts does.
                if (b > 0 && table.length > 0 && sequences.getFirst().lenK() >= options.pageSize()
                        && lenK >= options.pageSize() && random.nextBoolean()) {
                    table[0] = blockTable[0];
                }
                System.arraycopy(table, 0, blockTable, b * slots, table.length);
                sequences.add(Sequence.paged(first, lenQ, lenK, table, options.pageSize()));
            } else {
                sequences.add(new Sequence(first, lenQ, test.packed() ? fromK : b * test.lenK(), lenK));
            }
            fromQ += lenQ;
            fromK += lenK;
        }
    }

    /** As many as all sequences need, and some that none of them uses. */
    private int pages(int slots) {
        int used = 0;
        for (int b = 0; b < test.batch(); b++) {
            used += ceil(test.lengthK(b), options.pageSize());
        }
        return used + 1 + Math.min(2, slots);
    }

    // ---- Documents, trees and orders

    /** Returns the labels of the queries, by layer and head. */
    private int[][][] documents(int b, Sequence sequence) {
        int lenQ = sequence.lenQ();
        int lenK = sequence.lenK();
        int layers = options.documentLayers();
        int heads = options.documentHeads();
        int[][][] queries = new int[layers][heads][lenQ];
        int[][][] keys = new int[layers][heads][lenK];
        for (int layer = 0; layer < layers; layer++) {
            for (int head = 0; head < heads; head++) {
                int kinds = layer == layers - 1 ? random.nextInt(1, 4) : LABELS.length;
                boolean sorted = random.nextBoolean();
                int run = Math.max(1, lenK / kinds);
                for (int j = 0; j < lenK; j++) {
                    keys[layer][head][j] = LABELS[sorted ? Math.min(j / run, kinds - 1) : random.nextInt(kinds)];
                }
                for (int i = 0; i < lenQ; i++) {
                    int p = i + lenK - lenQ;
                    boolean own = p >= 0 && random.nextInt(8) > 0;
                    queries[layer][head][i] = own ? keys[layer][head][p] : LABELS[random.nextInt(kinds)];
                }
                int row = layer * heads + head;
                lay(queries[layer][head], documentsQ, b, row, layers * heads, false);
                lay(keys[layer][head], documentsK, b, row, layers * heads, true);
            }
        }
        sequence.documents(queries, keys);
        return queries;
    }

    /** Puts what a sequence has for its tokens where the run takes it, in one of {@code rows} rows. */
    private void lay(int[] from, int[] to, int b, int row, int rows, boolean keys) {
        int length = keys ? tokensK : tokensQ;
        boolean together = test.packed() && !(keys && options.paged());
        int first = 0;
        for (int before = 0; together && before < b; before++) {
            first += keys ? test.lengthK(before) : test.lengthQ(before);
        }
        int at = together ? row * length + first : (b * rows + row) * length;
        System.arraycopy(from, 0, to, at, from.length);
    }

    private void tree(int b, Sequence sequence) {
        int length = sequence.lenQ();
        boolean[][] follows = new boolean[length][length];
        for (int i = 0; i < length; i++) {
            int parent = random.nextInt(-1, i);
            if (parent >= 0) {
                System.arraycopy(follows[parent], 0, follows[i], 0, length);
            }
            follows[i][i] = true;
            for (int j = 0; j < length; j++) {
                byte any = (byte) random.nextInt(1, 256);
                tree[(b * maxTree() + i) * maxTree() + j] = follows[i][j] ? any : 0;
            }
        }
        sequence.tree(follows);
    }

    /** Random orders, or half of the time queries by their labels, where they have some. */
    private void orders(int b, Sequence sequence, int[][][] labels) {
        int heads = options.orderHeads();
        int lenK = sequence.lenK();
        boolean sorted = labels.length > 0 && random.nextBoolean();
        int[][] queries = new int[heads][];
        int[][] keys = new int[heads][];
        for (int head = 0; head < heads; head++) {
            int labelled = sorted ? head * options.documentHeads() / heads : 0;
            queries[head] = sorted
                    ? SelectionReference.order(Arrays.stream(labels)
                            .map(layer -> layer[labelled])
                            .toArray(int[][]::new))
                    : distinct(sequence.lenQ(), sequence.lenQ());
            keys[head] = distinct(lenK, lenK);
            int rare = random.nextInt(2, 12);
            for (int at = 0; at < lenK; at++) {
                keys[head][at] = random.nextInt(rare) == 0 ? -1 : keys[head][at];
            }
            lay(queries[head], orderQ, b, head, heads, false);
            lay(keys[head], orderK, b, head, heads, true);
        }
        sequence.orders(queries, keys);
    }

    // ---- Lists of blocks

    private void lists(int b, Sequence sequence) {
        int heads = options.blockHeads();
        Block[][][] lists = new Block[heads][blocksQ()][];
        for (int head = 0; head < heads; head++) {
            double density = random.nextDouble(0.3, 1.1);
            for (int block = 0; block < blocksQ(); block++) {
                List<Block> list = new ArrayList<>();
                boolean empty = block > 0 && random.nextInt(5) == 0;
                for (int column = 0; !empty && column < ceil(tokensK, options.blockK()); column++) {
                    if (random.nextDouble() < density) {
                        list.add(entry(column));
                    }
                }
                if (block == 0 && list.isEmpty() && tokensK > 0) {
                    list.add(entry(0)); // so that sequences of one block show something
                }
                lists[head][block] = list.toArray(Block[]::new);
                blockOffsets[(b * heads + head) * blocksQ() + block + 1] = entries.size();
            }
        }
        sequence.blocks(lists);
    }

    private Block entry(int column) {
        int mask = options.blockMasks() ? random.nextInt(-1, maskCount()) : -1;
        float score = options.blockBias() ? (float) random.nextGaussian() : 0;
        Block entry = new Block(column, mask < 0 ? null : masks.get(mask), score);
        entries.add(entry);
        maskIndex.add(mask);
        return entry;
    }

    private boolean[][] mask() {
        boolean[][] mask = new boolean[options.blockQ()][options.blockK()];
        for (boolean[] row : mask) {
            for (int j = 0; j < row.length; j++) {
                row[j] = random.nextBoolean();
            }
        }
        return mask;
    }

    private int maskCount() {
        return options.blockMasks() ? 3 : 0;
    }

    // ---- Bias

    private long[] biasShape() {
        long[] shape = {test.batch(), test.headsQ(), longest(false), longest(true)};
        if (test.slack()) {
            shape[0] += 1;
            shape[3] += 1;
        }
        return shape;
    }

    private int longest(boolean keys) {
        return IntStream.range(0, test.batch()).map(b -> keys ? test.lengthK(b) : test.lengthQ(b)).max().orElse(0);
    }

    /** Strides of the bias: 0 where it is repeated. */
    long[] biasStrides() {
        long heads = biasShape[1];
        long queries = biasShape[2];
        long keys = biasShape[3];
        return switch (options.bias()) {
            case SHARED -> new long[] {0, 0, keys, 1};
            case KEYS -> new long[] {keys, 0, 0, 1};
            case FULL, TYPED -> new long[] {heads * queries * keys, queries * keys, keys, 1};
            case null -> throw new IllegalStateException("there is no bias");
        };
    }

    /** NaN beyond all sequences, and -infinity for some keys. */
    private float[] bias() {
        long[] strides = biasStrides();
        int extent = 1;
        for (int d = 0; d < 4; d++) {
            extent += (int) (Math.max(0, biasShape[d] - 1) * strides[d]);
        }
        float[] values = new float[Arrays.stream(biasShape).anyMatch(size -> size == 0) ? 0 : extent];
        for (int at = 0; at < values.length; at++) {
            values[at] = random.nextInt(8) == 0 ? Float.NEGATIVE_INFINITY : (float) random.nextGaussian();
        }
        float[] rounded = options.bias() == Bias.TYPED ? Values.rounded(values, test.dtype()) : values;
        boolean[] read = new boolean[values.length];
        for (int b = 0; b < test.batch(); b++) {
            for (long at : reads(b)) {
                read[(int) at] = true;
            }
        }
        for (int at = 0; at < values.length; at++) {
            rounded[at] = read[at] ? rounded[at] : Float.NaN;
        }
        return rounded;
    }

    /** Where the scores of a sequence lie, [heads_q, len_q, len_k]. */
    private long[] reads(int b) {
        long[] strides = biasStrides();
        int lenQ = test.lengthQ(b);
        int lenK = test.lengthK(b);
        long[] reads = new long[test.headsQ() * lenQ * lenK];
        int n = 0;
        for (int head = 0; head < test.headsQ(); head++) {
            for (int i = 0; i < lenQ; i++) {
                for (int j = 0; j < lenK; j++) {
                    reads[n++] = b * strides[0] + head * strides[1] + i * strides[2] + j * strides[3];
                }
            }
        }
        return reads;
    }

    /** Makes the bias NaN where no query of any head sees the key. */
    void hideBias(AttentionReference reference) {
        boolean[] seen = new boolean[bias.length];
        for (int b = 0; b < sequences.size(); b++) {
            Sequence sequence = sequences.get(b);
            long[] reads = reads(b);
            for (int n = 0; n < reads.length; n++) {
                int pair = n % (sequence.lenQ() * sequence.lenK());
                seen[(int) reads[n]] |= reference.sees(sequence, n / (sequence.lenQ() * sequence.lenK()),
                        pair / sequence.lenK(), pair % sequence.lenK());
            }
        }
        for (int at = 0; at < bias.length; at++) {
            bias[at] = seen[at] ? bias[at] : Float.NaN;
        }
        for (int b = 0; b < sequences.size(); b++) {
            sequences.get(b).bias(biasOf(b, sequences.get(b)));
        }
    }

    private float[][][] biasOf(int b, Sequence sequence) {
        float[][][] scores = new float[test.headsQ()][sequence.lenQ()][sequence.lenK()];
        long[] reads = reads(b);
        int n = 0;
        for (float[][] head : scores) {
            for (float[] row : head) {
                for (int j = 0; j < row.length; j++) {
                    row[j] = bias[(int) reads[n++]];
                }
            }
        }
        return scores;
    }

    // ---- What a case takes

    List<Sequence> sequences() {
        return sequences;
    }

    int pages() {
        return pages;
    }

    /** Entries of the plan; there are some more than the lists have. */
    int maxBlocks() {
        return entries.size() + (test.slack() ? 7 : 0);
    }

    int maxMasks() {
        return maskCount() + (test.slack() && options.blockMasks() ? 1 : 0);
    }

    int maxGlobals() {
        return options.globals() == 0 ? 0 : options.globals() + (test.slack() ? 2 : 0);
    }

    int maxTree() {
        return options.tree() ? Math.max(1, longest(false)) + (test.slack() ? 2 : 0) : 0;
    }

    /** Blocks of queries of a sequence, as the plan counts them. */
    int blocksQ() {
        return options.blocks() ? ceil(tokensQ, options.blockQ()) : 0;
    }

    int[] blockTable() {
        return blockTable;
    }

    long[] prefixes() {
        return prefixes;
    }

    int[] globals() {
        return globals;
    }

    int[] documentsQ() {
        return documentsQ;
    }

    int[] documentsK() {
        return documentsK;
    }

    byte[] tree() {
        return tree;
    }

    long[] blockOffsets() {
        return blockOffsets;
    }

    int[] blockColumns() {
        int[] columns = filled(maxBlocks(), NOWHERE);
        Arrays.setAll(columns, at -> at < entries.size() ? entries.get(at).column() : NOWHERE);
        return columns;
    }

    int[] blockMaskIndex() {
        int[] index = new int[maxBlocks()];
        Arrays.setAll(index, at -> at < entries.size() ? maskIndex.get(at) : NOWHERE);
        return index;
    }

    byte[] blockMasks() {
        byte[] bytes = new byte[maxMasks() * options.blockQ() * options.blockK()];
        Arrays.fill(bytes, (byte) 0xff);
        int at = 0;
        for (boolean[][] mask : masks) {
            for (boolean[] row : mask) {
                for (boolean seen : row) {
                    bytes[at] = (byte) (seen ? 1 + at % 255 : 0);
                    at++;
                }
            }
        }
        return bytes;
    }

    float[] blockBias() {
        float[] scores = new float[maxBlocks()];
        Arrays.fill(scores, Float.NaN);
        for (int at = 0; at < entries.size(); at++) {
            scores[at] = entries.get(at).bias();
        }
        return scores;
    }

    int[] orderQ() {
        return orderQ;
    }

    int[] orderK() {
        return orderK;
    }

    float[] biasValues() {
        return bias;
    }

    long[] shapeOfBias() {
        return biasShape;
    }

    // ---- Numbers

    static int ceil(int count, int size) {
        return (count + size - 1) / size;
    }

    private static int[] filled(int count, int value) {
        int[] values = new int[count];
        Arrays.fill(values, value);
        return values;
    }

    /** {@code count} of the numbers below {@code bound}, in random order, none of them twice. */
    private int[] distinct(int count, int bound) {
        int[] all = IntStream.range(0, bound).toArray();
        for (int i = bound - 1; i > 0; i--) {
            int other = random.nextInt(i + 1);
            int kept = all[i];
            all[i] = all[other];
            all[other] = kept;
        }
        return Arrays.copyOf(all, count);
    }
}
