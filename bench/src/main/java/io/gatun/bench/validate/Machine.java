package io.gatun.bench.validate;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;

/** The machine that a run takes place on, as the operating system tells it. */
public final class Machine {
    private static final Path PROCESSOR = Path.of("/proc/cpuinfo");
    private static final Path MEMORY = Path.of("/proc/meminfo");

    /** What kernels may choose by; everything that begins with avx512, amx or sve is one, too. */
    private static final Set<String> INSTRUCTION_SETS = Set.of("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2",
            "avx_vnni", "asimd", "asimddp", "asimdhp", "i8mm", "bf16");

    private Machine() {}

    /** The processor's own name. */
    public static String processor() {
        return field(PROCESSOR, "model name", "unknown");
    }

    /** The instruction sets that the processor and the operating system offer, as far as kernels care. */
    public static List<String> instructionSets() {
        String flags = field(PROCESSOR, "flags", "");
        return Arrays.stream((flags.isEmpty() ? field(PROCESSOR, "Features", "") : flags).split(" "))
                .filter(flag -> INSTRUCTION_SETS.contains(flag) || flag.matches("(avx512|amx|sve).*"))
                .sorted()
                .toList();
    }

    /** The memory of the machine in bytes, 0 when unknown. */
    public static long memoryBytes() {
        String kibibytes = field(MEMORY, "MemTotal", "0 kB").replace(" kB", "");
        return Long.parseLong(kibibytes) * 1024;
    }

    private static String field(Path file, String name, String otherwise) {
        try (java.util.stream.Stream<String> lines = Files.lines(file)) {
            return lines.filter(line -> line.startsWith(name))
                    .map(line -> line.replaceFirst(".*?:\\s*", "").strip())
                    .findFirst()
                    .orElse(otherwise);
        } catch (IOException e) {
            return otherwise;
        }
    }
}
