package io.gatun;

/**
 * The sizes that small blocks are rounded up to: the multiples of 64 up to 512, then eight steps from each power of two
 * to the next. More than 512 bytes grow by less than an eighth.
 */
final class SizeClasses {
    /** The largest small block. */
    static final long LARGEST = 32 << 10;

    static final int COUNT = of(LARGEST) + 1;

    private SizeClasses() {}

    /** Returns the class of the smallest blocks of at least {@code bytes} bytes, 0 to {@link #LARGEST}. */
    private static int of(long bytes) {
        if (bytes <= 512) {
            return bytes == 0 ? 0 : (int) (bytes - 1 >>> 6);
        }
        int power = 63 - Long.numberOfLeadingZeros(bytes - 1); // 2^power < bytes <= 2^(power + 1)
        return (power - 9) * 8 + (int) (bytes - 1 >>> power - 3);
    }

    /** The same for blocks that can be aligned to {@code alignment}, a power of two up to {@link Slab#GRANULE}. */
    static int of(long bytes, long alignment) {
        int sizeClass = of(bytes);
        while (alignment > 64 && (bytes(sizeClass) & alignment - 1) != 0) {
            sizeClass++; // a power of two comes
        }
        return sizeClass;
    }

    /** Returns the size of the blocks of a class. */
    static int bytes(int sizeClass) {
        return sizeClass < 8 ? sizeClass + 1 << 6 : (sizeClass & 7) + 9 << (sizeClass >> 3) + 5;
    }

    /** Returns the size of a run of blocks of a class: a whole number of granules, of which little is left over. */
    static int runBytes(int sizeClass) {
        int blocks = bytes(sizeClass) <= Slab.GRANULE ? 16 : 8;
        return (blocks * bytes(sizeClass) + Slab.GRANULE - 1) / Slab.GRANULE * Slab.GRANULE;
    }
}
