package io.gatun;

import io.gatun.bindings.c.gatun_h;

/** The type of a tensor's elements. */
public enum DType {
    /** IEEE 754 binary32. */
    F32(4),
    /** The upper half of a binary32: 8 bits of exponent, 8 of precision. */
    BF16(2),
    /** IEEE 754 binary16. */
    F16(2),
    /** Signed 8-bit integers. */
    S8(1),
    /** Unsigned 8-bit integers. */
    U8(1),
    /** Signed 32-bit integers. */
    S32(4),
    /** Signed 64-bit integers. */
    S64(8),
    /** FP8 with 4 bits of exponent and 3 of mantissa, up to 448, without infinities: of {@link PackedWeights} alone. */
    F8E4M3(1),
    /** FP8 with 5 bits of exponent and 2 of mantissa, up to 57344: of {@link PackedWeights} alone. */
    F8E5M2(1);

    private final int bytes;

    DType(int bytes) {
        this.bytes = bytes;
    }

    /**
     * Returns the size of an element, which is also its alignment.
     *
     * @return 1, 2, 4 or 8
     */
    public int bytes() {
        return bytes;
    }

    int code() {
        return switch (this) {
            case F32 -> gatun_h.GTN_F32();
            case BF16 -> gatun_h.GTN_BF16();
            case F16 -> gatun_h.GTN_F16();
            case S8 -> gatun_h.GTN_S8();
            case U8 -> gatun_h.GTN_U8();
            case S32 -> gatun_h.GTN_S32();
            case S64 -> gatun_h.GTN_S64();
            case F8E4M3 -> gatun_h.GTN_F8E4M3();
            case F8E5M2 -> gatun_h.GTN_F8E5M2();
        };
    }
}
