package io.gatun;

import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A backend library, usable or not.
 *
 * @param name such as {@code cpu}
 * @param version its release, or empty when unknown
 * @param abiVersion the version of the backend interface that it was built for, or 0 when unknown
 * @param path the library, or null when none was found
 * @param available whether its devices can be used
 * @param reason why it is not available, or empty
 * @param devices the devices that it has on this machine, usable or not
 */
public record Backend(
        String name,
        String version,
        int abiVersion,
        @Nullable Path path,
        boolean available,
        String reason,
        List<DeviceInfo> devices) {
    /** Copies the list. */
    public Backend {
        devices = List.copyOf(devices);
    }
}
