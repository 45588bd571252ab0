package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LibraryCacheTest {
    private static final String NAME = "libexample.so";

    @TempDir
    Path folder;

    private Path cache = Path.of("");
    private final byte[] content = new byte[100_000];

    @BeforeEach
    void fill() {
        cache = folder.resolve("cache");
        new Random(7).nextBytes(content);
    }

    @Test
    void aLibraryIsCopiedForItsOwnerAlone() throws IOException {
        Path file = LibraryCache.extract(NAME, content, cache);
        assertArrayEquals(content, Files.readAllBytes(file));
        assertEquals(NAME, file.getFileName().toString());
        for (Path path : List.of(cache, file.getParent(), file)) {
            assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(path)),
                    path::toString);
        }
    }

    @Test
    void aCopyIsUsedAgain() throws IOException {
        Path file = LibraryCache.extract(NAME, content, cache);
        FileTime old = FileTime.fromMillis(1_000_000);
        Files.setLastModifiedTime(file, old);
        assertEquals(file, LibraryCache.extract(NAME, content, cache));
        assertEquals(old, Files.getLastModifiedTime(file));
    }

    @Test
    void anotherContentIsAnotherFile() throws IOException {
        Path file = LibraryCache.extract(NAME, content, cache);
        content[99_999]++;
        assertNotEquals(file, LibraryCache.extract(NAME, content, cache));
    }

    @Test
    void aFileOfOtherContentIsReplaced() throws IOException {
        Path file = LibraryCache.extract(NAME, content, cache);
        byte[] damaged = content.clone();
        damaged[50_000]++;
        Files.write(file, damaged);
        assertEquals(file, LibraryCache.extract(NAME, content, cache));
        assertArrayEquals(content, Files.readAllBytes(file));
    }

    @Test
    void aFileThatOthersMayReplaceIsNotUsed() throws IOException {
        Path file = LibraryCache.extract(NAME, content, cache);
        Files.setPosixFilePermissions(file.getParent(), PosixFilePermissions.fromString("rwxrwxrwx"));
        FileTime old = FileTime.fromMillis(1_000_000);
        Files.setLastModifiedTime(file, old);
        LibraryCache.extract(NAME, content, cache);
        assertNotEquals(old, Files.getLastModifiedTime(file));
        assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file.getParent())));
    }

    @Test
    void aCacheThatCannotBeWrittenIsNamedWithTheProperties() throws IOException {
        Path blocked = Files.createFile(folder.resolve("blocked")).resolve("cache");
        IOException e = assertThrows(IOException.class, () -> LibraryCache.extract(NAME, content, blocked));
        for (String part : List.of(blocked.toString(), "-Dio.gatun.cache", "-Dio.gatun.native.path")) {
            assertTrue(e.getMessage().contains(part), e::getMessage);
        }
    }

    @Test
    void manyMayFillTheCacheAtOnce() throws Exception {
        CountDownLatch start = new CountDownLatch(1);
        List<Future<Path>> files = new ArrayList<>();
        try (ExecutorService threads = Executors.newFixedThreadPool(16)) {
            for (int i = 0; i < 64; i++) {
                files.add(threads.submit(() -> {
                    start.await();
                    Path file = LibraryCache.extract(NAME, content, cache);
                    assertArrayEquals(content, Files.readAllBytes(file));
                    return file;
                }));
            }
            start.countDown();
            for (Future<Path> file : files) {
                assertEquals(files.getFirst().get(), file.get());
            }
        }
        try (Stream<Path> left = Files.list(files.getFirst().get().getParent())) {
            assertEquals(List.of(files.getFirst().get()), left.toList());
        }
    }

    @Test
    void aMissingResourceIsNamed() {
        IOException e = assertThrows(IOException.class, () -> LibraryCache.extract(library(null)));
        assertTrue(e.getMessage().contains("'example'"), e::getMessage);
    }

    @Test
    void theResourceIsRead() throws IOException {
        String old = System.setProperty(NativeLibraries.CACHE_PROPERTY, cache.toString());
        try {
            Path source = Files.write(folder.resolve("source"), content);
            assertArrayEquals(content, Files.readAllBytes(LibraryCache.extract(library(source))));
        } finally {
            if (old == null) {
                System.clearProperty(NativeLibraries.CACHE_PROPERTY);
            } else {
                System.setProperty(NativeLibraries.CACHE_PROPERTY, old);
            }
        }
    }

    private static NativeLibrary library(@Nullable Path source) {
        return new NativeLibrary() {
            @Override
            public String name() {
                return "example";
            }

            @Override
            public String platform() {
                return NativeLibraries.platform();
            }

            @Override
            public @Nullable URL resource() {
                try {
                    return source == null ? null : source.toUri().toURL();
                } catch (MalformedURLException e) {
                    throw new AssertionError(e);
                }
            }
        };
    }
}
