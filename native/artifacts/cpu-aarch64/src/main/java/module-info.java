/** Holds the CPU backend for Linux on aarch64. */
@SuppressWarnings("module") // 64 is part of the platform's name
module io.gatun.natives.cpu.linux.aarch64 {
    requires io.gatun.bindings;

    provides io.gatun.bindings.NativeLibrary with io.gatun.natives.cpu.linux.aarch64.CpuLibrary;
}
