package io.gatun;

import java.time.Duration;

/**
 * What a {@link MemoryPool} does when a domain is full: its limit, the memory that a container allows or the device's
 * own is reached, and nothing that is free fits a request.
 */
public sealed interface WhenFull {
    /** The request fails with a {@link GatunException}. */
    record Fail() implements WhenFull {}

    /**
     * The request waits for blocks that other threads give back, and fails with a {@link GatunException} after a time,
     * or when its thread is interrupted, which leaves the thread's interrupt flag set.
     *
     * @param timeout how long at most, more than 0
     */
    record Await(Duration timeout) implements WhenFull {
        /** Checks the time. */
        public Await {
            if (timeout.isNegative() || timeout.isZero()) {
                throw new IllegalArgumentException("timeout: " + timeout + ", expected more than 0");
            }
        }
    }

    /**
     * The request asks for blocks to be given back and tries again, until it succeeds or there is nothing more to give.
     * It then fails with a {@link GatunException}.
     *
     * @param evictor who gives back
     */
    record Evict(Evictor evictor) implements WhenFull {
        /** Checks the evictor. */
        public Evict {
            if (evictor == null) {
                throw new NullPointerException("evictor");
            }
        }
    }

    /** Gives blocks back to a pool that is full. */
    @FunctionalInterface
    interface Evictor {
        /**
         * Gives back blocks that can be spared, in the thread whose request does not fit. The pool can be used; several
         * threads may be here at once.
         *
         * @param domain the domain that is full
         * @param bytes what the request lacks at most
         * @return true if something was given back, so that another try makes sense; false if there is nothing to spare
         */
        boolean evict(MemoryDomain domain, long bytes);
    }

    /**
     * The request fails.
     *
     * @return the choice that holds if no other was made
     */
    static WhenFull fail() {
        return new Fail();
    }

    /**
     * The request waits for other threads.
     *
     * @param timeout how long at most
     * @return the choice
     * @throws IllegalArgumentException if {@code timeout} is not more than 0
     */
    static WhenFull await(Duration timeout) {
        return new Await(timeout);
    }

    /**
     * The request asks for blocks.
     *
     * @param evictor gives blocks back
     * @return the choice
     */
    static WhenFull evict(Evictor evictor) {
        return new Evict(evictor);
    }
}
