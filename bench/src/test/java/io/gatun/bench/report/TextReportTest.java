package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

class TextReportTest {
    private static Report passed(Outcome... outcomes) {
        return SampleReports.report(true, SampleReports.environment("./gatun validate"), List.of(), List.of(),
                List.of(), List.of(outcomes), null);
    }

    @Test
    void oneLinePerOperatorTypesAndDevice() {
        List<String> lines = TextReport.of(SampleReports.rich()).lines().toList();
        assertTrue(lines.getFirst().matches("operator +types +device +cases +pass +fail +unsupported +mistrusted"
                + " +not available +crashed +timed out +worst +GFLOP/s +GB/s +roof +kernels"), lines.getFirst());
        assertTrue(lines.get(4).matches("gemm +int8 f32->f32 +cpu:avx2 +3 +2 +1 +0\\.50 +214\\.7 +5\\.1 +71% +"
                + "cpu\\.avx2\\.gemm\\.tile"), lines.get(4));
        assertTrue(lines.get(5).matches("gemm +int8 f32->f32 +cpu:scalar +1 +1 +3e\\+04 +cpu\\.scalar\\.gemm\\.tile"),
                lines.get(5));
        assertTrue(lines.stream().anyMatch(line -> line.matches("softmax +f32->f32 +cpu:scalar +2 +1 +1 +NaN .*")));
        int pass = lines.getFirst().indexOf("pass") + "pass".length();
        assertEquals("2", lines.get(4).substring(pass - 1, pass), "columns stand below their names");
    }

    @Test
    void columnsWithoutAnythingAreLeftOut() {
        String text = TextReport.of(passed(SampleReports.outcome("softmax f32->f32 r1 c9", "value", "f32->f32", "cpu",
                Verdict.PASS, "", 0.5, null)));
        assertEquals("""
                operator  types     device  cases  pass  worst  kernels
                softmax   f32->f32  cpu         1     1   0.50  cpu.softmax.tile
                1 device in 41.3 s: 1 passed, 0 failed
                """, text);
    }

    @Test
    void whatIsWrongOrMissingFollows() {
        List<String> lines = TextReport.of(SampleReports.rich()).lines().toList();
        assertTrue(lines.contains("contradiction: cpu:avx2 softmax bf16: claimed, but 1 of 1 cases declined"));
        assertTrue(lines.contains("slower: cpu:avx2 time gemm int8 f32->f32 m512 k512 n512: 1.250 ms, was 0.8000 ms"
                + " (1.56x)"));
        assertTrue(lines.contains("compared with 2026-03-03T05:06:07Z, threshold 10 %: 3 cases, 1 faster, 1 same,"
                + " 1 slower"));
        assertTrue(lines.contains("cpu:vnni not available: the processor has no AVX-512 VNNI"));
        assertEquals("2 devices in 41.3 s: 1 unsupported, 1 mistrusted, 2 not available, 5 passed, 4 failed (1 crashed,"
                + " 1 timed out)", lines.getLast());
    }

    @Test
    void anEmptyReportSaysSo() {
        assertEquals("""
                not complete: the run did not come to its end
                0 devices in 41.3 s: 0 passed, 0 failed
                """, TextReport.of(SampleReports.empty()));
    }

    @Test
    void aTerminalIsNotSteeredByALibrary() {
        String text = TextReport.of(SampleReports.rich());
        assertTrue(text.contains("[31m"), "the hostile reason is printed");
        assertFalse(text.chars().anyMatch(c -> c < ' ' && c != '\n' || c >= 0x7f && c < 0xa0 || c == 0x2028), text);
        assertEquals("a b \ufffd[2J\ufffd\ufffd", Escape.line("a\nb\t\u001b[2J\u202e\ud800"));
    }
}
