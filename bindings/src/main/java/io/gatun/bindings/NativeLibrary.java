package io.gatun.bindings;

import java.net.URL;
import org.jspecify.annotations.Nullable;

/**
 * A native library that is packaged as a resource: the service that every natives module provides, once for each
 * library.
 *
 * <p>Libraries named {@code gatun_<backend>} are backends. They are copied to a cache of the user's before they are
 * opened, so that {@link #resource()} may lie inside a jar.
 */
public interface NativeLibrary {
    /**
     * Returns the name of the library without what the platform adds: {@code gatun_cpu} for {@code libgatun_cpu.so}.
     *
     * @return {@code gatun}, the core, or {@code gatun_<backend>}
     */
    String name();

    /**
     * Returns the platform that the library is built for.
     *
     * @return {@code linux-x86_64} or {@code linux-aarch64}
     */
    String platform();

    /**
     * Returns where the library is. An implementation uses its own class for the lookup, so that it works from the
     * module path as from the class path.
     *
     * @return the resource, or null when it is missing
     */
    @Nullable URL resource();
}
