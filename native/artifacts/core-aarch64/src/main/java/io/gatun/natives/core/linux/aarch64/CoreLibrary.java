package io.gatun.natives.core.linux.aarch64;

import io.gatun.bindings.NativeLibrary;
import java.net.URL;

/** libgatun.so for Linux on aarch64, from this module's own resources. */
public final class CoreLibrary implements NativeLibrary {
    /** For the service loader. */
    public CoreLibrary() {}

    @Override
    public String name() {
        return "gatun";
    }

    @Override
    public String platform() {
        return "linux-aarch64";
    }

    @Override
    public URL resource() {
        return CoreLibrary.class.getResource("/META-INF/gatun/linux-aarch64/libgatun.so");
    }
}
