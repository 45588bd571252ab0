package io.gatun.bench.report;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A report for a terminal: a table with one line per operator, types and device, then what contradicts, what became
 * slower and what is not available, and the totals.
 *
 * <p>The table's column "worst" is the largest error as a part of its tolerance; "GFLOP/s", "GB/s" and "roof", the part
 * of the measured ceilings that was reached, are those of the best timed case. A column that would be empty is left
 * out.
 */
public final class TextReport {
    private TextReport() {}

    /** The whole text, a newline at its end. */
    public static String of(Report report) {
        StringBuilder text = new StringBuilder(table(report));
        for (Report.Support support : report.support()) {
            if (!support.contradiction().isEmpty()) {
                line(text, "contradiction: " + support.device() + " " + support.operator() + " " + support.dtype()
                        + ": " + support.contradiction());
            }
        }
        if (report.comparison() != null) {
            comparison(text, report.comparison());
        }
        missing(report).forEach((name, reason) -> line(text, name + " not available: " + reason));
        if (!report.complete()) {
            line(text, "not complete: the run did not come to its end");
        }
        line(text, totals(report));
        return text.toString();
    }

    /** The totals in one line. Crashes and time-outs are failures, too; how many they are follows in brackets. */
    public static String totals(Report report) {
        long devices = report.outcomes().stream()
                .filter(outcome -> outcome.verdict() != Verdict.NOT_AVAILABLE)
                .map(Outcome::device)
                .distinct()
                .count();
        StringBuilder totals = new StringBuilder(String.format(Locale.ROOT, "%d device%s in %.1f s: ", devices,
                devices == 1 ? "" : "s", report.environment().seconds()));
        for (Verdict verdict : List.of(Verdict.UNSUPPORTED, Verdict.MISTRUSTED, Verdict.NOT_AVAILABLE)) {
            if (report.count(verdict) > 0) {
                totals.append(report.count(verdict)).append(' ').append(verdict).append(", ");
            }
        }
        int crashed = report.count(Verdict.CRASHED);
        int late = report.count(Verdict.TIMED_OUT);
        totals.append(report.count(Verdict.PASS)).append(" passed, ");
        totals.append(report.count(Verdict.FAIL) + crashed + late).append(" failed");
        if (crashed + late > 0) {
            totals.append(" (").append(crashed).append(" crashed, ").append(late).append(" timed out)");
        }
        return totals.toString();
    }

    /** Backends and devices that are not there, with the reason. */
    static Map<String, String> missing(Report report) {
        Map<String, String> missing = new LinkedHashMap<>();
        report.backends().stream()
                .filter(backend -> !backend.available())
                .forEach(backend -> missing.put(backend.name(), backend.reason()));
        report.devices().stream()
                .filter(device -> !device.available())
                .forEach(device -> missing.put(device.name(), device.reason()));
        report.outcomes().stream()
                .filter(outcome -> outcome.verdict() == Verdict.NOT_AVAILABLE && outcome.name().isEmpty())
                .forEach(outcome -> missing.put(outcome.device(), outcome.detail()));
        return missing;
    }

    private static void line(StringBuilder text, String line) {
        text.append(Escape.line(line)).append('\n');
    }

    private static void comparison(StringBuilder text, Report.Comparison comparison) {
        Map<String, Long> counts = comparison.entries().stream()
                .collect(Collectors.groupingBy(Report.Compared::verdict, TreeMap::new, Collectors.counting()));
        comparison.entries().stream()
                .filter(entry -> entry.verdict().equals("slower"))
                .sorted(Comparator.comparingDouble(entry -> entry.beforeMs() / entry.afterMs()))
                .forEach(entry -> line(text, String.format(Locale.ROOT, "slower: %s %s: %.4g ms, was %.4g ms (%.2fx)",
                        entry.device(), entry.name(), entry.afterMs(), entry.beforeMs(),
                        entry.afterMs() / entry.beforeMs())));
        line(text, String.format(Locale.ROOT, "compared with %s, threshold %.0f %%: %d cases%s", comparison.started(),
                comparison.threshold() * 100, comparison.entries().size(), counts.entrySet().stream()
                        .map(count -> ", " + count.getValue() + " " + count.getKey())
                        .collect(Collectors.joining())));
    }

    private static String table(Report report) {
        Map<List<String>, List<Outcome>> groups = new LinkedHashMap<>();
        report.outcomes().stream()
                .filter(outcome -> !outcome.name().isEmpty())
                .sorted(Comparator.comparing(Outcome::operator)
                        .thenComparing(Outcome::types)
                        .thenComparing(Outcome::device))
                .forEach(outcome -> groups
                        .computeIfAbsent(List.of(outcome.operator(), outcome.types(), outcome.device()),
                                _ -> new ArrayList<>())
                        .add(outcome));
        if (groups.isEmpty()) {
            return "";
        }
        List<Column> columns = new ArrayList<>();
        columns.add(new Column("operator", false, group -> group.getFirst().operator()));
        columns.add(new Column("types", false, group -> group.getFirst().types()));
        columns.add(new Column("device", false, group -> group.getFirst().device()));
        columns.add(new Column("cases", true, group -> String.valueOf(group.size())));
        for (Verdict verdict : Verdict.values()) {
            columns.add(new Column(verdict.toString(), true, group -> count(group, verdict)));
        }
        columns.add(new Column("worst", true, group -> ratio(best(group, Outcome::ratio))));
        columns.add(new Column("GFLOP/s", true, group -> figure(best(group, timing(Timing::gflops)), "%.1f")));
        columns.add(new Column("GB/s", true, group -> figure(best(group, timing(Timing::gbps)), "%.1f")));
        columns.add(new Column("roof", true, group -> figure(100 * best(group, timing(Timing::roofline)), "%.0f%%")));
        columns.add(new Column("kernels", false, TextReport::kernels));
        StringBuilder table = new StringBuilder();
        List<List<String>> lines = groups.values().stream()
                .map(group -> columns.stream().map(column -> Escape.line(column.cell().apply(group))).toList())
                .toList();
        boolean[] used = new boolean[columns.size()];
        int[] widths = new int[columns.size()];
        for (int i = 0; i < columns.size(); i++) {
            int column = i;
            used[i] = lines.stream().anyMatch(cells -> !cells.get(column).isEmpty());
            widths[i] = Math.max(columns.get(i).name().length(),
                    lines.stream().mapToInt(cells -> cells.get(column).length()).max().orElse(0));
        }
        List<List<String>> all = new ArrayList<>(List.of(columns.stream().map(Column::name).toList()));
        all.addAll(lines);
        for (List<String> cells : all) {
            StringBuilder line = new StringBuilder();
            for (int i = 0; i < columns.size(); i++) {
                if (used[i]) {
                    String blanks = " ".repeat(widths[i] - cells.get(i).length());
                    line.append(columns.get(i).right() ? blanks + cells.get(i) : cells.get(i) + blanks).append("  ");
                }
            }
            table.append(line.toString().stripTrailing()).append('\n');
        }
        return table.toString();
    }

    private record Column(String name, boolean right, Function<List<Outcome>, String> cell) {}

    private static String count(Collection<Outcome> group, Verdict verdict) {
        long count = group.stream().filter(outcome -> outcome.verdict() == verdict).count();
        return count == 0 ? "" : String.valueOf(count);
    }

    /** The largest of the values that are numbers, or 0. An error that is no number is larger than any. */
    private static double best(List<Outcome> group, ToDoubleFunction<Outcome> value) {
        return group.stream().mapToDouble(value).reduce(0, Math::max);
    }

    private static ToDoubleFunction<Outcome> timing(Function<Timing, @Nullable Double> value) {
        return outcome -> {
            Timing time = outcome.check().equals("time") ? outcome.time() : null;
            Double figure = time == null ? null : value.apply(time);
            return figure == null || figure.isNaN() ? 0 : figure;
        };
    }

    private static String ratio(double ratio) {
        return Double.isNaN(ratio) ? "NaN" : figure(ratio, ratio < 1000 ? "%.2f" : "%.0e");
    }

    private static String figure(double value, String format) {
        return value == 0 ? "" : String.format(Locale.ROOT, format, value);
    }

    private static String kernels(List<Outcome> group) {
        TreeSet<String> kernels = group.stream()
                .flatMap(outcome -> Stream.of(outcome.kernel().split(" "))) // a chain runs several
                .collect(Collectors.toCollection(TreeSet::new));
        kernels.remove("");
        return String.join(", ", kernels);
    }
}
