package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.function.Executable;

/** Failures with exactly this type, and a message that has this part. */
final class Expect {
    private Expect() {}

    static <E extends Throwable> E failure(Class<E> type, String part, Executable call) {
        E e = assertThrows(type, call);
        assertEquals(type, e.getClass());
        assertTrue(String.valueOf(e.getMessage()).contains(part), () -> "no '" + part + "' in: " + e.getMessage());
        return e;
    }

    static void illegalArgument(String part, Executable call) {
        failure(IllegalArgumentException.class, part, call);
    }

    static void illegalState(String part, Executable call) {
        failure(IllegalStateException.class, part, call);
    }
}
