package io.gatun;

import io.gatun.bindings.c.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;

/**
 * A queue of runs on a device, executed in order. A stream of a CPU executes each run in the thread that calls it, and
 * holds the scratch memory of the plans that ran on it.
 *
 * <p>A stream serves one thread at a time: a run that meets another one inside is an {@link IllegalStateException} and
 * does nothing. Platform and virtual threads are alike.
 */
public final class Stream implements AutoCloseable {
    final long handle;
    final Handle owned;
    final Device device;

    Stream(Device device, long handle) {
        this.device = device;
        this.handle = handle;
        this.owned = new Handle(this, Handle.Kind.STREAM, handle, "the stream on " + device.name(), device);
    }

    /**
     * Returns what it was made on.
     *
     * @return the device
     */
    public Device device() {
        return device;
    }

    /**
     * Returns when everything given to this stream is done.
     *
     * @throws IllegalStateException if this stream is closed, or another thread is using it
     * @throws GatunException if something given to it failed
     */
    public void synchronize() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            Status.check(gatun_h.gtn_stream_synchronize(handle, message), message, owned);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Closes the stream. Closing it again does nothing.
     *
     * @throws IllegalStateException if a run is inside; it stays open
     */
    @Override
    public void close() {
        owned.close();
        Reference.reachabilityFence(this);
    }

    @Override
    public String toString() {
        return "stream on " + device;
    }
}
