package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.bindings.c.gatun_h;
import java.io.IOException;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.PaddingLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** The checked-in classes of the structures lay them out as the compiler of the native library did. */
class LayoutsTest {
    private static final Path GENERATED =
            Path.of(System.getProperty("basedir", "."), "../bindings/src/main/java/io/gatun/bindings/c");

    @Test
    void structuresAreLaidOutAsInTheLibrary() throws IOException {
        Gatun.load();
        try (Stream<Path> sources = Files.list(GENERATED)) {
            TreeSet<String> generated = sources.map(source -> source.getFileName().toString().replace(".java", ""))
                    .filter(name -> !name.startsWith("gatun_h"))
                    .map(LayoutsTest::describe)
                    .collect(Collectors.toCollection(TreeSet::new));
            assertEquals(
                    String.join("\n", new TreeSet<>(gatun_h.gtn_layouts().getString(0).lines().toList())),
                    String.join("\n", generated));
        }
    }

    /** The line that gtn_layouts has for a structure. */
    private static String describe(String name) {
        GroupLayout layout;
        try {
            layout = (GroupLayout) Class.forName("io.gatun.bindings.c." + name).getMethod("layout").invoke(null);
        } catch (ReflectiveOperationException e) {
            throw new AssertionError(e);
        }
        return name + " " + layout.byteSize() + ": " + layout.memberLayouts().stream()
                .filter(member -> !(member instanceof PaddingLayout))
                .map(member -> describe(layout, member))
                .collect(Collectors.joining(", "));
    }

    private static String describe(GroupLayout layout, MemoryLayout member) {
        String name = member.name().orElseThrow();
        return name + " " + layout.byteOffset(PathElement.groupElement(name)) + " " + member.byteSize();
    }
}
