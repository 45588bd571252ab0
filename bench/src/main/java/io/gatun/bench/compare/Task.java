package io.gatun.bench.compare;

import io.gatun.DType;
import io.gatun.Limit;
import io.gatun.Quantization;
import io.gatun.bench.reference.WeightQuantizer;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** What is compared: an operator, its shape, and what its time and its result are held to. */
public sealed interface Task {
    /** The name that filters and files know it by, such as {@code gemm.int8}. */
    String name();

    /** Its shape, such as {@code 4096x4096x4096}, which is MxNxK. */
    String shape();

    /** The type of its elements. */
    String dtype();

    /** Whether each run finds its weights or keys in memory alone, since others have filled the caches. */
    boolean cold();

    /** Whether more threads change nothing. */
    default boolean singleThreaded() {
        return false;
    }

    /** Arithmetic operations of a run, a multiply-add counted as two. */
    double flops();

    /** Bytes that a run has to read and write at the least. */
    double bytes();

    /** Bytes of what {@link #cold} runs take from memory. */
    default double coldBytes() {
        return 0;
    }

    /** What bounds its time. */
    Ceiling ceiling();

    /** How far results of two libraries may be apart. */
    Agreement agreement(Operands operands);

    /** {@code a[m, k] * w[k, n]}, the weights packed before where a library can. */
    record Gemm(DType format, int m, int n, int k, boolean cold) implements Task {
        /** With fewer rows than this, reading the weights may take longer than the products. */
        private static final int COMPUTE_BOUND_ROWS = 256;

        @Override
        public String name() {
            return switch (format) {
                case F32 -> "gemm.fp32";
                case BF16 -> "gemm.bf16";
                default -> "gemm.int8";
            };
        }

        @Override
        public String shape() {
            return m + "x" + n + "x" + k;
        }

        /** INT8 products are of FP32 activations, whose quantization is in every library's time. */
        @Override
        public String dtype() {
            return format == DType.S8 ? "int8 with quantization" : word(format);
        }

        @Override
        public double flops() {
            return 2.0 * m * n * k;
        }

        @Override
        public double bytes() {
            int activation = format == DType.BF16 ? 2 : 4;
            return coldBytes() + (double) activation * m * (n + k);
        }

        @Override
        public double coldBytes() {
            return (double) format.bytes() * n * k;
        }

        @Override
        public Ceiling ceiling() {
            Ceiling.Part products = Ceiling.products(format, flops());
            return m >= COMPUTE_BOUND_ROWS
                    ? Ceiling.largest(products)
                    : Ceiling.largest(products, Ceiling.read(cold, coldBytes()));
        }

        /**
         * Products of FP32 numbers are summed in some order, each sum off by at most {@code k u} of
         * {@code |a| |w|}, in two libraries. BF16 results are rounded besides. INT8 rounds each operand by at most half
         * a step: independent errors, whose sum over k stays, with a probability of {@code 1e-6} for all elements
         * together, within Hoeffding's bound.
         */
        @Override
        public Agreement agreement(Operands operands) {
            double a = operands.largestNorm("a", m, k, k, 1);
            double w = operands.largestNorm("w", n, k, 1, n);
            double sums = 2 * k * Agreement.UNIT * a * w;
            return switch (format) {
                case F32 -> new Agreement.Elements(sums, 0);
                case BF16 -> new Agreement.Elements(sums, Agreement.BF16_STEP);
                default -> {
                    double deviations = Math.sqrt(Math.log(2.0 * m * n / 1e-6) / 2);
                    double stepA = 2 * operands.largest("a") / 254; // the coarser of the two that libraries use
                    double stepW = operands.largest("w") / 127;
                    yield new Agreement.Elements(2 * deviations * Math.hypot(stepA * w, stepW * a) + sums, 0);
                }
            };
        }
    }

    /** {@code a[m, k] * w[k, n]} in FP32, of weights that are kept in 4 bits, without zero points of their own. */
    record Int4(int m, int n, int k, boolean cold) implements Task {
        /** What the integers are made with. */
        public static final Quantization QUANTIZATION = Quantization.int4(32).symmetricRange();

        /** The integers and scales, in the layout of {@code MatMulNBits}: the same for every library. */
        public WeightQuantizer weights(Operands operands) {
            return new WeightQuantizer(QUANTIZATION, k, n, operands.values("w"));
        }

        @Override
        public String name() {
            return "gemm.int4";
        }

        @Override
        public String shape() {
            return m + "x" + n + "x" + k;
        }

        @Override
        public String dtype() {
            return "int4 weights";
        }

        @Override
        public double flops() {
            return 2.0 * m * n * k;
        }

        @Override
        public double bytes() {
            return coldBytes() + 4.0 * m * (n + k);
        }

        /** Half a byte for each weight, and a scale for each group. */
        @Override
        public double coldBytes() {
            return (0.5 + 4.0 / QUANTIZATION.groupSize()) * n * k;
        }

        @Override
        public Ceiling ceiling() {
            return Ceiling.largest(Ceiling.products(DType.F32, flops()), Ceiling.read(cold, coldBytes()));
        }

        /** As FP32 products, of weights that are each at most half a step from those that they are made of. */
        @Override
        public Agreement agreement(Operands operands) {
            double a = operands.largestNorm("a", m, k, k, 1);
            double w = operands.largestNorm("w", n, k, 1, n) + Math.sqrt(k) * operands.largest("w") / 14;
            return new Agreement.Elements(2 * (k + 2) * Agreement.UNIT * a * w, 0);
        }
    }

    /**
     * A convolution, a batch normalisation and a ReLU of one image or volume, channels last, with padding that keeps
     * sizes, less the stride.
     *
     * @param dimensions spatial ones, 2 or 3
     * @param columns channels of the output
     */
    record Convolve(DType format, int dimensions, int channels, int columns, int size, int kernel, int stride, int groups)
            implements Task {
        /** What is added to a variance. */
        public static final float EPSILON = 1e-5f;

        /** The least variance. */
        static final double LEAST_VARIANCE = 0.5;

        /** Products that each element of the output sums. */
        public int terms() {
            return channels / groups * power(kernel);
        }

        /** The output's spatial sizes. */
        public int outSize() {
            return (size + kernel / 2 * 2 - kernel) / stride + 1;
        }

        /** That many positions in each spatial dimension. */
        public int power(int length) {
            return dimensions == 2 ? length * length : length * length * length;
        }

        /** A number for each spatial dimension. */
        public long[] each(long value) {
            long[] all = new long[dimensions];
            Arrays.fill(all, value);
            return all;
        }

        /** Two numbers, and one for each spatial dimension. */
        public long[] shape(long first, long second, long size) {
            long[] all = new long[2 + dimensions];
            Arrays.fill(all, size);
            all[0] = first;
            all[1] = second;
            return all;
        }

        @Override
        public String name() {
            return "conv." + (groups > 1 ? "depthwise" : (kernel + "x").repeat(dimensions - 1) + kernel);
        }

        @Override
        public String shape() {
            return channels + "-" + columns + " " + (size + "x").repeat(dimensions - 1) + size + " k" + kernel + " s" + stride;
        }

        @Override
        public String dtype() {
            return word(format);
        }

        @Override
        public boolean cold() {
            return false;
        }

        @Override
        public double flops() {
            return 2.0 * power(outSize()) * columns * terms();
        }

        @Override
        public double bytes() {
            return (double) format.bytes()
                    * (power(size) * channels + power(outSize()) * columns + (double) columns * terms());
        }

        @Override
        public Ceiling ceiling() {
            return Ceiling.largest(Ceiling.products(groups > 1 ? DType.F32 : format, flops()), Ceiling.read(false, bytes()));
        }

        /**
         * Sums are off by at most {@code terms u |x| |w|}, and what follows by some units of each of its numbers. With BF16,
         * normalised weights are rounded where they are folded, and sums between operators where they are not.
         */
        @Override
        public Agreement agreement(Operands operands) {
            double scale = operands.largest("gamma") / Math.sqrt(LEAST_VARIANCE);
            double sum = operands.largest("x") * Math.sqrt(terms()) * operands.largestNorm("w", columns, terms(), terms(), 1);
            double whole = scale * (sum + operands.largest("mean")) + operands.largest("beta");
            double exact = 2 * Agreement.UNIT * (scale * terms() * sum + 8 * whole);
            return format == DType.BF16
                    ? new Agreement.Elements(exact + 2 * Agreement.BF16_STEP * whole, Agreement.BF16_STEP)
                    : new Agreement.Elements(exact, 0);
        }
    }

    /** Attention of one sequence, queries at the end of the keys. */
    record Attend(Kind kind, DType format, int heads, int q, int k, int d, int window) implements Task {
        /** Which keys a query sees. */
        public enum Kind {
            CAUSAL,
            /** The last {@code window} up to its own. */
            WINDOW,
            /** All, for one query. */
            DECODE
        }

        @Override
        public String name() {
            return "attention." + kind.name().toLowerCase(Locale.ROOT);
        }

        @Override
        public String shape() {
            return "h" + heads + " q" + q + " k" + k + " d" + d + (kind == Kind.WINDOW ? " w" + window : "");
        }

        @Override
        public String dtype() {
            return word(format);
        }

        @Override
        public boolean cold() {
            return kind == Kind.DECODE;
        }

        /** How many scores a run computes. */
        double pairs() {
            double pairs = 0;
            for (int i = 0; i < q; i++) {
                int visible = k - q + i + 1;
                pairs += kind == Kind.WINDOW ? Math.min(visible, window) : visible;
            }
            return heads * pairs;
        }

        @Override
        public double flops() {
            return 4 * d * pairs();
        }

        @Override
        public double bytes() {
            return coldBytes() + 2.0 * format.bytes() * heads * d * q;
        }

        @Override
        public double coldBytes() {
            return 2.0 * format.bytes() * heads * d * k;
        }

        /** FP32 products take so much longer than exponentials that these hide behind them. */
        @Override
        public Ceiling ceiling() {
            Ceiling.Part products = Ceiling.products(format, flops());
            if (kind == Kind.DECODE) {
                return Ceiling.largest(products, Ceiling.read(true, coldBytes()));
            }
            return format == DType.F32
                    ? Ceiling.largest(products)
                    : Ceiling.sum(products, new Ceiling.Part("exp", Limit.EXP, pairs()));
        }

        /**
         * A score is off by at most {@code d u |q| |k|} of its sum, which is its exponential's relative error; the sums
         * over keys by {@code k u}. BF16 rounds each weight and the result.
         */
        @Override
        public Agreement agreement(Operands operands) {
            double scores = Agreement.UNIT * d * operands.largestNorm("q", q * heads, d, d, 1)
                    * operands.largestNorm("k", k * heads, d, d, 1) / Math.sqrt(d);
            double each = 2 * scores + (2.0 * k + 16) * Agreement.UNIT
                    + (format == DType.BF16 ? Agreement.BF16_STEP : 0);
            return new Agreement.Elements(
                    2 * each * operands.largest("v"), format == DType.BF16 ? Agreement.BF16_STEP : 0);
        }
    }

    /** An operator on the rows of a matrix, in FP32. */
    record Rows(Kind kind, int rows, int n) implements Task {
        /** Which operator. */
        public enum Kind {
            NORM_LAYER("norm.layer"),
            NORM_RMS("norm.rms"),
            SOFTMAX("softmax"),
            GELU_ERF("gelu.erf"),
            GELU_TANH("gelu.tanh"),
            SILU("silu");

            private final String word;

            Kind(String word) {
                this.word = word;
            }
        }

        /** What normalisations add to a variance. */
        public static final float EPSILON = 1e-5f;

        @Override
        public String name() {
            return kind.word;
        }

        @Override
        public String shape() {
            return rows + "x" + n;
        }

        @Override
        public String dtype() {
            return word(DType.F32);
        }

        @Override
        public boolean cold() {
            return false;
        }

        /** About: some for each element, the point being that memory binds. */
        @Override
        public double flops() {
            return 16.0 * rows * n;
        }

        @Override
        public double bytes() {
            return 8.0 * rows * n;
        }

        @Override
        public Ceiling ceiling() {
            return Ceiling.largest(new Ceiling.Part("copy", Limit.COPY, bytes()));
        }

        /**
         * Sums over a row are off by at most {@code n u}, relative to the sum of magnitudes; an exponential's argument
         * by its own rounding, which is the relative error of the result. What is left is of some units.
         */
        @Override
        public Agreement agreement(Operands operands) {
            double x = operands.largest("x");
            double each = Agreement.UNIT * switch (kind) {
                case NORM_LAYER, NORM_RMS -> 2.0 * n + 16;
                case SOFTMAX -> n + 2 * x + 16;
                default -> 2 * x * x + 16;
            };
            double floor = kind == Kind.SOFTMAX ? Float.MIN_NORMAL : 2 * each * Math.max(1, x);
            return new Agreement.Elements(floor, 2 * each);
        }
    }

    /** all-MiniLM-L6-v2 from tokens to embeddings; a batch of texts of one length. */
    record MiniLm(DType format, int texts, int tokens) implements Task {
        private static final int LAYERS = 6;
        private static final int SIZE = 384;

        @Override
        public String name() {
            return "minilm";
        }

        @Override
        public String shape() {
            return texts + "x" + tokens;
        }

        @Override
        public String dtype() {
            return format == DType.S8 ? "int8 with quantization" : word(format);
        }

        @Override
        public boolean cold() {
            return false;
        }

        @Override
        public double flops() {
            double products = 2.0 * SIZE * SIZE * (3 + 1 + 4 + 4);
            double attention = 4.0 * SIZE * tokens;
            return LAYERS * (double) texts * tokens * (products + attention);
        }

        /** The weights of the layers, once. */
        @Override
        public double bytes() {
            return (double) LAYERS * SIZE * SIZE * 12 * format.bytes();
        }

        @Override
        public Ceiling ceiling() {
            return Ceiling.largest(Ceiling.products(format, flops()));
        }

        /**
         * By the angle between embeddings. ONNX Runtime's quantized model has been seen 12.6 degrees from its own FP32,
         * and Gatun's INT8 7.3 degrees, on real sentences: together no more than their sum, whose cosine is 0.94.
         */
        @Override
        public Agreement agreement(Operands operands) {
            return new Agreement.Cosine(SIZE, switch (format) {
                case F32 -> 0.99999;
                case BF16 -> 0.999;
                default -> 0.94;
            });
        }
    }

    /** The smallest call that there is: what it costs to make one. */
    record Call() implements Task {
        @Override
        public String name() {
            return "call.overhead";
        }

        @Override
        public String shape() {
            return "1x1";
        }

        @Override
        public String dtype() {
            return word(DType.F32);
        }

        @Override
        public boolean cold() {
            return false;
        }

        @Override
        public boolean singleThreaded() {
            return true;
        }

        @Override
        public double flops() {
            return 1;
        }

        @Override
        public double bytes() {
            return 8;
        }

        /** None is measured: the same call from C, which is the peer, is the least that it can take. */
        @Override
        public Ceiling ceiling() {
            return Ceiling.none();
        }

        @Override
        public Agreement agreement(Operands operands) {
            return new Agreement.Elements(0, 0);
        }
    }

    /** The word for a type in tables and files. */
    static String word(DType dtype) {
        return dtype.name().toLowerCase(Locale.ROOT);
    }

    /** All, in the order of their table. */
    static List<Task> all(boolean quick) {
        return quick ? Catalogue.quick() : Catalogue.full();
    }
}
