package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.bench.validate.AttentionCase.Layout;
import io.gatun.bench.validate.AttentionOptions.Bias;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;

/**
 * Combinations of everything that attention may have, numbered. Each is an ordinary case, so that a line without the
 * number repeats it. Lengths sit on and around the sizes of tiles, vectors and blocks.
 */
final class RandomAttention {
    private static final int[] LENGTHS = {1, 2, 7, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 131, 132, 133};
    private static final int[] LONG_LENGTHS = {127, 128, 129, 255, 256, 257, 300, 4096};
    private static final int[] SIZES = {1, 7, 8, 16, 20, 32, 33, 40, 64, 64, 64, 80, 128, 128, 160};
    private static final int[] PAGES = {1, 2, 3, 5, 8, 16, 16, 17, 32, 64, 100, 128, 255, 256};
    private static final int[] BLOCKS = {1, 2, 5, 8, 16, 16, 24, 32, 64, 64, 128};
    private static final int[][] HEADS = {
        {1, 1}, {2, 1}, {2, 2}, {3, 1}, {3, 3}, {4, 1}, {4, 2}, {6, 3}, {8, 1}, {8, 2}
    };
    private static final List<DType> FLOATS = List.of(DType.F32, DType.BF16, DType.F16);
    private static final List<DType> CACHES = List.of(DType.F32, DType.BF16, DType.F16, DType.S8);

    /** The most multiplications of a case: what the reference, and a scalar kernel, take milliseconds for. */
    private static final long SMALL = 1_500_000;
    private static final long LARGE = 12_000_000;

    /** The most elements of a bias. */
    private static final long MOST_BIAS = 500_000;

    private final RandomGenerator random;
    private final boolean small;
    private final long seed;

    private RandomAttention(RandomGenerator random, boolean small, long seed) {
        this.random = random;
        this.small = small;
        this.seed = seed;
    }

    /**
     * A combination: the same for the same arguments. Where there are queries and keys, some query sees some key.
     *
     * @param small for lengths of at most 133, and few heads where they are long
     */
    static AttentionCase draw(long number, boolean small, long seed) {
        RandomAttention draws = new RandomAttention(new SplittableRandom(seed * 1_000_003 + number), small, seed);
        while (true) {
            AttentionCase drawn = draws.any();
            if (draws.fits(drawn) && (drawn.degenerate() ? draws.often(6) : drawn.anySeen())) {
                return drawn;
            }
        }
    }

    private boolean fits(AttentionCase drawn) {
        long pairs = 0;
        for (int b = 0; b < drawn.batch(); b++) {
            pairs += (long) drawn.lengthQ(b) * drawn.lengthK(b);
        }
        boolean bias = drawn.options().bias() != null;
        boolean longTree = drawn.options().tree() && drawn.plannedQ() > 1000;
        return !longTree && pairs * drawn.headsQ() * (drawn.dk() + drawn.dv()) <= (small ? SMALL : LARGE)
                && (!bias || pairs * drawn.headsQ() <= MOST_BIAS);
    }

    private AttentionCase any() {
        DType dtype = FLOATS.get(random.nextInt(3));
        DType kv = often(2) ? dtype : CACHES.get(random.nextInt(4));
        int[] heads = one(HEADS);
        int dk = one(SIZES);
        int dv = often(2) ? dk : one(SIZES);
        boolean packed = often(3);
        boolean paged = often(3);
        boolean slack = often(4);
        int batch = random.nextInt(1, 5);
        boolean decode = often(5);
        List<Integer> lengthsQ = IntStream.range(0, batch).mapToObj(_ -> decode ? 1 : length()).toList();
        List<Integer> lengthsK = new ArrayList<>();
        for (int b = 0; b < batch; b++) {
            lengthsK.add(often(3) ? lengthsQ.get(b) : often(8) ? 0 : length());
        }
        boolean alike = !packed && often(3);
        int lenQ = total(lengthsQ, packed, alike) + (packed ? random.nextInt(3) : 0);
        int lenK = total(lengthsK, packed && !paged, alike) + (packed ? random.nextInt(3) : 0);
        boolean ownLengths = packed || !alike;
        Layout layout = often(3) ? Layout.HND : often(3) ? Layout.PADDED : Layout.NHD;
        if (dv <= dk && often(8)) {
            layout = Layout.VIEW;
        } else if (lenQ == lenK && !slack && !paged && kv == dtype && often(2)) {
            layout = Layout.QKV;
        }
        long left = often(2) ? -1 : one(new int[] {0, 1, 3, 15, 16, 50, 127});
        long right = often(2) ? 0 : often(2) ? -1 : one(new int[] {1, 4, 20});
        return new AttentionCase(dtype, kv, often(4) ? DType.F32 : dtype, batch, lenQ, lenK, heads[0], heads[1], dk, dv,
                left, right, often(8) ? one(new int[] {-1, 0, 2}) * 0.25f : Float.NaN, layout, packed,
                ownLengths ? lengthsQ : null, ownLengths ? lengthsK : null, often(2), slack,
                values(kv != DType.S8 && dv > 2),
                options(heads, paged), seed);
    }

    private AttentionOptions options(int[] heads, boolean paged) {
        boolean documents = often(5);
        boolean blocks = often(4);
        boolean[] words = new boolean[8];
        for (int word = 0; word < words.length; word++) {
            words[word] = often(5);
        }
        return new AttentionOptions(often(5) ? random.nextInt(1, 20) : 0, often(6) ? random.nextInt(2, 5) : 1,
                words[0], often(5) ? random.nextInt(1, 9) : 0, documents ? shared(heads) : 0,
                documents ? random.nextInt(1, 4) : 0, words[1] && often(2), blocks ? one(BLOCKS) : 0,
                blocks ? one(BLOCKS) : 0, blocks ? shared(heads) : 0, blocks && often(2), blocks && often(3),
                often(7) ? shared(heads) : 0, words[2], words[3] ? Bias.values()[random.nextInt(4)] : null,
                words[4] ? one(new int[] {1, 20, 50}) : 0, words[5] ? one(new int[] {-5, -1000, 3}) : 0,
                words[6], words[7] && heads[0] > 1, paged ? one(PAGES) : 0);
    }

    /** Arrays for one head, for those of keys, or for those of queries. */
    private int shared(int[] heads) {
        return one(new int[] {1, heads[0], heads[1]});
    }

    /** A NaN among the values where it leaves other columns as they are. */
    private Values values(boolean nan) {
        return often(5)
                ? Values.HIDDEN
                : often(12) ? one(nan ? Values.NANV : Values.OFFSET, Values.LARGE, Values.OFFSET) : Values.NORMAL;
    }

    private int length() {
        if (often(10)) {
            return 0;
        }
        return small || often(2) ? one(LENGTHS) : one(LONG_LENGTHS);
    }

    private static int total(List<Integer> lengths, boolean sum, boolean alike) {
        if (sum) {
            return lengths.stream().mapToInt(Integer::intValue).sum();
        }
        return alike ? lengths.getFirst() : lengths.stream().mapToInt(Integer::intValue).max().orElse(0);
    }

    /** True once in {@code times}. */
    private boolean often(int times) {
        return random.nextInt(times) == 0;
    }

    private int one(int[] of) {
        return of[random.nextInt(of.length)];
    }

    private int[] one(int[][] of) {
        return of[random.nextInt(of.length)];
    }

    private Values one(Values... of) {
        return of[random.nextInt(of.length)];
    }
}
