package io.gatun.bench.validate;

import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/** One thing to validate, fully described by one line of text: {@link #name()} and {@link #parse} are inverse. */
public sealed interface Case permits GemmCase, AttentionCase, NormCase, SoftmaxCase, ActivationCase {
    /** The line that repeats this case. */
    String name();

    /** The operator: the first word of the line. */
    String family();

    /** The types of its operands, and of its weights where it has some. */
    String types();

    /** Whether zeros, or nothing, are all that can be expected: a dimension of 0, or zero operands. */
    boolean degenerate();

    /** Makes the operands and computes what is expected, once for all devices. */
    Problem problem();

    /**
     * Reads a case's line.
     *
     * @throws IllegalArgumentException when it is none, saying why
     */
    static Case parse(String line) {
        Words words = new Words(line);
        String family = words.first();
        return switch (family) {
            case "gemm" -> GemmCase.parse(words);
            case "attention" -> AttentionCase.parse(words);
            case "layernorm", "rmsnorm" -> NormCase.parse(family, words);
            case "softmax" -> SoftmaxCase.parse(words);
            case "activation" -> ActivationCase.parse(words);
            default -> throw words.wrong("'" + family
                    + "' is no operator; there are gemm, attention, layernorm, rmsnorm, softmax and activation");
        };
    }

    /** The numbers of this case: the same for the same line, on every machine. */
    default RandomGenerator random() {
        return new SplittableRandom(name().hashCode());
    }

    /** The operands of a case and what they should give. */
    interface Problem {
        /** Plans and runs the operator once on the trial's device. */
        void run(Trial trial);
    }
}
