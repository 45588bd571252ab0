package io.gatun.bench.validate;

/** What a trial showed. */
public enum Verdict {
    /** Every element is within its tolerance, nothing else was written. */
    PASS("pass"),
    /** An element is off, memory was written that should not be, another kernel ran, or the run threw. */
    FAIL("fail"),
    /** The device declined the operator: {@link UnsupportedOperationException}. */
    UNSUPPORTED("unsupported"),
    /** Nothing was wrong, but nothing was tested either: there was no value that tells right from wrong. */
    MISTRUSTED("mistrusted"),
    /** The device is not there. */
    NOT_AVAILABLE("not available");

    private final String text;

    Verdict(String text) {
        this.text = text;
    }

    @Override
    public String toString() {
        return text;
    }
}
