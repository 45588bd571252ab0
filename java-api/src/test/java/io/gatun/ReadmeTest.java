package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.spi.ToolProvider;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The example in the README compiles without a warning and runs. */
class ReadmeTest {
    private static final Pattern JAVA_BLOCK = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    @Test
    void theExampleCompilesAndRuns(@TempDir Path classes) throws Exception {
        List<String> blocks = new ArrayList<>();
        Matcher matcher = JAVA_BLOCK.matcher(Files.readString(Path.of("..", "README.md")));
        while (matcher.find()) {
            blocks.add(matcher.group(1));
        }
        assertEquals(1, blocks.size(), "Java blocks in the README");
        Map<Boolean, String> lines = blocks.getFirst().lines().collect(
                Collectors.partitioningBy(line -> line.startsWith("import "), Collectors.joining("\n")));
        String source = lines.get(true) + "\npublic class Example { public static void run() {\n" + lines.get(false)
                + "\n} }";

        // Where this module was compiled to, as a user would have it on the class path.
        String gatun = Path.of(Device.class.getProtectionDomain().getCodeSource().getLocation().toURI()).toString();
        Path file = Files.writeString(classes.resolve("Example.java"), source);
        StringWriter problems = new StringWriter();
        PrintWriter printer = new PrintWriter(problems, true);
        int status = ToolProvider.findFirst("javac").orElseThrow().run(printer, printer,
                "-d", classes.toString(), "-classpath", gatun, "-Xlint:all,-classfile", "-proc:none", file.toString());
        assertTrue(status == 0 && problems.toString().isEmpty(), problems.toString());

        try (URLClassLoader loader = new URLClassLoader(new URL[] {classes.toUri().toURL()},
                getClass().getClassLoader())) {
            loader.loadClass("Example").getMethod("run").invoke(null);
        }
    }
}
