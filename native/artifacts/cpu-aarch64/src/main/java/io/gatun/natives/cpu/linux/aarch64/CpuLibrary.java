package io.gatun.natives.cpu.linux.aarch64;

import io.gatun.bindings.NativeLibrary;
import java.net.URL;

/** libgatun_cpu.so for Linux on aarch64, from this module's own resources. */
public final class CpuLibrary implements NativeLibrary {
    /** For the service loader. */
    public CpuLibrary() {}

    @Override
    public String name() {
        return "gatun_cpu";
    }

    @Override
    public String platform() {
        return "linux-aarch64";
    }

    @Override
    public URL resource() {
        return CpuLibrary.class.getResource("/META-INF/gatun/linux-aarch64/libgatun_cpu.so");
    }
}
