package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.bindings.NativeLibraries;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.regex.Pattern;
import java.util.spi.ToolProvider;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** How the native libraries are found and what is said when they are not, each time in a JVM of its own. */
class LoadingTest {
    private static final String PROBE =
            """
            import io.gatun.*;
            import java.lang.foreign.Arena;
            import java.lang.reflect.InvocationTargetException;
            import java.net.URL;
            import java.net.URLClassLoader;
            import java.nio.file.Path;
            import java.util.Arrays;

            public class Probe {
                public static void main(String[] args) throws Exception {
                    switch (args[0]) {
                        case "softmax" -> softmax();
                        case "entries" -> {
                            for (int i = 0; i < 2; i++) {
                                entry("version", Gatun::version);
                                entry("backends", Gatun::backends);
                                entry("load", () -> Gatun.loadBackend(Path.of("x")));
                                entry("open", () -> Device.open("cpu"));
                                entry("best", Device::best);
                            }
                        }
                        case "backends" -> {
                            if (args.length > 1) {
                                entry("load", () -> Gatun.loadBackend(Path.of(args[1])));
                            }
                            for (Backend b : Gatun.backends()) {
                                System.out.println("backend " + b.name() + " " + b.available() + " "
                                        + b.abiVersion() + " " + b.path() + " " + b.reason());
                            }
                            entry("open", () -> softmax());
                        }
                        case "loaders" -> {
                            for (int i = 0; i < 2; i++) {
                                String[] path = System.getProperty("java.class.path").split(":");
                                URL[] urls = new URL[path.length];
                                for (int j = 0; j < urls.length; j++) {
                                    urls[j] = Path.of(path[j]).toUri().toURL();
                                }
                                ClassLoader loader = new URLClassLoader(urls, ClassLoader.getPlatformClassLoader());
                                loader.loadClass("Probe").getMethod("softmax").invoke(null);
                            }
                            softmax();
                        }
                        case "leak" -> {
                            Device device = Device.open("cpu");
                            device.newStream();
                            for (int i = 0; i < 500; i++) {
                                System.gc();
                                Thread.sleep(10);
                                try {
                                    device.close();
                                    System.out.println("closed");
                                    return;
                                } catch (IllegalStateException e) {
                                    // not yet found
                                }
                            }
                        }
                    }
                }

                interface Entry {
                    void call() throws Exception;
                }

                static void entry(String name, Entry entry) {
                    try {
                        entry.call();
                        System.out.println(name + ": works");
                    } catch (Throwable e) {
                        System.out.println(name + ": " + e.getClass().getSimpleName() + ": " + e.getMessage());
                    }
                }

                public static void softmax() {
                    try (Device device = Device.open("cpu");
                            Stream stream = device.newStream();
                            MemoryPool pool = MemoryPool.of(device)) {
                        Tensor x = pool.tensor(DType.F32, 1, 4).copyFrom(new float[4]);
                        try (Softmax.Plan plan = Softmax.of().plan(device, x.spec(), x.spec())) {
                            plan.run(stream, x, x);
                        }
                        System.out.println("softmax " + Arrays.toString(x.toFloatArray()));
                    }
                }
            }
            """;
    private static final String WORKS = "softmax [0.25, 0.25, 0.25, 0.25]";

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static final boolean AARCH64 = System.getProperty("os.arch").equals("aarch64");
    private static final String PLATFORM = AARCH64 ? "linux-aarch64" : "linux-x86_64";

    private static Path api = Path.of("");
    private static Path bindings = Path.of("");
    private static final Map<String, Path> NATIVES = new HashMap<>();

    @BeforeAll
    static void findModules() throws IOException, URISyntaxException {
        api = location(Gatun.class);
        bindings = location(NativeLibraries.class);
        String path = System.getProperty("java.class.path") + File.pathSeparator
                + System.getProperty("jdk.module.path", "");
        for (String entry : path.split(File.pathSeparator)) {
            for (String name : List.of("core", "cpu")) {
                String natives = "io/gatun/natives/" + name + (AARCH64 ? "/linux/aarch64" : "/linux/x64");
                if (!entry.isEmpty() && contains(Path.of(entry), natives)) {
                    NATIVES.put(name, Path.of(entry).toAbsolutePath());
                }
            }
        }
        assertEquals(2, NATIVES.size(), () -> "the natives modules are not on the path: " + path);
        Path source = Files.writeString(shared.resolve("Probe.java"), PROBE);
        assertEquals(0, ToolProvider.findFirst("javac").orElseThrow().run(
                System.out, System.err, "-cp", api + ":" + bindings, "-d", shared.toString(), source.toString()));
    }

    private static Path location(Class<?> type) throws URISyntaxException {
        return Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI());
    }

    private static boolean contains(Path entry, String name) throws IOException {
        if (Files.isDirectory(entry)) {
            return Files.exists(entry.resolve(name));
        }
        if (!entry.toString().endsWith(".jar") || !Files.exists(entry)) {
            return false;
        }
        try (FileSystem jar = FileSystems.newFileSystem(entry)) {
            return Files.exists(jar.getPath(name));
        }
    }

    private record Result(int status, String out) {
        void says(String... parts) {
            for (String part : parts) {
                assertTrue(out.contains(part), () -> "no '" + part + "' in:\n" + out);
            }
            assertEquals(0, status, out);
        }

        /** Every entry point, called twice, says so. */
        void isNotAvailableBecause(String... reasons) {
            for (String entry : List.of("version", "backends", "load", "open", "best")) {
                String start = entry + ": NotAvailableException: ";
                assertEquals(2, out.lines().filter(line -> line.startsWith(start)).count(), out);
            }
            says(reasons);
            assertFalse(out.contains("Error"), out);
        }
    }

    private Process start(List<String> options, String... arguments) throws IOException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(List.of("-XX:TieredStopAtLevel=1", "-Dio.gatun.cache=" + folder.resolve("cache")));
        command.addAll(options);
        command.add("Probe");
        command.addAll(List.of(arguments));
        ProcessBuilder process = new ProcessBuilder(command).redirectErrorStream(true);
        process.environment().keySet().removeIf(name -> name.startsWith("GATUN_") || name.equals("JAVA_TOOL_OPTIONS"));
        return process.start();
    }

    private static Result finish(Process process) throws IOException, InterruptedException {
        String out = new String(process.getInputStream().readAllBytes());
        assertTrue(process.waitFor(60, TimeUnit.SECONDS));
        return new Result(process.exitValue(), out);
    }

    private Result run(List<String> options, String... arguments) throws IOException, InterruptedException {
        return finish(start(options, arguments));
    }

    /** Everything on the class path, with these natives. */
    private static List<String> classPath(String... natives) {
        StringBuilder path = new StringBuilder(shared + ":" + api + ":" + bindings);
        for (String name : natives) {
            path.append(':').append(NATIVES.get(name));
        }
        return List.of("--enable-native-access=ALL-UNNAMED", "-cp", path.toString());
    }

    private static List<String> with(List<String> options, String... more) {
        List<String> all = new ArrayList<>(options);
        all.addAll(List.of(more));
        return all;
    }

    /** A directory with copies of these libraries. */
    private Path libraries(String... names) throws IOException {
        Path directory = Files.createDirectories(folder.resolve("lib"));
        for (String name : names) {
            String file = System.mapLibraryName(name);
            Path entry = NATIVES.get(name.equals("gatun") ? "core" : "cpu");
            String resource = "META-INF/gatun/" + PLATFORM + "/" + file;
            if (Files.isDirectory(entry)) {
                Files.copy(entry.resolve(resource), directory.resolve(file));
            } else {
                try (FileSystem jar = FileSystems.newFileSystem(entry)) {
                    Files.copy(jar.getPath(resource), directory.resolve(file));
                }
            }
        }
        return directory;
    }

    @Test
    void fromTheClassPath() throws Exception {
        Result result = run(classPath("core", "cpu"), "softmax");
        result.says(WORKS);
        assertFalse(result.out.contains("WARNING"), result.out);
    }

    @Test
    void fromTheModulePathWhereOnlyTheBindingsAreRestricted() throws Exception {
        List<String> options = List.of(
                "-p", api + ":" + bindings + ":" + NATIVES.get("core") + ":" + NATIVES.get("cpu"),
                "-cp", shared.toString(),
                "--add-modules", "io.gatun",
                "--enable-native-access=io.gatun.bindings",
                "--illegal-native-access=deny");
        Result result = run(options, "softmax");
        result.says(WORKS);
        assertFalse(result.out.contains("WARNING"), result.out);
    }

    @Test
    void severalClassLoadersOfOneProcess() throws Exception {
        Result result = run(classPath("core", "cpu"), "loaders");
        result.says(WORKS);
        assertEquals(3, Pattern.compile(Pattern.quote(WORKS)).matcher(result.out).results().count(), result.out);
    }

    @Test
    void severalProcessesAtOnceWithAnEmptyCache() throws Exception {
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            processes.add(start(classPath("core", "cpu"), "softmax"));
        }
        for (Process process : processes) {
            finish(process).says(WORKS);
        }
        try (Stream<Path> files = Files.walk(folder.resolve("cache"))) {
            assertEquals(2, files.filter(Files::isRegularFile).count());
        }
    }

    @Test
    void fromADirectory() throws Exception {
        Path lib = libraries("gatun", "gatun_cpu");
        Result result = run(with(classPath(), "-Dio.gatun.native.path=" + lib), "backends");
        result.says("open: works", WORKS, "backend cpu true 2 " + lib.toRealPath().resolve("libgatun_cpu.so"));
        assertFalse(Files.exists(folder.resolve("cache")));
    }

    @Test
    void aDamagedCacheIsRepaired() throws Exception {
        run(classPath("core", "cpu"), "softmax").says(WORKS);
        forEachCached(file -> {
            try {
                byte[] content = Files.readAllBytes(file);
                content[content.length / 2]++;
                Files.write(file, content);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
        run(classPath("core", "cpu"), "softmax").says(WORKS);
    }

    private void forEachCached(Consumer<Path> action) throws IOException {
        try (Stream<Path> files = Files.walk(folder.resolve("cache"))) {
            files.filter(Files::isRegularFile).forEach(action);
        }
    }

    @Test
    void aBackendThatIsMissingIsListed() throws Exception {
        Path lib = libraries("gatun");
        Result result = run(with(classPath(), "-Dio.gatun.native.path=" + lib), "backends");
        result.says("backend cpu false 0 null libgatun_cpu.so is not installed", "backend cuda false",
                "open: NotAvailableException: ");
        run(classPath("core"), "backends").says("backend cpu false 0 null libgatun_cpu.so is not installed");
    }

    @Test
    void backendsThatAreNoGoodLeaveTheOthersAlone() throws Exception {
        Path lib = libraries("gatun", "gatun_cpu");
        Files.writeString(lib.resolve("libgatun_garbage.so"), "this is no library");
        Path elsewhere = Files.writeString(folder.resolve("libgatun_third.so"), "nor is this");
        Result result = run(with(classPath(), "-Dio.gatun.native.path=" + lib), "backends", elsewhere.toString());
        result.says("backend garbage false 0", "the library cannot be opened", "backend third false 0",
                "load: NotAvailableException: ", "backend cpu true", WORKS);
    }

    /** Cut off in its code: to open it ends a process with a bus error. */
    private static void damage(Path library, Path damaged) throws IOException {
        byte[] content = Files.readAllBytes(library);
        Files.write(damaged, Arrays.copyOf(content, content.length / 4));
    }

    @Test
    void aDamagedBackendDoesNotEndTheProcess() throws Exception {
        Path lib = libraries("gatun", "gatun_cpu");
        damage(lib.resolve("libgatun_cpu.so"), lib.resolve("libgatun_broken.so"));
        Path elsewhere = folder.resolve("libgatun_third.so");
        damage(lib.resolve("libgatun_cpu.so"), elsewhere);
        String reason = "the library is damaged: opening it in a child process ended with signal 7 (Bus error)";
        for (List<String> options : List.of(
                with(classPath(), "-Dio.gatun.native.path=" + lib), classPath("core", "cpu"))) {
            Result result = run(options, "backends", elsewhere.toString());
            result.says("load: NotAvailableException: backend 'third'", reason,
                    "backend third false 0 " + elsewhere.toRealPath(), "backend cpu true", WORKS);
        }
        run(with(classPath(), "-Dio.gatun.native.path=" + lib), "backends")
                .says("backend broken false 0", reason, WORKS);
    }

    @Test
    void aBackendOfAnotherInterfaceVersionIsListedWithIt() throws Exception {
        Path lib = libraries("gatun", "gatun_cpu");
        Path source = Files.writeString(
                folder.resolve("old.c"),
                "static const struct { unsigned size, abi; const char *name, *version; void *slots[64]; } table ="
                        + " {sizeof table, 77, \"old\", \"0.0\", {0}};\n"
                        + "const void *gtn_backend_entry(void) { return &table; }\n");
        assumeTrue(compiles(source, lib.resolve("libgatun_old.so")), "there is no C compiler here");
        Result result = run(with(classPath(), "-Dio.gatun.native.path=" + lib), "backends");
        result.says("backend old false 77", "version 77", "backend cpu true", WORKS);
    }

    private static boolean compiles(Path source, Path library) throws InterruptedException {
        try {
            return new ProcessBuilder("cc", "-shared", "-fPIC", "-o", library.toString(), source.toString())
                    .inheritIO().start().waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
    }

    @Test
    void withoutTheCoreEveryEntryPointSaysWhy() throws Exception {
        run(classPath(), "entries").isNotAvailableBecause("add gatun-core-" + PLATFORM);
        run(with(classPath(), "-Dio.gatun.native.path=" + folder), "entries")
                .isNotAvailableBecause("there is no " + folder + "/libgatun.so", "-Dio.gatun.native.path");
    }

    @Test
    void aCoreThatCannotBeOpenedIsNamed() throws Exception {
        Path lib = Files.createDirectories(folder.resolve("lib"));
        Files.writeString(lib.resolve("libgatun.so"), "this is no library");
        run(with(classPath(), "-Dio.gatun.native.path=" + lib), "entries")
                .isNotAvailableBecause(lib.resolve("libgatun.so").toString());
    }

    @Test
    void aCacheThatCannotBeWrittenIsNamed() throws Exception {
        Path file = Files.writeString(folder.resolve("file"), "");
        run(with(classPath("core", "cpu"), "-Dio.gatun.cache=" + file.resolve("cache")), "entries")
                .isNotAvailableBecause(file.toString(), "-Dio.gatun.cache", "-Dio.gatun.native.path");
    }

    @Test
    void deniedNativeAccessIsExplained() throws Exception {
        List<String> options = new ArrayList<>(classPath("core", "cpu"));
        options.set(0, "--illegal-native-access=deny");
        run(options, "entries").isNotAvailableBecause("--enable-native-access=io.gatun.bindings");
    }

    @Test
    void aPlatformWithoutLibrariesIsNamed() throws Exception {
        run(with(classPath("core", "cpu"), "-Dos.arch=riscv64"), "entries")
                .isNotAvailableBecause("not available on linux-riscv64", "linux-x86_64 and linux-aarch64");
    }

    @Test
    void aForgottenCloseIsReportedWithWhereItWasOpened() throws Exception {
        Result result = run(with(classPath("core", "cpu"), "-Dio.gatun.leaks=true"), "leak");
        result.says("the stream on cpu", "was never closed", "opened here", "at Probe.main(Probe.java", "closed");
        Result silent = run(classPath("core", "cpu"), "leak");
        silent.says("closed");
        assertFalse(silent.out.contains("never"), silent.out);
    }
}
