package io.gatun;

import java.util.Iterator;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;

/** What was freed while work on a device may still use it, until the work is done. Thread-safe. */
final class PendingFrees {
    private record Pending(BooleanSupplier reached, Runnable give, AtomicBoolean given) {}

    private final Queue<Pending> all = new ConcurrentLinkedQueue<>();

    void add(BooleanSupplier reached, Runnable give) {
        all.add(new Pending(reached, give, new AtomicBoolean()));
    }

    /** Gives back what is no longer used. */
    void reclaim() {
        if (all.isEmpty()) {
            return;
        }
        for (Iterator<Pending> each = all.iterator(); each.hasNext(); ) {
            Pending pending = each.next();
            if (pending.reached.getAsBoolean() && pending.given.compareAndSet(false, true)) {
                each.remove();
                pending.give.run();
            }
        }
    }

    int count() {
        return all.size();
    }
}
