package io.gatun.bench.validate;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Gemm;
import io.gatun.PackedWeights;
import io.gatun.Quantization;
import io.gatun.Softmax;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.report.Verdict;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/**
 * Wrong arguments are refused: {@code refuse attention bf16 falling_offsets seed=1}. The call must throw what the
 * interface says, leave outputs untouched, and leave the device in order: a right call afterwards gives the right
 * result. Wrong content of an array in memory that the host does not see need not be refused: the run must then stay within its
 * outputs.
 *
 * @param type of the operands, or the format of the weights
 */
record RefusalCase(DType type, Mistake mistake, long seed) implements Case {
    static final String CHECK = "refuse";
    private static final int SEQUENCES = 3;
    private static final int LENGTH = 7;
    private static final int PAGES = 6;
    private static final int LISTS = 6;

    /** What is wrong with a call. */
    enum Mistake {
        /** The length of a sequence is negative. */
        NEGATIVE_LENGTH("attention"),
        /** A sequence is longer than the plan's tensor. */
        LONG_LENGTH("attention"),
        /** The first token of packed sequences is not token 0. */
        FIRST_OFFSET("attention"),
        /** A packed sequence ends before it begins. */
        FALLING_OFFSETS("attention"),
        /** Packed sequences have more tokens than there are. */
        LONG_OFFSETS("attention"),
        /** A block table leads to a page that there is not. */
        PAGE_OUT_OF_RANGE("attention"),
        /** A block table leads to a page before the first. */
        NEGATIVE_PAGE("attention"),
        /** A prefix is of fewer than no keys. */
        NEGATIVE_PREFIX("attention"),
        /** Global tokens are not in rising order. */
        UNSORTED_GLOBALS("attention"),
        /** A global token lies beyond the keys of its sequence, though not of the plan. */
        GLOBAL_OUT_OF_RANGE("attention"),
        /** A global token is neither a position nor -1. */
        NEGATIVE_GLOBAL("attention"),
        /** A sequence has more queries than a tree. */
        LONG_TREE("attention"),
        /** The first list of blocks does not begin with the first entry. */
        FIRST_BLOCK_OFFSET("attention"),
        /** A list of blocks ends before it begins. */
        FALLING_BLOCK_OFFSETS("attention"),
        /** The lists of blocks have more entries than there are. */
        LONG_BLOCK_OFFSETS("attention"),
        /** The blocks of a list fall, or one of them is there twice: the seed says which. */
        UNSORTED_COLUMNS("attention"),
        /** A block of keys before the first. */
        NEGATIVE_COLUMN("attention"),
        /** An entry has a mask that there is not. */
        MASK_OUT_OF_RANGE("attention"),
        /** An entry has neither a mask nor -1. */
        NEGATIVE_MASK("attention"),
        /** An order names a query twice, and another one never. */
        REPEATED_QUERY("attention"),
        /** An order names a query beyond those of its sequence, though not of the plan. */
        QUERY_OUT_OF_RANGE("attention"),
        /** An order leaves a query out. */
        MISSING_QUERY("attention"),
        /** An order names a key twice. */
        REPEATED_KEY("attention"),
        /** An order names a key beyond those of its sequence, though not of the plan. */
        KEY_OUT_OF_RANGE("attention"),
        /** An order names neither a key nor -1. */
        NEGATIVE_KEY("attention"),
        /** A sequence has more queries, or more keys, than there is bias for: the seed says which. */
        LONG_BIAS("attention"),
        /** A weight to be quantized is NaN. */
        NAN_WEIGHT("gemm"),
        /** A weight to be quantized is infinite. */
        INFINITE_WEIGHT("gemm"),
        /** The first group does not begin with row 0. */
        FIRST_GROUP_OFFSET("gemm"),
        /** A group ends before it begins. */
        FALLING_GROUP_OFFSETS("gemm"),
        /** Groups have more rows than there are. */
        LONG_GROUP_OFFSETS("gemm"),
        /** A row is taken from beyond those that there are, though not those of the plan. */
        ROW_OUT_OF_RANGE("gemm"),
        /** A row is taken from before the first: of a group, or beyond all of them; the seed says which. */
        NEGATIVE_ROW("gemm"),
        /** More rows than the plan has. */
        MORE_ROWS("softmax"),
        /** The output begins inside the input. */
        OVERLAP("softmax"),
        /** The plan is closed. */
        CLOSED_PLAN("softmax");

        private final String operator;

        /** Whether it is in what an array in the device's memory holds. */
        private final boolean inArray;

        Mistake(String operator) {
            this.operator = operator;
            this.inArray = operator.equals("attention") || operator.equals("gemm") && !name().endsWith("_WEIGHT");
        }
    }

    static RefusalCase parse(Words words) {
        words.flag(CHECK);
        String operator = words.first();
        boolean gemm = operator.equals("gemm");
        DType type = gemm ? format(words) : words.type();
        Mistake mistake = Arrays.stream(Mistake.values())
                .filter(one -> words.flag(Words.word(one)))
                .findFirst()
                .orElseThrow(() -> words.wrong("the mistake, such as long_length, is missing"));
        boolean quantized = mistake == Mistake.NAN_WEIGHT || mistake == Mistake.INFINITE_WEIGHT;
        boolean keepsAll = type == DType.F32 || type == DType.BF16; // of weights, NaN and infinities too
        if (!mistake.operator.equals(operator)
                || gemm && (quantized ? keepsAll || type == DType.F16 : !keepsAll && type != DType.S8)) {
            throw words.wrong("there is no such mistake of " + operator);
        }
        RefusalCase refusal = new RefusalCase(type, mistake, words.seed());
        words.end();
        return refusal;
    }

    private static DType format(Words words) {
        return words.flag("int8") ? DType.S8
                : words.flag("u4") ? DType.U8
                : words.flag("f8e4m3") ? DType.F8E4M3
                : words.flag("f8e5m2") ? DType.F8E5M2
                : words.type();
    }

    @Override
    public String name() {
        return String.join(" ", CHECK, operator(), types(), Words.word(mistake), "seed=" + seed);
    }

    @Override
    public String check() {
        return CHECK;
    }

    @Override
    public String operator() {
        return mistake.operator;
    }

    @Override
    public String types() {
        return type == DType.S8 ? "int8" : type == DType.U8 ? "u4" : Words.word(type);
    }

    @Override
    public DType dtype() {
        return type;
    }

    @Override
    public Examination prepare() {
        OperatorCase.Problem right = OperatorCase.parse(switch (mistake.operator) {
            case "attention" -> "attention " + types() + " b3 q7 k7 hq2 dk16 causal klen=7,0,3";
            case "gemm" -> "gemm " + types() + " f32->f32 m3 k9 n5";
            default -> "softmax " + types() + "->" + types() + " r3 n5";
        }).problem();
        return subject -> {
            try (Shared shared = new Shared();
                    Trial wrong = new Trial(subject, subject.stream(subject.device()), shared,
                            subject.placement(this), (trial, run) -> {
                                if (mistake.inArray && !subject.device().info().hostMemory()) {
                                    trial.contained(run);
                                } else {
                                    trial.refused(run, expected());
                                }
                            })) {
                wrongCall(wrong, shared);
                Comparison comparison = wrong.notes();
                if (!comparison.failures().isEmpty()) {
                    return Finding.of(comparison, true, wrong.kernel(), null);
                }
            }
            try (Shared shared = new Shared();
                    Trial after = new Trial(subject, subject.stream(subject.device()), shared,
                            subject.placement(this), Trial::once)) {
                right.run(after);
                Finding finding = Finding.of(after.compare(), false, after.kernel(), null);
                return finding.verdict() == Verdict.PASS
                        ? finding
                        : new Finding(finding.verdict(), "after a refusal: " + finding.detail(), finding.kernel(),
                                finding.ratio(), finding.error(), finding.tolerance(), null);
            }
        };
    }

    private Class<? extends RuntimeException> expected() {
        return mistake == Mistake.CLOSED_PLAN ? IllegalStateException.class : IllegalArgumentException.class;
    }

    private void wrongCall(Trial trial, Shared shared) {
        switch (mistake.operator) {
            case "attention" -> {
                if (mistake.compareTo(Mistake.LONG_OFFSETS) <= 0) {
                    lengths(trial);
                } else {
                    arrays(trial);
                }
            }
            case "gemm" -> {
                if (mistake.compareTo(Mistake.INFINITE_WEIGHT) <= 0) {
                    weights(trial);
                } else {
                    groups(trial);
                }
            }
            default -> softmax(trial, shared);
        }
    }

    /** Wrong lengths or offsets. */
    private void lengths(Trial trial) {
        boolean packed = mistake.name().endsWith("OFFSETS") || mistake == Mistake.FIRST_OFFSET;
        long[] shape = packed ? new long[] {SEQUENCES * LENGTH, 2, 16} : new long[] {SEQUENCES, LENGTH, 2, 16};
        Operand q = input(trial, "q", shape);
        Operand k = input(trial, "k", shape);
        Operand v = input(trial, "v", shape);
        int elements = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        Operand out = trial.output("out", type, shape, Operand.rowMajor(shape), shape, Expected.of(elements, 1));
        long[] right = packed ? new long[] {0, 7, 14, 21} : new long[] {7, 2, 5};
        long[] wrong = switch (mistake) {
            case NEGATIVE_LENGTH -> new long[] {7, -1, 5};
            case LONG_LENGTH -> new long[] {7, LENGTH + 1, 5};
            case FIRST_OFFSET -> new long[] {1, 7, 14, 21};
            case FALLING_OFFSETS -> new long[] {0, 14, 7, 21};
            default -> new long[] {0, 7, 14, 22};
        };
        // The seed says which of the two index arrays is wrong.
        boolean keys = (seed & 1) == 1;
        Tensor qIndex = trial.input("q_index", keys ? right : wrong).tensor();
        Tensor kIndex = trial.input("k_index", keys ? wrong : right).tensor();
        Attention attention = packed ? Attention.dense().packed(SEQUENCES) : Attention.dense();
        Attention.Plan plan =
                trial.open(() -> attention.plan(trial.device(), q.spec(), k.spec(), v.spec(), out.spec()));
        Tensor a = q.tensor();
        Tensor b = k.tensor();
        Tensor c = v.tensor();
        Tensor d = out.tensor();
        trial.execute(plan, stream -> plan.run(stream, a, b, c, d, qIndex, kIndex, null));
    }

    /** A wrong element of another array, of the second of three sequences. */
    private void arrays(Trial trial) {
        long[] shape = {SEQUENCES, LENGTH, 2, 16};
        boolean paged = mistake == Mistake.PAGE_OUT_OF_RANGE || mistake == Mistake.NEGATIVE_PAGE;
        long[] shapeK = paged ? new long[] {PAGES, 4, 2, 16} : shape;
        Operand q = input(trial, "q", shape);
        Operand k = input(trial, "k", shapeK);
        Operand v = input(trial, "v", shapeK);
        int elements = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        Operand out = trial.output("out", type, shape, Operand.rowMajor(shape), shape, Expected.of(elements, 1));
        Attention.Arrays run = new Attention.Arrays()
                .q(q.tensor()).k(k.tensor()).v(v.tensor()).out(out.tensor())
                .qIndex(trial.input("q_index", new long[] {5, LENGTH - 1, 7}).tensor())
                .kIndex(trial.input("k_index", new long[] {5, LENGTH - 1, 7}).tensor());
        boolean odd = (seed & 1) == 1;
        Attention attention = switch (mistake) {
            case PAGE_OUT_OF_RANGE, NEGATIVE_PAGE -> {
                int wrong = mistake == Mistake.NEGATIVE_PAGE ? -1 : PAGES;
                run.blockTable(trial.input("block_table", new int[] {0, 1, 2, wrong, 4, 5}, SEQUENCES, 2).tensor());
                yield Attention.dense().paged(LENGTH);
            }
            case NEGATIVE_PREFIX -> {
                run.prefixes(trial.input("prefixes", new long[] {3, -1, 0}).tensor());
                yield Attention.causal().prefix();
            }
            case UNSORTED_GLOBALS, GLOBAL_OUT_OF_RANGE, NEGATIVE_GLOBAL -> {
                int[] wrong = switch (mistake) {
                    case UNSORTED_GLOBALS -> new int[] {3, 2, -1};
                    case GLOBAL_OUT_OF_RANGE -> new int[] {3, LENGTH - 1, -1};
                    default -> new int[] {3, -2, -1};
                };
                int[] globals = {0, 1, 2, wrong[0], wrong[1], wrong[2], 5, -1, -1};
                run.globals(trial.input("globals", globals, SEQUENCES, 3).tensor());
                yield Attention.dense().window(1, 1).globals(3);
            }
            case LONG_TREE -> {
                int longest = LENGTH - 1;
                // The third sequence has as many queries as the plan.
                run.tree(trial.input("tree", new byte[SEQUENCES * longest * longest], SEQUENCES, longest, longest)
                        .tensor());
                yield Attention.dense().tree(longest);
            }
            case LONG_BIAS -> {
                TensorSpec spec = TensorSpec.of(DType.F32, SEQUENCES, 2, odd ? LENGTH : LENGTH - 1,
                        odd ? LENGTH - 1 : LENGTH);
                run.bias(trial.input("bias", DType.F32, new float[(int) spec.elements()], spec.shape()).tensor());
                yield Attention.dense().bias(spec);
            }
            case REPEATED_QUERY, QUERY_OUT_OF_RANGE, MISSING_QUERY, REPEATED_KEY, KEY_OUT_OF_RANGE,
                    NEGATIVE_KEY -> {
                orders(trial, run);
                yield Attention.dense().order(1);
            }
            default -> {
                blocks(trial, run, odd);
                yield Attention.dense().blocks(4, 2, LISTS * 2).blockMasks(2);
            }
        };
        Attention.Plan plan =
                trial.open(() -> attention.plan(trial.device(), q.spec(), k.spec(), v.spec(), out.spec()));
        trial.execute(plan, stream -> plan.run(stream, run));
    }

    private void orders(Trial trial, Attention.Arrays run) {
        int[] right = {4, 3, 2, 1, 0, -1, -1, 0, 1, 2, 3, 4, 5, -1, 6, 5, 4, 3, 2, 1, 0};
        int[] wrong = right.clone();
        // The fourth of the second sequence.
        wrong[LENGTH + 3] = switch (mistake) {
            case REPEATED_QUERY, REPEATED_KEY -> 1;
            case MISSING_QUERY -> -1;
            case NEGATIVE_KEY -> -2;
            default -> LENGTH - 1;
        };
        boolean keys = mistake.name().contains("KEY");
        run.qOrder(trial.input("q_order", keys ? right : wrong, SEQUENCES, 1, LENGTH).tensor());
        run.kOrder(trial.input("k_order", keys ? wrong : right, SEQUENCES, 1, LENGTH).tensor());
    }

    /** Two lists for each sequence, of two blocks each. */
    private void blocks(Trial trial, Attention.Arrays run, boolean odd) {
        long[] offsets = {0, 2, 4, 6, 8, 10, 12};
        int[] columns = {0, 2, 1, 2, 0, 2, 1, 2, 0, 2, 1, 3};
        int[] masks = {-1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1};
        switch (mistake) {
            case FIRST_BLOCK_OFFSET -> offsets[0] = 1;
            case FALLING_BLOCK_OFFSETS -> offsets[3] = 3;
            case LONG_BLOCK_OFFSETS -> offsets[LISTS] = LISTS * 2 + 1;
            case UNSORTED_COLUMNS -> columns[4] = odd ? 2 : 3;
            case NEGATIVE_COLUMN -> columns[4] = -1;
            case MASK_OUT_OF_RANGE -> masks[5] = 2;
            case NEGATIVE_MASK -> masks[5] = -2;
            default -> throw new IllegalStateException(mistake + " is none of lists");
        }
        run.blockOffsets(trial.input("block_offsets", offsets).tensor());
        run.blockColumns(trial.input("block_columns", columns, LISTS * 2).tensor());
        run.blockMaskIndex(trial.input("block_mask_index", masks, LISTS * 2).tensor());
        run.blockMasks(trial.input("block_masks", new byte[2 * 4 * 2], 2, 4, 2).tensor());
    }

    private void weights(Trial trial) {
        float[] values = Values.normal(random(), DType.F32, 9 * 5, 1);
        values[random().nextInt(values.length)] =
                mistake == Mistake.NAN_WEIGHT ? Float.NaN : Float.NEGATIVE_INFINITY;
        Operand matrix = trial.input("w", DType.F32, values, 9, 5);
        try (PackedWeights packed = type == DType.U8
                ? PackedWeights.quantize(trial.device(), Quantization.int4(32), matrix.hostTensor())
                : PackedWeights.pack(trial.device(), type, matrix.hostTensor())) {
            trial.fail(packed + " were made, expected IllegalArgumentException");
        } catch (IllegalArgumentException e) {
            // as it should be
        }
    }

    /** Three groups of a product of at most nine rows out of at most seven, of which a run has eight out of six. */
    private void groups(Trial trial) {
        long[] offsets = switch (mistake) {
            case FIRST_GROUP_OFFSET -> new long[] {1, 3, 3, 7};
            case FALLING_GROUP_OFFSETS -> new long[] {0, 5, 4, 7};
            case LONG_GROUP_OFFSETS -> new long[] {0, 3, 3, 9};
            default -> new long[] {0, 3, 3, 7};
        };
        int[] index = {5, 0, 1, 1, 4, 2, 3, 0};
        switch (mistake) {
            case ROW_OUT_OF_RANGE -> index[4] = 6;
            case NEGATIVE_ROW -> index[(seed & 1) == 1 ? 4 : 7] = -1;
            default -> {}
        }
        Operand x = trial.input("a", DType.F32, Values.normal(random(), DType.F32, 7 * 9, 1), 7, 9);
        Operand w = trial.input("w", DType.F32, Values.normal(random(), DType.F32, 3 * 9 * 5, 1), 3, 9, 5);
        long[] shape = {9, 5};
        Operand out = trial.output("out", DType.F32, shape, Operand.rowMajor(shape), shape, Expected.of(45, 1));
        Tensor ends = trial.input("group_offsets", offsets).tensor();
        Tensor rows = trial.input("row_index", index, 8).tensor();
        PackedWeights packed = trial.open(() -> PackedWeights.pack(trial.device(), type, w.hostTensor()));
        Gemm.Plan plan =
                trial.open(() -> Gemm.of(type).groups(3).rowIndex().plan(trial.device(), x.spec(), out.spec()));
        Tensor a = x.tensor(6, 9);
        Tensor y = out.tensor(8, 5);
        trial.execute(plan, stream -> plan.run(stream, packed, a, null, null, y, ends, rows, null, null));
    }

    private void softmax(Trial trial, Shared shared) {
        long[] shape = {4, 5};
        Operand x = input(trial, "x", shape);
        Operand out = trial.output("out", type, shape, Operand.rowMajor(shape), shape, Expected.of(20, 1));
        TensorSpec threeRows = TensorSpec.of(type, 3, 5);
        Softmax.Plan plan = trial.open(() -> Softmax.of().plan(trial.device(), threeRows, threeRows));
        if (mistake == Mistake.CLOSED_PLAN) {
            shared.close();
        }
        int rows = mistake == Mistake.MORE_ROWS ? 4 : 3;
        Tensor a = x.tensor(rows, 5);
        Tensor b = mistake == Mistake.OVERLAP
                ? x.view("a row further in x", 5, new long[] {3, 5}, new long[] {5, 1}).tensor()
                : out.tensor(rows, 5);
        trial.execute(plan, stream -> plan.run(stream, a, b));
    }

    private Operand input(Trial trial, String name, long[] shape) {
        int elements = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        Operand operand = trial.input(name, type, shape, Operand.rowMajor(shape));
        operand.fill(Values.normal(random(), type, elements, 1), shape);
        return operand;
    }

    private RandomGenerator random() {
        return new SplittableRandom(name().hashCode());
    }
}
