package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_device_options;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Something that computes: a processor at one instruction-set level, or an accelerator. Streams, events, plans, packed
 * weights and memory pools are made on a device and used with it alone; a device opened twice is two devices. Safe for
 * use by several threads.
 */
public final class Device implements AutoCloseable {
    /** The backends to choose from, best first. Those for tests and of third parties are opened by name alone. */
    private static final List<String> PREFERRED = List.of("cuda", "rocm", "rocm_rdna", "ascend", "cpu");

    final long handle;
    final Handle owned;
    final AtomicInteger openPools = new AtomicInteger();
    private final DeviceInfo info;

    private Device(long handle, DeviceInfo info) {
        this.handle = handle;
        this.info = info;
        this.owned = new Handle(this, Handle.Kind.DEVICE, handle, "the device " + info.name(), null);
    }

    /**
     * Opens a device, with as many threads as {@link Runtime#availableProcessors()} tells, which knows the quota of a
     * container.
     *
     * @param name {@code cpu} for the best level of this processor, {@code cpu:avx2} for one level, {@code cuda:0} for
     *     an accelerator: see {@link Gatun#backends()}
     * @return the device
     * @throws NotAvailableException if there is no such device here; the message says why
     */
    public static Device open(String name) {
        return open(name, Runtime.getRuntime().availableProcessors());
    }

    /**
     * Opens a device.
     *
     * @param name as in {@link #open(String)}
     * @param threads the most threads that a run may use, the caller's included, at least 1; accelerators ignore it
     * @return the device
     * @throws NotAvailableException if there is no such device here; the message says why
     * @throws IllegalArgumentException if {@code threads} is less than 1
     */
    public static Device open(String name, int threads) {
        if (name == null) {
            throw new NullPointerException("name");
        }
        if (threads < 1) {
            throw new IllegalArgumentException("threads: " + threads + ", expected at least 1");
        }
        Gatun.load();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment options = gtn_device_options.allocate(arena);
            gtn_device_options.size(options, (int) gtn_device_options.sizeof());
            gtn_device_options.threads(options, threads);
            MemorySegment device = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(gatun_h.gtn_device_open(arena.allocateFrom(name), options, device, message), message);
            long handle = device.get(ValueLayout.JAVA_LONG, 0);
            MemorySegment info = Gatun.deviceInfo(arena);
            Status.check(gatun_h.gtn_device_describe(handle, info, message), message);
            return new Device(handle, Gatun.deviceInfo(info));
        }
    }

    /**
     * Opens the best device: the first available accelerator of the backends {@code cuda}, {@code rocm},
     * {@code rocm_rdna} and {@code ascend}, else {@code cpu}. What was chosen, and why nothing better, is logged by the
     * {@link System.Logger} {@code io.gatun} at level {@code DEBUG}.
     *
     * @return the device
     * @throws NotAvailableException if there is none; the message says why
     */
    public static Device best() {
        List<Backend> backends = Gatun.backends();
        StringBuilder passedOver = new StringBuilder();
        for (String name : PREFERRED) {
            for (Backend backend : backends) {
                if (!backend.name().equals(name)) {
                    continue;
                }
                if (!backend.available()) {
                    passedOver.append("; ").append(name).append(": ").append(backend.reason());
                }
                for (DeviceInfo device : backend.devices()) {
                    if (device.available()) {
                        System.getLogger("io.gatun").log(Level.DEBUG, "chose " + device.name() + passedOver);
                        return open(device.name());
                    }
                    passedOver.append("; ").append(device.name()).append(": ").append(device.reason());
                }
            }
        }
        throw new NotAvailableException("no device is available" + passedOver);
    }

    /**
     * Returns the name with everything chosen.
     *
     * @return such as {@code cpu:avx2} for a device opened as {@code cpu}
     */
    public String name() {
        return info.name();
    }

    /**
     * Returns what the device says of itself.
     *
     * @return the description from when it was opened
     */
    public DeviceInfo info() {
        return info;
    }

    /**
     * Tells whether the device claims to serve an operator on elements of a type. A plan may still be declined with
     * {@link UnsupportedOperationException}, for its shape say.
     *
     * @param operator the operator
     * @param dtype the type of its elements: that of the packed weights for {@link Operator#GEMM}, of the queries for
     *     {@link Operator#ATTENTION} and {@link Operator#ROPE}, of the input for the others
     * @return the claim, or empty if the device makes none
     * @throws IllegalStateException if this device is closed
     */
    public Optional<Boolean> supports(Operator operator, DType dtype) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment claimed = arena.allocate(ValueLayout.JAVA_INT);
            int status = gatun_h.gtn_device_supports(handle, operator.code(), dtype.code(), claimed, message);
            Status.check(status, message, owned);
            int claim = claimed.get(ValueLayout.JAVA_INT, 0);
            return claim < 0 ? Optional.empty() : Optional.of(claim != 0);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Measures a ceiling of the device, now and with all its threads, in about a tenth of a second.
     *
     * @param limit what to measure
     * @return operations or bytes per second, or empty if the device cannot say
     * @throws IllegalStateException if this device is closed
     */
    public OptionalDouble measure(Limit limit) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment perSecond = arena.allocate(ValueLayout.JAVA_DOUBLE);
            int status = gatun_h.gtn_device_measure(handle, limit.code(), perSecond, message);
            if (status == gatun_h.GTN_UNSUPPORTED()) {
                return OptionalDouble.empty();
            }
            Status.check(status, message, owned);
            return OptionalDouble.of(perSecond.get(ValueLayout.JAVA_DOUBLE, 0));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Makes a stream.
     *
     * @return the stream
     * @throws IllegalStateException if this device is closed
     */
    public Stream newStream() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment stream = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(gatun_h.gtn_stream_create(handle, stream, message), message, owned);
            return new Stream(this, stream.get(ValueLayout.JAVA_LONG, 0));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Makes an event.
     *
     * @return the event, not yet recorded
     * @throws IllegalStateException if this device is closed
     * @throws UnsupportedOperationException if the device has no events
     */
    public Event newEvent() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment event = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(gatun_h.gtn_event_create(handle, event, message), message, owned);
            return new Event(this, event.get(ValueLayout.JAVA_LONG, 0));
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Closes the device. Closing it again does nothing.
     *
     * @throws IllegalStateException if a stream, event, plan, packed weights or memory pool of it is open; it stays
     *     open
     */
    @Override
    public void close() {
        int pools = openPools.get();
        if (pools > 0) {
            throw new IllegalStateException(
                    owned + " cannot be closed: it still has " + pools
                    + (pools == 1 ? " memory pool open" : " memory pools open"));
        }
        owned.close();
        Reference.reachabilityFence(this);
    }

    @Override
    public String toString() {
        return info.name();
    }
}
