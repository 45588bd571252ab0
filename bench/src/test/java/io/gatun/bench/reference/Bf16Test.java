package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class Bf16Test {
    @Test
    void roundsToNearestTiesToEven() {
        assertEquals(1f, Bf16.round(1f));
        assertEquals(1f, Bf16.round(1 + 0x1p-8f), "a tie goes to the even neighbour below");
        assertEquals(1 + 0x1p-6f, Bf16.round(1 + 3 * 0x1p-8f), "a tie goes to the even neighbour above");
        assertEquals(1 + 0x1p-7f, Bf16.round(Math.nextUp(1 + 0x1p-8f)));
        assertEquals(-1 - 0x1p-7f, Bf16.round(-1 - 0x1p-7f));
        assertEquals(Float.POSITIVE_INFINITY, Bf16.round(Float.MAX_VALUE));
        assertEquals(Float.NEGATIVE_INFINITY, Bf16.round(Float.NEGATIVE_INFINITY));
        assertEquals(0x1p-133f, Bf16.round(0x1.2p-133f), "the smallest BF16 number");
    }

    @Test
    void keepsNan() {
        assertTrue(Float.isNaN(Bf16.round(Float.NaN)));
        assertTrue(Float.isNaN(Bf16.round(Float.intBitsToFloat(0x7f800001))), "a payload in the lower half alone");
    }
}
