package io.gatun.bindings;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_message;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;

/**
 * The native libraries of this process, opened at their first use and never closed.
 *
 * <p>With the system property {@value #PATH_PROPERTY} they are the ones in that directory, as they are; a child process
 * opens each backend first, so that a damaged one does not end this process. Without it they are those of the
 * {@link NativeLibrary} services on the module path and the class path, copied once to a cache of the user's and
 * trusted by their hash. Nothing here throws because a library is missing: {@link #whyUnavailable()} says what is wrong
 * with the core, and the core lists the backends with what is wrong with each.
 */
public final class NativeLibraries {
    /** The system property that names a directory of libraries to use as they are. */
    public static final String PATH_PROPERTY = "io.gatun.native.path";

    /** The system property that names the directory to copy packaged libraries to. */
    public static final String CACHE_PROPERTY = "io.gatun.cache";

    private static final String CORE = "gatun";

    /** A packaged library that could not be handed to the core. */
    public record Failure(String library, String reason) {}

    /** What came of opening the core: where it lies and its symbols, or why there are none. */
    private record Opened(@Nullable Path path, @Nullable SymbolLookup symbols, @Nullable String reason) {
        static Opened failed(String reason) {
            return new Opened(null, null, reason);
        }
    }

    /** The packaged libraries for this platform, by name. */
    private static final class Packaged {
        static final List<Failure> FAILURES = new ArrayList<>();
        static final Map<String, NativeLibrary> LIBRARIES = find();

        private static Map<String, NativeLibrary> find() {
            Map<String, NativeLibrary> found = new LinkedHashMap<>();
            String platform = platform();
            ModuleLayer layer = NativeLibraries.class.getModule().getLayer();
            if (layer != null) {
                collect(ServiceLoader.load(layer, NativeLibrary.class), platform, found);
            }
            collect(ServiceLoader.load(NativeLibrary.class, NativeLibraries.class.getClassLoader()), platform, found);
            return found;
        }

        private static void collect(
                ServiceLoader<NativeLibrary> services, String platform, Map<String, NativeLibrary> found) {
            var providers = services.iterator();
            while (true) {
                try {
                    if (!providers.hasNext()) {
                        return;
                    }
                    NativeLibrary library = providers.next();
                    if (library.platform().equals(platform)) {
                        found.putIfAbsent(library.name(), library);
                    }
                } catch (ServiceConfigurationError | RuntimeException e) {
                    FAILURES.add(new Failure("a provider of NativeLibrary", describe(e)));
                }
            }
        }
    }

    private static final class Core {
        static final Opened OPENED = open();

        private static Opened open() {
            try {
                String unsupported = whyPlatformUnsupported();
                if (unsupported != null) {
                    return Opened.failed(unsupported);
                }
                Path path;
                String directory = System.getProperty(PATH_PROPERTY);
                if (directory != null) {
                    path = Path.of(directory).toAbsolutePath().resolve(System.mapLibraryName(CORE));
                    if (!Files.isRegularFile(path)) {
                        return Opened.failed("there is no " + path + " (-D" + PATH_PROPERTY + "=" + directory + ")");
                    }
                } else {
                    NativeLibrary library = Packaged.LIBRARIES.get(CORE);
                    if (library == null) {
                        return Opened.failed("no library '" + CORE + "' for " + platform()
                                + " is on the module path or the class path: add gatun-core-" + platform() + ", or set -D" + PATH_PROPERTY);
                    }
                    path = LibraryCache.extract(library);
                }
                return new Opened(path, SymbolLookup.libraryLookup(path, Arena.global()), null);
            } catch (IOException | RuntimeException | LinkageError e) {
                return Opened.failed(describe(e));
            }
        }
    }

    /** Opens the backends after the core, once. */
    private static final class Backends {
        static final @Nullable String REASON = load();

        private static @Nullable String load() {
            Opened core = Core.OPENED;
            if (core.path == null) {
                return core.reason;
            }
            try {
                int version = gatun_h.gtn_abi_version();
                if (version != gatun_h.GTN_ABI_VERSION()) {
                    return core.path + " has version " + version + " of Gatun's C interface, and this release needs"
                            + " version " + gatun_h.GTN_ABI_VERSION();
                }
                if (System.getProperty(PATH_PROPERTY) == null) {
                    Packaged.LIBRARIES.forEach((name, library) -> {
                        if (name.startsWith("gatun_")) {
                            loadPackaged(name, library);
                        }
                    });
                }
                try (Arena arena = Arena.ofConfined()) {
                    Path directory = core.path.getParent();
                    gatun_h.gtn_backend_discover(arena.allocateFrom(String.valueOf(directory)), message(arena));
                }
                return null;
            } catch (RuntimeException | LinkageError e) {
                return describe(e);
            }
        }

        private static void loadPackaged(String name, NativeLibrary library) {
            try (Arena arena = Arena.ofConfined()) {
                Path path = LibraryCache.extract(library);
                // Trusted, since its hash was compared. What fails from here on is listed by the core, with the reason.
                gatun_h.gtn_backend_load(arena.allocateFrom(path.toString()), 1, message(arena));
            } catch (IOException | RuntimeException e) {
                Packaged.FAILURES.add(new Failure(name, describe(e)));
            }
        }

        private static MemorySegment message(Arena arena) {
            MemorySegment message = gtn_message.allocate(arena);
            gtn_message.size(message, (int) gtn_message.sizeof());
            return message;
        }
    }

    private NativeLibraries() {}

    /**
     * Opens the libraries, unless an earlier call did, and says whether the core can be used.
     *
     * @return null when it can, else why not
     */
    public static @Nullable String whyUnavailable() {
        return Backends.REASON;
    }

    /**
     * Returns the packaged libraries that never got as far as the core.
     *
     * @return the failures, in no particular order
     */
    public static List<Failure> failures() {
        return whyUnavailable() == null ? List.copyOf(Packaged.FAILURES) : List.of();
    }

    /**
     * Returns the symbols of the core. The library is opened when the first one is looked up; none is found when it
     * cannot be opened.
     *
     * @return the symbols
     */
    public static SymbolLookup core() {
        return name -> {
            SymbolLookup symbols = Core.OPENED.symbols;
            return symbols == null ? Optional.empty() : symbols.find(name);
        };
    }

    /** Returns the platform as natives modules name it, such as {@code linux-x86_64}. */
    static String platform() {
        String system = System.getProperty("os.name", "unknown");
        String architecture = System.getProperty("os.arch", "unknown");
        return (system.equals("Linux") ? "linux" : system.toLowerCase(Locale.ROOT).replace(' ', '-'))
                + "-"
                + (architecture.equals("amd64") ? "x86_64" : architecture);
    }

    private static @Nullable String whyPlatformUnsupported() {
        String platform = platform();
        if (!platform.equals("linux-x86_64") && !platform.equals("linux-aarch64")) {
            return "not available on " + platform + ": there are native libraries for linux-x86_64 and linux-aarch64";
        }
        if (Linker.nativeLinker().defaultLookup().find("gnu_get_libc_version").isEmpty()) {
            return "not available on " + platform + " without the GNU C library (musl is not supported)";
        }
        return null;
    }

    private static String describe(Throwable e) {
        if (e instanceof IllegalCallerException) {
            return "native access is denied: run java with --enable-native-access=io.gatun.bindings"
                    + " (or ALL-UNNAMED when Gatun is on the class path)";
        }
        if (e instanceof ExceptionInInitializerError && e.getCause() != null) {
            return describe(e.getCause());
        }
        return e.getMessage() == null ? e.toString() : e.getMessage();
    }
}
