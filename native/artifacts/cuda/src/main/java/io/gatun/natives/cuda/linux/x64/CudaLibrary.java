package io.gatun.natives.cuda.linux.x64;

import io.gatun.bindings.NativeLibrary;
import java.net.URL;

/** libgatun_cuda.so for Linux on x86-64, from this module's own resources. */
public final class CudaLibrary implements NativeLibrary {
    /** For the service loader. */
    public CudaLibrary() {}

    @Override
    public String name() {
        return "gatun_cuda";
    }

    @Override
    public String platform() {
        return "linux-x86_64";
    }

    @Override
    public URL resource() {
        return CudaLibrary.class.getResource("/META-INF/gatun/linux-x86_64/libgatun_cuda.so");
    }
}
