package io.gatun.bench.compare;

import java.util.Optional;

/** A library that does some of what Gatun does, or Gatun itself. */
public interface Peer {
    /** Its name and version. */
    String name();

    /**
     * Makes an operator ready to be timed: weights are packed and plans made, as its users would.
     *
     * @param task the operator and its shape
     * @param operands its data; what it gives stays there until the call is closed
     * @param threads how many threads a run uses, the caller's included
     * @return the call, or empty where the library has no such operator
     * @throws UnsupportedOperationException where it has one, but not on this processor
     * @throws Exception where it has one, and that fails
     */
    Optional<Call> prepare(Task task, Operands operands, int threads) throws Exception;

    /** An operator that is ready to run. */
    interface Call extends AutoCloseable {
        /**
         * Runs once, and returns when the result is there.
         *
         * @param set on which of the operands' sets, less than their number
         */
        void run(int set) throws Exception;

        /**
         * Runs many times, on one set after the other.
         *
         * @param first the set of the first run
         * @param runs how many runs
         * @param sets how many sets there are
         */
        default void run(int first, int runs, int sets) throws Exception {
            for (int i = 0; i < runs; i++) {
                run((first + i) % sets);
            }
        }

        /** The result of the last run, row-major, without scales left to apply. */
        float[] result() throws Exception;

        @Override
        void close();
    }
}
