package io.gatun;

import io.gatun.bindings.NativeLibraries;
import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_backend_info;
import io.gatun.bindings.c.gtn_device_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The library as a whole: its release and its backends.
 *
 * <p>Native libraries are opened at the first use of this class or of {@link Device}. With
 * {@code -Dio.gatun.native.path=DIR} they are the ones in that directory, as they are. Without it they come from the
 * natives modules on the module path or class path, and are copied once to {@code gatun} in {@code $XDG_CACHE_HOME} or
 * {@code ~/.cache} ({@code -Dio.gatun.cache=DIR} names another place), in folders named by a hash of their content that
 * is checked at every start.
 *
 * <p>A platform without native libraries gives a {@link NotAvailableException} that says why. A backend that cannot be
 * used never affects the others: {@link #backends()} lists it, with the reason.
 */
public final class Gatun {
    private Gatun() {}

    /** Opens the native libraries if they are not open. */
    static void load() {
        String reason = NativeLibraries.whyUnavailable();
        if (reason != null) {
            throw new NotAvailableException("Gatun's native library is not available: " + reason);
        }
    }

    /**
     * Returns the release of the native library and a hash of the sources that it was built from.
     *
     * @return such as {@code 0.1.0+3f9a1c0b7d25}
     * @throws NotAvailableException if the native library cannot be used here
     */
    public static String version() {
        load();
        return gatun_h.gtn_version().getString(0);
    }

    /**
     * Returns the version of the C interface that the native library has.
     *
     * @return 1 or more
     * @throws NotAvailableException if the native library cannot be used here
     */
    public static int abiVersion() {
        load();
        return gatun_h.gtn_abi_version();
    }

    /**
     * Lists the backends: those that work, those that were found and do not, and those of Gatun's own that were not
     * found.
     *
     * @return the backends with their devices
     * @throws NotAvailableException if the native library itself cannot be used here
     */
    public static List<Backend> backends() {
        load();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment count = arena.allocate(ValueLayout.JAVA_INT);
            Status.check(gatun_h.gtn_backend_count(count, message), message);
            List<Backend> backends = new ArrayList<>();
            for (int i = 0; i < count.get(ValueLayout.JAVA_INT, 0); i++) {
                backends.add(backend(i, arena, message));
            }
            return List.copyOf(backends);
        }
    }

    /**
     * Opens a backend library of a third party and adds it to {@link #backends()}. Opening one twice does nothing. It
     * is native code that runs in this process: open only what you trust. A child process opens it first and asks for
     * its devices, so a library that is damaged enough to kill that process does not kill this one.
     *
     * @param library the file
     * @throws NotAvailableException if the library cannot be used, with the reason; {@link #backends()} lists it all
     *     the same
     */
    public static void loadBackend(Path library) {
        load();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment path = arena.allocateFrom(library.toAbsolutePath().toString());
            Status.check(gatun_h.gtn_backend_load(path, 0, message), message);
        }
    }

    private static Backend backend(int index, Arena arena, MemorySegment message) {
        MemorySegment info = gtn_backend_info.allocate(arena);
        gtn_backend_info.size(info, (int) gtn_backend_info.sizeof());
        Status.check(gatun_h.gtn_backend_query(index, info, message), message);
        String name = gtn_backend_info.name(info).getString(0);
        String path = gtn_backend_info.path(info).getString(0);
        List<DeviceInfo> devices = new ArrayList<>();
        for (int d = 0; d < gtn_backend_info.device_count(info); d++) {
            MemorySegment device = deviceInfo(arena);
            Status.check(gatun_h.gtn_device_query(index, d, device, message), message);
            devices.add(deviceInfo(device));
        }
        return new Backend(
                name,
                gtn_backend_info.version(info).getString(0),
                gtn_backend_info.abi_version(info),
                path.isEmpty() ? null : Path.of(path),
                gtn_backend_info.status(info) == gatun_h.GTN_OK(),
                reason(name, path, gtn_backend_info.reason(info).getString(0)),
                devices);
    }

    /** What kept a packaged library from being opened at all is known here alone. */
    private static String reason(String name, String path, String reason) {
        if (path.isEmpty()) {
            for (NativeLibraries.Failure failure : NativeLibraries.failures()) {
                if (failure.library().equals("gatun_" + name)) {
                    return failure.reason();
                }
            }
        }
        return reason;
    }

    static MemorySegment deviceInfo(Arena arena) {
        MemorySegment info = gtn_device_info.allocate(arena);
        gtn_device_info.size(info, (int) gtn_device_info.sizeof());
        return info;
    }

    static DeviceInfo deviceInfo(MemorySegment info) {
        return new DeviceInfo(
                gtn_device_info.name(info).getString(0),
                gtn_device_info.description(info).getString(0),
                gtn_device_info.status(info) == gatun_h.GTN_OK(),
                gtn_device_info.reason(info).getString(0),
                gtn_device_info.threads(info),
                gtn_device_info.host_memory(info) != 0,
                gtn_device_info.memory_bytes(info));
    }
}
