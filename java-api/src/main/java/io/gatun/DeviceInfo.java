package io.gatun;

/**
 * What a device says of itself.
 *
 * @param name what {@link Device#open(String)} takes, such as {@code cpu} or {@code cpu:avx2}
 * @param description the processor's own name and the chosen instruction-set level
 * @param available whether it can be opened
 * @param reason why it is not available, or empty
 * @param threads the threads that a run may use, the caller's included, or 0 where that has no meaning
 * @param hostMemory whether it computes on any host memory; else only on memory of a {@link MemoryPool} of the device
 * @param memoryBytes the memory of the device, or -1 when unknown
 */
public record DeviceInfo(
        String name,
        String description,
        boolean available,
        String reason,
        int threads,
        boolean hostMemory,
        long memoryBytes) {}
