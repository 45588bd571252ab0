package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_message;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** From the statuses and messages of the C interface to exceptions. */
final class Status {
    private Status() {}

    /** Returns a buffer for a message. */
    static MemorySegment message(Arena arena) {
        MemorySegment message = gtn_message.allocate(arena);
        gtn_message.size(message, (int) gtn_message.sizeof());
        return message;
    }

    static String text(MemorySegment message) {
        return gtn_message.text(message).getString(0);
    }

    /**
     * Does nothing when {@code status} is good; else throws what it stands for. {@code used} are the objects that took
     * part, so that one that was closed can be named.
     */
    static void check(int status, MemorySegment message, Handle... used) {
        if (status != gatun_h.GTN_OK()) {
            throw exception(status, text(message), used);
        }
    }

    static RuntimeException exception(int status, String text, Handle... used) {
        if (status == gatun_h.GTN_STALE_HANDLE()) {
            for (Handle handle : used) {
                if (!handle.isOpen()) {
                    return new IllegalStateException(handle + " is closed");
                }
            }
        }
        String why = text.isEmpty() ? "status " + status + " of the native library" : text;
        if (status == gatun_h.GTN_INVALID_ARGUMENT()) {
            return new IllegalArgumentException(why);
        }
        if (status == gatun_h.GTN_STALE_HANDLE() || status == gatun_h.GTN_BUSY()) {
            return new IllegalStateException(why);
        }
        if (status == gatun_h.GTN_UNSUPPORTED()) {
            return new UnsupportedOperationException(why);
        }
        if (status == gatun_h.GTN_NOT_AVAILABLE()) {
            return new NotAvailableException(why);
        }
        return new GatunException(why);
    }
}
