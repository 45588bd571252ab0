package io.gatun;

import io.gatun.bindings.c.gatun_h;

/** Ceilings that no operator on a device can pass: see {@link Device#measure}. */
public enum Limit {
    /** Operations per second on FP32 operands; a multiply-add is two. */
    F32,
    /** Operations per second on BF16 operands, summed in FP32; a multiply-add is two. */
    BF16,
    /** Operations per second on 8-bit integers, summed in 32 bits; a multiply-add is two. */
    S8,
    /** Bytes per second read from memory, in a sweep larger than the caches. */
    MEMORY,
    /** Bytes per second read from the largest cache, in a sweep larger than the others. */
    CACHE,
    /** Bytes per second copied in memory; those read and those written count both. */
    COPY,
    /** FP32 exponentials per second. */
    EXP;

    int code() {
        return switch (this) {
            case F32 -> gatun_h.GTN_LIMIT_F32();
            case BF16 -> gatun_h.GTN_LIMIT_BF16();
            case S8 -> gatun_h.GTN_LIMIT_S8();
            case MEMORY -> gatun_h.GTN_LIMIT_MEMORY();
            case CACHE -> gatun_h.GTN_LIMIT_CACHE();
            case COPY -> gatun_h.GTN_LIMIT_COPY();
            case EXP -> gatun_h.GTN_LIMIT_EXP();
        };
    }
}
