package io.gatun.bench.compare;

import io.gatun.Device;
import io.gatun.Limit;
import io.gatun.bench.compare.Peer.Call;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Runs tasks on Gatun and on its peers in turns. A round is limits, Gatun, limits, the first peer, limits, and so on,
 * each round beginning with another of them; so each time has its own limits beside it, on both sides. Results are
 * compared before anything is timed.
 *
 * @param device Gatun's, such as {@code cpu}
 * @param ours who does Gatun's part: the first that knows a task
 * @param peers the others
 * @param pace how long and how often
 * @param watcher told of each outcome
 */
record Comparison(String device, List<Peer> ours, List<Peer> peers, Pace pace, Consumer<Outcome> watcher) {
    /**
     * How long and how often.
     *
     * @param samples how many undisturbed samples are wanted
     * @param attempts how many rounds are run for them at the most
     * @param seconds that a sample takes at the least
     * @param warmUp seconds that runs take before the first sample at the least
     * @param tolerated the part by which limits around a sample may differ, and for which it may be kept waiting
     */
    record Pace(int samples, int attempts, double seconds, double warmUp, double tolerated) {}

    /** In which the workers of the one that ran before stop spinning; runtimes for threads wait so long for more. */
    private static final long QUIET_MILLISECONDS = 30;
    private static final int MOST_WARM_UPS = 100_000;

    /** A library with its call ready, and its samples. */
    private static final class Entry {
        final String name;
        final Call call;
        final List<Sample> samples = new ArrayList<>();
        int runs;
        int set;

        Entry(String name, Call call) {
            this.name = name;
            this.call = call;
        }
    }

    /** Runs one task with so many threads. */
    void run(Task task, int threads) {
        List<Entry> entries = new ArrayList<>();
        try (Operands operands = Operands.of(task);
                Device limits = Device.open(device, threads)) {
            try {
                if (prepareOurs(task, operands, threads, entries)) {
                    for (Peer peer : peers) {
                        preparePeer(task, operands, threads, peer, entries);
                    }
                    measure(task, operands, threads, limits, entries);
                }
            } finally {
                entries.forEach(entry -> entry.call.close());
            }
        } catch (Exception e) {
            watcher.accept(Outcome.error(task, threads, null, reason(e)));
        }
    }

    private boolean prepareOurs(Task task, Operands operands, int threads, List<Entry> entries) throws Exception {
        for (Peer part : ours) {
            Optional<Call> call = part.prepare(task, operands, threads);
            if (call.isPresent()) {
                Entry entry = new Entry(part.name(), call.get());
                entries.add(entry);
                warmUp(entry, operands.sets());
                return true;
            }
        }
        watcher.accept(Outcome.without(task, threads, null, "Gatun does not do this here"));
        return false;
    }

    private void preparePeer(Task task, Operands operands, int threads, Peer peer, List<Entry> entries) {
        @Nullable Call open = null;
        try {
            Optional<Call> call = peer.prepare(task, operands, threads);
            if (call.isEmpty()) {
                return;
            }
            open = call.get();
            Entry entry = new Entry(peer.name(), open);
            warmUp(entry, operands.sets());
            Optional<String> disagreement =
                    task.agreement(operands).disagreement(entries.getFirst().call.result(), open.result());
            if (disagreement.isPresent()) {
                watcher.accept(Outcome.error(
                        task, threads, peer.name(), "results disagree: " + disagreement.get()));
                open.close();
                return;
            }
            entries.add(entry);
        } catch (UnsupportedOperationException e) {
            watcher.accept(Outcome.without(task, threads, peer.name(), "not available: " + e.getMessage()));
            if (open != null) {
                open.close();
            }
        } catch (Exception | LinkageError e) {
            watcher.accept(Outcome.error(task, threads, peer.name(), reason(e)));
            if (open != null) {
                open.close();
            }
        }
    }

    /** Runs until compilers and caches have settled, and finds how many runs a sample needs. */
    private void warmUp(Entry entry, int sets) throws Exception {
        entry.call.run(0, sets, sets);
        double once = 0;
        int runs = 1;
        for (double total = 0; total < pace.warmUp && runs <= MOST_WARM_UPS; runs *= 2) {
            double before = total;
            total += time(entry, runs, sets);
            once = (total - before) / runs;
        }
        entry.runs = (int) Math.clamp(Math.ceil(pace.seconds / once), 1, 1e7);
    }

    private static double time(Entry entry, int runs, int sets) throws Exception {
        long start = System.nanoTime();
        entry.call.run(entry.set, runs, sets);
        double seconds = (System.nanoTime() - start) / 1e9;
        entry.set = (int) ((entry.set + (long) runs) % sets);
        return seconds;
    }

    private void measure(Task task, Operands operands, int threads, Device limits, List<Entry> entries)
            throws Exception {
        Ceiling ceiling = task.ceiling();
        Map<Limit, Double> rates = rates(limits, ceiling);
        for (int round = 0; round < pace.attempts && !enough(entries); round++) {
            for (int i = 0; i < entries.size(); i++) {
                Entry entry = entries.get((i + round) % entries.size());
                // Wakes its threads, and brings back what the limits have swept out of the caches.
                time(entry, 1, operands.sets());
                Load load = Load.now();
                double seconds = time(entry, entry.runs, operands.sets());
                double disturbed = Load.now().since(load, threads);
                Thread.sleep(QUIET_MILLISECONDS);
                Map<Limit, Double> after = rates(limits, ceiling);
                entry.samples.add(new Sample(
                        round, seconds / entry.runs, ceiling.seconds(rates), ceiling.seconds(after), disturbed));
                rates = after;
            }
        }
        Figure ours = Figure.of(entries.getFirst().samples, pace.tolerated);
        String limit = ceiling.name(rates);
        if (entries.size() == 1) {
            watcher.accept(Outcome.of(task, threads, ours, null, null, limit));
        }
        for (Entry entry : entries.subList(1, entries.size())) {
            Figure theirs = Figure.of(entry.samples, pace.tolerated);
            watcher.accept(Outcome.of(task, threads, ours, entry.name, theirs, limit));
        }
    }

    private boolean enough(List<Entry> entries) {
        return entries.stream().allMatch(entry ->
                Figure.of(entry.samples, pace.tolerated).samples().size() >= pace.samples);
    }

    private static Map<Limit, Double> rates(Device device, Ceiling ceiling) {
        Map<Limit, Double> rates = new EnumMap<>(Limit.class);
        for (Limit limit : ceiling.limits()) {
            rates.put(limit, device.measure(limit).orElseThrow(
                    () -> new UnsupportedOperationException(device + " cannot measure its limit " + limit)));
        }
        return rates;
    }

    /** An exception on one line. */
    static String reason(Throwable e) {
        Throwable cause = e;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        String name = cause.getClass().getSimpleName();
        String message = cause.getMessage();
        return message == null ? name : name + ": " + message.strip().lines().findFirst().orElse("");
    }
}
