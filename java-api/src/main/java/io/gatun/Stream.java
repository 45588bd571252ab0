package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.memory.DeviceMemory;
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
     * Copies host memory to memory of a {@link MemoryPool} of the device, after what this stream was given before. The
     * host's memory is free for reuse on return.
     *
     * @param host what to copy
     * @param onDevice where to, of the same size, not overlapping
     * @throws IllegalArgumentException if a segment is not native, {@code onDevice} is read-only, the sizes differ or
     *     the segments overlap
     * @throws IllegalStateException if this stream or a segment is closed, or another thread is using the stream
     * @throws GatunException if the copy failed
     */
    public void copyToDevice(MemorySegment host, MemorySegment onDevice) {
        copy("onDevice", onDevice, "host", host, gatun_h.GTN_HOST_TO_DEVICE());
    }

    /**
     * Copies memory of the device to host memory, after what this stream was given before, and returns when it is
     * there.
     *
     * @param onDevice what to copy
     * @param host where to, of the same size, not overlapping
     * @throws IllegalArgumentException if a segment is not native, {@code host} is read-only, the sizes differ or the
     *     segments overlap
     * @throws IllegalStateException if this stream or a segment is closed, or another thread is using the stream
     * @throws GatunException if the copy failed
     */
    public void copyToHost(MemorySegment onDevice, MemorySegment host) {
        copy("host", host, "onDevice", onDevice, gatun_h.GTN_DEVICE_TO_HOST());
        synchronize();
    }

    /** Copies memory of the device within it, after what this stream was given before. */
    void copyOnDevice(MemorySegment from, MemorySegment to) {
        copy("to", to, "from", from, gatun_h.GTN_DEVICE_TO_DEVICE());
    }

    private void copy(String toName, MemorySegment to, String fromName, MemorySegment from, int direction) {
        boolean toDevice = direction != gatun_h.GTN_DEVICE_TO_HOST();
        boolean fromDevice = direction != gatun_h.GTN_HOST_TO_DEVICE();
        checkNative(toName, to);
        checkNative(fromName, from);
        if (to.isReadOnly()) {
            throw new IllegalArgumentException(toName + ": is read-only, expected memory that can be written");
        }
        if (to.byteSize() != from.byteSize()) {
            throw new IllegalArgumentException(toName + ": " + to.byteSize() + " bytes, expected the "
                    + from.byteSize() + " of " + fromName);
        }
        if (from.byteSize() == 0) {
            return;
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            int status = gatun_h.gtn_memory_copy(
                    handle, side(toName, to, toDevice), side(fromName, from, fromDevice), from.byteSize(), direction,
                    message);
            Status.check(status, message, owned);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** What the native call takes for a segment of the host or of this stream's device. */
    private MemorySegment side(String name, MemorySegment segment, boolean onDevice) {
        Object owner = DeviceMemory.owner(segment);
        if (onDevice ? owner == device || owner == null && device.info().hostMemory() : owner == null) {
            return DeviceMemory.behind(segment);
        }
        throw new IllegalArgumentException(name + ": memory of " + (owner == null ? "the host" : owner)
                + ", expected memory of " + (onDevice ? device : "the host"));
    }

    private static void checkNative(String name, MemorySegment segment) {
        if (!segment.isNative()) {
            throw new IllegalArgumentException(name + ": is on the Java heap, expected native memory");
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
