package io.gatun.bench.report;

/** What a trial showed. Only {@link #PASS} is a pass. */
public enum Verdict {
    /** Every element is within its tolerance, nothing else was written, and every further check held. */
    PASS("pass"),
    /** An element is off, memory was written that should not be, another kernel ran, or another check did not hold. */
    FAIL("fail"),
    /** The device declined the operator: {@link UnsupportedOperationException}. */
    UNSUPPORTED("unsupported"),
    /** Nothing was wrong, but nothing was tested either: there was no value that tells right from wrong. */
    MISTRUSTED("mistrusted"),
    /** The device is not there, or was given up after too many crashes or time-outs of an operator. */
    NOT_AVAILABLE("not available"),
    /** The process that ran the case died. */
    CRASHED("crashed"),
    /** The process that ran the case gave no answer in time, and was ended. */
    TIMED_OUT("timed out");

    private final String text;

    Verdict(String text) {
        this.text = text;
    }

    @Override
    public String toString() {
        return text;
    }
}
