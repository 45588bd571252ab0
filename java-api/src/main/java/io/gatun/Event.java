package io.gatun;

import io.gatun.bindings.c.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.concurrent.atomic.AtomicInteger;

/** A point in a stream's work that can be waited for and timed. */
public final class Event implements AutoCloseable {
    private final long handle;
    private final Handle owned;
    private final AtomicInteger holds = new AtomicInteger();

    Event(Device device, long handle) {
        this.handle = handle;
        this.owned = new Handle(this, Handle.Kind.EVENT, handle, "the event on " + device.name(), device);
    }

    /**
     * Marks the point that {@code stream} has been given work up to, in place of an earlier one.
     *
     * @param stream a stream of the same device
     * @throws IllegalStateException if this event or the stream is closed, or another thread is using the stream
     * @throws IllegalArgumentException if the stream is of another device
     */
    public void record(Stream stream) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            Status.check(gatun_h.gtn_event_record(handle, stream.handle, message), message, owned, stream.owned);
        } finally {
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
        }
    }

    /**
     * Returns when the recorded point is reached.
     *
     * @throws IllegalArgumentException if nothing was recorded
     * @throws IllegalStateException if this event is closed
     */
    public void synchronize() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            Status.check(gatun_h.gtn_event_synchronize(handle, message), message, owned);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Says whether the recorded point is reached.
     *
     * @return whether it is
     * @throws IllegalArgumentException if nothing was recorded
     * @throws IllegalStateException if this event is closed
     */
    public boolean isDone() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment done = arena.allocate(ValueLayout.JAVA_INT);
            Status.check(gatun_h.gtn_event_query(handle, done, message), message, owned);
            return done.get(ValueLayout.JAVA_INT, 0) != 0;
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Returns the time from the point of this event to that of a later one.
     *
     * @param end an event of the same device, reached like this one
     * @return milliseconds
     * @throws IllegalArgumentException if one of them was not recorded, or they are of two devices
     * @throws IllegalStateException if one of them is closed
     */
    public double elapsedMillis(Event end) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment millis = arena.allocate(ValueLayout.JAVA_DOUBLE);
            Status.check(gatun_h.gtn_event_elapsed(handle, end.handle, millis, message), message, owned, end.owned);
            return millis.get(ValueLayout.JAVA_DOUBLE, 0);
        } finally {
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(end);
        }
    }

    /** Keeps the event open. */
    void hold() {
        holds.incrementAndGet();
    }

    void letGo() {
        holds.decrementAndGet();
    }

    /**
     * Closes the event. Closing it again does nothing.
     *
     * @throws IllegalStateException if a memory pool waits for it to take a block back; it stays open
     */
    @Override
    public void close() {
        if (holds.get() > 0) {
            throw new IllegalStateException(owned + " cannot be closed: a memory pool waits for it");
        }
        owned.close();
        Reference.reachabilityFence(this);
    }
}
