package io.gatun.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.JsonText;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class GatunCommandTest {
    private final StringWriter out = new StringWriter();
    private final StringWriter err = new StringWriter();

    private int run(String... args) {
        return GatunCommand.run(new PrintWriter(out, true), new PrintWriter(err, true), args);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "''                                                | command",
                "frobnicate                                        | frobnicate",
                "validate --nonsense                               | --nonsense",
                "validate --threads many                           | --threads",
                "validate --threads -1                             | --threads",
                "validate --filter [                               | --filter",
                "validate --filter nothing_is_called_this          | nothing_is_called_this",
                "validate --case nonsense                          | nonsense",
                "validate --json /no/such/folder/report.json       | /no/such/folder",
                "validate --device nowhere                         | nowhere",
                "validate --device cpu:nonsense                    | cpu:nonsense",
                "validate --backend /no/such/libgatun_vendor.so    | libgatun_vendor.so"
            })
    void wrongUse(String line, String word) {
        assertEquals(2, line.isEmpty() ? run() : run(line.split(" ")), err.toString());
        assertTrue(err.toString().contains(word), err.toString());
    }

    @Test
    void versionAndHelp() {
        assertEquals(0, run("--version"));
        assertTrue(out.toString().matches("gatun \\d+\\.\\d+\\.\\d+\\S*\\R"), out.toString());
        assertEquals(0, run("--help"));
        assertTrue(out.toString().contains("validate") && out.toString().contains("devices"));
    }

    @Test
    void devices() {
        assertEquals(0, run("devices"), err.toString());
        assertTrue(out.toString().contains("cpu:scalar"), out.toString());
        assertTrue(out.toString().contains("cuda: not available: "), out.toString());
    }

    @Test
    void devicesAsJson() {
        assertEquals(0, run("devices", "--json"), err.toString());
        List<?> backends = (List<?>) JsonText.parse(out.toString());
        Map<?, ?> cpu = (Map<?, ?>) backends.stream()
                .filter(backend -> "cpu".equals(((Map<?, ?>) backend).get("name")))
                .findFirst()
                .orElseThrow();
        assertEquals(true, cpu.get("available"));
        assertFalse(((List<?>) cpu.get("devices")).isEmpty());
    }

    @Test
    void validates(@TempDir Path folder) throws IOException {
        Path json = folder.resolve("report.json");
        String filter = "^(softmax|rmsnorm) ";
        int code = run("validate", "--quick", "--seed", "5", "--filter", filter, "--json", json.toString());
        assertEquals(0, code, out.toString() + err);
        assertTrue(out.toString().contains(" passed, 0 failed, "), out.toString());
        Map<?, ?> report = (Map<?, ?>) JsonText.parse(Files.readString(json));
        Map<?, ?> environment = (Map<?, ?>) report.get("environment");
        assertEquals(5.0, environment.get("seed"));
        Map<?, ?> summary = (Map<?, ?>) report.get("summary");
        List<?> cases = (List<?>) report.get("cases");
        assertEquals((double) cases.size(), summary.get("total"));
        assertEquals(0.0, summary.get("fail"));
        long passed = cases.stream().filter(test -> "pass".equals(((Map<?, ?>) test).get("verdict"))).count();
        assertEquals((double) passed, summary.get("pass"));
        assertTrue(passed > 0);
    }

    @Test
    void oneCaseOnOneDevice() {
        assertEquals(0, run("validate", "--device", "cpu:scalar", "--case", "softmax f32->f32 r3 n7"), err.toString());
        assertTrue(out.toString().contains("1 passed, 0 failed"), out.toString());
    }

    @Test
    void nothingPassed() {
        String mistrusted = "activation relu f32->f32 r1 n1 constant seed=";
        for (int seed = 0; seed < 20; seed++) {
            int code = run("validate", "--device", "cpu:scalar", "--case", mistrusted + seed);
            assertEquals(out.toString().contains("MISTRUSTED") ? 1 : 0, code);
            out.getBuffer().setLength(0);
        }
    }

    @Test
    void listsCases() {
        assertEquals(0, run("validate", "--quick", "--list", "--filter", "^softmax"));
        assertTrue(out.toString().lines().allMatch(line -> line.startsWith("softmax ")), out.toString());
    }
}
