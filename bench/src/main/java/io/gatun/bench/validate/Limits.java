package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Limit;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The ceilings of a device: what its units and its memory can do at best, measured in the same run. */
final class Limits {
    static final String MEMORY = name(Limit.MEMORY);
    private static final List<Limit> REPORTED = List.of(Limit.F32, Limit.BF16, Limit.S8, Limit.MEMORY);

    private Limits() {}

    /** The name of the ceiling on operations with operands of a type: F16 is widened to FP32. */
    static String name(DType dtype) {
        return switch (dtype) {
            case BF16 -> name(Limit.BF16);
            case S8 -> name(Limit.S8);
            default -> name(Limit.F32);
        };
    }

    private static String name(Limit limit) {
        return limit.name().toLowerCase(Locale.ROOT);
    }

    /** Measures the ceilings of reports that the device can tell: operations, or bytes, per second. */
    static Map<String, Double> measure(Device device) {
        Map<String, Double> limits = new LinkedHashMap<>();
        for (Limit limit : REPORTED) {
            device.measure(limit).ifPresent(rate -> limits.put(name(limit), rate));
        }
        return limits;
    }
}
