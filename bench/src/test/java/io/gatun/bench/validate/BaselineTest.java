package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.Report.DeviceEntry;
import io.gatun.bench.report.Timing;
import io.gatun.bench.report.Verdict;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class BaselineTest {
    private static final DeviceEntry DEVICE =
            new DeviceEntry("cpu:avx2", "cpu", "", true, "", 2, true, 0, Map.of());

    private static Report.Environment environment(String cpu, int threads) {
        return new Report.Environment("then", 1, cpu, List.of(), 2, 0, "", "", "", 1, "default", "", "1/1", 1, threads,
                30, "");
    }

    private static Outcome outcome(double low, double median, double high, Verdict verdict) {
        Timing time = new Timing(9, median, median, low, high, null, 0, 0, null, null);
        return new Outcome("time x", "time", "gemm", "f32", "cpu:avx2", verdict, "", "", 0, 0, 0, time);
    }

    private static Baseline baseline(Outcome outcome) {
        return new Baseline(new Report(1, true, environment("a", 0), List.of(), List.of(DEVICE), Map.of(), List.of(),
                List.of(outcome), null), 0.15);
    }

    @ParameterizedTest
    @CsvSource({
        "0.99, 1.00, 1.01, same",
        "1.10, 1.14, 1.20, same",
        "1.10, 1.30, 1.50, slower",
        "1.01, 1.30, 1.50, noise",
        "0.70, 0.75, 0.80, faster",
        "0.70, 0.75, 0.99, noise"
    })
    void verdicts(double low, double median, double high, String verdict) {
        Baseline before = baseline(outcome(0.97, 1, 1.03, Verdict.PASS));
        Report.Comparison comparison = before.compare(List.of(outcome(low, median, high, Verdict.PASS)));
        assertEquals(verdict, comparison.entries().getFirst().verdict());
        assertEquals("then", comparison.started());
    }

    @Test
    void onlyWhatPassedIsCompared() {
        Outcome good = outcome(1, 1, 1, Verdict.PASS);
        Outcome bad = outcome(1, 1, 1, Verdict.FAIL);
        assertEquals(List.of(), baseline(good).compare(List.of(bad)).entries());
        assertEquals(List.of(), baseline(bad).compare(List.of(good)).entries());
    }

    @Test
    void otherMachinesAreNotCompared() {
        Baseline before = baseline(outcome(1, 1, 1, Verdict.PASS));
        assertEquals("", before.whyNot(environment("a", 0), List.of(DEVICE)));
        assertNotEquals("", before.whyNot(environment("b", 0), List.of(DEVICE)));
        assertNotEquals("", before.whyNot(environment("a", 1), List.of(DEVICE)));
        assertNotEquals("", before.whyNot(environment("a", 0), List.of()));
    }
}
