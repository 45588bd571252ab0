package io.gatun;

import io.gatun.bindings.c.gatun_h;

/**
 * The format of packed weights, with what a plan must know of quantized ones.
 *
 * @param dtype F32, BF16, F16, S8, F8E4M3, F8E5M2, or U8 where they are quantized in groups
 * @param bits of a quantized weight, else 0
 * @param groupSize of quantized weights, else 0
 * @param sparse whether two of four along k are stored, in BF16
 */
record WeightFormat(DType dtype, int bits, int groupSize, boolean sparse) {
    static final WeightFormat SPARSE = new WeightFormat(DType.BF16, 0, 0, true);

    static WeightFormat of(DType dtype) {
        return switch (dtype) {
            case F32, BF16, F16, S8, F8E4M3, F8E5M2 -> new WeightFormat(dtype, 0, 0, false);
            default -> throw new IllegalArgumentException(
                    "format: " + dtype + ", expected F32, BF16, F16, S8, F8E4M3 or F8E5M2");
        };
    }

    static WeightFormat of(Quantization quantization) {
        return new WeightFormat(DType.U8, quantization.bits(), quantization.groupSize(), false);
    }

    int code() {
        return sparse ? gatun_h.GTN_BF16_2OF4() : bits == 4 ? gatun_h.GTN_U4() : dtype.code();
    }

    /** Of a weight. */
    String name() {
        return sparse ? "BF16_2OF4" : bits == 4 ? "U4" : dtype.name();
    }

    /** Of a matrix, or of several. */
    String describe(long groups, long k, long n) {
        String in = groupSize == 0 ? "" : " in groups of " + groupSize + " ";
        return name() + in + "[" + (groups > 0 ? groups + ", " : "") + k + ", " + n + "]";
    }
}
