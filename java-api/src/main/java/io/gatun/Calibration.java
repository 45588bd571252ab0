package io.gatun;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The ranges that values take, of activations over many batches or of weights, to quantize them to. It observes tensors one
 * after the other, keeps their least and greatest values and a histogram, and then proposes a {@link Range}: the
 * {@linkplain #whole whole} one, that of a {@linkplain #percentile percentile}, or that of the {@linkplain #leastError least
 * squared error}; for a whole tensor or for each channel. Not safe for use by several threads: let each have one, and
 * {@linkplain #add add} them up.
 *
 * <p>A histogram has 2048 bins for the magnitudes of negative values and as many for positive ones. The width of a bin is the
 * least power of two with which they reach beyond all values; as that grows, neighbours are added up, so what comes out
 * depends on the values alone, and on no order of batches. It takes 32 KiB a channel.
 *
 * <p>What a range is for: {@link Range#unsigned} gives the {@linkplain Grid#quantizeRows rows, scales and zero points} that {@link
 * Gemm.Plan#runQuantized} takes, {@link Range#clip} limits weights before they are {@linkplain PackedWeights#pack packed} in
 * S8, and {@link Precision#calibrated} keeps it for a layer whose products are INT8. A product of rows in floating point takes
 * no range: it quantizes each row to its own.
 */
public final class Calibration {
    private static final int BINS = 2048;
    private static final int CANDIDATES = 128; // ends that are tried on each side

    private final int dim; // of channels; -1: none
    private Channel[] channels;

    private Calibration(int dim, Channel[] channels) {
        this.dim = dim;
        this.channels = channels;
    }

    /**
     * Takes all values of a tensor together.
     *
     * @return a calibration that has observed nothing
     */
    public static Calibration perTensor() {
        return new Calibration(-1, new Channel[] {new Channel()});
    }

    /**
     * Takes the values of each channel of their own.
     *
     * @param dim the dimension of channels, from 0: 1 for the output channels of weights {@code [k, n]}
     * @return a calibration that has observed nothing
     * @throws IllegalArgumentException if no tensor has such a dimension
     */
    public static Calibration perChannel(int dim) {
        if (dim < 0 || dim >= TensorSpec.MAX_RANK) {
            throw new IllegalArgumentException("dim: " + dim + ", expected 0 to " + (TensorSpec.MAX_RANK - 1));
        }
        return new Calibration(dim, new Channel[0]);
    }

    /**
     * Observes all values of a tensor.
     *
     * @param x F32, BF16 or F16 of any shape and strides; with channels, as many as the tensors before it had
     * @throws IllegalArgumentException if x is none of these or a value is not finite; nothing of it then counts
     * @throws IllegalStateException if the memory of x is closed
     */
    public void observe(Tensor x) {
        TensorSpec spec = x.spec;
        Arguments.type("x", spec, DType.F32, DType.BF16, DType.F16);
        Arguments.onHost("x", x);
        if (dim >= spec.rank()) {
            throw Arguments.wrong("x", spec, "a dimension " + dim + " of channels");
        }
        long count = dim < 0 ? 1 : spec.size(dim);
        if (channels.length > 0 && count != channels.length) {
            throw Arguments.wrong("x", spec, channels.length + " channels in dimension " + dim + ", as before");
        }
        if (count > Integer.MAX_VALUE - 8) {
            throw Arguments.wrong("x", spec, "channels that an array can hold");
        }
        float[] least = new float[(int) count];
        float[] greatest = new float[(int) count];
        x.forEach(dim, (value, channel) -> {
            if (!Float.isFinite(value)) {
                throw new IllegalArgumentException("x: a value is " + value + ", expected finite numbers");
            }
            least[channel] = Math.min(least[channel], value);
            greatest[channel] = Math.max(greatest[channel], value);
        });
        if (channels.length == 0) {
            channels = new Channel[(int) count];
            Arrays.setAll(channels, i -> new Channel());
        }
        for (int c = 0; c < channels.length; c++) {
            channels[c].reach(least[c], greatest[c]);
        }
        Channel[] into = channels;
        x.forEach(dim, (value, channel) -> into[channel].count(value));
    }

    /**
     * Adds what another calibration has observed, as one of another thread.
     *
     * @param other per tensor or per channel as this one, with as many channels; it stays as it is
     * @throws IllegalArgumentException if it is another one
     */
    public void add(Calibration other) {
        if (other.dim != dim || (channels.length > 0 && other.channels.length > 0 && other.channels.length != channels.length)) {
            throw new IllegalArgumentException("other: " + other + ", expected one like " + this);
        }
        if (channels.length == 0) {
            channels = new Channel[other.channels.length];
            Arrays.setAll(channels, i -> new Channel());
        }
        for (int c = 0; c < other.channels.length; c++) {
            channels[c].add(other.channels[c]);
        }
    }

    /**
     * Returns the number of channels.
     *
     * @return 1 for a whole tensor; 0 before the first observation of channels
     */
    public int channels() {
        return channels.length;
    }

    /**
     * Returns from the least to the greatest value, and 0: that of a scale of amax.
     *
     * @return the range
     * @throws IllegalStateException if there are channels, or nothing was observed
     */
    public Range whole() {
        return one().whole();
    }

    /**
     * Returns the {@linkplain #whole whole} range of each channel.
     *
     * @return as many as there are channels
     * @throws IllegalStateException if nothing was observed
     */
    public List<Range> wholeOfEach() {
        return each(Channel::whole);
    }

    /**
     * Returns a range that leaves out the greatest magnitudes (Wu et al. 2020, "Integer quantization for deep learning
     * inference", section 5): it ends, on both sides, where a bin ends up to which so many values lie, rounded up, or with the values.
     *
     * @param percent of the magnitudes that lie inside, above 0 up to 100; 99.9 and 99.99 are common
     * @return the range
     * @throws IllegalArgumentException if percent is none of these
     * @throws IllegalStateException if there are channels, or nothing was observed
     */
    public Range percentile(double percent) {
        checkPercent(percent);
        return one().percentile(percent);
    }

    /**
     * Returns the range of a {@linkplain #percentile percentile} of each channel.
     *
     * @param percent as there
     * @return as many as there are channels
     * @throws IllegalArgumentException if percent is none of these
     * @throws IllegalStateException if nothing was observed
     */
    public List<Range> percentileOfEach(double percent) {
        checkPercent(percent);
        return each(channel -> channel.percentile(percent));
    }

    /**
     * Returns the range in which quantization to integers of so many bits leaves the least squared error (Nagel et al. 2021, "A
     * white paper on neural network quantization", section 3.1), with each value in the middle of its bin. Some 128 ends are
     * tried, and those of both sides in turn until none is better.
     *
     * @param bits of an integer, 2 to 8
     * @param symmetric whether the range ends at the same magnitude on both sides, as {@link Range#signed} has it
     * @return the range
     * @throws IllegalArgumentException if bits is another number
     * @throws IllegalStateException if there are channels, or nothing was observed
     */
    public Range leastError(int bits, boolean symmetric) {
        checkBits(bits);
        return one().leastError(bits, symmetric);
    }

    /**
     * Returns the range with the {@linkplain #leastError least squared error} of each channel.
     *
     * @param bits as there
     * @param symmetric likewise
     * @return as many as there are channels
     * @throws IllegalArgumentException if bits is another number
     * @throws IllegalStateException if nothing was observed
     */
    public List<Range> leastErrorOfEach(int bits, boolean symmetric) {
        checkBits(bits);
        return each(channel -> channel.leastError(bits, symmetric));
    }

    private static void checkPercent(double percent) {
        if (!(percent > 0 && percent <= 100)) {
            throw new IllegalArgumentException("percent: " + percent + ", expected above 0 up to 100");
        }
    }

    static void checkBits(int bits) {
        if (bits < 2 || bits > 8) {
            throw new IllegalArgumentException("bits: " + bits + ", expected 2 to 8");
        }
    }

    private Channel one() {
        if (dim >= 0) {
            throw new IllegalStateException(this + ": expected one per tensor, or the ranges of each channel");
        }
        return observed(channels[0]);
    }

    private interface Choice {
        Range of(Channel channel);
    }

    private List<Range> each(Choice choice) {
        if (channels.length == 0) {
            throw new IllegalStateException(this + " has observed nothing");
        }
        List<Range> ranges = new ArrayList<>(channels.length);
        for (Channel channel : channels) {
            ranges.add(choice.of(observed(channel)));
        }
        return ranges;
    }

    private Channel observed(Channel channel) {
        if (channel.values == 0) {
            throw new IllegalStateException(this + " has observed nothing");
        }
        return channel;
    }

    @Override
    public String toString() {
        return dim < 0 ? "a calibration per tensor" : "a calibration of " + channels.length + " channels in dimension " + dim;
    }

    /** What was seen of one channel. */
    private static final class Channel {
        private static final int NONE = Integer.MIN_VALUE;

        private long values;
        private long zeros;
        private float least; // 0 or below
        private float greatest; // 0 or above
        private int exponent = NONE; // of the width of a bin, a power of two
        private double perWidth;
        private long[] negative = {}; // by magnitude; no bins while all values are 0
        private long[] positive = {};

        /** Makes room for values from {@code lo} to {@code hi}. */
        void reach(float lo, float hi) {
            least = Math.min(least, lo);
            greatest = Math.max(greatest, hi);
            double amax = Math.max(greatest, -least);
            if (amax > 0) {
                widen(Math.getExponent(amax) + 1 - Integer.numberOfTrailingZeros(BINS));
            }
        }

        private void widen(int to) {
            if (exponent == NONE) {
                negative = new long[BINS];
                positive = new long[BINS];
            } else if (to <= exponent) {
                return;
            } else {
                int shift = Math.min(to - exponent, Integer.SIZE - 1);
                negative = merged(negative, shift);
                positive = merged(positive, shift);
            }
            exponent = to;
            perWidth = Math.scalb(1.0, -to);
        }

        private static long[] merged(long[] bins, int shift) {
            long[] fewer = new long[BINS];
            for (int i = 0; i < BINS; i++) {
                fewer[i >> shift] += bins[i];
            }
            return fewer;
        }

        void count(float value) {
            values++;
            if (value == 0 || exponent == NONE) {
                zeros++;
                return;
            }
            int bin = Math.min((int) (Math.abs((double) value) * perWidth), BINS - 1);
            (value < 0 ? negative : positive)[bin]++;
        }

        void add(Channel other) {
            reach(other.least, other.greatest);
            values += other.values;
            zeros += other.zeros;
            if (other.exponent == NONE) {
                return;
            }
            int shift = Math.min(exponent - other.exponent, Integer.SIZE - 1);
            for (int i = 0; i < BINS; i++) {
                negative[i >> shift] += other.negative[i];
                positive[i >> shift] += other.positive[i];
            }
        }

        Range whole() {
            return new Range(least, greatest);
        }

        Range percentile(double percent) {
            // In decimal, as percent is written: 99.9 of 1000 are 999, where the double above 99.9 asks for one more.
            long wanted = BigDecimal.valueOf(percent)
                    .multiply(BigDecimal.valueOf(values))
                    .movePointLeft(2)
                    .setScale(0, RoundingMode.CEILING)
                    .longValueExact();
            long inside = zeros;
            int bin = 0;
            for (; bin < negative.length && inside < wanted; bin++) {
                inside += negative[bin] + positive[bin];
            }
            float end = (float) edge(bin);
            return new Range(Math.max(least, -end), Math.min(greatest, end));
        }

        private double edge(int bin) {
            return bin == 0 ? 0 : Math.scalb((double) bin, exponent);
        }

        Range leastError(int bits, boolean symmetric) {
            if (exponent == NONE) {
                return whole();
            }
            Middles middles = new Middles();
            if (symmetric) {
                double best = 0;
                double smallest = Double.POSITIVE_INFINITY;
                for (double end : ends(Math.max(greatest, -least))) {
                    double error = middles.error(-end, end, end / ((1 << bits - 1) - 1));
                    if (error < smallest) {
                        smallest = error;
                        best = end;
                    }
                }
                return inside(-best, best);
            }
            double lo = least;
            double hi = greatest;
            double smallest = Double.POSITIVE_INFINITY;
            int most = (1 << bits) - 1;
            for (boolean better = true; better; ) { // one end after the other: what remains of both falls each time
                better = false;
                for (double end : ends(greatest)) {
                    double error = middles.error(lo, end, (end - lo) / most);
                    if (error < smallest) {
                        smallest = error;
                        hi = end;
                        better = true;
                    }
                }
                for (double end : ends(-least)) {
                    double error = middles.error(-end, hi, (hi + end) / most);
                    if (error < smallest) {
                        smallest = error;
                        lo = -end;
                        better = true;
                    }
                }
            }
            return inside(lo, hi);
        }

        private Range inside(double lo, double hi) {
            return new Range((float) Math.max(lo, least), (float) Math.min(hi, greatest));
        }

        /** Edges of bins up to {@code amax}, which comes first; 0 alone where that is 0. */
        private double[] ends(double amax) {
            if (amax == 0) {
                return new double[1];
            }
            int used = Math.min((int) (amax * perWidth), BINS - 1) + 1;
            int count = Math.min(used, CANDIDATES);
            double[] ends = new double[count];
            ends[0] = amax;
            for (int i = 1; i < count; i++) {
                ends[i] = edge((int) ((long) used * (count - i) / count));
            }
            return ends;
        }

        /** The bins that hold something, each value in the middle of its own. */
        private final class Middles {
            private final double[] at = new double[2 * BINS];
            private final double[] counts = new double[2 * BINS];
            private int size;

            Middles() {
                for (int bin = 0; bin < BINS; bin++) {
                    double middle = (edge(bin) + edge(bin + 1)) / 2;
                    hold(Math.max(-middle, least), negative[bin]);
                    hold(Math.min(middle, greatest), positive[bin]);
                }
            }

            private void hold(double middle, long count) {
                if (count > 0) {
                    at[size] = middle;
                    counts[size++] = count;
                }
            }

            double error(double lo, double hi, double step) {
                double shift = step == 0 ? 0 : Math.rint(-lo / step) * step; // from lo to what the least integer stands for
                double sum = 0;
                for (int i = 0; i < size; i++) {
                    double nearest = step == 0 ? 0 : Math.rint(at[i] / step) * step;
                    double off = at[i] - Math.clamp(nearest, -shift, hi - lo - shift);
                    sum += off * off * counts[i];
                }
                return sum;
            }
        }
    }

    /**
     * A range of values, 0 always among them.
     *
     * @param lo the least, 0 or below
     * @param hi the greatest, 0 or above
     */
    public record Range(float lo, float hi) {
        /**
         * Checks the ends.
         *
         * @throws IllegalArgumentException if an end is not finite or on the wrong side of 0
         */
        public Range {
            if (!(lo <= 0 && lo >= -Float.MAX_VALUE)) {
                throw new IllegalArgumentException("lo: " + lo + ", expected a finite number of 0 or below");
            }
            if (!(hi >= 0 && hi <= Float.MAX_VALUE)) {
                throw new IllegalArgumentException("hi: " + hi + ", expected a finite number of 0 or above");
            }
            lo = lo == 0 ? 0 : lo; // no negative zero
            hi = hi == 0 ? 0 : hi;
        }

        /**
         * Returns the grid of integers without sign, as a {@linkplain Gemm product in S8} makes them of a row: {@code s = (hi -
         * lo) / (2^bits - 1)}, {@code z = clamp(rint(-lo / s), 0, 2^bits - 1)}, in FP32. Only a subnormal s, which is far from
         * the quotient that it was rounded from, needs the clamp; values below {@code -z s} then become 0, the integer.
         *
         * @param bits 2 to 8
         * @return the grid
         * @throws IllegalArgumentException if bits is another number, or the range is longer than FP32 can say
         */
        public Grid unsigned(int bits) {
            checkBits(bits);
            int most = (1 << bits) - 1;
            float length = hi - lo;
            if (length == Float.POSITIVE_INFINITY) {
                throw new IllegalArgumentException(this + ": expected a length within FP32");
            }
            float scale = length / most;
            return new Grid(scale, scale == 0 ? 0 : (int) Math.clamp(Math.rint(-lo / scale), 0, most), 0, most);
        }

        /**
         * Returns the grid of integers with sign and a zero point of 0, as weights in S8 have it: {@code s = max(-lo, hi) /
         * (2^(bits - 1) - 1)}.
         *
         * @param bits 2 to 8
         * @return the grid
         * @throws IllegalArgumentException if bits is another number
         */
        public Grid signed(int bits) {
            checkBits(bits);
            int most = (1 << bits - 1) - 1;
            return new Grid(Math.max(-lo, hi) / most, 0, -most, most);
        }

        /**
         * Sets what lies outside to the nearer end, in place; NaN stays.
         *
         * @param x F32, BF16 or F16 of any shape and strides; where the end is no number of its type, it gets the nearest
         * @throws IllegalArgumentException if x is of another type or read-only
         */
        public void clip(Tensor x) {
            Arguments.type("x", x.spec, DType.F32, DType.BF16, DType.F16);
            Arguments.onHost("x", x);
            Arguments.writable("x", x.memory);
            x.setFrom(x, value -> Math.clamp(value, lo, hi)); // NaN stays NaN
        }
    }

    /**
     * Integers at equal steps: q stands for {@code (q - zeroPoint) * scale}.
     *
     * @param scale what a step is worth, 0 or above
     * @param zeroPoint the integer that stands for 0
     * @param least the least integer
     * @param most the greatest
     */
    public record Grid(float scale, int zeroPoint, int least, int most) {
        /**
         * Checks the numbers.
         *
         * @throws IllegalArgumentException if the scale is below 0 or not finite, or the integers are none of 8 bits or leave
         *     the zero point out
         */
        public Grid {
            if (!(scale >= 0 && scale <= Float.MAX_VALUE)) {
                throw new IllegalArgumentException("scale: " + scale + ", expected a finite number of 0 or above");
            }
            if (least < -128 || most > 255 || least >= most || (least < 0 && most > 127)) {
                throw new IllegalArgumentException(
                        "least, most: " + least + ", " + most + ", expected integers of 8 bits, with or without sign");
            }
            if (zeroPoint < least || zeroPoint > most) {
                throw new IllegalArgumentException("zeroPoint: " + zeroPoint + ", expected " + least + " to " + most);
            }
        }

        /**
         * Quantizes a value: {@code clamp(rint(x / scale) + zeroPoint, least, most)}, in FP32, ties to even.
         *
         * @param x the value; NaN gives the zero point, and so does everything where the scale is 0
         * @return the integer
         */
        public int quantize(float x) {
            if (scale == 0 || Float.isNaN(x)) {
                return zeroPoint;
            }
            return (int) Math.clamp(Math.rint(x / scale) + zeroPoint, least, most);
        }

        /**
         * Returns what an integer stands for.
         *
         * @param q the integer
         * @return {@code (q - zeroPoint) * scale}
         */
        public float value(int q) {
            return (q - zeroPoint) * scale;
        }

        /**
         * Quantizes a tensor. In plain Java: for weights, and for activations where a run's own quantization of rows does not do.
         *
         * @param x F32, BF16 or F16 of any strides
         * @param integers as x in shape, any strides that leave its elements apart: U8, or S8 where there are integers below 0
         * @throws IllegalArgumentException if a tensor is none of these, or integers is read-only
         */
        public void quantize(Tensor x, Tensor integers) {
            Arguments.type("x", x.spec, DType.F32, DType.BF16, DType.F16);
            Arguments.type("integers", integers.spec, least < 0 ? DType.S8 : DType.U8);
            Arguments.onHost("x", x);
            Arguments.onHost("integers", integers);
            Arguments.writable("integers", integers.memory);
            if (!Arrays.equals(x.spec.shape(), integers.spec.shape())) {
                throw Arguments.wrong("integers", integers.spec, "the shape of x, which is " + x.spec);
            }
            Arguments.apart("integers", integers.spec);
            integers.setFrom(x, this::quantize);
        }

        /**
         * Makes what {@link Gemm.Plan#runQuantized} takes: quantizes rows, all to this grid.
         *
         * @param x F32, BF16 or F16 {@code [rows, k]}, any strides
         * @param integers U8 {@code [rows, k]}, any strides that leave its elements apart
         * @param scales F32 {@code [rows]}
         * @param zeroPoints S32 {@code [rows]}
         * @throws IllegalArgumentException if a tensor is none of these, one that is written is read-only, or this is no
         *     {@linkplain Range#unsigned grid without sign} of 0 to 255
         */
        public void quantizeRows(Tensor x, Tensor integers, Tensor scales, Tensor zeroPoints) {
            if (least != 0 || most != 255) {
                throw new IllegalArgumentException(this + ": expected integers of 0 to 255");
            }
            Arguments.rank("x", x.spec, 2, "a matrix");
            perRow("scales", scales, DType.F32, x);
            perRow("zeroPoints", zeroPoints, DType.S32, x);
            quantize(x, integers);
            scales.setFrom(scales, any -> scale);
            zeroPoints.setFrom(zeroPoints, any -> zeroPoint);
        }

        private static void perRow(String name, Tensor tensor, DType dtype, Tensor x) {
            Arguments.type(name, tensor.spec, dtype);
            Arguments.rank(name, tensor.spec, 1, "one for each row");
            Arguments.rows(name, tensor, x.spec.size(0));
            Arguments.onHost(name, tensor);
            Arguments.writable(name, tensor.memory);
            Arguments.apart(name, tensor.spec);
        }
    }
}
