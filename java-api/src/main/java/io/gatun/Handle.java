package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_device_info;
import io.gatun.bindings.c.gtn_plan_info;
import io.gatun.bindings.c.gtn_weights_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * A native object that a Java object owns. It is closed once: by hand, or by the cleaner when its owner was forgotten.
 *
 * <p>What the cleaner holds of a child keeps the child's device reachable, so that a device is never closed before what
 * was opened on it.
 */
final class Handle {
    /** The kinds of native objects: how each is closed, and asked whether it is open. */
    enum Kind {
        DEVICE {
            @Override
            int close(long handle, MemorySegment message) {
                return gatun_h.gtn_device_close(handle, message);
            }

            @Override
            int query(long handle, Arena arena) {
                MemorySegment info = gtn_device_info.allocate(arena);
                gtn_device_info.size(info, (int) gtn_device_info.sizeof());
                return gatun_h.gtn_device_describe(handle, info, MemorySegment.NULL);
            }
        },
        STREAM {
            @Override
            int close(long handle, MemorySegment message) {
                return gatun_h.gtn_stream_close(handle, message);
            }

            @Override
            int query(long handle, Arena arena) {
                return gatun_h.gtn_stream_message(handle, Status.message(arena));
            }
        },
        EVENT {
            @Override
            int close(long handle, MemorySegment message) {
                return gatun_h.gtn_event_close(handle, message);
            }

            @Override
            int query(long handle, Arena arena) {
                return gatun_h.gtn_event_query(handle, arena.allocate(4, 4), MemorySegment.NULL);
            }
        },
        PLAN {
            @Override
            int close(long handle, MemorySegment message) {
                return gatun_h.gtn_plan_close(handle, message);
            }

            @Override
            int query(long handle, Arena arena) {
                MemorySegment info = gtn_plan_info.allocate(arena);
                gtn_plan_info.size(info, (int) gtn_plan_info.sizeof());
                return gatun_h.gtn_plan_query(handle, info, MemorySegment.NULL);
            }
        },
        WEIGHTS {
            @Override
            int close(long handle, MemorySegment message) {
                return gatun_h.gtn_weights_close(handle, message);
            }

            @Override
            int query(long handle, Arena arena) {
                MemorySegment info = gtn_weights_info.allocate(arena);
                gtn_weights_info.size(info, (int) gtn_weights_info.sizeof());
                return gatun_h.gtn_weights_query(handle, info, MemorySegment.NULL);
            }
        };

        abstract int close(long handle, MemorySegment message);

        abstract int query(long handle, Arena arena);
    }

    final long value;
    private final Kind kind;
    private final String name;
    private final Leaks.Watch watch;

    /**
     * Takes charge of an open native object.
     *
     * @param owner the Java object that it belongs to
     * @param name how messages name it, such as "the stream on cpu:avx2"
     * @param device what it was opened on, null for a device
     */
    Handle(Object owner, Kind kind, long value, String name, @Nullable Device device) {
        this.value = value;
        this.kind = kind;
        this.name = name;
        this.watch = Leaks.watch(owner, name, () -> {
            kind.close(value, MemorySegment.NULL);
            Reference.reachabilityFence(device);
        });
    }

    /**
     * Closes the object; does nothing when it is closed already.
     *
     * @throws IllegalStateException if it is in use; it then stays open
     */
    void close() {
        if (watch.isEnded()) {
            return;
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            int status = kind.close(value, message);
            if (status != gatun_h.GTN_OK() && status != gatun_h.GTN_STALE_HANDLE()) {
                throw Status.exception(status, name + " cannot be closed: " + Status.text(message));
            }
        }
        watch.end();
    }

    /** Asks the library whether the object is open. */
    boolean isOpen() {
        try (Arena arena = Arena.ofConfined()) {
            return kind.query(value, arena) != gatun_h.GTN_STALE_HANDLE();
        }
    }

    @Override
    public String toString() {
        return name;
    }
}
