package io.gatun;

import java.io.Serial;

/** A library, backend, device or instruction-set level that is not there. The message says why. */
public final class NotAvailableException extends GatunException {
    @Serial
    private static final long serialVersionUID = 1L;

    /**
     * Makes an exception.
     *
     * @param message what is not available, and why
     */
    public NotAvailableException(String message) {
        super(message);
    }
}
