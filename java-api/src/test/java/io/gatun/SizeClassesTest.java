package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class SizeClassesTest {
    @Test
    void everySizeGetsTheSmallestClassThatFits() {
        for (int bytes = 0; bytes <= SizeClasses.LARGEST; bytes++) {
            int sizeClass = SizeClasses.of(bytes, 64);
            assertTrue(SizeClasses.bytes(sizeClass) >= bytes, "bytes " + bytes);
            assertTrue(sizeClass == 0 || SizeClasses.bytes(sizeClass - 1) < bytes, "bytes " + bytes);
            assertTrue(bytes <= 512 || SizeClasses.bytes(sizeClass) < bytes * 1.125, "bytes " + bytes);
        }
    }

    @Test
    void classesGrowByMultiplesOf64() {
        assertEquals(64, SizeClasses.bytes(0));
        assertEquals(SizeClasses.LARGEST, SizeClasses.bytes(SizeClasses.COUNT - 1));
        for (int sizeClass = 0; sizeClass < SizeClasses.COUNT; sizeClass++) {
            int bytes = SizeClasses.bytes(sizeClass);
            assertEquals(0, bytes % 64);
            int run = SizeClasses.runBytes(sizeClass);
            assertEquals(0, run % Slab.GRANULE);
            assertTrue(run / bytes >= 8 && run % bytes <= run / 16, "a run of " + run + " for blocks of " + bytes);
        }
    }

    @Test
    void alignedSizesGetAClassOfMultiples() {
        for (long alignment = 64; alignment <= Slab.GRANULE; alignment *= 2) {
            for (int bytes = 0; bytes <= SizeClasses.LARGEST; bytes += 37) {
                int size = SizeClasses.bytes(SizeClasses.of(bytes, alignment));
                assertTrue(size >= bytes && size % alignment == 0, bytes + " bytes aligned to " + alignment);
            }
        }
    }
}
