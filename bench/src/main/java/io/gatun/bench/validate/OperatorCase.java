package io.gatun.bench.validate;

import io.gatun.DType;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/**
 * One operator, or a chain of some, with its shapes, layouts, types and values. As a case of its own it looks at the
 * results.
 */
sealed interface OperatorCase extends Case
        permits GemmCase, ConvCase, PoolingCase, AttentionCase, MergeCase, RopeCase, SelectCase, SparseCase, RouteCase,
                MixCase, NormCase, SoftmaxCase, ActivationCase, GluCase, FakeQuantizeCase {
    @Override
    DType dtype();

    /** Whether zeros, or nothing, are all that can be expected: a dimension of 0, or zero operands. */
    boolean degenerate();

    /** Whether a run is as large as its plan, so that the plan's operations and bytes are those of the run. */
    boolean fillsPlan();

    /** Makes the operands and computes what is expected, once for all devices. */
    Problem problem();

    @Override
    default String check() {
        return "value";
    }

    @Override
    default Examination prepare() {
        return new ValueExamination(this, problem());
    }

    /**
     * Reads an operator's line.
     *
     * @throws IllegalArgumentException when it is none, saying why
     */
    static OperatorCase parse(String line) {
        Words words = new Words(line);
        String operator = words.first();
        return switch (operator) {
            case "gemm" -> GemmCase.parse(words);
            case "conv" -> ConvCase.parse(words);
            case "pooling" -> PoolingCase.parse(words);
            case "attention" -> AttentionCase.parse(words);
            case "merge" -> MergeCase.parse(words);
            case "rope" -> RopeCase.parse(words);
            case "select" -> SelectCase.parse(words);
            case "sparse" -> SparseCase.parse(words);
            case "route" -> RouteCase.parse(words);
            case "mix" -> MixCase.parse(words);
            case "layernorm", "rmsnorm" -> NormCase.parse(operator, words);
            case "softmax" -> SoftmaxCase.parse(words);
            case "activation" -> ActivationCase.parse(words);
            case "glu" -> GluCase.parse(words);
            case "fake_quantize" -> FakeQuantizeCase.parse(words);
            default -> throw words.wrong("'" + operator
                    + "' is no operator; there are gemm, conv, pooling, attention, merge, rope, select, sparse, route, mix, "
                    + "layernorm, rmsnorm, softmax, activation, glu and fake_quantize");
        };
    }

    /** The numbers of this case: the same for the same line, on every machine. */
    default RandomGenerator random() {
        return new SplittableRandom(name().hashCode());
    }

    /** The operands of a case and what they should give. */
    @FunctionalInterface
    interface Problem {
        /** Makes the trial's operands, opens the plan and executes it. */
        void run(Trial trial);
    }
}
