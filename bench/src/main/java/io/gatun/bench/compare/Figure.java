package io.gatun.bench.compare;

import java.util.Arrays;
import java.util.List;

/**
 * What a library's samples say.
 *
 * @param samples those that count
 * @param dropped how many do not, because something disturbed them
 * @param seconds the median time of a run, NaN without samples
 * @param fraction the median part of its limit that a run reached, each sample by the limits around it; NaN where there
 *     is no limit
 */
record Figure(List<Sample> samples, int dropped, double seconds, double fraction) {
    /** No library does more than the machine can: what says so was measured wrongly. Limits have some noise, too. */
    static final double MOST = 1.03;

    static Figure of(List<Sample> all, double tolerated) {
        List<Sample> kept = all.stream().filter(sample -> sample.undisturbed(tolerated)).toList();
        double fraction = median(kept.stream().mapToDouble(sample -> sample.least() / sample.seconds()).toArray());
        return new Figure(
                kept, all.size() - kept.size(),
                median(kept.stream().mapToDouble(Sample::seconds).toArray()),
                fraction > 0 ? fraction : Double.NaN);
    }

    /** Whether it claims more than its limit. */
    boolean broken() {
        return fraction > MOST;
    }

    /** How many times as long the other took, as the median over rounds in which both count; NaN without any. */
    double speedup(Figure other) {
        return median(samples.stream()
                .flatMapToDouble(ours -> other.samples.stream()
                        .filter(theirs -> theirs.round() == ours.round())
                        .mapToDouble(theirs -> theirs.seconds() / ours.seconds()))
                .toArray());
    }

    /** The median, of an even number the mean of the middle two; NaN of none. */
    static double median(double... values) {
        if (values.length == 0) {
            return Double.NaN;
        }
        double[] sorted = values.clone();
        Arrays.sort(sorted);
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}
