package io.gatun;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Description;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;

/** What Java Flight Recorder is told of memory pools. */
final class PoolEvents {
    private PoolEvents() {}

    /** What they have in common. */
    @Category("Gatun")
    private abstract static class PoolEvent extends Event {
        @Label("Device")
        String device = "";

        @Label("Domain")
        String domain = "";

        @Label("Bytes")
        @DataAmount
        long bytes;

        @Label("Reserved Bytes")
        @Description("What the domain has from the device")
        @DataAmount
        long reservedBytes;

        void of(Device device, MemoryDomain domain, long bytes, long reservedBytes) {
            this.device = device.name();
            this.domain = domain.name();
            this.bytes = bytes;
            this.reservedBytes = reservedBytes;
        }
    }

    @Name("io.gatun.PoolGrowth")
    @Label("Memory Pool Growth")
    @Description("A memory pool took a slab from the device")
    static final class Growth extends PoolEvent {}

    @Name("io.gatun.PoolTrim")
    @Label("Memory Pool Trim")
    @Description("A memory pool gave slabs back to the device")
    static final class Trim extends PoolEvent {}

    @Name("io.gatun.PoolFailure")
    @Label("Memory Pool Failure")
    @Description("A memory pool had no room for a request")
    static final class Failure extends PoolEvent {
        @Label("Reason")
        String reason = "";
    }

    @Name("io.gatun.PoolSpill")
    @Label("Memory Pool Spill")
    @Description("A spill tier wrote a block to its file")
    static final class Spill extends PoolEvent {}

    @Name("io.gatun.PoolRestore")
    @Label("Memory Pool Restore")
    @Description("A spill tier read a block from its file")
    static final class Restore extends PoolEvent {}

    @Name("io.gatun.PoolSpillFailure")
    @Label("Memory Pool Spill Failure")
    @Description("A spill tier could not read or write its file, or found a damaged block")
    static final class SpillFailure extends PoolEvent {
        @Label("Reason")
        String reason = "";
    }
}
