package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Calibration.Grid;
import io.gatun.Calibration.Range;
import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Ranges against what all values at once say, in FP64. */
class CalibrationTest {
    private final Arena arena = Arena.ofConfined();
    private final Random random = new Random(7);

    @AfterEach
    void close() {
        arena.close();
    }

    private Tensor tensor(float[] values, long... shape) {
        return Tensor.allocate(arena, DType.F32, shape).copyFrom(values);
    }

    /** Heavy tails: a few values are far greater than most. */
    private float[] values(int count) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            double x = random.nextGaussian();
            values[i] = (float) (x * x * x);
        }
        return values;
    }

    @Test
    void wholeRangeOfSeveralBatchesAndTypes() {
        Calibration calibration = Calibration.perTensor();
        calibration.observe(tensor(new float[] {1, 0.5f, 3, 2}, 2, 2));
        assertEquals(new Range(0, 3), calibration.whole());
        Tensor half = Tensor.allocate(arena, DType.BF16, 3).copyFrom(new float[] {-7, 1, 0});
        calibration.observe(half);
        assertEquals(new Range(-7, 3), calibration.whole());
        calibration.observe(Tensor.allocate(arena, DType.F16, 1).copyFrom(new float[] {8.5f}));
        calibration.observe(tensor(new float[0], 0, 5));
        assertEquals(new Range(-7, 8.5f), calibration.whole());
        assertEquals(calibration.whole(), calibration.percentile(100));
    }

    @Test
    void channelsOfStridedTensors() {
        float[] values = values(4 * 50 * 3);
        Tensor x = tensor(values, 4, 50, 3);
        Calibration calibration = Calibration.perChannel(0);
        calibration.observe(x.transpose(0, 2).slice(1, 0, 20));
        calibration.observe(x.transpose(0, 2).slice(1, 20, 50));
        assertEquals(3, calibration.channels());
        List<Range> whole = calibration.wholeOfEach();
        List<Range> inside = calibration.percentileOfEach(90);
        List<Range> least = calibration.leastErrorOfEach(4, true);
        for (int c = 0; c < 3; c++) {
            float[] own = new float[200];
            for (int i = 0; i < own.length; i++) {
                own[i] = values[i * 3 + c];
            }
            Calibration one = Calibration.perTensor();
            one.observe(tensor(own, 200));
            assertEquals(one.whole(), whole.get(c));
            assertEquals(one.percentile(90), inside.get(c));
            assertEquals(one.leastError(4, true), least.get(c));
        }
    }

    /** What comes out depends on no order and no cut of the values, though histograms grow on the way. */
    @Test
    void anyOrderOfBatchesGivesTheSame() {
        float[] values = values(3000);
        values[17] = 4000;
        values[2400] = 1e-30f;
        float[] sorted = values.clone();
        Arrays.sort(sorted);
        Calibration once = Calibration.perTensor();
        once.observe(tensor(values, 3000));
        Calibration pieces = Calibration.perTensor();
        for (int i = 0; i < 3000; i += 100) {
            pieces.observe(tensor(Arrays.copyOfRange(sorted, i, i + 100), 10, 10));
        }
        Calibration first = Calibration.perTensor();
        first.observe(tensor(Arrays.copyOfRange(values, 0, 10), 10));
        Calibration second = Calibration.perTensor();
        second.observe(tensor(Arrays.copyOfRange(values, 10, 3000), 2990));
        Calibration sum = Calibration.perTensor();
        sum.add(first);
        sum.add(second);
        second.add(first);
        for (Calibration other : List.of(pieces, sum, second)) {
            assertEquals(once.whole(), other.whole());
            for (double percent : new double[] {50, 99, 99.9, 99.99}) {
                assertEquals(once.percentile(percent), other.percentile(percent));
            }
            assertEquals(once.leastError(8, false), other.leastError(8, false));
            assertEquals(once.leastError(4, true), other.leastError(4, true));
        }
    }

    /** So many values lie inside, and no end is more than a bin above the least that does it. */
    @ParameterizedTest
    @CsvSource({"10, 2000", "50, 10000", "90, 18000", "99, 19800", "99.9, 19980", "99.997, 20000", "100, 20000"})
    void percentileHoldsSoManyValues(double percent, int inside) {
        float[] values = values(20000);
        Calibration calibration = Calibration.perTensor();
        calibration.observe(tensor(values, 100, 200));
        Range range = calibration.percentile(percent);
        float[] magnitudes = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            magnitudes[i] = Math.abs(values[i]);
        }
        Arrays.sort(magnitudes);
        float exact = magnitudes[inside - 1];
        float bin = magnitudes[magnitudes.length - 1] / 1024;
        float end = Math.max(-range.lo(), range.hi());
        assertTrue(end >= exact && end <= exact + bin, end + " for " + exact);
        assertTrue(range.lo() == -end || range.lo() == calibration.whole().lo());
        assertTrue(range.hi() == end || range.hi() == calibration.whole().hi());
    }

    /** 99.9 of 1000 are 999: the one that is left out is the one that lies far away. */
    @ParameterizedTest
    @CsvSource({"99.9, 1000", "99.9, 3000", "99.9, 7000", "99.99, 10000", "99.99, 130000", "70, 10"})
    void percentileLeavesOutWhatItSays(double percent, int count) {
        float[] values = new float[count];
        int outside = (int) Math.round(count - count * percent / 100);
        Arrays.fill(values, outside, count, 1);
        Arrays.fill(values, 0, outside, 1000);
        Calibration calibration = Calibration.perTensor();
        calibration.observe(tensor(values, count));
        assertEquals(new Range(0, 1.5f), calibration.percentile(percent)); // the end of the bin of 1
        assertEquals(new Range(0, 1000), calibration.percentile(percent + 0.0001));
    }

    private static double squaredError(float[] values, Grid grid) {
        double sum = 0;
        for (float value : values) {
            double off = value - (double) grid.value(grid.quantize(value));
            sum += off * off;
        }
        return sum;
    }

    private static Grid grid(Range range, int bits, boolean symmetric) {
        return symmetric ? range.signed(bits) : range.unsigned(bits);
    }

    /** No range of many leaves an error much below that of the one proposed; the whole one leaves a larger one in 4 bits. */
    @ParameterizedTest
    @CsvSource({"4, true", "4, false", "8, true", "8, false"})
    void leastErrorIsNearTheLeast(int bits, boolean symmetric) {
        float[] values = values(20000);
        if (!symmetric) {
            for (int i = 0; i < values.length; i++) { // as behind a ReLU, with a little below 0
                values[i] = values[i] < 0 ? values[i] % 0.25f : values[i];
            }
        }
        Calibration calibration = Calibration.perTensor();
        calibration.observe(tensor(values, 20000));
        Range whole = calibration.whole();
        double proposed = squaredError(values, grid(calibration.leastError(bits, symmetric), bits, symmetric));
        double least = Double.POSITIVE_INFINITY;
        for (int i = 1; i <= 30; i++) {
            for (int j = symmetric ? i : 1; j <= (symmetric ? i : 30); j++) {
                float end = Math.max(-whole.lo(), whole.hi()) * i / 30;
                Range tried = symmetric ? new Range(-end, end) : new Range(whole.lo() * j / 30, whole.hi() * i / 30);
                least = Math.min(least, squaredError(values, grid(tried, bits, symmetric)));
            }
        }
        assertTrue(proposed <= 1.02 * least, proposed + " for " + least);
        double unclipped = squaredError(values, grid(whole, bits, symmetric));
        assertTrue(proposed <= (bits == 4 ? 0.8 : 1.001) * unclipped, proposed + " for " + unclipped);
    }

    @Test
    void zerosAndNothing() {
        Calibration calibration = Calibration.perTensor();
        Expect.illegalState("has observed nothing", calibration::whole);
        calibration.observe(tensor(new float[] {0, -0.0f}, 2));
        Range zero = new Range(0, 0);
        assertEquals(zero, calibration.whole());
        assertEquals(zero, calibration.percentile(99));
        assertEquals(zero, calibration.leastError(8, false));
        assertEquals(new Grid(0, 0, 0, 255), zero.unsigned(8));
        assertEquals(0, zero.signed(8).quantize(3));
        calibration.observe(tensor(new float[] {Float.MIN_VALUE, Float.MAX_VALUE}, 2));
        assertEquals(new Range(0, Float.MAX_VALUE), calibration.percentile(100));
        assertEquals(new Range(0, Float.MAX_VALUE), calibration.whole());
    }

    /** Scales that subnormal numbers can only roughly say leave the zero point among the integers. */
    @Test
    void gridsOfSubnormalRanges() {
        Grid below = new Range(-380 * Float.MIN_VALUE, 0).unsigned(8); // a step is 1.49 of the least number, rounded to 1
        assertEquals(new Grid(Float.MIN_VALUE, 255, 0, 255), below);
        assertEquals(0, below.quantize(-380 * Float.MIN_VALUE));
        assertEquals(-100 * Float.MIN_VALUE, below.value(below.quantize(-100 * Float.MIN_VALUE)));
        for (int steps = 0; steps < 2000; steps++) {
            for (int bits = 2; bits <= 8; bits++) {
                new Range(-steps * Float.MIN_VALUE, (2000 - steps) % 7 * Float.MIN_VALUE).unsigned(bits);
                new Range(-steps * Float.MIN_VALUE, 0).signed(bits);
            }
        }
    }

    @Test
    void noEndIsANegativeZero() {
        assertEquals(new Range(0, 0), new Range(0, -0.0f));
        assertEquals(new Range(0, 0), new Range(-0.0f, 0));
        assertEquals(0, Float.floatToRawIntBits(new Range(-0.0f, -0.0f).hi()));
    }

    @Test
    void gridsAreThoseOfTheirFormulas() {
        Range range = new Range(-1, 2);
        Grid unsigned = range.unsigned(8);
        assertEquals(new Grid(3f / 255, 85, 0, 255), unsigned);
        assertEquals(85, unsigned.quantize(0));
        assertEquals(0, unsigned.quantize(-5));
        assertEquals(255, unsigned.quantize(Float.POSITIVE_INFINITY));
        assertEquals(85, unsigned.quantize(Float.NaN));
        assertEquals(0f, unsigned.value(85));
        assertEquals(new Grid(2f / 7, 0, -7, 7), range.signed(4));
        assertEquals(-4, new Range(0, 7).signed(4).quantize(-3.5f)); // to even
        Tensor x = tensor(new float[] {-3, -0.5f, 0, 1, 9, 2}, 2, 3);
        Tensor integers = Tensor.allocate(arena, DType.S8, 3, 2);
        range.signed(8).quantize(x, integers.transpose(0, 1));
        assertEquals(-127, integers.getFloat(0, 0));
        assertEquals(-32, integers.getFloat(1, 0));
        assertEquals(127, integers.getFloat(1, 1));
        range.clip(x);
        assertEquals(-1, x.getFloat(0, 0));
        assertEquals(2, x.getFloat(1, 1));
        assertEquals(1, x.getFloat(1, 0));
    }

    /** A calibrated scale and zero point are what rows of U8 need: the product is that of the values they stand for. */
    @Test
    void rowsOfACalibratedGridGoIntoAProduct() {
        int m = 3;
        int k = 40;
        int n = 5;
        try (Device device = Device.open("cpu", 1);
                Stream stream = device.newStream()) {
            Tensor x = tensor(values(m * k), m, k);
            Tensor w = tensor(values(k * n), k, n);
            Calibration calibration = Calibration.perTensor();
            calibration.observe(x);
            Grid grid = calibration.leastError(8, false).unsigned(8);
            Tensor rows = Tensor.allocate(arena, DType.U8, m, k);
            Tensor scales = Tensor.allocate(arena, DType.F32, m);
            Tensor zeroPoints = Tensor.allocate(arena, DType.S32, m);
            grid.quantizeRows(x, rows, scales, zeroPoints);
            Tensor out = Tensor.allocate(arena, DType.F32, m, n);
            try (PackedWeights weights = PackedWeights.pack(device, DType.S8, w);
                    Gemm.Plan plan = Gemm.of(DType.S8).plan(device, rows.spec(), out.spec())) {
                plan.runQuantized(stream, weights, rows, scales, zeroPoints, null, null, out, null, null);
            }
            for (int j = 0; j < n; j++) {
                float amax = 0;
                for (int p = 0; p < k; p++) {
                    amax = Math.max(amax, Math.abs(w.getFloat(p, j)));
                }
                Grid column = new Range(-amax, amax).signed(8);
                for (int r = 0; r < m; r++) {
                    double sum = 0;
                    for (int p = 0; p < k; p++) {
                        sum += (double) grid.value(grid.quantize(x.getFloat(r, p)))
                                * column.value(column.quantize(w.getFloat(p, j)));
                    }
                    assertEquals(sum, out.getFloat(r, j), 1e-5 * Math.max(1, Math.abs(sum)));
                }
            }
        }
    }

    @Test
    void wrongArguments() {
        Calibration calibration = Calibration.perTensor();
        Tensor x = tensor(new float[] {1, 2}, 2);
        calibration.observe(x);
        Range before = calibration.whole();
        Tensor infinite = tensor(new float[] {5, Float.NEGATIVE_INFINITY}, 2);
        Expect.illegalArgument("x: a value is -Infinity", () -> calibration.observe(infinite));
        assertEquals(before, calibration.whole());
        Expect.illegalArgument("x: S8", () -> calibration.observe(Tensor.allocate(arena, DType.S8, 2)));
        Expect.illegalArgument("percent: 0.0", () -> calibration.percentile(0));
        Expect.illegalArgument("percent: NaN", () -> calibration.percentile(Double.NaN));
        Expect.illegalArgument("bits: 9", () -> calibration.leastError(9, true));
        Expect.illegalArgument("dim: 6", () -> Calibration.perChannel(6));
        Calibration channels = Calibration.perChannel(1);
        Expect.illegalArgument("a dimension 1 of channels", () -> channels.observe(x));
        Expect.illegalState("has observed nothing", channels::wholeOfEach);
        channels.observe(tensor(new float[] {1, 2}, 1, 2));
        Expect.illegalArgument("2 channels in dimension 1", () -> channels.observe(tensor(new float[3], 1, 3)));
        Expect.illegalState("expected one per tensor", channels::whole);
        Expect.illegalArgument("other: a calibration per tensor", () -> channels.add(calibration));
        assertNotEquals(0, channels.channels());
        Expect.illegalArgument("lo: 1.0", () -> new Range(1, 2));
        Expect.illegalArgument("hi: Infinity", () -> new Range(0, Float.POSITIVE_INFINITY));
        Range all = new Range(-Float.MAX_VALUE, Float.MAX_VALUE);
        Expect.illegalArgument("expected a length within FP32", () -> all.unsigned(8));
        Expect.illegalArgument("scale: -1.0", () -> new Grid(-1, 0, 0, 255));
        Expect.illegalArgument("zeroPoint: 300", () -> new Grid(1, 300, 0, 255));
        Expect.illegalArgument("least, most: -1, 255", () -> new Grid(1, 0, -1, 255));
        Grid grid = before.unsigned(8);
        Expect.illegalArgument("integers: S8[2]", () -> grid.quantize(x, Tensor.allocate(arena, DType.S8, 2)));
        Expect.illegalArgument("integers: U8[3]", () -> grid.quantize(x, Tensor.allocate(arena, DType.U8, 3)));
        Tensor row = tensor(new float[2], 1, 2);
        Tensor integers = Tensor.allocate(arena, DType.U8, 1, 2);
        Tensor scales = tensor(new float[1], 1);
        Tensor zeroPoints = Tensor.allocate(arena, DType.S32, 1);
        Expect.illegalArgument("x: F32[2], expected a matrix", () -> grid.quantizeRows(x, integers, scales, zeroPoints));
        Expect.illegalArgument("scales: F32[2]", () -> grid.quantizeRows(row, integers, x, zeroPoints));
        Expect.illegalArgument("zeroPoints: F32[1]", () -> grid.quantizeRows(row, integers, scales, scales));
        Expect.illegalArgument(
                "expected integers of 0 to 255", () -> before.unsigned(4).quantizeRows(row, integers, scales, zeroPoints));
        Tensor fixed = Tensor.of(x.memory().asReadOnly(), x.spec());
        Expect.illegalArgument("x: read-only", () -> before.clip(fixed));
    }
}
