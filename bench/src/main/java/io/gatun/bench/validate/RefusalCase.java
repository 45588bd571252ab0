package io.gatun.bench.validate;

import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.PackedWeights;
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
 * result.
 *
 * @param type of the operands, or the format of the weights
 */
record RefusalCase(DType type, Mistake mistake, long seed) implements Case {
    static final String CHECK = "refuse";
    private static final int SEQUENCES = 3;
    private static final int LENGTH = 7;

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
        /** A weight to be quantized is NaN. */
        NAN_WEIGHT("gemm"),
        /** A weight to be quantized is infinite. */
        INFINITE_WEIGHT("gemm"),
        /** More rows than the plan has. */
        MORE_ROWS("softmax"),
        /** The output begins inside the input. */
        OVERLAP("softmax"),
        /** The plan is closed. */
        CLOSED_PLAN("softmax");

        private final String operator;

        Mistake(String operator) {
            this.operator = operator;
        }
    }

    static RefusalCase parse(Words words) {
        words.flag(CHECK);
        String operator = words.first();
        DType type = operator.equals("gemm") && words.flag("int8") ? DType.S8 : words.type();
        Mistake mistake = Arrays.stream(Mistake.values())
                .filter(one -> words.flag(Words.word(one)))
                .findFirst()
                .orElseThrow(() -> words.wrong("the mistake, such as long_length, is missing"));
        if (!mistake.operator.equals(operator) || mistake.operator.equals("gemm") != (type == DType.S8)) {
            throw words.wrong("there is no such mistake of " + operator);
        }
        RefusalCase refusal = new RefusalCase(type, mistake, words.seed());
        words.end();
        return refusal;
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
        return type == DType.S8 ? "int8" : Words.word(type);
    }

    @Override
    public DType dtype() {
        return type;
    }

    @Override
    public Examination prepare() {
        OperatorCase.Problem right = OperatorCase.parse(switch (mistake.operator) {
            case "attention" -> "attention " + types() + " b3 q7 k7 hq2 dk16 causal klen=7,0,3";
            case "gemm" -> "gemm int8 f32->f32 m3 k9 n5";
            default -> "softmax " + types() + "->" + types() + " r3 n5";
        }).problem();
        return subject -> {
            try (Shared shared = new Shared();
                    Trial wrong = new Trial(subject, subject.stream(subject.device()), shared,
                            subject.placement(this), (trial, run) -> trial.refused(run, expected()))) {
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
            case "attention" -> attention(trial);
            case "gemm" -> weights(trial);
            default -> softmax(trial, shared);
        }
    }

    private void attention(Trial trial) {
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

    private void weights(Trial trial) {
        float[] values = Values.normal(random(), DType.F32, 9 * 5, 1);
        values[random().nextInt(values.length)] =
                mistake == Mistake.NAN_WEIGHT ? Float.NaN : Float.NEGATIVE_INFINITY;
        Operand matrix = trial.input("w", DType.F32, values, 9, 5);
        try (PackedWeights packed = PackedWeights.pack(trial.device(), DType.S8, matrix.hostTensor())) {
            trial.fail(packed + " were made, expected IllegalArgumentException");
        } catch (IllegalArgumentException e) {
            // as it should be
        }
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
