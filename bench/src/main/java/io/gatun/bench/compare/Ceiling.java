package io.gatun.bench.compare;

import io.gatun.DType;
import io.gatun.Limit;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * The least time that a run can take: of work of one or several kinds, each at the rate that the machine reaches with
 * nothing else to do.
 *
 * @param parts the work
 * @param summed whether the parts follow each other, or else hide behind the largest
 */
public record Ceiling(List<Part> parts, boolean summed) {
    private static final Path CACHE = Path.of("/sys/devices/system/cpu/cpu0/cache/index3/size");

    /**
     * Work of one kind.
     *
     * @param name what tables call its limit
     * @param work how much there is of what each rate bounds, in the rate's unit, one after the other
     */
    public record Part(String name, Map<Limit, Double> work) {
        Part(String name, Limit limit, double work) {
            this(name, Map.of(limit, work));
        }

        double seconds(Map<Limit, Double> rates) {
            return work.entrySet().stream()
                    .mapToDouble(each -> each.getValue() / rates.get(each.getKey()))
                    .sum();
        }
    }

    static Ceiling none() {
        return new Ceiling(List.of(), false);
    }

    static Ceiling largest(Part... parts) {
        return new Ceiling(List.of(parts), false);
    }

    static Ceiling sum(Part... parts) {
        return new Ceiling(List.of(parts), true);
    }

    /** Multiply-adds on operands of a type. */
    static Part products(DType format, double flops) {
        return switch (format) {
            case S8 -> new Part("int8 products", Limit.S8, flops);
            case BF16 -> new Part("bf16 products", Limit.BF16, flops);
            default -> new Part("fp32 products", Limit.F32, flops);
        };
    }

    /**
     * Weights or keys, read from memory when cold. When they are warm, the largest cache has at most as much of them as
     * it holds, and memory the rest.
     */
    static Part read(boolean cold, double bytes) {
        return cold ? new Part("DRAM read", Limit.MEMORY, bytes) : warm(bytes, largestCache());
    }

    static Part warm(double bytes, double cache) {
        return bytes <= cache
                ? new Part("L3 read", Limit.CACHE, bytes)
                : new Part("L3 and DRAM read", Map.of(Limit.CACHE, cache, Limit.MEMORY, bytes - cache));
    }

    private static double largestCache() {
        try {
            String size = Files.readString(CACHE).strip();
            return Double.parseDouble(size.replace("K", "")) * 1024;
        } catch (IOException e) {
            return 32 << 20; // a usual one, and what Gatun takes it for
        }
    }

    Set<Limit> limits() {
        return parts.stream().flatMap(part -> part.work.keySet().stream()).collect(Collectors.toCollection(() -> EnumSet.noneOf(Limit.class)));
    }

    /** The least seconds at the given rates, 0 without parts. */
    double seconds(Map<Limit, Double> rates) {
        double[] each = parts.stream().mapToDouble(part -> part.seconds(rates)).toArray();
        return summed ? Arrays.stream(each).sum() : Arrays.stream(each).max().orElse(0);
    }

    /** What binds at the given rates. */
    String name(Map<Limit, Double> rates) {
        if (summed) {
            return parts.stream().map(Part::name).collect(Collectors.joining(" + "));
        }
        return parts.stream()
                .max((a, b) -> Double.compare(a.seconds(rates), b.seconds(rates)))
                .map(Part::name)
                .orElse("the call from C");
    }
}
