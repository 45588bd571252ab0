package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class RepeatLineTest {
    private static Outcome outcome(String name, String device) {
        return new Outcome(name, "value", "gemm", "", device, Verdict.FAIL, "", "", 2, 2, 1, null);
    }

    private static Report.Environment environment(String command, int threads) {
        Report.Environment e = SampleReports.environment(command);
        return new Report.Environment(e.started(), e.seconds(), e.cpu(), e.isa(), e.processors(), e.memoryBytes(),
                e.os(), e.jvm(), e.gatun(), e.abi(), e.catalogue(), e.filter(), e.shard(), e.seed(), threads,
                e.timeoutSeconds(), command);
    }

    @Test
    void namesDeviceAndCase() {
        assertEquals("./gatun validate --device cpu:avx2 --case \"gemm f32 f32->f32 m3 k4 n5 seed=7\"",
                RepeatLine.of(environment("./gatun validate --quick", 0),
                        outcome("gemm f32 f32->f32 m3 k4 n5 seed=7", "cpu:avx2")));
    }

    @Test
    void keepsTheLibraryAndTheThreadsOfTheRun() {
        assertEquals("./gatun validate --backend /opt/libgatun_acme.so --device acme:0 --threads 3 --case \"gemm\"",
                RepeatLine.of(environment("./gatun validate --backend /opt/libgatun_acme.so --quick", 3),
                        outcome("gemm", "acme:0")));
        assertEquals("./gatun validate --backend='my libs'/libgatun_acme.so --device acme --case \"gemm\"",
                RepeatLine.of(environment("./gatun validate --backend='my libs'/libgatun_acme.so --json x", 0),
                        outcome("gemm", "acme")));
    }

    @Test
    void aShellReadsTheSameWords() throws IOException, InterruptedException {
        String device = "a'b $(touch x) \"c\" `d` \\ ; e\nf";
        String name = "gemm \"x\" $HOME `id` \\ ' ; & f32->f32";
        String line = RepeatLine.of(environment("./gatun validate", 0), outcome(name, device));
        Process shell = new ProcessBuilder("sh", "-c", line.replaceFirst("^\\./gatun", "printf '%s|'")).start();
        assertEquals("validate|--device|" + device + "|--case|" + name + "|",
                new String(shell.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
        assertEquals(0, shell.waitFor());
    }
}
