package io.gatun;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** A process whose pool grows and is trimmed again and again, and that says after each time how many of its bytes are resident. */
final class CreepChild {
    static final int CYCLES = 100;
    private static final long START = 2L << 20;
    private static final long PEAK = 64L << 20;

    private CreepChild() {}

    public static void main(String[] arguments) throws IOException {
        try (Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.builder(device).coldStart(MemoryDomain.ACTIVATIONS, START).build()) {
            Random random = new Random(5);
            for (int cycle = 0; cycle < CYCLES; cycle++) {
                List<MemorySegment> live = new ArrayList<>();
                for (long bytes = 0; bytes < PEAK; ) {
                    MemorySegment block = pool.allocate(1 + random.nextInt(2 << 20), 64);
                    for (long at = 0; at < block.byteSize(); at += 4096) {
                        block.set(ValueLayout.JAVA_BYTE, at, (byte) 1);
                    }
                    bytes += block.byteSize();
                    live.add(block);
                }
                live.forEach(pool::free);
                long trimmed = pool.trim();
                long reserved = pool.statistics().reservedBytes();
                if (trimmed == 0 || reserved != START) {
                    throw new IllegalStateException(trimmed + " bytes went back, " + reserved + " are reserved");
                }
                System.out.println(Long.parseLong(Files.readString(Path.of("/proc/self/statm")).split(" ")[1]) * 4096);
            }
        }
    }
}
