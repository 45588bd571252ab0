package io.gatun.bench.cli;

import io.gatun.Device;
import io.gatun.MemoryDomain;
import io.gatun.bench.memory.Allocators;
import io.gatun.bench.memory.Replay;
import io.gatun.bench.memory.Trace;
import io.gatun.bench.memory.Workload;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Replays what programs ask of memory against the pool and other allocators. */
@Command(
        name = "memory",
        mixinStandardHelpOptions = true,
        description = "Replays traces of allocations against the pool, arenas, malloc, jemalloc and mimalloc.")
final class MemoryCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(
            paramLabel = "TRACE",
            arity = "0..*",
            description = "Files that MemoryPool.Builder.trace or --write wrote. By default the traces of a decoder, a"
                    + " training and MiniLM are made.")
    private Path[] files = {};

    @Option(names = "--seed", paramLabel = "N", description = "Of the traces that are made.")
    private long seed = 1;

    @Option(names = "--write", paramLabel = "FOLDER", description = "Write the traces that are made there, as NAME.trace.")
    private @Nullable Path folder;

    @Option(names = "--times", description = "Time each allocator as well.")
    private boolean times;

    @Override
    public Integer call() throws IOException {
        Map<String, Trace> traces = new LinkedHashMap<>();
        for (Path file : files) {
            traces.put(file.toString(), Trace.read(file));
        }
        for (Workload workload : files.length > 0 ? new Workload[0] : Workload.values()) {
            traces.put(workload.toString(), workload.trace(seed));
        }
        PrintWriter out = spec.commandLine().getOut();
        try (Device device = Device.open("cpu", 1)) {
            for (Map.Entry<String, Trace> each : traces.entrySet()) {
                if (folder != null && files.length == 0) {
                    each.getValue().write(folder.resolve(each.getKey() + ".trace"));
                }
                print(out, each.getKey(), each.getValue(), device);
            }
        }
        return 0;
    }

    private void print(PrintWriter out, String name, Trace trace, Device device) {
        Replay.Need need = Replay.need(trace);
        Replay.Peak pool = Replay.adaptive(trace, device);
        Replay.Peak shared = Replay.shared(trace, device);
        long activations = need.live().getOrDefault(MemoryDomain.ACTIVATIONS, 0L);
        out.printf("%s: %d events, %.1f MiB live at most%n", name, trace.events().size(), mib(need.allLive()));
        out.printf("  reserved at peak: pool %.1f MiB, one malloc a tensor until its request ends %.1f MiB (%.0f %% less; what"
                + " lives at a time is %.0f %% less)%n",
                mib(pool.reserved()), mib(need.untilRequestEnds()), less(pool.reserved(), need), less(need.allLive(), need));
        out.printf("  activations at peak: reserved %.1f MiB, live %.1f MiB (%.1f %% more)%n",
                mib(pool.activations()), mib(activations), 100.0 * pool.activations() / activations - 100);
        out.printf("  external fragmentation at peak: pool %.2f %%, one pool of slabs of 128 MiB %.2f %%%n",
                100 * pool.external(), 100 * shared.external());
        if (times) {
            Allocators.time(trace, device).forEach(
                    (allocator, nanos) -> out.printf("  %-18s %10.1f ns an event%n", allocator, nanos));
        }
        out.flush();
    }

    private static double less(long bytes, Replay.Need need) {
        return 100 - 100.0 * bytes / need.untilRequestEnds();
    }

    private static double mib(long bytes) {
        return bytes / (double) (1 << 20);
    }
}
