package io.gatun.bench.compare;

/**
 * One time, and what the machine could do before and after it.
 *
 * @param round in which turn it was taken; those of one round are neighbours in time
 * @param seconds of one run
 * @param before the least seconds that a run could have taken, by the limits measured just before
 * @param after by those just after
 * @param disturbed the part of the time for which other load kept a thread waiting
 */
record Sample(int round, double seconds, double before, double after, double disturbed) {
    /** The least time that a run could take meanwhile. */
    double least() {
        return (before + after) / 2;
    }

    /** Whether the machine was the same before and after, and had nothing else to do. */
    boolean undisturbed(double tolerated) {
        return disturbed <= tolerated && Math.abs(before - after) <= tolerated * least();
    }
}
