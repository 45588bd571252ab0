package io.gatun.bench.validate;

import io.gatun.DType;
import org.jspecify.annotations.Nullable;

/** One thing to validate, fully described by one line of text: {@link #name()} and {@link #parse} are inverse. */
public sealed interface Case permits OperatorCase, OperatorCheck, LeakCase, RefusalCase {
    /** The line that repeats this case. */
    String name();

    /** What is looked at: {@code value}, {@code concurrent}, {@code leak}, {@code refuse} or {@code time}. */
    String check();

    /** The operator: the first word of the line after the check, or {@code device}. */
    String operator();

    /** The types of its operands, and of its weights where it has some. */
    String types();

    /**
     * The type by which devices claim to serve the operator: that of the weights, or else of the first operand; null
     * where there is none.
     */
    @Nullable DType dtype();

    /** Makes the operands and computes what is expected, once for all devices. */
    Examination prepare();

    /** Whether nothing else may take time or memory of the process while it runs. */
    default boolean alone() {
        return false;
    }

    /**
     * Reads a case's line: that of an operator, with a check before it unless its values are what is to be checked.
     *
     * @throws IllegalArgumentException when it is none, saying why
     */
    static Case parse(String line) {
        String[] words = line.strip().split("\\s+", 2);
        String rest = words.length > 1 ? words[1] : "";
        return switch (words[0]) {
            case ConcurrentCase.CHECK -> new ConcurrentCase(OperatorCase.parse(rest));
            case LeakCase.CHECK -> LeakCase.parse(rest);
            case RefusalCase.CHECK -> RefusalCase.parse(new Words(line));
            case TimeCase.CHECK -> new TimeCase(OperatorCase.parse(rest));
            default -> OperatorCase.parse(line);
        };
    }

    /** A prepared case, to be run on one device after the other. */
    @FunctionalInterface
    interface Examination {
        /**
         * Runs the case.
         *
         * @throws UnsupportedOperationException if the device declines the operator
         * @throws RuntimeException if a run or a plan throws anything else: the case failed
         */
        Finding on(Subject subject);
    }
}
