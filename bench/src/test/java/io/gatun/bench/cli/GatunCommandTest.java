package io.gatun.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.ReportJson;
import io.gatun.bench.report.Verdict;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
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
                "validate --shard 3/2                              | --shard",
                "validate --shard 0/2                              | --shard",
                "validate --timeout 0                              | --timeout",
                "validate --quick --exhaustive                     | exclusive",
                "validate --baseline /no/such/report.json          | /no/such/report.json",
                "validate --coverage /no/such/README.md            | /no/such/README.md",
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
    void devicesAsJson() throws IOException {
        assertEquals(0, run("devices", "--json"), err.toString());
        JsonNode backends = new ObjectMapper().readTree(out.toString());
        assertEquals(true, backends.findParents("name").stream()
                .anyMatch(node -> node.get("name").asText().equals("cpu") && node.get("available").asBoolean()
                        && !node.get("devices").isEmpty()));
    }

    @Test
    void damagedLibrariesAreNamed(@TempDir Path folder) throws IOException {
        List<String> args = new ArrayList<>(List.of("devices", "--backend"));
        for (int i = 0; i < 3; i++) {
            Path library = folder.resolve("libgatun_damaged" + i + ".so");
            Files.writeString(library, "\u007fELF and nothing more" + i);
            args.add(library.toString());
        }
        assertEquals(0, run(args.toArray(String[]::new)), err.toString());
        for (int i = 0; i < 3; i++) {
            String line = out.toString().lines().filter(one -> one.contains("damaged")).toList().get(i);
            assertTrue(line.contains("libgatun_damaged" + i + ".so") && line.contains("not available: "), line);
        }
        assertTrue(out.toString().contains("cpu:scalar"), out.toString());
    }

    @Test
    void validates(@TempDir Path folder) throws IOException {
        Path json = folder.resolve("report.json");
        Path html = folder.resolve("report.html");
        Path junit = folder.resolve("report.xml");
        String filter = "^(softmax|rmsnorm) ";
        int code = run("validate", "--quick", "--seed", "5", "--filter", filter, "--json", json.toString(), "--html",
                html.toString(), "--junit", junit.toString());
        assertEquals(0, code, out.toString() + err);
        assertTrue(out.toString().contains(" passed, 0 failed"), out.toString());
        Report report = ReportJson.read(json);
        assertTrue(report.complete() && report.good());
        assertEquals(5, report.environment().seed());
        assertEquals("quick", report.environment().catalogue());
        assertTrue(report.count(Verdict.PASS) > 50, report.summary().toString());
        assertTrue(Files.size(html) > 10_000 && Files.size(junit) > 10_000);
    }

    @Test
    void shardsAreAPartition() {
        List<String> parts = new ArrayList<>();
        for (int part = 1; part <= 3; part++) {
            out.getBuffer().setLength(0);
            assertEquals(0, run("validate", "--quick", "--list", "--shard", part + "/3"));
            parts.addAll(out.toString().lines().toList());
        }
        out.getBuffer().setLength(0);
        assertEquals(0, run("validate", "--quick", "--list"));
        assertEquals(out.toString().lines().sorted().toList(), parts.stream().sorted().toList());
    }

    @Test
    void oneCaseOnOneDevice() {
        assertEquals(0, run("validate", "--device", "cpu:scalar", "--case", "softmax f32->f32 r3 n7"), err.toString());
        assertTrue(out.toString().contains("1 passed, 0 failed"), out.toString());
    }

    @Test
    void nothingPassed() {
        String mistrusted = "activation relu f32->f32 r1 n1 constant seed=";
        for (int seed = 0; seed < 6; seed++) {
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
