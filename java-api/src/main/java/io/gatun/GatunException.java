package io.gatun;

import java.io.Serial;

/** A failure of a device or of the library that is neither a wrong argument nor a wrong state of an object. */
public class GatunException extends RuntimeException {
    @Serial
    private static final long serialVersionUID = 1L;

    /**
     * Makes an exception.
     *
     * @param message what failed
     */
    public GatunException(String message) {
        super(message);
    }
}
