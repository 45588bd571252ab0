package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The checked-in classes are what bindings/generate.sh makes of gatun.h now. It needs jextract, on the path or named by
 * {@code -Dgatun.jextract}, so it runs with {@code -Pjextract} alone; {@link HeaderTest} does without.
 */
class JextractRun {
    private static final Path BINDINGS = Path.of(System.getProperty("basedir", "."));
    private static final String PACKAGE = "io/gatun/bindings/c";

    @TempDir
    Path folder;

    @Test
    void theCheckedInClassesAreWhatJextractMakes() throws IOException, InterruptedException {
        Path log = folder.resolve("log");
        Path sources = folder.resolve("sources");
        ProcessBuilder generate = new ProcessBuilder(BINDINGS.resolve("generate.sh").toString(), sources.toString())
                .redirectErrorStream(true).redirectOutput(log.toFile());
        String jextract = System.getProperty("gatun.jextract", "");
        if (!jextract.isEmpty()) {
            generate.environment().put("JEXTRACT", jextract);
        }
        Process process = generate.start();
        assertTrue(process.waitFor(2, TimeUnit.MINUTES), "generate.sh does not end");
        assertEquals(0, process.exitValue(), Files.readString(log));
        Map<String, String> made = read(sources.resolve(PACKAGE));
        assertTrue(made.size() > 10, made.keySet()::toString);
        Map<String, String> checkedIn = read(BINDINGS.resolve("src/main/java").resolve(PACKAGE));
        assertEquals(made.keySet(), checkedIn.keySet());
        made.forEach((name, text) -> assertEquals(text, checkedIn.get(name), name + " is not what generate.sh makes"));
    }

    private static Map<String, String> read(Path directory) throws IOException {
        Map<String, String> files = new TreeMap<>();
        try (Stream<Path> list = Files.list(directory)) {
            for (Path file : list.toList()) {
                files.put(file.getFileName().toString(), Files.readString(file));
            }
        }
        return files;
    }
}
