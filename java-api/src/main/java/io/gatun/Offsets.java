package io.gatun;

import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Offsets in one block for tensors with lifetimes, in as few bytes as a bounded search finds.
 *
 * <p>A placement takes the tensors in some order, and gives each the smallest gap that it fits in between those placed
 * before it that live at the same time, or the room behind all of them (Pisarchyk and Lee 2020, algorithm 3). The order
 * decides. By size is their best one on neural networks; by size times duration, by the bytes that live around a tensor
 * (their greedy by breadth) and by duration win on other graphs. Where the best of them is well above the lower bound,
 * a search moves one of the tensors that end highest to an earlier place in the order, and goes on from
 * there as long as the result is not much worse than the best one (record-to-record travel, Dueck 1993).
 *
 * <p>A placement costs n^2 / 2 comparisons for n tensors. The number of placements follows from n, and the choices of
 * the search from a fixed seed.
 */
final class Offsets {
    /** The search is over within this part of the lower bound: alignment alone may cost as much. */
    private static final long GOOD = 1000;

    /** The search goes on from what is worse than its best by less than this part of it. */
    private static final long DEVIATION = 200;

    private static final int MOST_STEPS = 500;
    private static final long MOST_COMPARISONS = 50_000_000;

    private final long[] sizes;
    private final long[] alignments;
    private final int[] first;
    private final int[] last;
    private final long maxLiveBytes;
    private long[] offsets;
    private long bytes = Long.MAX_VALUE;

    // What has been placed, in the order of offsets.
    private final long[] placedFrom;
    private final long[] placedTo;
    private final int[] placedFirst;
    private final int[] placedLast;

    Offsets(long[] sizes, long[] alignments, int[] first, int[] last) {
        int count = sizes.length;
        this.sizes = sizes;
        this.alignments = alignments;
        this.first = first;
        this.last = last;
        this.offsets = new long[count];
        this.placedFrom = new long[count];
        this.placedTo = new long[count];
        this.placedFirst = new int[count];
        this.placedLast = new int[count];
        long[] live = liveBytes();
        this.maxLiveBytes = Arrays.stream(live).max().orElse(0);
        search(live);
    }

    /** Returns the offset of each tensor. */
    long[] best() {
        return offsets;
    }

    /** Returns the end of the tensor that ends last. */
    long bytes() {
        return bytes;
    }

    /** Returns the most bytes that live in one step. */
    long maxLiveBytes() {
        return maxLiveBytes;
    }

    /** The most bytes that live in one step of each tensor's lifetime. */
    private long[] liveBytes() {
        int count = sizes.length;
        // What lives only grows where a tensor begins: those steps have every maximum.
        int[] begins = Arrays.stream(first).sorted().distinct().toArray();
        long[] change = new long[begins.length + 1];
        for (int i = 0; i < count; i++) {
            change[atOrAfter(begins, first[i])] += sizes[i];
            change[after(begins, last[i])] -= sizes[i];
        }
        long[] live = new long[begins.length];
        long sum = 0;
        for (int step = 0; step < live.length; step++) {
            sum += change[step];
            live[step] = sum;
        }
        long[] around = new long[count];
        for (int i = 0; i < count; i++) {
            for (int step = atOrAfter(begins, first[i]); step < after(begins, last[i]); step++) {
                around[i] = Math.max(around[i], live[step]);
            }
        }
        return around;
    }

    private static int atOrAfter(int[] begins, int step) {
        int at = Arrays.binarySearch(begins, step);
        return at < 0 ? -at - 1 : at;
    }

    private static int after(int[] begins, int step) {
        int at = Arrays.binarySearch(begins, step);
        return at < 0 ? -at - 1 : at + 1;
    }

    private void search(long[] live) {
        Comparator<Integer> bySize = Comparator.comparingLong((Integer i) -> -sizes[i]);
        Comparator<Integer> byArea = Comparator.comparingDouble((Integer i) -> -(double) sizes[i] * duration(i));
        Comparator<Integer> byDuration = Comparator.comparingLong((Integer i) -> -duration(i));
        Comparator<Integer> byBreadth = Comparator.comparingLong((Integer i) -> -live[i]);
        int[] best = {};
        for (Comparator<Integer> order : List.of(
                bySize.thenComparing(byDuration),
                byArea,
                byBreadth.thenComparing(bySize),
                byDuration.thenComparing(bySize))) {
            int[] sorted = IntStream.range(0, sizes.length)
                    .boxed()
                    .sorted(order) // stable: equal ones stay in the order of their numbers
                    .mapToInt(Integer::intValue)
                    .toArray();
            if (place(sorted, bytes - 1) != null) {
                best = sorted;
            }
            if (isGood()) {
                return;
            }
        }
        improve(best);
    }

    private boolean isGood() {
        return bytes - maxLiveBytes <= maxLiveBytes / GOOD;
    }

    private static long up(long value, long unit) {
        return (value + unit - 1) & -unit;
    }

    private long duration(int i) {
        return (long) last[i] - first[i] + 1;
    }

    private void improve(int[] order) {
        long comparisons = (long) order.length * order.length / 2 + 1;
        long steps = Math.min(MOST_STEPS, MOST_COMPARISONS / comparisons);
        SplittableRandom random = new SplittableRandom(1);
        long[] placed = offsets;
        int[] top = new int[order.length];
        for (long step = 0; step < steps && !isGood(); step++) {
            int tops = 0;
            for (int at = 1; at < order.length; at++) {
                if (placed[order[at]] + sizes[order[at]] >= bytes) {
                    top[tops++] = at;
                }
            }
            if (tops == 0) {
                return; // what is placed first ends highest: no order does better
            }
            int from = top[random.nextInt(tops)];
            int to = random.nextInt(from);
            int[] moved = order.clone();
            System.arraycopy(order, to, moved, to + 1, from - to);
            moved[to] = order[from];
            long[] result = place(moved, bytes + bytes / DEVIATION);
            if (result != null) {
                order = moved;
                placed = result;
            }
        }
    }

    /** Places all tensors in this order; null if that takes more than {@code most} bytes. */
    private long @Nullable [] place(int[] order, long most) {
        long[] placed = new long[order.length];
        long end = 0;
        for (int count = 0; count < order.length; count++) {
            int i = order[count];
            placed[i] = gap(i, count);
            end = Math.max(end, placed[i] + sizes[i]);
            if (end > most) {
                return null;
            }
            insert(i, placed[i], count);
        }
        if (end < bytes) {
            offsets = placed;
            bytes = end;
        }
        return placed;
    }

    /** The start of the smallest gap for a tensor among the first {@code count} that were placed. */
    private long gap(int i, int count) {
        long size = sizes[i];
        long alignment = alignments[i];
        int begin = first[i];
        int end = last[i];
        long free = 0; // behind all that was looked at
        long best = -1;
        long bestGap = Long.MAX_VALUE;
        for (int p = 0; p < count; p++) {
            if ((end - placedFirst[p] | placedLast[p] - begin) < 0) {
                continue; // one of them is over before the other begins
            }
            if (placedFrom[p] > free) {
                long start = up(free, alignment);
                long gap = placedFrom[p] - free;
                if (gap < bestGap && start + size <= placedFrom[p]) {
                    best = start;
                    bestGap = gap;
                }
            }
            free = Math.max(free, placedTo[p]);
        }
        return best >= 0 ? best : up(free, alignment);
    }

    private void insert(int i, long offset, int count) {
        int at = Arrays.binarySearch(placedFrom, 0, count, offset);
        at = at < 0 ? -at - 1 : at;
        System.arraycopy(placedFrom, at, placedFrom, at + 1, count - at);
        System.arraycopy(placedTo, at, placedTo, at + 1, count - at);
        System.arraycopy(placedFirst, at, placedFirst, at + 1, count - at);
        System.arraycopy(placedLast, at, placedLast, at + 1, count - at);
        placedFrom[at] = offset;
        placedTo[at] = offset + sizes[i];
        placedFirst[at] = first[i];
        placedLast[at] = last[i];
    }
}
