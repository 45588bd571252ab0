package io.gatun;

import java.lang.ref.WeakReference;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Looks at a pool from time to time, until it is closed or forgotten, and has it give back what it did not use. */
final class IdleTrim implements Runnable {
    private final WeakReference<MemoryPool> pool;
    private final long nanos;

    private IdleTrim(MemoryPool pool, long nanos) {
        this.pool = new WeakReference<>(pool);
        this.nanos = nanos;
    }

    static void start(MemoryPool pool, long nanos) {
        new IdleTrim(pool, nanos).later();
    }

    private void later() {
        CompletableFuture.delayedExecutor(Math.max(nanos / 2, 1), TimeUnit.NANOSECONDS).execute(this);
    }

    @Override
    public void run() {
        MemoryPool found = pool.get();
        if (found != null && found.trimIdle(nanos)) {
            later();
        }
    }
}
