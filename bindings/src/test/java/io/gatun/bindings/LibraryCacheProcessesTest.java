package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The cache in processes of their own: many that start at once, and one that ends while it fills the cache. */
class LibraryCacheProcessesTest {
    private static final String NAME = "libexample.so";
    private static final int PROCESSES = 16;

    @TempDir
    Path folder;

    private final List<Process> processes = new ArrayList<>();
    private Path cache = Path.of("");
    private Path temporary = Path.of("");
    private byte[] content = {};

    @BeforeEach
    void prepare() throws IOException {
        cache = folder.resolve("cache");
        temporary = Files.createDirectory(folder.resolve("tmp"));
        content = Files.readAllBytes(CacheProcess.LIBRARY);
    }

    @AfterEach
    void end() {
        processes.forEach(Process::destroyForcibly);
    }

    @Test
    void manyStartOnAColdCache() throws Exception {
        for (int i = 0; i < PROCESSES; i++) {
            start();
        }
        letGo();
        expectLoaded();
        expectNothingElse();
    }

    @Test
    void manyStartOnADamagedFile() throws Exception {
        Path file = LibraryCache.extract(NAME, content, cache);
        Files.write(file, new byte[content.length]);
        for (int i = 0; i < PROCESSES; i++) {
            start();
        }
        letGo();
        expectLoaded();
        assertEquals(file, expectNothingElse());
    }

    @Test
    void whatAKilledProcessLeavesIsRemovedLater() throws Exception {
        Path file = LibraryCache.extract(NAME, content, cache);
        Files.delete(file);
        start("dies");
        letGo();
        processes.getFirst().waitFor();
        List<Path> left = filesIn(cache);
        assertEquals(1, left.size(), left::toString);
        assertTrue(left.getFirst().toString().endsWith(".tmp"), left::toString);

        // Of the library that the next one wants. It may still be written to, as far as anybody knows.
        Path leftover = Files.move(left.getFirst(), file.resolveSibling(left.getFirst().getFileName()));
        processes.clear();
        start();
        letGo();
        expectLoaded();
        assertTrue(Files.exists(leftover), "a file that is being written was removed");

        Files.setLastModifiedTime(leftover, FileTime.from(Instant.now().minus(Duration.ofHours(2))));
        processes.clear();
        start();
        letGo();
        expectLoaded();
        assertEquals(file, expectNothingElse());
    }

    private void start(String... more) throws IOException, URISyntaxException {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "--enable-native-access=ALL-UNNAMED",
                "-Djava.io.tmpdir=" + temporary,
                "-cp",
                rootOf(LibraryCache.class) + ":" + rootOf(CacheProcess.class),
                CacheProcess.class.getName(),
                NAME,
                cache.toString()));
        command.addAll(Arrays.asList(more));
        processes.add(new ProcessBuilder(command).redirectErrorStream(true).start());
    }

    /** The folder that the class was read from. */
    private static Path rootOf(Class<?> type) throws URISyntaxException {
        Path file = Path.of(type.getResource(type.getSimpleName() + ".class").toURI());
        Path root = file.getParent();
        for (int i = 0; i < type.getPackageName().split("\\.").length; i++) {
            root = root.getParent();
        }
        return root;
    }

    /** Waits until all are ready, so that they take the library at the same time. */
    private void letGo() throws IOException {
        for (Process process : processes) {
            int ready = process.getInputStream().read();
            assertEquals('.', ready, () -> (char) ready + textOf(process));
        }
        for (Process process : processes) {
            process.getOutputStream().write('\n');
            process.getOutputStream().flush();
        }
    }

    private void expectLoaded() throws InterruptedException {
        for (Process process : processes) {
            assertTrue(process.waitFor(60, TimeUnit.SECONDS));
            assertEquals(0, process.exitValue(), () -> textOf(process));
        }
    }

    /** The one file of the cache, which has the library's content. */
    private Path expectNothingElse() throws IOException {
        List<Path> files = filesIn(cache);
        assertEquals(1, files.size(), files::toString);
        assertArrayEquals(content, Files.readAllBytes(files.getFirst()));
        assertEquals(List.of(), filesIn(temporary));
        return files.getFirst();
    }

    private static List<Path> filesIn(Path directory) throws IOException {
        try (Stream<Path> files = Files.walk(directory)) {
            return files.filter(Files::isRegularFile).toList();
        }
    }

    private static String textOf(Process process) {
        try {
            return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            return e.toString();
        }
    }
}
