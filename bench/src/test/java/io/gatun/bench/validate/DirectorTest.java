package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.NotAvailableException;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.Verdict;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

class DirectorTest {
    private static final Report.Environment ENVIRONMENT = new Report.Environment("", 0, "a processor", List.of(), 2, 0,
            "", "", "", 0, "case", "", "1/1", 1, 0, 30, "./gatun validate");
    private static final List<String> LINES = List.of("softmax f32->f32 r3 n7 seed=1", "softmax f32->f32 r4 n7 seed=1",
            "softmax f32->f32 r5 n7 seed=1", "leak device seed=1", "refuse softmax f32 overlap seed=1",
            "concurrent softmax f32->f32 r5 n9 seed=1", "time softmax f32->f32 r5 n33 seed=1");

    private static Report run(String device, Report baseline, Consumer<Outcome> watch) throws IOException {
        List<Case> cases = LINES.stream().map(Case::parse).toList();
        Director.Job job = new Director.Job(cases, null, device, 0, Duration.ofSeconds(30), false, true);
        Director director = new Director(job, ENVIRONMENT, new Director.Watcher() {
            @Override
            public void opened(List<String> devices, int outcomes) {
                assertEquals(devices.size() * LINES.size(), outcomes);
            }

            @Override
            public void outcome(Outcome outcome) {
                watch.accept(outcome);
            }
        });
        assertFalse(director.report().complete());
        director.run(baseline, 0.15);
        return director.report();
    }

    @Test
    void everyCaseRunsInAnotherProcess() throws IOException {
        List<String> seen = new ArrayList<>();
        Report report = run("cpu:scalar", null, outcome -> seen.add(outcome.name()));
        assertTrue(report.complete());
        assertEquals(LINES, seen);
        assertEquals(LINES.size(), report.count(Verdict.PASS), report.outcomes().toString());
        assertTrue(report.good());
        assertEquals("cpu", report.backends().getFirst().name());
        assertTrue(report.devices().getFirst().limits().containsKey("f32"), report.devices().toString());
        assertTrue(report.environment().gatun().startsWith("0."), report.environment().gatun());
        assertTrue(report.support().stream()
                .anyMatch(entry -> entry.operator().equals("softmax") && entry.passed() == LINES.size() - 1));
    }

    @Test
    void aProcessThatDiesCostsItsCase() throws IOException {
        Report report = run("cpu:scalar", null, outcome -> {
            if (outcome.name().equals(LINES.get(1))) {
                // The worker is the only child of a process that runs tests.
                ProcessHandle.current().children().forEach(ProcessHandle::destroyForcibly);
            }
        });
        assertTrue(report.complete());
        assertFalse(report.good());
        assertEquals(1, report.count(Verdict.CRASHED), report.outcomes().toString());
        assertEquals(LINES.size() - 1, report.count(Verdict.PASS));
        Outcome crashed = report.outcomes().stream()
                .filter(outcome -> outcome.verdict() == Verdict.CRASHED)
                .findFirst()
                .orElseThrow();
        // It was killed between the outcome of one case and the start of the next: either may be what it died at.
        assertTrue(LINES.subList(1, 3).contains(crashed.name()), crashed.name());
        assertTrue(crashed.detail().startsWith("SIGKILL"), crashed.detail());
    }

    @Test
    void timesAreComparedWithAnEarlierReport() throws IOException {
        Report before = run("cpu:scalar", null, _ -> {});
        Report after = run("cpu:scalar", before, _ -> {});
        Report.Comparison comparison = after.comparison();
        assertTrue(comparison != null);
        assertEquals(List.of(LINES.getLast()), comparison.entries().stream().map(Report.Compared::name).toList());
    }

    @Test
    void whatIsNotThere() {
        assertThrows(NotAvailableException.class, () -> run("cpu:none", null, _ -> {}));
        assertThrows(NotAvailableException.class, () -> run("none", null, _ -> {}));
    }
}
