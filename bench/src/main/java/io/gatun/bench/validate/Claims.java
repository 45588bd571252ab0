package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Operator;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** What devices can claim to serve: operators as cases name them, each with its types. */
final class Claims {
    /** An operator of the cases, and those that a device is asked about. */
    record Kind(String name, List<Operator> operators, List<DType> dtypes) {
        Kind(String name, Operator operator, List<DType> dtypes) {
            this(name, List.of(operator), dtypes);
        }
    }

    private static final List<DType> FLOATS = List.of(DType.F32, DType.BF16);
    private static final List<DType> FLOATS_AND_HALF = List.of(DType.F32, DType.BF16, DType.F16);
    static final List<Kind> KINDS = List.of(
            new Kind("gemm", Operator.GEMM, List.of(DType.F32, DType.BF16, DType.F16, DType.S8, DType.U8,
                    DType.F8E4M3, DType.F8E5M2)),
            new Kind("conv", Operator.CONV, FLOATS),
            new Kind("pooling", Operator.POOLING, FLOATS_AND_HALF),
            new Kind("attention", Operator.ATTENTION, FLOATS_AND_HALF),
            new Kind("merge", Operator.MERGE, FLOATS_AND_HALF),
            new Kind("rope", Operator.ROPE, FLOATS_AND_HALF),
            new Kind("select", Operator.SELECT, FLOATS_AND_HALF),
            new Kind("sparse", List.of(Operator.SELECT, Operator.ATTENTION, Operator.MERGE, Operator.MIX),
                    FLOATS_AND_HALF),
            new Kind("route", Operator.ROUTE, FLOATS_AND_HALF),
            new Kind("mix", Operator.MIX, FLOATS_AND_HALF),
            new Kind("layernorm", Operator.NORM, FLOATS),
            new Kind("rmsnorm", Operator.NORM, FLOATS),
            new Kind("softmax", Operator.SOFTMAX, FLOATS),
            new Kind("activation", Operator.ACTIVATION, FLOATS),
            new Kind("glu", Operator.GLU, FLOATS_AND_HALF),
            new Kind("fake_quantize", Operator.FAKE_QUANTIZE, FLOATS));

    private Claims() {}

    /** How claims name a type. */
    static String name(DType dtype) {
        return dtype.name().toLowerCase(Locale.ROOT);
    }

    /**
     * The claim, or null when the device makes none. Who claims all operators of chains claims the chains; who does not
     * claims nothing of them, as some do without one or another.
     */
    static @Nullable Boolean of(Device device, Kind kind, DType dtype) {
        if (kind.operators().size() == 1) {
            return device.supports(kind.operators().getFirst(), dtype).orElse(null);
        }
        boolean all = kind.operators().stream().allMatch(one -> device.supports(one, dtype).orElse(false));
        return all ? Boolean.TRUE : null;
    }
}
