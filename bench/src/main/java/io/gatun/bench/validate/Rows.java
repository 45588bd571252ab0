package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.bench.reference.Expected;
import java.util.StringJoiner;

/**
 * The matrix of a row-wise operator: n values per row, at most {@code max} rows in the plan, {@code rows} of them in
 * the run, and a gap after each row where it is strided.
 */
record Rows(int rows, int max, int n, boolean strided) {
    /** Odd, so that no row but the first is aligned to more than its element. */
    private static final int GAP = 5;

    long[] run() {
        return new long[] {rows, n};
    }

    private long[] shape() {
        return new long[] {max, n};
    }

    private long[] strides() {
        return new long[] {strided ? n + GAP : Math.max(n, 1), 1};
    }

    Operand input(Trial trial, String name, DType dtype, float[] values) {
        Operand operand = trial.input(name, dtype, shape(), strides());
        operand.fill(values, run());
        return operand;
    }

    Operand output(Trial trial, String name, DType dtype, Expected expected) {
        return trial.output(name, dtype, shape(), strides(), run(), expected);
    }

    static void describe(StringJoiner name, int rows, int max, boolean strided, boolean inplace) {
        if (max != rows) {
            name.add("max" + max);
        }
        if (strided) {
            name.add("strided");
        }
        if (inplace) {
            name.add("inplace");
        }
    }

    static String end(StringJoiner name, Values values, long seed) {
        if (values != Values.NORMAL) {
            name.add(Words.word(values));
        }
        return name.add("seed=" + seed).toString();
    }

    /** Applies the patterns that only scale and shift to a row. */
    static void scale(float[] x, int from, int n, Values values) {
        for (int j = from; j < from + n; j++) {
            switch (values) {
                case DENORMAL -> x[j] *= 1e-39f;
                case OFFSET -> x[j] += 100;
                case LARGE -> x[j] *= 1000;
                default -> {}
            }
        }
    }
}
