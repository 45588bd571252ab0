package io.gatun.bench.compare;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/**
 * How long this process's threads have waited for a processor that something else had, and how long this machine for
 * one that its host had given away.
 *
 * @param waited nanoseconds on a run queue, of each thread by its number
 * @param stolen nanoseconds
 * @param when by {@link System#nanoTime}
 */
record Load(Map<String, Long> waited, long stolen, long when) {
    private static final Path THREADS = Path.of("/proc/self/task");
    private static final Path MACHINE = Path.of("/proc/stat");
    private static final int STEAL = 8;
    private static final long TICK = 10_000_000; // of /proc/stat, in nanoseconds

    static Load now() {
        Map<String, Long> waited = new HashMap<>();
        long stolen = 0;
        try (DirectoryStream<Path> threads = Files.newDirectoryStream(THREADS)) {
            for (Path thread : threads) {
                try {
                    // Nanoseconds on a processor, nanoseconds waiting for one, and how often.
                    String[] times = Files.readString(thread.resolve("schedstat")).strip().split(" ");
                    waited.put(thread.getFileName().toString(), Long.parseLong(times[1]));
                } catch (IOException e) {
                    // the thread has ended
                }
            }
            String total = Files.readString(MACHINE).lines().findFirst().orElse("");
            String[] ticks = total.split(" +");
            stolen = ticks.length > STEAL ? Long.parseLong(ticks[STEAL]) * TICK : 0;
        } catch (IOException e) {
            // a system that does not tell
        }
        return new Load(waited, stolen, System.nanoTime());
    }

    /** The part of the time since then that one of the {@code threads} of a run was kept waiting, at the most. */
    double since(Load then, int threads) {
        long waiting = 0;
        for (Map.Entry<String, Long> thread : waited.entrySet()) {
            waiting += thread.getValue() - then.waited.getOrDefault(thread.getKey(), 0L);
        }
        // A tick or two of stealing is within what counting by ticks may be wrong.
        long taken = Math.max(0, stolen - then.stolen - TICK);
        return (double) (waiting + taken) / threads / Math.max(1, when - then.when);
    }
}
