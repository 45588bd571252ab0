package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.openqa.selenium.By;
import org.openqa.selenium.Keys;
import org.openqa.selenium.WebElement;
import org.openqa.selenium.chrome.ChromeDriver;
import org.openqa.selenium.chrome.ChromeDriverService;
import org.openqa.selenium.chrome.ChromeOptions;
import org.openqa.selenium.logging.LogEntry;

/** The report in a browser, from a file, without a network. Needs Debian's chromium and chromium-driver. */
@Tag("browser")
class HtmlReportBrowserTest {
    private static final List<String> BROWSERS = List.of("chromium", "chromium-browser", "google-chrome");

    @TempDir
    private static Path folder;

    private static Report rich;
    private static Report large;
    private static ChromeDriver browser;

    @BeforeAll
    static void open() throws IOException {
        rich = SampleReports.rich();
        large = SampleReports.large(8000);
        HtmlReport.write(rich, folder.resolve("rich.html"));
        HtmlReport.write(large, folder.resolve("large.html"));
        HtmlReport.write(SampleReports.empty(), folder.resolve("empty.html"));
        ChromeOptions options = new ChromeOptions();
        options.setBinary(program(BROWSERS));
        options.addArguments("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--window-size=1400,1000");
        options.setCapability("goog:loggingPrefs", Map.of("browser", "ALL", "performance", "ALL"));
        // With the driver and the browser named, Selenium looks for neither, and downloads nothing.
        browser = new ChromeDriver(new ChromeDriverService.Builder()
                .usingDriverExecutable(program(List.of("chromedriver")))
                .build(), options);
        browser.manage().timeouts().pageLoadTimeout(Duration.ofSeconds(30));
    }

    private static File program(List<String> names) {
        return Stream.of(System.getenv("PATH").split(File.pathSeparator))
                .flatMap(path -> names.stream().map(name -> new File(path, name)))
                .filter(File::canExecute)
                .findFirst()
                .orElseThrow(() -> new AssertionError("none of " + names + " is on the PATH: install Debian's chromium"
                        + " and chromium-driver"));
    }

    @AfterAll
    static void close() {
        if (browser != null) {
            browser.quit();
        }
    }

    private void show(String name, String hash) {
        browser.get("about:blank"); // so that a new hash is a new page
        logged("browser");
        logged("performance");
        browser.get(folder.resolve(name + ".html").toUri() + hash);
    }

    private List<LogEntry> logged(String kind) {
        return browser.manage().logs().get(kind).getAll();
    }

    private List<WebElement> all(String selector) {
        return browser.findElements(By.cssSelector(selector));
    }

    private WebElement one(String selector) {
        return browser.findElement(By.cssSelector(selector));
    }

    private void choose(String name, String value) {
        one("#filters [name=" + name + "] option[value='" + value + "']").click();
    }

    private String shown() {
        return one("#filters .count").getText();
    }

    private long count(Report report, Predicate<Outcome> wanted) {
        return report.outcomes().stream().filter(wanted).count();
    }

    private void assertRows(Report report, Predicate<Outcome> wanted) {
        long count = count(report, wanted);
        assertTrue(count > 0 && count < report.outcomes().size(), "the filter filters");
        assertEquals(Math.min(100, count), all("tr.outcome").size());
        assertEquals(String.format("%,d of %,d outcomes", count, report.outcomes().size()), shown());
    }

    @ParameterizedTest
    @ValueSource(strings = {"rich", "large", "empty"})
    void opensWithoutErrorsAndWithoutANetwork(String name) throws IOException {
        show(name, "");
        assertEquals(List.of(), logged("browser").stream().map(LogEntry::getMessage).toList());
        int requests = 0;
        for (LogEntry entry : logged("performance")) {
            JsonNode message = new ObjectMapper().readTree(entry.getMessage()).path("message");
            if (message.path("method").asText().equals("Network.requestWillBeSent")) {
                String address = message.path("params").path("request").path("url").asText();
                assertTrue(address.startsWith("file:"), address);
                requests++;
            }
        }
        assertEquals(1, requests, "the page itself");
        String all = name.equals("rich") ? "13 outcomes" : name.equals("large") ? "8,000 outcomes" : "0 outcomes";
        assertEquals(all, shown());
        assertFalse(one("noscript").isDisplayed());
    }

    @Test
    void filtersChangeTheRows() {
        show("large", "");
        choose("verdict", "fail");
        assertRows(large, outcome -> outcome.verdict() == Verdict.FAIL);
        choose("device", "cpu:vnni");
        assertRows(large, outcome -> outcome.verdict() == Verdict.FAIL && outcome.device().equals("cpu:vnni"));
        choose("verdict", "all but pass");
        assertRows(large, outcome -> outcome.verdict() != Verdict.PASS && outcome.device().equals("cpu:vnni"));
        choose("verdict", "");
        choose("operator", "gemm");
        choose("types", "int8 f32->f32");
        choose("check", "time");
        assertRows(large, outcome -> outcome.device().equals("cpu:vnni") && outcome.operator().equals("gemm")
                && outcome.types().equals("int8 f32->f32") && outcome.check().equals("time"));
        one("#filters [name=reset]").click();
        assertEquals("8,000 outcomes", shown());
        assertEquals(100, all("tr.outcome").size());
    }

    @Test
    void textIsFoundInCasesAndDetails() throws InterruptedException {
        show("large", "");
        one("#filters [name=q]").sendKeys("SIGABRT Softmax");
        for (int i = 0; i < 50 && !shown().contains(" of "); i++) {
            Thread.sleep(100); // it waits for the end of typing
        }
        assertRows(large, outcome -> outcome.detail().contains("SIGABRT") && outcome.name().contains("softmax"));
        assertTrue(browser.getCurrentUrl().endsWith("#q=SIGABRT+Softmax"), browser.getCurrentUrl());
    }

    @Test
    void totalsLinkToTheirOutcomes() {
        show("large", "");
        one(".totals a.v-timed-out").click();
        assertRows(large, outcome -> outcome.verdict() == Verdict.TIMED_OUT);
    }

    @Test
    void aViewCanBeLinked() {
        show("large", "");
        choose("verdict", "fail");
        choose("device", "cpu:avx2");
        one("[data-sort=ratio]").click();
        List<String> rows = all("tr.outcome").stream().map(WebElement::getText).toList();
        assertEquals(large.outcomes().stream()
                .filter(outcome -> outcome.verdict() == Verdict.FAIL && outcome.device().equals("cpu:avx2"))
                .sorted(Comparator.comparingDouble(Outcome::ratio).reversed())
                .map(Outcome::name)
                .toList(), all("tr.outcome .case").stream().map(WebElement::getText).toList(), "the worst first");
        String address = browser.getCurrentUrl();
        assertTrue(address.endsWith("#device=cpu%3Aavx2&verdict=fail&sort=-ratio"), address);
        show("large", address.substring(address.indexOf('#')));
        assertEquals(rows, all("tr.outcome").stream().map(WebElement::getText).toList());
        assertEquals("cpu:avx2", one("[name=device]").getDomProperty("value"));
        assertEquals("fail", one("[name=verdict]").getDomProperty("value"));
        assertEquals("descending", one("th[aria-sort]").getDomAttribute("aria-sort"));
    }

    @Test
    void pagesTurn() {
        show("large", "#verdict=pass");
        long pass = count(large, outcome -> outcome.verdict() == Verdict.PASS);
        String first = one("tr.outcome .case").getText();
        one("[name=next]").click();
        assertFalse(one("tr.outcome .case").getText().equals(first));
        assertTrue(one(".pages").getText().contains(String.format("101 to 200 of %,d", pass)), one(".pages").getText());
        one("[name=last]").click();
        assertEquals(pass % 100, all("tr.outcome").size());
        assertFalse(one("[name=next]").isEnabled());
        String address = browser.getCurrentUrl();
        assertTrue(address.endsWith("#verdict=pass&page=" + (pass + 99) / 100), address);
    }

    @Test
    void chartsShowWhatIsFiltered() {
        show("large", "");
        assertCharts(_ -> true);
        assertEquals(4, all("figure.roofline svg").size(), "one per device");
        choose("device", "cpu:avx2");
        choose("operator", "softmax");
        assertCharts(outcome -> outcome.device().equals("cpu:avx2") && outcome.operator().equals("softmax"));
        assertEquals(1, all("figure.roofline svg").size());
        assertEquals(4, all("figure.roofline .limit").size(), "memory and three types");
        one("[name=axis][value=bytes]").click();
        assertCharts(outcome -> outcome.device().equals("cpu:avx2") && outcome.operator().equals("softmax"));
        assertTrue(browser.getCurrentUrl().contains("axis=bytes"));
    }

    private void assertCharts(Predicate<Outcome> wanted) {
        long timed = count(large, wanted.and(outcome -> outcome.check().equals("time") && outcome.time() != null));
        assertTrue(timed > 0);
        assertEquals(timed, all("figure.roofline svg .point").size());
        assertEquals(timed, all("figure.changes svg .point").size());
        long compared = count(large, wanted.and(outcome -> outcome.verdict() == Verdict.PASS
                || outcome.verdict() == Verdict.FAIL));
        assertEquals(compared, all("figure.histogram svg .bar").stream()
                .mapToLong(bar -> Long.parseLong(String.valueOf(bar.getDomAttribute("data-count"))))
                .sum());
        long beyond = count(large, wanted.and(outcome -> outcome.verdict() == Verdict.FAIL));
        assertEquals(beyond, all("figure.histogram svg .bar.beyond").stream()
                .mapToLong(bar -> Long.parseLong(String.valueOf(bar.getDomAttribute("data-count"))))
                .sum());
    }

    @Test
    void theCoverageCounts() {
        show("large", "");
        long kinds = large.outcomes().stream().map(o -> o.operator() + o.types()).distinct().count();
        assertEquals(kinds * 4, all(".coverage td svg").size());
        WebElement cell = one(".coverage tbody tr:first-child td:nth-of-type(3)");
        Predicate<Outcome> here = outcome -> outcome.operator().equals("attention") && outcome.types().equals("bf16")
                && outcome.device().equals("cpu:avx2");
        long passed = count(large, here.and(outcome -> outcome.verdict() == Verdict.PASS));
        assertTrue(cell.getText().contains(passed + " pass"), cell.getText());
        cell.findElement(By.tagName("a")).click();
        assertRows(large, here);
    }

    @Test
    void aRowOpensWithTheLineThatRepeatsIt() {
        show("rich", "");
        for (Outcome outcome : rich.outcomes()) {
            if (outcome.name().isEmpty()) {
                continue;
            }
            WebElement row = all("tr.outcome").stream()
                    .filter(candidate -> candidate.findElement(By.cssSelector(".case")).getText().equals(outcome.name())
                            && candidate.getText().contains(outcome.device()))
                    .findFirst()
                    .orElseThrow(() -> new AssertionError(outcome.name()));
            WebElement toggle = row.findElement(By.className("toggle"));
            toggle.sendKeys(Keys.ENTER);
            assertEquals("true", toggle.getDomAttribute("aria-expanded"));
            assertEquals(RepeatLine.of(rich.environment(), outcome), one("tr.detail .repeat code").getText());
            if (!outcome.detail().isEmpty() && !outcome.detail().equals(SampleReports.HOSTILE)) {
                assertEquals(outcome.detail(), one("tr.detail .why").getText());
            }
            if (outcome.time() != null) {
                assertTrue(one("tr.detail .facts").getText().contains(outcome.time().runs() + " runs"));
            }
            WebElement copy = one("tr.detail [name=copy]");
            copy.click();
            browser.executeAsyncScript("setTimeout(arguments[0], 100)");
            assertEquals("Copied", copy.getText());
            toggle.sendKeys(Keys.ENTER);
            assertEquals(0, all("tr.detail").size());
        }
    }

    @Test
    void hostileTextStaysText() throws IOException {
        show("rich", "#verdict=crashed");
        assertEquals(1, all("tr.detail").size(), "the only row is open");
        // Compared in the page: the driver takes no half of a surrogate pair.
        String hostile = ReportJson.mapper(6).writeValueAsString(SampleReports.HOSTILE);
        assertEquals(true, browser.executeScript(
                "return document.querySelector('tr.detail .why').textContent === " + hostile));
        assertEquals(true, browser.executeScript(
                "return document.querySelector('#backends').textContent.includes(" + hostile + ")"));
        assertEquals("Not passed - Gatun on " + rich.environment().cpu(), browser.getTitle());
        assertEquals(2, all("script").size());
        assertEquals(0, all("img").size());
        browser.executeScript("const script = document.createElement('script');"
                + "script.textContent = \"document.title = 'owned'\"; document.body.append(script);");
        assertFalse(browser.getTitle().contains("owned"), "the page's policy runs no script but its own");
    }

    @Test
    void chartsCanBeReadWithTheKeyboard() {
        show("large", "#device=cpu%3Aavx2&operator=softmax");
        WebElement chart = one("figure.roofline svg");
        browser.executeScript("arguments[0].focus()", chart);
        browser.switchTo().activeElement().sendKeys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT);
        WebElement point = one("figure.roofline .point.on");
        Outcome outcome = large.outcomes().get(Integer.parseInt(String.valueOf(point.getDomAttribute("data-index"))));
        assertTrue(one("#tip").getText().startsWith(outcome.name()), one("#tip").getText());
        browser.switchTo().activeElement().sendKeys(Keys.ENTER);
        assertEquals("1 of 8,000 outcomes", shown());
        assertEquals(outcome.name(), one("tr.outcome .case").getText());
        assertEquals(RepeatLine.of(large.environment(), outcome), one("tr.detail .repeat code").getText());
    }

    @Test
    void skippingToTheOutcomesKeepsTheFilters() {
        show("rich", "#verdict=fail");
        String rows = shown();
        browser.executeScript("document.querySelector('.skip').click()");
        assertEquals(rows, shown());
        assertEquals("outcomes", browser.switchTo().activeElement().getDomAttribute("id"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"light", "dark"})
    void everyTextStandsOutFromItsGround(String scheme) {
        browser.executeCdpCommand("Emulation.setEmulatedMedia",
                Map.of("features", List.of(Map.of("name", "prefers-color-scheme", "value", scheme))));
        show("rich", "");
        assertEquals(scheme.equals("dark"), luminance("--page") < 0.1);
        for (String ground : List.of("--page", "--surface", "--sunken")) {
            for (String text : List.of("--ink", "--soft", "--accent", "--pass", "--fail", "--crashed", "--timed-out",
                    "--mistrusted", "--unsupported", "--not-available")) {
                double one = luminance(ground) + 0.05;
                double other = luminance(text) + 0.05;
                double contrast = Math.max(one, other) / Math.min(one, other);
                assertTrue(contrast >= 4.5, () -> text + " on " + ground + " in " + scheme + ": " + contrast);
            }
        }
    }

    /** The relative luminance of WCAG 2. */
    private double luminance(String variable) {
        String color = String.valueOf(browser.executeScript(
                "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])", variable)).strip();
        double[] weights = {0.2126, 0.7152, 0.0722};
        double luminance = 0;
        for (int i = 0; i < 3; i++) {
            double part = Integer.parseInt(color.substring(1 + 2 * i, 3 + 2 * i), 16) / 255.0;
            luminance += weights[i] * (part <= 0.04045 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4));
        }
        return luminance;
    }
}
