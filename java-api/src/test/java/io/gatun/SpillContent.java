package io.gatun;

import static org.junit.jupiter.api.Assertions.assertNotNull;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Content of blocks that follows from their key and version, to the last byte. */
final class SpillContent {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;

    private SpillContent() {}

    static void fill(MemorySegment block, long key, long version) {
        block.set(LONG, 0, version);
        long at = 8;
        for (; at + 8 <= block.byteSize(); at += 8) {
            block.set(LONG, at, mix(key, version, at));
        }
        for (; at < block.byteSize(); at++) {
            block.set(ValueLayout.JAVA_BYTE, at, (byte) mix(key, version, at));
        }
    }

    /** Returns the version of a block, all of which must be of it. */
    static long version(MemorySegment block, long key) {
        long version = block.get(LONG, 0);
        long at = 8;
        for (; at + 8 <= block.byteSize(); at += 8) {
            check(mix(key, version, at) == block.get(LONG, at), key, version, at);
        }
        for (; at < block.byteSize(); at++) {
            check((byte) mix(key, version, at) == block.get(ValueLayout.JAVA_BYTE, at), key, version, at);
        }
        return version;
    }

    private static void check(boolean same, long key, long version, long at) {
        if (!same) {
            throw new AssertionError("block " + key + " of version " + version + " has something else at " + at);
        }
    }

    private static long mix(long key, long version, long at) {
        long x = (key * 0x9e3779b97f4a7c15L ^ version) * 0xbf58476d1ce4e5b9L + at;
        x = (x ^ x >>> 31) * 0x94d049bb133111ebL;
        return x ^ x >>> 29;
    }

    /** Creates a block. */
    static void create(SpillTier tier, long key, long version) {
        try (SpillTier.Pin pin = tier.create(key)) {
            fill(pin.memory(), key, version);
            pin.commit();
        }
    }

    /** Changes a block. */
    static void edit(SpillTier tier, long key, long version) {
        try (SpillTier.Pin pin = tier.edit(key)) {
            assertNotNull(pin);
            fill(pin.memory(), key, version);
            pin.commit();
        }
    }

    /** Returns the version of a block, or -1 if it is not there. */
    static long version(SpillTier tier, long key) {
        try (SpillTier.Pin pin = tier.pin(key)) {
            return pin == null ? -1 : version(pin.memory(), key);
        }
    }
}
