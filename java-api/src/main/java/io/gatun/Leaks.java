package io.gatun;

import java.lang.System.Logger.Level;
import java.lang.ref.Cleaner;
import org.jspecify.annotations.Nullable;

/** Frees what was forgotten and, with {@code -Dio.gatun.leaks=true}, reports it with where it was opened. */
final class Leaks {
    private static final Cleaner CLEANER = Cleaner.create();
    private static final boolean REPORTED = Boolean.getBoolean("io.gatun.leaks");

    private Leaks() {}

    /**
     * Runs {@code free} once {@code owner} can no longer be reached, unless the watch was ended before. {@code free}
     * must not refer to {@code owner}.
     */
    static Watch watch(Object owner, String name, Runnable free) {
        Watch watch = new Watch(name, free, REPORTED ? new Throwable("opened here") : null);
        watch.cleanable = CLEANER.register(owner, watch::forgotten);
        return watch;
    }

    /** One object that is watched. */
    static final class Watch {
        private final String name;
        private final Runnable free;
        private final @Nullable Throwable opened;
        private volatile boolean ended;
        private Cleaner.@Nullable Cleanable cleanable;

        private Watch(String name, Runnable free, @Nullable Throwable opened) {
            this.name = name;
            this.free = free;
            this.opened = opened;
        }

        boolean isEnded() {
            return ended;
        }

        /** Ends the watch: the owner was closed. */
        void end() {
            ended = true;
            if (cleanable != null) {
                cleanable.clean(); // forgets the owner; forgotten() then finds the watch ended
            }
        }

        private void forgotten() {
            if (ended) {
                return;
            }
            if (opened != null) {
                System.getLogger("io.gatun").log(Level.WARNING, name + " was never closed", opened);
            }
            free.run();
        }
    }
}
