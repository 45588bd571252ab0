package io.gatun;

/**
 * How one domain of a pool is run.
 *
 * @param coldStart bytes that are there from the start and stay
 * @param limit the most bytes to take from the device
 * @param slabBytes the size of a slab, or 0 to choose it by what is asked for
 * @param whenFull what a request does that does not fit
 */
record DomainSettings(long coldStart, long limit, long slabBytes, WhenFull whenFull) {
    static final DomainSettings DEFAULT = new DomainSettings(0, Long.MAX_VALUE, 0, WhenFull.fail());

    DomainSettings withColdStart(long bytes) {
        return new DomainSettings(bytes, limit, slabBytes, whenFull);
    }

    DomainSettings withLimit(long bytes) {
        return new DomainSettings(coldStart, bytes, slabBytes, whenFull);
    }

    DomainSettings withSlabBytes(long bytes) {
        return new DomainSettings(coldStart, limit, bytes, whenFull);
    }

    DomainSettings withWhenFull(WhenFull choice) {
        return new DomainSettings(coldStart, limit, slabBytes, choice);
    }
}
