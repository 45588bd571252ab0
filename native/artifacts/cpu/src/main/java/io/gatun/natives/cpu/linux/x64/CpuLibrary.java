package io.gatun.natives.cpu.linux.x64;

import io.gatun.bindings.NativeLibrary;
import java.net.URL;

/** libgatun_cpu.so for Linux on x86-64, from this module's own resources. */
public final class CpuLibrary implements NativeLibrary {
    /** For the service loader. */
    public CpuLibrary() {}

    @Override
    public String name() {
        return "gatun_cpu";
    }

    @Override
    public String platform() {
        return "linux-x86_64";
    }

    @Override
    public URL resource() {
        return CpuLibrary.class.getResource("/META-INF/gatun/linux-x86_64/libgatun_cpu.so");
    }
}
