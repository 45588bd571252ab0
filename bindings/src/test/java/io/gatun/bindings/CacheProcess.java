package io.gatun.bindings;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/** The program of the processes that share a cache: says that it is ready, waits to be let go, and takes a library. */
final class CacheProcess {
    /** A library that every JDK has, and a function of it. */
    static final Path LIBRARY = Path.of(System.getProperty("java.home"), "lib", System.mapLibraryName("zip"));

    static final String FUNCTION = "ZIP_CRC32";

    private CacheProcess() {}

    /** Arguments: the name of the library in the cache, the cache, and {@code dies} to end while it writes. */
    public static void main(String[] arguments) throws IOException {
        String name = arguments[0];
        Path cache = Path.of(arguments[1]);
        boolean dies = arguments.length > 2 && arguments[2].equals("dies");
        byte[] content = dies ? new byte[64_000_000] : Files.readAllBytes(LIBRARY);
        System.out.write('.');
        System.out.flush();
        if (System.in.read() < 0) {
            throw new IOException("nobody lets this process go");
        }
        if (dies) {
            Thread.ofPlatform().daemon().start(() -> haltWhenWriting(cache));
        }
        Path file = LibraryCache.extract(name, content, cache);
        SymbolLookup.libraryLookup(file, Arena.global()).find(FUNCTION).orElseThrow();
    }

    /** Ends this process as a signal would, with nothing tidied up, as soon as some of a library has been written. */
    private static void haltWhenWriting(Path cache) {
        while (true) {
            try (Stream<Path> files = Files.walk(cache)) {
                if (files.anyMatch(file -> Files.isRegularFile(file) && file.toFile().length() > 0)) {
                    Runtime.getRuntime().halt(0);
                }
            } catch (IOException | RuntimeException e) {
                Thread.onSpinWait(); // not there yet, or changing
            }
        }
    }
}
