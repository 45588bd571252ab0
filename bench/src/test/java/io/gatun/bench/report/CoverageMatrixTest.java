package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CoverageMatrixTest {
    @TempDir
    private Path folder;

    private static Report report(Outcome... outcomes) {
        return SampleReports.report(true, SampleReports.environment(""), List.of(), List.of(), List.of(),
                List.of(outcomes), null);
    }

    private static Outcome outcome(String name, String types, String device, Verdict verdict) {
        return SampleReports.outcome(name, "value", types, device, verdict, "", 0, null);
    }

    @Test
    void cellsFollowFromOutcomes() {
        assertEquals("""
                | Operator | Type | cpu:scalar | cpu:avx2 | cpu:vnni | cuda | rocm | rocm\\_rdna | ascend |
                | --- | --- | --- | --- | --- | --- | --- | --- | --- |
                | attention | f32 | **1 timed out** | not tested | not available | no | no | no | no |
                | gemm | bf16 | not tested | 1 passed | not available | no | no | no | no |
                | gemm | f32 | not tested | 1 mistrusted, **1 crashed** | not available | no | no | no | no |
                | gemm | int8 | **1 failed** | 2 passed, 1 not available | not available | no | no | no | no |
                | softmax | bf16 | not tested | no | not available | no | no | no | no |
                | softmax | f32 | 1 passed, **1 failed** | 1 passed | not available | no | no | no | no |

                Cases on Example CPU 3000 (8 cores), Linux 6.1 amd64, 2026-03-04, Gatun 0.1.0+0123456789ab, catalogue \
                quick.
                """, CoverageMatrix.of(List.of(SampleReports.rich())));
    }

    @Test
    void theLastReportThatHasADeviceCounts() {
        Report first = report(outcome("device", "", "cpu:avx2", Verdict.PASS),
                outcome("gemm f32 m1", "f32 f32->f32", "cpu:avx2", Verdict.PASS),
                outcome("gemm f32 m2", "f32 f32->f32", "cpu:avx2", Verdict.PASS),
                Outcome.notAvailable("cpu:vnni", "it has none"));
        Report second = report(outcome("gemm f32 m3", "f32 f32->f32", "cpu:vnni", Verdict.PASS),
                Outcome.notAvailable("cpu:avx2", "hidden"));
        String both = CoverageMatrix.of(List.of(first, second));
        assertTrue(both.contains("| Operator | Type | cpu:avx2 | cpu:vnni |"), both);
        assertTrue(both.contains("| gemm | f32 | 2 passed | 1 passed |"), both);
        assertEquals(2, both.lines().filter(line -> line.startsWith("Cases on ")).count());
        Report third = report(outcome("gemm f32 m1", "f32 f32->f32", "cpu:avx2", Verdict.FAIL));
        assertTrue(CoverageMatrix.of(List.of(first, third)).contains("| gemm | f32 | **1 failed** | not available |"));
    }

    @Test
    void othersBackendsFollowOurs() {
        String table = CoverageMatrix.of(List.of(report(
                outcome("softmax f32->f32 r1 c1", "f32->f32", "acme|x", Verdict.PASS),
                outcome("softmax f32->f32 r1 c1", "f32->f32", "cuda:0", Verdict.UNSUPPORTED))));
        assertTrue(table.contains("| cpu | cuda:0 | rocm | rocm\\_rdna | ascend | acme\\|x |"), table);
        assertTrue(table.contains("| softmax | f32 | no | no | no | no | no | 1 passed |"), table);
    }

    @Test
    void whatAReportDidNotLookAtIsSaid() {
        Report.Environment e = SampleReports.environment("");
        Report.Environment part = new Report.Environment(e.started(), e.seconds(), e.cpu(), e.isa(), e.processors(),
                e.memoryBytes(), e.os(), e.jvm(), e.gatun(), e.abi(), "default", "gemm|x", "2/3", e.seed(), e.threads(),
                e.timeoutSeconds(), e.command());
        String table = CoverageMatrix.of(List.of(SampleReports.report(false, part, List.of(), List.of(), List.of(),
                List.of(), null)));
        assertTrue(table.endsWith("catalogue default where gemm\\|x matches, part 2/3, **not complete**.\n"), table);
    }

    @Test
    void theTextBetweenTheMarksIsReplaced() throws IOException {
        Path file = Files.writeString(folder.resolve("README.md"),
                "# Title\n" + CoverageMatrix.BEGIN + "\nold\n" + CoverageMatrix.END + "\nrest");
        CoverageMatrix.replace(file, List.of(SampleReports.rich()));
        String expected = "# Title\n" + CoverageMatrix.BEGIN + "\n" + CoverageMatrix.of(List.of(SampleReports.rich()))
                + CoverageMatrix.END + "\nrest";
        assertEquals(expected, Files.readString(file));
        CoverageMatrix.replace(file, List.of(SampleReports.rich()));
        assertEquals(expected, Files.readString(file), "a second time changes nothing");
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "BEGIN\n", "END\n", "END\nBEGIN\n", "BEGIN\nBEGIN\nEND\n", "`BEGIN` and `END`\n"})
    void withoutTheMarksNothingIsWritten(String marks) throws IOException {
        String text = "# Title\n" + marks.replace("BEGIN", CoverageMatrix.BEGIN).replace("END", CoverageMatrix.END);
        Path file = Files.writeString(folder.resolve("README.md"), text);
        IOException e = assertThrows(IOException.class,
                () -> CoverageMatrix.replace(file, List.of(SampleReports.rich())));
        assertTrue(String.valueOf(e.getMessage()).contains("README.md: "), e::getMessage);
        assertTrue(String.valueOf(e.getMessage()).contains("coverage"), e::getMessage);
        assertEquals(text, Files.readString(file));
    }
}
