package io.gatun;

import java.util.Arrays;

/**
 * Pruning of weights by magnitude: the smallest become 0. Of a whole tensor ({@linkplain #magnitude unstructured}; Han et al.
 * 2015, "Learning both weights and connections for efficient neural networks", section 3), or N of each M in a row ({@link #nOfM};
 * Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3: 2 of 4), which {@link PackedWeights#packSparse}
 * stores in little more than half of the memory. Of equal magnitudes the first in row-major order are kept. Immutable, in plain
 * Java: for weights before they are packed, and for masks that training applies again after each step.
 */
public final class Pruning {
    private final double sparsity; // of a whole tensor, or -1
    private final int dim;
    private final int kept;
    private final int of;

    private Pruning(double sparsity, int dim, int kept, int of) {
        this.sparsity = sparsity;
        this.dim = dim;
        this.kept = kept;
        this.of = of;
    }

    /**
     * Prunes the smallest of all weights of a tensor.
     *
     * @param sparsity the part of weights that are pruned, 0 to 1: {@code floor(sparsity * elements)} of them
     * @return the description
     * @throws IllegalArgumentException if sparsity is none of these
     */
    public static Pruning magnitude(double sparsity) {
        if (!(sparsity >= 0 && sparsity <= 1)) {
            throw new IllegalArgumentException("sparsity: " + sparsity + ", expected 0 to 1");
        }
        return new Pruning(sparsity, -1, 0, 0);
    }

    /**
     * Keeps the largest weights of every so many that follow each other. The last ones may be fewer, and keep as many.
     *
     * @param n how many are kept, 0 to m
     * @param m of how many, 1 or more
     * @param dim the dimension along which they follow each other: that of k, 0 for weights {@code [k, n]}
     * @return the description
     * @throws IllegalArgumentException if an argument is none of these
     */
    public static Pruning nOfM(int n, int m, int dim) {
        Arguments.atLeast("m", m, 1);
        if (n < 0 || n > m) {
            throw new IllegalArgumentException("n: " + n + ", expected 0 to m = " + m);
        }
        if (dim < 0 || dim >= TensorSpec.MAX_RANK) {
            throw new IllegalArgumentException("dim: " + dim + ", expected 0 to " + (TensorSpec.MAX_RANK - 1));
        }
        return new Pruning(-1, dim, n, m);
    }

    /**
     * Writes which weights are kept.
     *
     * @param weights F32, BF16 or F16 of any shape and strides, with less than 2<sup>31</sup> elements
     * @param mask U8, as weights in shape, any strides that leave its elements apart: 1 where a weight is kept, else 0
     * @throws IllegalArgumentException if a tensor is none of these, mask is read-only, or a weight is NaN
     */
    public void mask(Tensor weights, Tensor mask) {
        boolean[] keep = keep(weights);
        checkMask(weights, mask);
        Arguments.writable("mask", mask.memory);
        Arguments.apart("mask", mask.spec);
        int[] at = {0};
        mask.setFrom(mask, value -> keep[at[0]++] ? 1 : 0);
    }

    /**
     * Prunes weights in place.
     *
     * @param weights F32, BF16 or F16 of any shape and strides that leave its elements apart, with less than 2<sup>31</sup>
     *     elements
     * @throws IllegalArgumentException if the tensor is none of these or read-only, or a weight is NaN
     */
    public void prune(Tensor weights) {
        boolean[] keep = keep(weights);
        Arguments.writable("weights", weights.memory);
        Arguments.apart("weights", weights.spec);
        int[] at = {0};
        weights.setFrom(weights, value -> keep[at[0]++] ? value : 0);
    }

    /**
     * Sets weights to 0 where a mask is 0, as after a step of training.
     *
     * @param mask U8 of the shape of weights, any strides
     * @param weights F32, BF16 or F16 of any shape and strides that leave its elements apart
     * @throws IllegalArgumentException if a tensor is none of these, or weights is read-only
     */
    public static void apply(Tensor mask, Tensor weights) {
        checkWeights(weights);
        checkMask(weights, mask);
        Arguments.writable("weights", weights.memory);
        Arguments.apart("weights", weights.spec);
        weights.setWhere(mask, 0);
    }

    private static void checkWeights(Tensor weights) {
        Arguments.type("weights", weights.spec, DType.F32, DType.BF16, DType.F16);
        Arguments.onHost("weights", weights);
    }

    private static void checkMask(Tensor weights, Tensor mask) {
        Arguments.type("mask", mask.spec, DType.U8);
        Arguments.onHost("mask", mask);
        if (!Arrays.equals(mask.spec.shape(), weights.spec.shape())) {
            throw Arguments.wrong("mask", mask.spec, "the shape of weights, which is " + weights.spec);
        }
    }

    /** Of each weight, in row-major order. */
    private boolean[] keep(Tensor weights) {
        checkWeights(weights);
        TensorSpec spec = weights.spec;
        if (spec.elements() > Integer.MAX_VALUE - 8) {
            throw Arguments.wrong("weights", spec, "less than 2^31 elements");
        }
        if (dim >= spec.rank()) {
            throw Arguments.wrong("weights", spec, "a dimension " + dim);
        }
        float[] magnitudes = weights.toFloatArray();
        for (int i = 0; i < magnitudes.length; i++) {
            if (Float.isNaN(magnitudes[i])) {
                throw new IllegalArgumentException("weights: element " + i + " is NaN, expected numbers");
            }
            magnitudes[i] = Math.abs(magnitudes[i]);
        }
        return sparsity >= 0 ? largest(magnitudes) : largestOfEach(magnitudes, spec);
    }

    private boolean[] largest(float[] magnitudes) {
        boolean[] keep = new boolean[magnitudes.length];
        int left = magnitudes.length - (int) Math.floor(sparsity * magnitudes.length);
        if (left == 0) {
            return keep;
        }
        float[] sorted = magnitudes.clone();
        Arrays.sort(sorted);
        float least = sorted[sorted.length - left]; // of those that are kept
        int equal = left;
        for (float magnitude : magnitudes) {
            equal -= magnitude > least ? 1 : 0;
        }
        for (int i = 0; i < magnitudes.length; i++) {
            keep[i] = magnitudes[i] > least || (magnitudes[i] == least && equal-- > 0);
        }
        return keep;
    }

    private boolean[] largestOfEach(float[] magnitudes, TensorSpec spec) {
        boolean[] keep = new boolean[magnitudes.length];
        int size = (int) spec.size(dim);
        int step = 1; // from one to the next along dim
        for (int d = dim + 1; d < spec.rank(); d++) {
            step *= (int) spec.size(d);
        }
        for (int i = 0; i < magnitudes.length; i++) {
            int along = i / step % size;
            int first = i - along % of * step;
            int count = Math.min(of, size - (along - along % of));
            int before = 0; // that are kept rather than this one
            for (int j = 0; j < count; j++) {
                int other = first + j * step;
                before += magnitudes[other] > magnitudes[i] || (magnitudes[other] == magnitudes[i] && other < i) ? 1 : 0;
            }
            keep[i] = before < kept;
        }
        return keep;
    }

    @Override
    public String toString() {
        return sparsity >= 0 ? "pruning of " + sparsity : kept + " of " + of + " along dimension " + dim;
    }
}
