package io.gatun.bench.compare;

import org.jspecify.annotations.Nullable;

/**
 * What came of a task with one peer.
 *
 * @param task the operator and its shape
 * @param threads of a run
 * @param peer the other's name, or null for Gatun alone
 * @param row the figures, or null where there are none
 * @param why there are none, or ""
 * @param failed whether that is an error: results that disagree, a broken measurement, an exception
 * @param dropped how many samples of both did not count
 * @param flopsPerSecond the best arithmetic of Gatun's, for a roofline; NaN without figures
 */
record Outcome(
        Task task,
        int threads,
        @Nullable String peer,
        @Nullable Row row,
        String why,
        boolean failed,
        int dropped,
        double flopsPerSecond) {

    static Outcome without(Task task, int threads, @Nullable String peer, String why) {
        return new Outcome(task, threads, peer, null, why, false, 0, Double.NaN);
    }

    static Outcome error(Task task, int threads, @Nullable String peer, String why) {
        return new Outcome(task, threads, peer, null, why, true, 0, Double.NaN);
    }

    /** Puts the figures of both together, unless there are too few samples or one claims more than its limit. */
    static Outcome of(
            Task task, int threads, Figure ours, @Nullable String peer, @Nullable Figure theirs, String limit) {
        int dropped = ours.dropped() + (theirs == null ? 0 : theirs.dropped());
        double speedup = theirs == null ? Double.NaN : ours.speedup(theirs);
        String why = "";
        if (ours.samples().isEmpty() || theirs != null && Double.isNaN(speedup)) {
            why = "every sample was disturbed by other load, " + dropped + " dropped";
        } else if (ours.broken()) {
            why = broken("Gatun", ours, limit);
        } else if (theirs != null && theirs.broken()) {
            why = broken(peer, theirs, limit);
        }
        if (!why.isEmpty()) {
            boolean broken = ours.broken() || theirs != null && theirs.broken();
            return new Outcome(task, threads, peer, null, why, broken, dropped, Double.NaN);
        }
        Row row = new Row(
                task.name(), task.shape(), task.dtype(), threads, task.cold(), ours.seconds() * 1e3, peer,
                theirs == null ? null : number(theirs.seconds() * 1e3), number(speedup), number(ours.fraction()),
                theirs == null ? null : number(theirs.fraction()), limit);
        return new Outcome(task, threads, peer, row, "", false, dropped, task.flops() / ours.seconds());
    }

    private static String broken(@Nullable String who, Figure figure, String limit) {
        return "refused: %s at %.2f of its limit (%s) is a broken measurement".formatted(who, figure.fraction(), limit);
    }

    private static @Nullable Double number(double value) {
        return Double.isNaN(value) ? null : value;
    }
}
