package io.gatun.bench.cli;

import io.gatun.NotAvailableException;
import io.gatun.bench.report.CoverageMatrix;
import io.gatun.bench.report.HtmlReport;
import io.gatun.bench.report.JUnitXml;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Progress;
import io.gatun.bench.report.RepeatLine;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.ReportJson;
import io.gatun.bench.report.TextReport;
import io.gatun.bench.validate.Case;
import io.gatun.bench.validate.Catalogue;
import io.gatun.bench.validate.Catalogue.Extent;
import io.gatun.bench.validate.Director;
import io.gatun.bench.validate.Machine;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/**
 * Validates devices. Exit code 1 when something failed, crashed, timed out, contradicts its claims or became slower
 * than in the baseline, or when nothing passed; 2 when a device or library is not available.
 */
@Command(
        name = "validate",
        mixinStandardHelpOptions = true,
        sortOptions = false,
        description = "Runs every operator in a child process and compares it with references in FP64.")
final class ValidateCommand implements Callable<Integer> {
    private static final Pattern SHARD = Pattern.compile("([1-9]\\d{0,6})/([1-9]\\d{0,6})");
    private static final Duration BETWEEN_FILES = Duration.ofSeconds(5);
    private static final int MOST_PRINTED = 50;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--device",
            paramLabel = "NAME",
            description = "One device (cpu:avx2), or all of a backend (cpu). Default: those of --backend, else cpu.")
    private @Nullable String device;

    @Option(names = "--backend", paramLabel = "FILE", description = "Load this backend library first.")
    private @Nullable Path backend;

    @ArgGroup
    private final Choice choice = new Choice();

    /** Which part of the catalogue, or which case instead. */
    static final class Choice {
        @Option(names = "--quick", description = "Small shapes only: less than a minute.")
        private boolean quick;

        @Option(names = "--exhaustive", description = "Every combination: hours.")
        private boolean exhaustive;

        @Option(names = "--case", paramLabel = "LINE", description = "This case alone, such as a failure named it.")
        private @Nullable String line;

        Extent extent() {
            return quick ? Extent.QUICK : exhaustive ? Extent.EXHAUSTIVE : Extent.DEFAULT;
        }

        boolean brief() {
            return quick || line != null;
        }

        String name() {
            return line != null ? "case" : extent().name().toLowerCase(Locale.ROOT);
        }
    }

    @Option(names = "--filter", paramLabel = "REGEX", description = "Run the cases whose line contains a match.")
    private @Nullable Pattern filter;

    @Option(names = "--shard", paramLabel = "I/N", description = "Run part I of N of the cases, as one of N machines.")
    private String shard = "1/1";

    @Option(names = "--seed", paramLabel = "N", description = "Seed of shapes and values. Default: ${DEFAULT-VALUE}.")
    private long seed = 1;

    @Option(names = "--threads", paramLabel = "N", description = "Threads of a run. Default: all processors.")
    private int threads;

    @Option(
            names = "--timeout",
            paramLabel = "S",
            description = "Seconds after which a case that gives no answer is ended. Default: ${DEFAULT-VALUE}.")
    private double timeout = 30;

    @Option(names = "--fail-fast", description = "End with the first case that fails, crashes or times out.")
    private boolean failFast;

    @Option(names = "--baseline", paramLabel = "JSON", description = "Compare times with this earlier report.")
    private @Nullable Path baseline;

    @Option(
            names = "--threshold",
            paramLabel = "PART",
            description = "How much slower than the baseline counts. Default: ${DEFAULT-VALUE}.")
    private double threshold = 0.15;

    @Option(names = "--json", paramLabel = "FILE", description = "Write the report as JSON.")
    private @Nullable Path json;

    @Option(names = "--html", paramLabel = "FILE", description = "Write the report as one HTML page.")
    private @Nullable Path html;

    @Option(names = "--junit", paramLabel = "FILE", description = "Write the report as JUnit XML.")
    private @Nullable Path junit;

    @Option(
            names = "--coverage",
            paramLabel = "MARKDOWN",
            description = "Replace the coverage table between this file's markers.")
    private @Nullable Path coverage;

    @Option(names = "--list", description = "Print the cases instead of running them.")
    private boolean list;

    @Override
    public Integer call() throws IOException {
        List<Case> cases = cases();
        PrintWriter out = spec.commandLine().getOut();
        if (list) {
            cases.forEach(test -> out.println(test.name()));
            return 0;
        }
        checkOptions();
        Report earlier = earlier();
        Report.Environment environment = environment();
        Watcher watcher = new Watcher(out, environment);
        Director.Job job = new Director.Job(cases, backend, device(), threads, duration(timeout), failFast, choice.brief());
        Director director = new Director(job, environment, watcher);
        watcher.director = director;
        Thread lastWords = new Thread(() -> write(director.stop()));
        Runtime.getRuntime().addShutdownHook(lastWords);
        try {
            director.run(earlier, threshold);
        } catch (CancellationException e) {
            return GatunCommand.FAILED; // the hook writes the report
        } finally {
            watcher.close();
            removeHook(lastWords);
        }
        Report report = director.report();
        write(report);
        if (coverage != null) {
            CoverageMatrix.replace(coverage, List.of(report));
        }
        out.print(TextReport.of(report));
        out.flush();
        return report.good() ? 0 : GatunCommand.FAILED;
    }

    private static void removeHook(Thread hook) {
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException e) {
            // the process is ending: the hook writes the report
        }
    }

    /** Writes the files that were asked for; one that cannot be written does not keep the others from it. */
    private synchronized void write(Report report) {
        attempt(json, file -> ReportJson.write(report, file));
        attempt(html, file -> HtmlReport.write(report, file));
        attempt(junit, file -> JUnitXml.write(report, file));
    }

    /** Writes one file. */
    @FunctionalInterface
    private interface Form {
        void write(Path file) throws IOException;
    }

    private void attempt(@Nullable Path file, Form form) {
        if (file != null) {
            try {
                form.write(file);
            } catch (IOException e) {
                spec.commandLine().getErr().println("gatun: " + file + " cannot be written: " + e);
            }
        }
    }

    /** Prints what did not pass, moves the progress bar, and keeps the files up to date. */
    private final class Watcher implements Director.Watcher, AutoCloseable {
        private final PrintWriter out;
        private @Nullable Director director;
        private @Nullable Progress progress;
        private final Report.Environment environment;
        private long nextWrite = System.nanoTime() + BETWEEN_FILES.toNanos();
        private int printed;

        Watcher(PrintWriter out, Report.Environment environment) {
            this.out = out;
            this.environment = environment;
        }

        @Override
        public void opened(List<String> devices, int outcomes) {
            out.printf("%d outcomes to come from %s%n", outcomes, String.join(", ", devices));
            out.flush();
            progress = Progress.of(outcomes);
            if (director != null) {
                write(director.report());
            }
        }

        @Override
        public void outcome(Outcome outcome) {
            if (progress == null || director == null) {
                return;
            }
            progress.at(outcome.device(), outcome.name());
            progress.add(outcome);
            switch (outcome.verdict()) {
                case PASS, NOT_AVAILABLE, UNSUPPORTED -> {}
                case FAIL, MISTRUSTED, CRASHED, TIMED_OUT -> print(progress, outcome);
            }
            long start = System.nanoTime();
            if (start - nextWrite > 0) {
                write(director.report());
                long end = System.nanoTime();
                // Large reports take their time: no more than a twentieth of the run's.
                nextWrite = end + Math.max(BETWEEN_FILES.toNanos(), 20 * (end - start));
            }
        }

        private void print(Progress progress, Outcome outcome) {
            if (++printed <= MOST_PRINTED) {
                progress.aside(() -> {
                    out.printf("%s: %s%n  %s%n", outcome.verdict().toString().toUpperCase(Locale.ROOT),
                            outcome.detail(), RepeatLine.of(environment, outcome));
                    if (printed == MOST_PRINTED) {
                        out.println("More are in the report alone: --json, --html");
                    }
                    out.flush();
                });
            }
        }

        @Override
        public void close() {
            if (progress != null) {
                progress.close();
            }
        }
    }

    private Report.Environment environment() {
        return new Report.Environment("", 0, Machine.processor(), Machine.instructionSets(),
                Runtime.getRuntime().availableProcessors(), Machine.memoryBytes(),
                System.getProperty("os.name") + " " + System.getProperty("os.version") + " "
                        + System.getProperty("os.arch"),
                System.getProperty("java.vm.name") + " " + System.getProperty("java.vm.version"), "", 0, choice.name(),
                filter == null ? "" : filter.pattern(), shard, seed, threads, timeout, command());
    }

    /** What repeats the run. */
    private String command() {
        return "./gatun " + spec.commandLine().getParseResult().originalArgs().stream()
                .map(ValidateCommand::quoted)
                .collect(Collectors.joining(" "));
    }

    private static String quoted(String argument) {
        return argument.matches("[A-Za-z0-9_.:/@%+=,-]+") ? argument : "'" + argument.replace("'", "'\\''") + "'";
    }

    /** The device that was named, or the backend whose library, libgatun_NAME.so, was. */
    private String device() {
        if (device != null) {
            return device;
        }
        return backend == null
                ? "cpu"
                : String.valueOf(backend.getFileName()).replaceFirst("^libgatun_", "").replaceFirst("\\.so.*$", "");
    }

    private List<Case> cases() {
        Matcher parts = SHARD.matcher(shard);
        if (!parts.matches() || Integer.parseInt(parts.group(1)) > Integer.parseInt(parts.group(2))) {
            throw wrong("--shard " + shard + ", expected such as 2/5");
        }
        int part = Integer.parseInt(parts.group(1)) - 1;
        int of = Integer.parseInt(parts.group(2));
        try {
            List<Case> cases =
                    choice.line != null ? List.of(Case.parse(choice.line)) : Catalogue.cases(choice.extent(), seed);
            Pattern pattern = filter;
            List<Case> matching = new ArrayList<>(cases);
            if (pattern != null) {
                matching.removeIf(test -> !pattern.matcher(test.name()).find());
            }
            List<Case> chosen = IntStream.range(0, matching.size())
                    .filter(i -> i % of == part)
                    .mapToObj(matching::get)
                    .toList();
            if (chosen.isEmpty()) {
                throw wrong("there is no case for" + (pattern == null ? "" : " --filter " + pattern)
                        + (of == 1 ? "" : " --shard " + shard));
            }
            return chosen;
        } catch (IllegalArgumentException e) {
            throw wrong(String.valueOf(e.getMessage()));
        }
    }

    private void checkOptions() {
        if (threads < 0) {
            throw wrong("--threads " + threads + ", expected 1 or more");
        }
        if (!(timeout >= 0.1 && timeout <= 86400)) {
            throw wrong("--timeout " + timeout + ", expected 0.1 to 86400 seconds");
        }
        if (!(threshold > 0)) {
            throw wrong("--threshold " + threshold + ", expected more than 0");
        }
        checkFile("--json", json);
        checkFile("--html", html);
        checkFile("--junit", junit);
        if (coverage != null && !Files.isWritable(coverage)) {
            throw wrong("--coverage " + coverage + ", expected a file that can be written");
        }
    }

    private void checkFile(String option, @Nullable Path file) {
        if (file != null && (Files.isDirectory(file) || !Files.isDirectory(file.toAbsolutePath().getParent()))) {
            throw wrong(option + " " + file + ", expected a file in a folder that exists");
        }
    }

    private @Nullable Report earlier() {
        if (baseline == null) {
            return null;
        }
        try {
            return ReportJson.read(baseline);
        } catch (IOException e) {
            throw new NotAvailableException("--baseline: " + e.getMessage());
        }
    }

    private static Duration duration(double seconds) {
        return Duration.ofNanos((long) (seconds * 1e9));
    }

    private ParameterException wrong(String why) {
        return new ParameterException(spec.commandLine(), why);
    }
}
