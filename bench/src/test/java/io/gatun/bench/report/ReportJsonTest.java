package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.networknt.schema.Error;
import com.networknt.schema.Schema;
import com.networknt.schema.SchemaRegistry;
import com.networknt.schema.SpecificationVersion;
import java.io.IOException;
import java.lang.reflect.RecordComponent;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ReportJsonTest {
    private static final Path SCHEMA = Path.of(System.getProperty("basedir", "."), "..", "docs", "report.schema.json");
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    private Path folder;

    private Path write(Report report) throws IOException {
        Path file = folder.resolve("report.json");
        ReportJson.write(report, file);
        return file;
    }

    private static List<Error> errors(JsonNode report) throws IOException {
        Schema schema = SchemaRegistry.withDefaultDialect(SpecificationVersion.DRAFT_2020_12)
                .getSchema(JSON.readTree(SCHEMA.toFile()));
        return schema.validate(report,
                context -> context.executionConfig(config -> config.formatAssertionsEnabled(true)));
    }

    @Test
    void whatIsWrittenFollowsTheSchema() throws IOException {
        assertEquals(List.of(), errors(JSON.readTree(write(SampleReports.rich()).toFile())));
        assertEquals(List.of(), errors(JSON.readTree(write(SampleReports.empty()).toFile())));
        assertEquals(List.of(), errors(JSON.readTree(write(SampleReports.large(200)).toFile())));
    }

    @Test
    void theSchemaTellsDamage() throws IOException {
        assertDamage("verdict", report -> first(report).put("verdict", "passed"));
        assertDamage("check", report -> first(report).put("check", "values"));
        assertDamage("ratio", report -> first(report).put("ratio", "0.5"));
        assertDamage("ratio", report -> first(report).put("ratio", -1));
        assertDamage("detail", report -> first(report).remove("detail"));
        assertDamage("note", report -> first(report).put("note", "more"));
        assertDamage("environment", report -> report.remove("environment"));
        assertDamage("started", report -> ((ObjectNode) report.get("environment")).put("started", "yesterday"));
        assertDamage("passed", report -> ((ObjectNode) report.get("summary")).put("passed", 1));
        assertDamage("schema", report -> report.put("schema", 2));
    }

    private void assertDamage(String where, Consumer<ObjectNode> damage) throws IOException {
        ObjectNode report = (ObjectNode) JSON.readTree(write(SampleReports.rich()).toFile());
        damage.accept(report);
        List<Error> errors = errors(report);
        assertFalse(errors.isEmpty(), where);
        assertTrue(errors.toString().contains(where), errors::toString);
    }

    private static ObjectNode first(ObjectNode report) {
        return (ObjectNode) report.get("outcomes").get(0);
    }

    @Test
    void theSchemaKnowsEveryComponentAndNoOther() throws IOException {
        JsonNode schema = JSON.readTree(SCHEMA.toFile());
        assertForm(Report.class, schema);
        for (Class<?> type : List.of(Report.Environment.class, Report.BackendEntry.class, Report.DeviceEntry.class,
                Report.Support.class, Report.Comparison.class, Report.Compared.class, Outcome.class, Timing.class)) {
            assertForm(type, schema.path("$defs").path(type.getSimpleName()));
        }
        assertEquals(Arrays.stream(Verdict.values()).map(Verdict::toString).toList(),
                strings(schema.path("$defs").path("Verdict").path("enum")));
        assertEquals(Report.SCHEMA, schema.path("properties").path("schema").path("const").intValue());
    }

    private static void assertForm(Class<?> type, JsonNode form) {
        TreeSet<String> components = Arrays.stream(type.getRecordComponents())
                .map(RecordComponent::getName)
                .map(name -> type == Outcome.class && name.equals("name") ? "case" : name)
                .collect(Collectors.toCollection(TreeSet::new));
        TreeSet<String> properties = new TreeSet<>();
        form.path("properties").properties().forEach(property -> {
            properties.add(property.getKey());
            assertTrue(property.getValue().path("description").asText().endsWith("."),
                    () -> type + " " + property.getKey() + " has no description");
        });
        assertEquals(components, properties, type::toString);
        assertEquals(components, new TreeSet<>(strings(form.path("required"))), type::toString);
        assertTrue(form.path("additionalProperties").isBoolean(), type::toString);
        assertFalse(form.path("additionalProperties").booleanValue(), type::toString);
    }

    private static List<String> strings(JsonNode array) {
        return StreamSupport.stream(array.spliterator(), false).map(JsonNode::asText).toList();
    }

    @Test
    void whatWasWrittenIsRead() throws IOException {
        assertEquals(SampleReports.rich(), ReportJson.read(write(SampleReports.rich())));
        assertEquals(SampleReports.empty(), ReportJson.read(write(SampleReports.empty())));
    }

    @Test
    void numbersAreRoundedAndThoseThatAreNotFiniteAreNull() throws IOException {
        Timing time = new Timing(3, 1.23456789, Double.POSITIVE_INFINITY, 1e-300, 123456789.0, Double.NaN, 0, 0,
                Double.NEGATIVE_INFINITY, null);
        Outcome outcome = new Outcome("time softmax f32->f32 r1 c1", "time", "softmax", "f32->f32", "cpu", Verdict.FAIL,
                "", "", Double.NaN, Double.POSITIVE_INFINITY, 1.0 / 3, time);
        Report.DeviceEntry device = new Report.DeviceEntry("cpu", "cpu", "", true, "", 1, true, 0,
                Map.of("f32", Double.NaN, "memory", 2e10 / 3));
        Report report = SampleReports.report(true, SampleReports.environment(""), List.of(), List.of(device), List.of(),
                List.of(outcome), null);
        Path file = write(report);
        assertEquals(List.of(), errors(JSON.readTree(file.toFile())));
        Report read = ReportJson.read(file);
        Outcome same = read.outcomes().getFirst();
        assertTrue(Double.isNaN(same.ratio()));
        assertTrue(Double.isNaN(same.error()));
        assertEquals(0.333333, same.tolerance());
        Timing then = same.time();
        assertNotNull(then);
        assertEquals(1.23457, then.firstMs());
        assertTrue(Double.isNaN(then.warmMs()));
        assertEquals(1e-300, then.lowMs());
        assertEquals(123457000.0, then.highMs());
        assertNull(then.coldMs());
        assertNull(then.roofline());
        assertEquals(Map.of("memory", 6.66667e9), read.devices().getFirst().limits());
    }

    @Test
    void everyOutcomeHasALine() throws IOException {
        Report report = SampleReports.rich();
        List<String> lines = Files.readAllLines(write(report));
        for (Outcome outcome : report.outcomes()) {
            assertEquals(1, lines.stream()
                    .filter(line -> line.contains("\"case\": \"" + outcome.name() + "\"")
                            && line.contains("\"device\": \"" + outcome.device() + "\"")
                            && line.contains("\"verdict\": \"" + outcome.verdict() + "\"")
                            && line.matches("    \\{ .* },?"))
                    .count(), outcome.name());
        }
        assertTrue(lines.contains("  \"complete\": true,"), () -> String.join("\n", lines));
        assertTrue(lines.contains("    \"seed\": 1,"));
        List<String> counts = lines.stream().filter(line -> line.matches("    \"(pass|fail|mis.*)\": \\d+,?")).toList();
        assertEquals(3, counts.size());
        assertEquals(counts.stream().sorted().toList(), counts, "keys of maps are sorted");
    }

    @Test
    void theSameReportGivesTheSameFile() throws IOException {
        byte[] first = Files.readAllBytes(write(SampleReports.rich()));
        Files.delete(folder.resolve("report.json"));
        assertEquals(new String(first, StandardCharsets.UTF_8), Files.readString(write(SampleReports.rich())));
        Path again = folder.resolve("again.json");
        ReportJson.write(ReportJson.read(folder.resolve("report.json")), again);
        assertEquals(-1, Files.mismatch(folder.resolve("report.json"), again));
    }

    @Test
    void aFileIsReplacedAsAWholeAndNothingIsLeft() throws IOException {
        Path file = Files.writeString(folder.resolve("report.json"), "old".repeat(100_000));
        Path link = Files.createSymbolicLink(folder.resolve("latest.json"), file.getFileName());
        ReportJson.write(SampleReports.rich(), link);
        assertTrue(Files.isSymbolicLink(link));
        assertEquals(SampleReports.rich(), ReportJson.read(file));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(2, files.count());
        }
        assertThrows(IOException.class, () -> ReportJson.write(SampleReports.rich(), folder.resolve("no/report.json")));
        assertEquals(SampleReports.rich(), ReportJson.read(file));
    }

    @Test
    void aFailureKeepsTheOldFile() throws IOException {
        Path file = Files.writeString(folder.resolve("report.txt"), "old");
        assertThrows(IOException.class, () -> AtomicFile.write(file, out -> {
            out.write("new");
            throw new IOException("disk full");
        }));
        assertEquals("old", Files.readString(file));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(1, files.count());
        }
    }

    @Test
    void aMistakeIsNamedWithItsPlace() throws IOException {
        assertWrong("report.json, line ", "outcomes[1].verdict", "\"passed\"",
                text -> text.replace("\"verdict\": \"fail\"", "\"verdict\": \"passed\""));
        assertWrong("outcomes[0]", "detail", text -> text.replaceFirst("\"detail\": \"\", ", ""));
        assertWrong("environment", "cpu", text -> text.replaceFirst("\"cpu\": \"[^\"]*\"", "\"cpu\": null"));
        assertWrong("environment", "processors", text -> text.replace("\"processors\": 8", "\"processors\": \"8\""));
        assertWrong("outcomes[0]", "ratio", text -> text.replaceFirst("\"ratio\": [0-9.]+", "\"ratio\": \"none\""));
        assertWrong("outcomes[0]", "note", text -> text.replaceFirst("\"detail\": \"\"", "$0, \"note\": 1"));
        assertWrong("version 2, expected 1", text -> text.replace("\"schema\": 1", "\"schema\": 2"));
        assertWrong("'schema' is missing", text -> text.replace("\"schema\": 1", "\"form\": 1"));
        assertWrong("'schema' is missing", _ -> "[1, 2]");
        assertWrong("report.json, line ", "end-of-input", text -> text.substring(0, text.lastIndexOf("\"detail\"")));
        assertWrong("report.json", _ -> "");
        assertWrong("report.json", text -> text + "}");
    }

    private void assertWrong(String first, UnaryOperator<String> damage) throws IOException {
        assertWrong(first, "", "", damage);
    }

    private void assertWrong(String first, String second, UnaryOperator<String> damage)
            throws IOException {
        assertWrong(first, second, "", damage);
    }

    private void assertWrong(String first, String second, String third,
            UnaryOperator<String> damage) throws IOException {
        Path file = write(SampleReports.rich());
        String text = Files.readString(file);
        String damaged = damage.apply(text);
        assertFalse(damaged.equals(text), "nothing was damaged");
        Files.writeString(file, damaged);
        IOException e = assertThrows(IOException.class, () -> ReportJson.read(file));
        for (String part : List.of("report.json", first, second, third)) {
            assertTrue(String.valueOf(e.getMessage()).contains(part), () -> part + " is not in: " + e.getMessage());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"no.json", "."})
    void aFileThatIsNotThereIsNamed(String name) {
        IOException e = assertThrows(IOException.class, () -> ReportJson.read(folder.resolve(name)));
        String expected = name.equals(".") ? "directory" : "no.json: there is no such file";
        assertTrue(String.valueOf(e.getMessage()).contains(expected), e::getMessage);
    }

    @Test
    void whatCannotBeReplacedIsWritten() throws IOException {
        Path pipe = Path.of("/dev/null");
        ReportJson.write(SampleReports.rich(), pipe);
        assertTrue(Files.exists(pipe));
        assertFalse(Files.isRegularFile(pipe));
        Files.writeString(pipe, "", StandardOpenOption.WRITE);
    }
}
