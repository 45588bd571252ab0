package io.gatun.bench.validate;

import io.gatun.Backend;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeSet;

/**
 * The outcomes of a validation run, as a table and as JSON. The table's column "worst" is the largest error as a part
 * of its tolerance, "ms" the time of all runs together.
 */
public final class Report {
    private final List<Outcome> outcomes = new ArrayList<>();
    private final Map<Verdict, Integer> counts = new EnumMap<>(Verdict.class);

    /** An empty report. */
    public Report() {
        for (Verdict verdict : Verdict.values()) {
            counts.put(verdict, 0);
        }
    }

    /** Adds an outcome. */
    public void add(Outcome outcome) {
        outcomes.add(outcome);
        counts.merge(outcome.verdict(), 1, Integer::sum);
    }

    /** How many outcomes have a verdict. */
    public int count(Verdict verdict) {
        return counts.getOrDefault(verdict, 0);
    }

    /** Whether something passed and nothing failed. */
    public boolean good() {
        return count(Verdict.PASS) > 0 && count(Verdict.FAIL) == 0;
    }

    /** One line per operator, types and device. */
    public String table() {
        Map<String, List<Outcome>> groups = new LinkedHashMap<>();
        for (Outcome outcome : outcomes) {
            if (outcome.verdict() != Verdict.NOT_AVAILABLE) {
                String key = String.format("%-10s %-16s %-12s", outcome.family(), outcome.types(), outcome.device());
                groups.computeIfAbsent(key, _ -> new ArrayList<>()).add(outcome);
            }
        }
        StringBuilder table = new StringBuilder(String.format("%-10s %-16s %-12s %5s %5s %5s %5s %5s %7s %9s  %s%n",
                "operator", "types", "device", "cases", "pass", "fail", "unsup", "mistr", "worst", "ms", "kernels"));
        for (String key : new TreeSet<>(groups.keySet())) {
            table.append(row(key, groups.getOrDefault(key, List.of())));
        }
        for (Outcome outcome : outcomes) {
            if (outcome.verdict() == Verdict.NOT_AVAILABLE) {
                table.append(outcome.device()).append(" not available: ").append(outcome.detail()).append('\n');
            }
        }
        return table.toString();
    }

    private static String row(String key, List<Outcome> group) {
        TreeSet<String> kernels = new TreeSet<>();
        group.forEach(outcome -> kernels.add(outcome.kernel()));
        kernels.remove("");
        double worst = group.stream().mapToDouble(Outcome::ratio).max().orElse(0);
        return String.format(Locale.ROOT, "%s %5d %5d %5d %5d %5d %7s %9.2f  %s%n", key, group.size(),
                count(group, Verdict.PASS), count(group, Verdict.FAIL), count(group, Verdict.UNSUPPORTED),
                count(group, Verdict.MISTRUSTED), String.format(Locale.ROOT, worst < 1000 ? "%.2f" : "%.0e", worst),
                group.stream().mapToDouble(Outcome::milliseconds).sum(), String.join(", ", kernels));
    }

    private static long count(List<Outcome> group, Verdict verdict) {
        return group.stream().filter(outcome -> outcome.verdict() == verdict).count();
    }

    /** The totals in one line. */
    public String summary(double seconds) {
        long devices = outcomes.stream()
                .filter(outcome -> outcome.verdict() != Verdict.NOT_AVAILABLE)
                .map(Outcome::device)
                .distinct()
                .count();
        return String.format(Locale.ROOT,
                "%d passed, %d failed, %d unsupported, %d mistrusted, on %d devices in %.1f s; %d not available",
                count(Verdict.PASS), count(Verdict.FAIL), count(Verdict.UNSUPPORTED), count(Verdict.MISTRUSTED),
                devices, seconds, count(Verdict.NOT_AVAILABLE));
    }

    /** Writes everything to a file. */
    public void writeJson(Path file, List<DeviceInfo> devices, long seed, double seconds) throws IOException {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("environment", environment(devices, seed));
        Map<String, Object> summary = new LinkedHashMap<>();
        summary.put("pass", count(Verdict.PASS));
        summary.put("fail", count(Verdict.FAIL));
        summary.put("unsupported", count(Verdict.UNSUPPORTED));
        summary.put("mistrusted", count(Verdict.MISTRUSTED));
        summary.put("notAvailable", count(Verdict.NOT_AVAILABLE));
        summary.put("total", outcomes.size());
        summary.put("seconds", seconds);
        report.put("summary", summary);
        report.put("cases", outcomes.stream().map(Report::json).toList());
        Files.writeString(file, Json.text(report));
    }

    private static Map<String, Object> json(Outcome outcome) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("case", outcome.name());
        json.put("device", outcome.device());
        json.put("verdict", outcome.verdict().toString());
        json.put("error", outcome.error());
        json.put("tolerance", outcome.tolerance());
        json.put("ratio", outcome.ratio());
        json.put("kernel", outcome.kernel());
        json.put("ms", outcome.milliseconds());
        json.put("detail", outcome.detail());
        return json;
    }

    private static Map<String, Object> environment(List<DeviceInfo> devices, long seed) {
        Map<String, Object> environment = new LinkedHashMap<>();
        environment.put("time", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        environment.put("cpu", processor());
        environment.put("os", System.getProperty("os.name") + " " + System.getProperty("os.version") + " "
                + System.getProperty("os.arch"));
        environment.put("jvm", System.getProperty("java.vm.name") + " " + System.getProperty("java.vm.version"));
        environment.put("gatun", Gatun.version());
        environment.put("backends", Gatun.backends().stream().filter(Backend::available).map(Report::json).toList());
        environment.put("devices", devices.stream().map(Report::json).toList());
        environment.put("processors", Runtime.getRuntime().availableProcessors());
        environment.put("seed", seed);
        return environment;
    }

    private static Map<String, Object> json(Backend backend) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", backend.name());
        json.put("version", backend.version());
        json.put("abiVersion", backend.abiVersion());
        json.put("path", String.valueOf(backend.path()));
        return json;
    }

    private static Map<String, Object> json(DeviceInfo device) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", device.name());
        json.put("description", device.description());
        json.put("threads", device.threads());
        return json;
    }

    private static String processor() {
        try (java.util.stream.Stream<String> lines = Files.lines(Path.of("/proc/cpuinfo"))) {
            return lines.filter(line -> line.startsWith("model name"))
                    .map(line -> line.replaceFirst(".*?:\\s*", ""))
                    .findFirst()
                    .orElse("unknown");
        } catch (IOException e) {
            return "unknown";
        }
    }
}
