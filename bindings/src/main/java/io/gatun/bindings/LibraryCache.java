package io.gatun.bindings;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.DirectoryStream;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.Set;

/**
 * The per-user cache of packaged libraries: {@code <cache>/<first 32 hex digits of the SHA-256>/lib<name>.so}.
 *
 * <p>A file there is used only if its content has the hash of the packaged library, and if none but its owner may
 * replace it. Any number of processes may fill the cache at once: each writes a file of its own and moves it into
 * place. What a process leaves behind that was killed meanwhile is removed by those that come an hour later.
 */
final class LibraryCache {
    private static final Set<PosixFilePermission> OWNER_ONLY = PosixFilePermissions.fromString("rwx------");
    private static final Set<PosixFilePermission> OTHERS_WRITE =
            EnumSet.of(PosixFilePermission.GROUP_WRITE, PosixFilePermission.OTHERS_WRITE);
    private static final String UNFINISHED = ".tmp";

    /** Longer than any process writes. */
    private static final Duration ABANDONED = Duration.ofHours(1);

    private LibraryCache() {}

    /**
     * Returns the file of {@code library} in the cache, and puts it there first if it is not.
     *
     * @throws IOException if the library's resource is missing or the cache is not writable; the message names what to
     *     do
     */
    static Path extract(NativeLibrary library) throws IOException {
        URL resource = library.resource();
        if (resource == null) {
            throw new IOException("the resource of the library '" + library.name() + "' is missing from "
                    + library.getClass().getName());
        }
        URLConnection connection = resource.openConnection();
        connection.setUseCaches(false); // a cached jar would stay open, and stale when it is replaced
        byte[] content;
        try (InputStream in = connection.getInputStream()) {
            content = in.readAllBytes();
        }
        return extract(System.mapLibraryName(library.name()), content, directory());
    }

    static Path extract(String fileName, byte[] content, Path cache) throws IOException {
        byte[] hash = sha256(content);
        Path directory = cache.resolve(HexFormat.of().formatHex(hash, 0, 16));
        Path file = directory.resolve(fileName);
        removeAbandoned(directory);
        if (isTrusted(file, content.length, hash)) {
            return file;
        }
        try {
            Files.createDirectories(cache, PosixFilePermissions.asFileAttribute(OWNER_ONLY));
            if (!Files.isDirectory(directory)) {
                Files.createDirectories(directory, PosixFilePermissions.asFileAttribute(OWNER_ONLY));
            }
            Files.setPosixFilePermissions(directory, OWNER_ONLY); // fails unless the directory is ours
            Path temporary = Files.createTempFile(
                    directory, fileName, UNFINISHED, PosixFilePermissions.asFileAttribute(OWNER_ONLY));
            try {
                Files.write(temporary, content);
                try {
                    Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
                } catch (AtomicMoveNotSupportedException e) {
                    Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING);
                }
            } finally {
                Files.deleteIfExists(temporary);
            }
        } catch (FileSystemException e) {
            throw new IOException(
                    "the native library cannot be copied to " + directory + " (" + describe(e) + "): name a directory"
                            + " that can be written to with -D" + NativeLibraries.CACHE_PROPERTY
                            + ", or one that has the libraries with -D" + NativeLibraries.PATH_PROPERTY,
                    e);
        }
        return file;
    }

    /** Where the cache is: the system property, else {@code gatun} in the user's cache folder. */
    private static Path directory() {
        String property = System.getProperty(NativeLibraries.CACHE_PROPERTY);
        if (property != null && !property.isEmpty()) {
            return Path.of(property).toAbsolutePath();
        }
        String xdg = System.getenv("XDG_CACHE_HOME");
        if (xdg != null && !xdg.isEmpty() && Path.of(xdg).isAbsolute()) {
            return Path.of(xdg, "gatun");
        }
        return Path.of(System.getProperty("user.home", "/"), ".cache", "gatun").toAbsolutePath();
    }

    /** Removes files that were never finished. It does not matter when one stays. */
    private static void removeAbandoned(Path directory) {
        Instant latest = Instant.now().minus(ABANDONED);
        try (DirectoryStream<Path> files = Files.newDirectoryStream(directory, "*" + UNFINISHED)) {
            for (Path file : files) {
                if (Files.getLastModifiedTime(file).toInstant().isBefore(latest)) {
                    Files.deleteIfExists(file);
                }
            }
        } catch (IOException | DirectoryIteratorException e) {
            // There is no such directory yet, it may not be written to, or another process was faster.
        }
    }

    private static boolean isTrusted(Path file, long size, byte[] hash) {
        try {
            Path directory = file.getParent();
            if (directory == null || !Files.isRegularFile(file) || Files.size(file) != size) {
                return false;
            }
            Set<PosixFilePermission> writers = EnumSet.noneOf(PosixFilePermission.class);
            writers.addAll(Files.getPosixFilePermissions(directory));
            writers.addAll(Files.getPosixFilePermissions(file));
            writers.retainAll(OTHERS_WRITE);
            return writers.isEmpty() && MessageDigest.isEqual(sha256(Files.readAllBytes(file)), hash);
        } catch (IOException | UncheckedIOException e) {
            return false;
        }
    }

    private static String describe(FileSystemException e) {
        return e.getClass().getSimpleName() + (e.getReason() == null ? "" : ": " + e.getReason());
    }

    private static byte[] sha256(byte[] content) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(content);
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every Java platform has SHA-256", e);
        }
    }
}
