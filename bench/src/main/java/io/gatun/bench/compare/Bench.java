package io.gatun.bench.compare;

import io.gatun.Device;
import io.gatun.NotAvailableException;
import io.gatun.bench.validate.Machine;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.function.Function;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/**
 * The command {@code ./gatun bench --peers}. Exit code 1 when results disagree, a figure is above its limit, something
 * threw or there are no figures at all; a peer that is not there is no error, and no win either.
 */
@Command(
        name = "gatun bench --peers",
        mixinStandardHelpOptions = true,
        sortOptions = false,
        description = "Times Gatun and its peers in turns, each beside the limits of the machine.")
public final class Bench implements Callable<Integer> {
    /**
     * A library that may be there.
     *
     * @param name what it is called when it is not
     * @param open loads it
     */
    public record Offer(String name, Callable<Peer> open) {}

    private static final Comparison.Pace QUICK = new Comparison.Pace(3, 3, 0.02, 0.1, 0.1);
    private static final Comparison.Pace FULL = new Comparison.Pace(9, 27, 0.1, 0.2, 0.1);
    /** After which a quick run begins nothing more, so that it ends within three minutes on a slow machine, too. */
    private static final Duration QUICK_ENDS = Duration.ofSeconds(150);

    private final List<Function<String, Peer>> ours;
    private final List<Offer> offers;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(names = "--peers", description = "Accepted, as this is what it is.", hidden = true)
    private boolean asked;

    @Option(names = "--filter", paramLabel = "REGEX",
            description = "Only those whose name, shape, type or 'cold', in a line, contain a match.")
    private @Nullable Pattern filter;

    @Option(names = "--quick", description = "Small shapes and few samples: less than three minutes.")
    private boolean quick;

    @Option(names = "--json", paramLabel = "FILE",
            description = "Write the figures, and charts of them beside it: FILE-bars.svg and FILE-roofline.svg.")
    private @Nullable Path json;

    @Option(names = "--threads", paramLabel = "N", split = ",",
            description = "Threads of a run, one or several numbers. Default: 1 and 2.")
    private List<Integer> threads = List.of();

    @Option(names = "--device", paramLabel = "NAME", description = "Gatun's device. Default: ${DEFAULT-VALUE}.")
    private String device = "cpu";

    @Option(names = "--samples", paramLabel = "N", description = "How many undisturbed samples. Default: 9, quick 3.")
    private int samples;

    @Option(names = "--tolerate", paramLabel = "PART",
            description = "Drop a sample when the limits around it differ by more than this part, or other load kept "
                    + "its threads waiting for more. Default: ${DEFAULT-VALUE}.")
    private double tolerated = 0.1;

    @Option(names = "--list", description = "Print what there is to run instead.")
    private boolean list;

    private Bench(List<Function<String, Peer>> ours, List<Offer> offers) {
        this.ours = ours;
        this.offers = offers;
    }

    /**
     * Runs the command.
     *
     * @param ours what does Gatun's part on a device, in the order in which they are asked
     * @param peers the others
     * @param args the command line
     * @return the exit code
     */
    public static int run(
            List<Function<String, Peer>> ours, List<Offer> peers, PrintWriter out, PrintWriter err, String... args) {
        return new CommandLine(new Bench(ours, peers))
                .setOut(out)
                .setErr(err)
                .setExecutionExceptionHandler(Bench::explain)
                .execute(args);
    }

    private static int explain(Exception exception, CommandLine command, CommandLine.ParseResult parsed)
            throws Exception {
        if (exception instanceof NotAvailableException) {
            command.getErr().println("gatun: not available: " + exception.getMessage());
            return CommandLine.ExitCode.USAGE;
        }
        throw exception;
    }

    @Override
    public Integer call() throws IOException {
        PrintWriter out = spec.commandLine().getOut();
        List<Task> tasks = Task.all(quick).stream()
                .filter(task -> filter == null || filter.matcher(line(task)).find())
                .toList();
        check(tasks);
        if (list) {
            tasks.forEach(task -> out.println(line(task)));
            return 0;
        }
        List<String> missing = new ArrayList<>();
        List<Peer> parts = ours.stream().map(part -> part.apply(device)).toList();
        List<Peer> peers = open(missing);
        out.println(heading(parts));
        peers.forEach(peer -> out.println("  beside " + peer.name()));
        missing.forEach(why -> out.println("  " + why));
        out.flush();
        List<Outcome> outcomes = new ArrayList<>();
        Comparison comparison = new Comparison(device, parts, peers, pace(), outcome -> {
            outcomes.add(outcome);
            progress(outcome);
        });
        List<Integer> counts = threads.isEmpty()
                ? IntStream.of(1, 2).filter(n -> n <= Runtime.getRuntime().availableProcessors()).boxed().toList()
                : threads;
        long start = System.nanoTime();
        for (Task task : tasks) {
            for (int count : task.singleThreaded() ? counts.subList(0, 1) : counts) {
                if (quick && System.nanoTime() - start > QUICK_ENDS.toNanos()) {
                    comparison.watcher().accept(Outcome.without(task, count, null, "left out: three minutes are over"));
                } else {
                    comparison.run(task, count);
                }
            }
        }
        out.print(Table.of(outcomes));
        missing.forEach(out::println);
        out.println("dropped: samples of either side that other load disturbed");
        out.flush();
        List<Row> rows = outcomes.stream().map(Outcome::row).filter(Objects::nonNull).toList();
        if (json != null) {
            RowsJson.write(rows, json);
            Charts.write(outcomes, json);
        }
        return rows.isEmpty() || outcomes.stream().anyMatch(Outcome::failed) ? 1 : 0;
    }

    private Comparison.Pace pace() {
        Comparison.Pace usual = quick ? QUICK : FULL;
        int wanted = samples > 0 ? samples : usual.samples();
        return new Comparison.Pace(
                wanted, samples > 0 ? 3 * samples : usual.attempts(), usual.seconds(), usual.warmUp(), tolerated);
    }

    private void check(List<Task> tasks) {
        if (tasks.isEmpty()) {
            throw new ParameterException(spec.commandLine(), "--filter: nothing contains a match of " + filter);
        }
        for (int count : threads) {
            if (count < 1) {
                throw new ParameterException(spec.commandLine(), "--threads: " + count + ", expected at least 1");
            }
        }
        if (samples < 0 || !(tolerated > 0)) {
            throw new ParameterException(spec.commandLine(), "--samples and --tolerate: expected more than 0");
        }
    }

    private static String line(Task task) {
        return task.name() + " " + task.shape() + " " + task.dtype() + (task.cold() ? " cold" : "");
    }

    private List<Peer> open(List<String> missing) {
        List<Peer> peers = new ArrayList<>();
        for (Offer offer : offers) {
            try {
                peers.add(offer.open.call());
            } catch (Exception | LinkageError e) {
                missing.add(offer.name + " is not available: " + Comparison.reason(e));
            }
        }
        return peers;
    }

    /** What runs where, and whether its products are of the unit that is the fastest elsewhere. */
    private String heading(List<Peer> parts) {
        String name;
        try (Device opened = Device.open(device, 1)) {
            name = opened.name();
        }
        String amx = Machine.instructionSets().contains("amx_tile")
                ? name.equals("cpu:amx") ? "" : "; it does not use the AMX that is there"
                : "; no AMX here";
        return (parts.isEmpty() ? "" : parts.getFirst().name() + " on ") + name + ", limits of products are its own"
                + amx + "; " + Machine.processor();
    }

    private void progress(Outcome outcome) {
        PrintWriter err = spec.commandLine().getErr();
        Row row = outcome.row();
        err.println(row == null
                ? Table.note(outcome)
                : line(outcome.task()) + ", " + row.threads() + " threads"
                        + (row.peer() == null ? "" : ", " + row.peer()));
        err.flush();
    }
}
