package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What stands in the file. {@link HtmlReportBrowserTest} looks at what a browser makes of it. */
class HtmlReportTest {
    private static final long LARGEST = 5_000_000;

    @TempDir
    private Path folder;

    private String write(Report report) throws IOException {
        Path file = folder.resolve("report.html");
        HtmlReport.write(report, file);
        return Files.readString(file);
    }

    private static String between(String page, String begin, String end) {
        int from = page.indexOf(begin);
        assertTrue(from >= 0, begin);
        int to = page.indexOf(end, from + begin.length());
        assertTrue(to >= 0, end);
        return page.substring(from + begin.length(), to);
    }

    private static JsonNode data(String page) throws IOException {
        String data = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
        return new ObjectMapper().readTree(data);
    }

    @Test
    void eightThousandOutcomesAreFiveMegabytesAtMost() throws IOException {
        long size = write(SampleReports.large(8000)).getBytes(StandardCharsets.UTF_8).length;
        assertTrue(size < LARGEST, () -> size + " bytes");
    }

    @Test
    void soAreEightThousandFailuresThatTellLongStories() throws IOException {
        Timing time = new Timing(21, 3.54321, 1.25432, 1.21234, 1.41234, 1.71234, 214.712, 5.12345, 0.71234, "compute");
        List<Outcome> outcomes = new ArrayList<>();
        for (int i = 0; i < 8000; i++) {
            String name = "time gemm int8 f32->f32 m512 k512 n512 strided wt bias gelu_erf residual inplace seed=" + i;
            outcomes.add(SampleReports.outcome(name, "time", "int8 f32->f32", "cpu:avx2", Verdict.FAIL,
                    i + "<\u4e00\u0001".repeat(2000), 1.23456 + i, time));
        }
        long size = write(SampleReports.report(true, SampleReports.environment(""), List.of(), List.of(), List.of(),
                outcomes, null)).getBytes(StandardCharsets.UTF_8).length;
        assertTrue(size < LARGEST, () -> size + " bytes");
    }

    @Test
    void theDataIsThatOfTheReport() throws IOException {
        Report report = SampleReports.rich();
        JsonNode data = data(write(report));
        JsonNode outcomes = data.get("outcomes");
        for (int i = 0; i < report.outcomes().size(); i++) {
            Outcome outcome = report.outcomes().get(i);
            Map<String, String> expected = new TreeMap<>(Map.of("case", outcome.name(), "check", outcome.check(),
                    "operator", outcome.operator(), "types", outcome.types(), "device", outcome.device(),
                    "verdict", outcome.verdict().toString(), "detail", outcome.detail(), "kernel", outcome.kernel()));
            Map<String, String> actual = new TreeMap<>();
            for (String column : expected.keySet()) {
                actual.put(column, data.get("strings").get(outcomes.get(column).get(i).intValue()).textValue());
            }
            assertEquals(expected, actual);
            assertEquals(Double.isNaN(outcome.ratio()), outcomes.get("ratio").get(i).isNull());
            Timing time = outcome.time();
            assertEquals(time == null, outcomes.get("time").get(i).isNull());
            if (time != null) {
                assertEquals(time.warmMs(), outcomes.get("time").get(i).get(2).doubleValue());
                assertEquals(time.bound(), outcomes.get("time").get(i).get(9).textValue());
            }
        }
        assertEquals(report.devices().size(), data.get("devices").size());
        assertEquals(report.support().size(), data.get("support").size());
        assertEquals(report.comparison().entries().size(), data.get("comparison").get("entries").size());
        assertEquals("./gatun validate --backend /opt/acme/libgatun_acme.so --device cpu:avx2 --case ",
                data.get("repeat").get("cpu:avx2").textValue());
    }

    @Test
    void hostileTextIsNoMarkup() throws IOException {
        String page = write(SampleReports.rich());
        assertEquals(2, page.split("<script[ >]", -1).length - 1, "the data and the script");
        assertEquals(2, page.split("</script", -1).length - 1);
        assertFalse(page.contains("<img"));
        assertFalse(page.contains("owned'</script>"));
        assertEquals(0, page.chars().filter(c -> c < ' ' && c != '\n').count());
        assertTrue(between(page, "<noscript>", "</noscript>").contains("&lt;/script&gt;&lt;script&gt;"));
        assertTrue(page.contains("{{script}} &amp;"), "what looks like a place in the data is none");
    }

    @Test
    void nothingIsLoadedAndNoOtherScriptRuns() throws Exception {
        String page = write(SampleReports.large(100));
        String policy = between(page, "content=\"default-src 'none';", "\">");
        for (String element : List.of("script", "style")) {
            Matcher hash = Pattern.compile(element + "-src 'sha256-([^']+)'").matcher(policy);
            assertTrue(hash.find(), policy);
            String text = between(page, "<" + element + ">", "</" + element + ">");
            assertEquals(Base64.getEncoder().encodeToString(
                    MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8))), hash.group(1));
        }
        String made = page.replace(between(page, "id=\"data\">", "</script>"), "");
        assertFalse(Pattern.compile("\\ssrc=|url\\(|@import|fetch\\(|XMLHttpRequest|\\simport\\b|innerHTML"
                + "|insertAdjacentHTML|document\\.write|eval\\(|<link|<base").matcher(made).find());
        Matcher address = Pattern.compile("https?://[^'\"\\s]*").matcher(made);
        while (address.find()) {
            assertEquals("http://www.w3.org/2000/svg", address.group(), "a name of SVG, not loaded by anything");
        }
    }

    @Test
    void withoutScriptsThereIsTheSummary() throws IOException {
        Report report = SampleReports.rich();
        String page = write(report);
        assertTrue(between(page, "<noscript>", "</noscript>").contains(Escape.html(TextReport.of(report))));
        String header = between(page, "<header>", "<noscript>");
        for (String text : EnvironmentText.of(report.environment()).values()) {
            assertTrue(header.contains("<dd>" + Escape.html(text) + "</dd>"), text);
        }
        for (Verdict verdict : Verdict.values()) {
            assertTrue(header.contains("<b>" + report.count(verdict) + "</b><span class=\"verdict\">" + verdict + "<"),
                    verdict.toString());
        }
    }

    @Test
    void theHeadlineSaysWhetherItIsGood() throws IOException {
        Outcome pass = SampleReports.outcome("softmax f32->f32 r1 c9", "value", "f32->f32", "cpu", Verdict.PASS, "",
                0.5, null);
        Outcome unsupported = SampleReports.outcome("softmax f32->f32 r1 c9", "value", "f32->f32", "cpu",
                Verdict.UNSUPPORTED, "", 0, null);
        assertHeadline("Passed", true, List.of(pass, unsupported));
        assertHeadline("Not complete", false, List.of(pass));
        assertHeadline("Nothing passed", true, List.of(unsupported));
        assertHeadline("Not passed", true, SampleReports.rich().outcomes());
        assertTrue(write(SampleReports.rich()).contains("1 contradiction to what devices claim; 1 slower than the"));
    }

    private void assertHeadline(String expected, boolean complete, List<Outcome> outcomes) throws IOException {
        String page = write(SampleReports.report(complete, SampleReports.environment(""), List.of(), List.of(),
                List.of(), outcomes, null));
        assertEquals(expected, between(page, "id=\"verdict\"><strong>", "</strong>"));
        assertTrue(between(page, "<title>", "</title>").startsWith(expected));
        assertNotNull(data(page));
    }
}
