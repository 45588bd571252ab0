package io.gatun.bench.report;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Reports as one HTML file that needs nothing else, no network either: totals, coverage, charts, and every outcome, to
 * be filtered.
 *
 * <p>Names, descriptions and reasons come from libraries that nobody here wrote. They are escaped where this class
 * writes them, the script makes text nodes of them, and the page's own policy lets no other script run and nothing be
 * loaded.
 */
public final class HtmlReport {
    private static final JsonMapper MAPPER = ReportJson.mapper(4);
    private static final Pattern PLACE = Pattern.compile("\\{\\{(\\w+)}}");
    private static final Set<String> WIDE = Set.of("Processor", "Instruction sets", "Command");
    /** Details may take so many bytes of the file altogether, and each at least so many. */
    private static final int DETAILS = 1_500_000;
    private static final int DETAIL = 120;

    private HtmlReport() {}

    /** Writes a report. The file appears as a whole or not at all. */
    public static void write(Report report, Path file) throws IOException {
        String style = resource("report.css");
        String script = resource("report.js");
        Map<String, String> parts = Map.of(
                "policy", "style-src " + hash(style) + "; script-src " + hash(script),
                "style", style,
                "script", script,
                "title", Escape.html(headline(report) + " - Gatun on " + report.environment().cpu()),
                "verdict", verdict(report),
                "environment", environment(report.environment()),
                "totals", totals(report),
                "text", Escape.html(TextReport.of(report)),
                "data", data(report));
        // All at once: what stands in a part is no place, whoever wrote it.
        String page = PLACE.matcher(resource("report.html"))
                .replaceAll(place -> Matcher.quoteReplacement(part(parts, place.group(1))));
        AtomicFile.write(file, out -> out.write(page));
    }

    private static String part(Map<String, String> parts, String name) {
        String part = parts.get(name);
        if (part == null) {
            throw new IllegalStateException("report.html has a place for " + name + ", which nothing fills");
        }
        return part;
    }

    private static String resource(String name) throws IOException {
        try (InputStream in = HtmlReport.class.getResourceAsStream(name)) {
            if (in == null) {
                throw new FileNotFoundException("the resource " + name + " is missing");
            }
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        }
    }

    private static String hash(String text) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
            return "'sha256-" + Base64.getEncoder().encodeToString(hash) + "'";
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every JDK has it
        }
    }

    // ---- What stands on the page without its script

    private static String headline(Report report) {
        if (!report.good()) {
            return report.count(Verdict.PASS) == 0 ? "Nothing passed" : "Not passed";
        }
        return report.complete() ? "Passed" : "Not complete";
    }

    private static String verdict(Report report) {
        Verdict color = !report.good() ? Verdict.FAIL : report.complete() ? Verdict.PASS : Verdict.TIMED_OUT;
        List<String> reasons = new ArrayList<>(List.of(TextReport.totals(report)));
        long contradictions = report.support().stream().filter(entry -> !entry.contradiction().isEmpty()).count();
        if (contradictions > 0) {
            reasons.add((contradictions == 1 ? "1 contradiction" : contradictions + " contradictions")
                    + " to what devices claim");
        }
        if (report.comparison() != null) {
            long slower = report.comparison().entries().stream().filter(e -> e.verdict().equals("slower")).count();
            if (slower > 0) {
                reasons.add(slower + " slower than the baseline");
            }
        }
        if (!report.complete()) {
            reasons.add("the run did not come to its end: cases are missing");
        }
        return "<div class=\"banner card " + style(color) + "\" id=\"verdict\"><strong>" + headline(report)
                + "</strong> <span>" + Escape.html(String.join("; ", reasons)) + "</span></div>";
    }

    private static String environment(Report.Environment environment) {
        StringBuilder list = new StringBuilder("<dl class=\"environment card\">");
        EnvironmentText.of(environment).forEach((name, value) -> list
                .append(WIDE.contains(name) ? "<div class=\"wide\"><dt>" : "<div><dt>").append(name).append("</dt><dd>")
                .append(Escape.html(value)).append("</dd></div>"));
        return list.append("</dl>").toString();
    }

    private static String totals(Report report) {
        StringBuilder list = new StringBuilder("<ul class=\"totals\">");
        for (Verdict verdict : Verdict.values()) {
            int count = report.count(verdict);
            list.append("<li><a class=\"card ").append(style(verdict)).append(count == 0 ? " none" : "")
                    .append("\" href=\"#verdict=").append(verdict.toString().replace(" ", "+")).append("\"><b>")
                    .append(count).append("</b><span class=\"verdict\">").append(verdict).append("</span></a></li>");
        }
        return list.append("</ul>").toString();
    }

    private static String style(Verdict verdict) {
        return "v-" + verdict.toString().replace(' ', '-');
    }

    // ---- What the script reads: strings once, in a table, and outcomes as columns of numbers

    private static String data(Report report) {
        Strings strings = new Strings();
        List<Outcome> outcomes = report.outcomes();
        long details = outcomes.stream().map(Outcome::detail).distinct().count();
        int room = (int) Math.max(DETAIL, DETAILS / Math.max(1, details));
        Map<String, Object> columns = new LinkedHashMap<>();
        columns.put("case", strings.column(outcomes, Outcome::name));
        columns.put("check", strings.column(outcomes, Outcome::check));
        columns.put("operator", strings.column(outcomes, Outcome::operator));
        columns.put("types", strings.column(outcomes, Outcome::types));
        columns.put("device", strings.column(outcomes, Outcome::device));
        columns.put("verdict", strings.column(outcomes, outcome -> outcome.verdict().toString()));
        columns.put("detail", strings.column(outcomes, outcome -> cut(outcome.detail(), room)));
        columns.put("kernel", strings.column(outcomes, Outcome::kernel));
        columns.put("ratio", outcomes.stream().map(Outcome::ratio).toList());
        columns.put("error", outcomes.stream().map(Outcome::error).toList());
        columns.put("tolerance", outcomes.stream().map(Outcome::tolerance).toList());
        List<@Nullable List<?>> times = new ArrayList<>();
        outcomes.forEach(outcome -> times.add(outcome.time() == null ? null : time(outcome.time())));
        columns.put("time", times);
        Map<String, Object> data = new LinkedHashMap<>();
        data.put("strings", strings.table());
        data.put("outcomes", columns);
        data.put("backends", report.backends());
        data.put("devices", report.devices());
        data.put("support", report.support());
        data.put("comparison", report.comparison());
        Map<String, String> repeat = new TreeMap<>();
        outcomes.forEach(outcome -> repeat.computeIfAbsent(outcome.device(),
                device -> RepeatLine.start(report.environment(), device)));
        data.put("repeat", repeat);
        try {
            // No string can end the element or begin one.
            return MAPPER.writeValueAsString(data).replace("<", "\\u003c");
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e); // records, maps and lists can be written
        }
    }

    private static List<?> time(Timing time) {
        return Arrays.asList(time.runs(), time.firstMs(), time.warmMs(), time.lowMs(), time.highMs(), time.coldMs(),
                time.gflops(), time.gbps(), time.roofline(), time.bound());
    }

    /** The beginning of a text whose form in JSON takes so many bytes. */
    private static String cut(String text, int room) {
        int bytes = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            bytes += c < ' ' || c > '~' || c == '<' ? 6 : c == '"' || c == '\\' ? 2 : 1;
            if (bytes > room) {
                return text.substring(0, i) + " ... (the report in JSON has the rest)";
            }
        }
        return text;
    }

    /** Each string once, in the order of first use. */
    private static final class Strings {
        private final Map<String, Integer> numbers = new LinkedHashMap<>();

        List<Integer> column(List<Outcome> outcomes, Function<Outcome, String> text) {
            return outcomes.stream().map(text).map(this::number).toList();
        }

        private Integer number(String text) {
            return numbers.computeIfAbsent(text, _ -> numbers.size());
        }

        List<String> table() {
            return List.copyOf(numbers.keySet());
        }
    }
}
