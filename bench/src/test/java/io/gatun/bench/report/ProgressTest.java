package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class ProgressTest {
    private final ByteArrayOutputStream written = new ByteArrayOutputStream();
    private final PrintStream out = new PrintStream(written, true, StandardCharsets.UTF_8);

    private void run(boolean terminal) {
        try (Progress progress = Progress.of(3, out, terminal, 100)) {
            progress.at("cpu:avx2", "gemm \u001b[31m f32");
            progress.add(SampleReports.outcome("gemm f32", "value", "f32", "cpu:avx2", Verdict.PASS, "", 0, null));
            progress.add(SampleReports.outcome("gemm f32", "value", "f32", "cpu:avx2", Verdict.CRASHED, "", 0, null));
            progress.aside(() -> out.println("CRASHED: exit code 134"));
            progress.add(SampleReports.outcome("gemm f32", "value", "f32", "cpu:avx2", Verdict.FAIL, "", 0, null));
        }
    }

    private String text() {
        return written.toString(StandardCharsets.UTF_8);
    }

    @Test
    void nothingButWhatOthersPrintWithoutATerminal() {
        run(false);
        assertEquals("CRASHED: exit code 134" + System.lineSeparator(), text());
    }

    @Test
    void aTerminalShowsHowFarTheRunIs() {
        run(true);
        String text = text();
        assertTrue(text.contains("3/3"), text);
        assertTrue(text.contains("2 failed, cpu:avx2 gemm"), text);
        assertTrue(text.contains("\r" + " ".repeat(99) + "\rCRASHED: exit code 134"), "it stands on a line of its own");
        assertTrue(text.endsWith("\r" + " ".repeat(99) + "\r"), "the line is removed at the end");
        assertEquals(-1, text.indexOf('\u001b'), text);
        for (String line : text.split("[\r\n]+")) {
            assertTrue(line.length() < 100, () -> "'" + line + "' would wrap");
        }
    }
}
