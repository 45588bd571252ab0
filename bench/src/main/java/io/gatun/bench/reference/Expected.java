package io.gatun.bench.reference;

/**
 * What an output should hold, element by element in row-major order.
 *
 * @param value the result in FP64
 * @param bound the error that FP32 arithmetic may make before the output is rounded to its type; {@link #ANY} where the
 *     operator leaves the value open, {@link #UNTOUCHED} where it must not write
 * @param naive the result of the textbook formula in FP32, sums in index order
 * @param rows independent results in the output: elements that share a sum (a row of a softmax) count once
 */
public record Expected(double[] value, double[] bound, float[] naive, long rows) {
    /** Half the distance from 1 to the next FP32 number. */
    public static final double U = 0x1p-24;

    /** The smallest normal FP32 number: results of an exponential below it may be flushed to zero. */
    public static final double FLUSH = 0x1p-126;

    /** The smallest FP32 number. */
    public static final double TINY = 0x1p-149;

    /** The bound of an element that may take any value, as long as it is written. */
    public static final double ANY = Double.POSITIVE_INFINITY;

    /** The bound of an element that must stay as it was. */
    public static final double UNTOUCHED = -1;

    /** An expectation of {@code elements} elements, all zero, exact, to be filled in. */
    public static Expected of(int elements, long rows) {
        return new Expected(new double[elements], new double[elements], new float[elements], rows);
    }

    /** What is just this. */
    public static Expected exact(float[] values) {
        Expected expected = of(values.length, values.length);
        for (int i = 0; i < values.length; i++) {
            expected.set(i, values[i], 0, values[i]);
        }
        return expected;
    }

    void set(int index, double value, double bound, float naive) {
        this.value[index] = value;
        // What is not finite is exact: the sums of magnitudes in a bound are not finite then either.
        this.bound[index] = Double.isFinite(value) || bound == ANY ? bound : 0;
        this.naive[index] = naive;
    }
}
