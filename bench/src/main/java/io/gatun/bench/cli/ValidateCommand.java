package io.gatun.bench.cli;

import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.GatunException;
import io.gatun.bench.validate.Case;
import io.gatun.bench.validate.Catalogue;
import io.gatun.bench.validate.Outcome;
import io.gatun.bench.validate.Report;
import io.gatun.bench.validate.Validation;
import io.gatun.bench.validate.Verdict;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Validates devices. Exit code 1 when a case failed or none passed, 2 when a device or library is not available. */
@Command(
        name = "validate",
        mixinStandardHelpOptions = true,
        description = "Runs every operator and compares it with references in FP64.")
final class ValidateCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--device",
            paramLabel = "NAME",
            description = "One device (cpu:avx2), or all of a backend (cpu). Default: those of --backend, else cpu.")
    private @Nullable String device;

    @Option(names = "--quick", description = "Small shapes only: seconds instead of minutes.")
    private boolean quick;

    @Option(names = "--case", paramLabel = "LINE", description = "Run this case alone, such as a failure named it.")
    private @Nullable String line;

    @Option(names = "--filter", paramLabel = "REGEX", description = "Run the cases whose line contains a match.")
    private @Nullable Pattern filter;

    @Option(names = "--seed", paramLabel = "N", description = "Seed of shapes and values. Default: ${DEFAULT-VALUE}.")
    private long seed = 1;

    @Option(names = "--threads", paramLabel = "N", description = "Threads of a run. Default: all processors.")
    private int threads;

    @Option(names = "--backend", paramLabel = "FILE", description = "Load this backend library first.")
    private @Nullable Path backend;

    @Option(names = "--json", paramLabel = "FILE", description = "Write every outcome to this file.")
    private @Nullable Path json;

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
        if (backend != null) {
            try {
                Gatun.loadBackend(backend.toAbsolutePath());
            } catch (GatunException e) {
                spec.commandLine().getErr().println("gatun: backend " + backend + ": " + e.getMessage());
                return GatunCommand.MISUSED;
            }
        }
        long start = System.nanoTime();
        Report report = new Report();
        try (Validation validation = Validation.open(device(), threads)) {
            List<String> names = validation.devices().stream().map(DeviceInfo::name).toList();
            out.printf("%d cases on %s%n", cases.size(), String.join(", ", names));
            validation.run(cases, outcome -> {
                report.add(outcome);
                printUnlessPassed(out, outcome);
            });
            double seconds = (System.nanoTime() - start) / 1e9;
            out.print(report.table());
            out.println(report.summary(seconds));
            if (json != null) {
                report.writeJson(json, validation.devices(), seed, seconds);
            }
        }
        return report.good() ? 0 : GatunCommand.FAILED;
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
        try {
            List<Case> cases = line != null
                    ? List.of(Case.parse(line))
                    : quick ? Catalogue.quick(seed) : Catalogue.full(seed);
            Pattern pattern = filter;
            List<Case> chosen = pattern == null
                    ? cases
                    : cases.stream().filter(test -> pattern.matcher(test.name()).find()).toList();
            if (chosen.isEmpty()) {
                throw wrong("no case matches --filter " + pattern);
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
        if (json != null && (Files.isDirectory(json) || !Files.isDirectory(json.toAbsolutePath().getParent()))) {
            throw wrong("--json " + json + ", expected a file in a folder that exists");
        }
    }

    private void printUnlessPassed(PrintWriter out, Outcome outcome) {
        switch (outcome.verdict()) {
            case PASS, NOT_AVAILABLE -> {}
            case FAIL, UNSUPPORTED, MISTRUSTED -> {
                out.printf("%s: %s%n", outcome.verdict().toString().toUpperCase(Locale.ROOT), outcome.detail());
                out.printf("  ./gatun validate --device %s%s --case \"%s\"%n", outcome.device(),
                        backend == null ? "" : " --backend " + backend, outcome.name());
            }
        }
        if (outcome.verdict() == Verdict.FAIL) {
            out.flush();
        }
    }

    private ParameterException wrong(String why) {
        return new ParameterException(spec.commandLine(), why);
    }
}
