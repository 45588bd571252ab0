/** Holds the CUDA backend for Linux on x86-64. */
@SuppressWarnings("module") // 64 is part of the platform's name
module io.gatun.natives.cuda.linux.x64 {
    requires io.gatun.bindings;

    provides io.gatun.bindings.NativeLibrary with io.gatun.natives.cuda.linux.x64.CudaLibrary;
}
