package io.gatun;

import java.util.concurrent.atomic.AtomicLong;

/** The bytes in use in a heap and the most that they have been, as far as its stripes told. */
final class UsedBytes {
    private final AtomicLong now = new AtomicLong();
    private final AtomicLong peak = new AtomicLong();

    /** Adds what a stripe counted: in the end {@code bytes} more, and {@code most} more in between. */
    void add(long bytes, long most) {
        long before = now.getAndAdd(bytes);
        if (before + most > peak.get()) {
            peak.accumulateAndGet(before + most, Math::max);
        }
    }

    long now() {
        return now.get();
    }

    long peak() {
        return peak.get();
    }
}
