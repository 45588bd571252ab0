package io.gatun.bench.validate;

import io.gatun.Device;
import io.gatun.DeviceInfo;
import io.gatun.MemoryPool;
import io.gatun.Stream;
import io.gatun.bench.validate.Operand.Placement;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A device that is being validated: opened with the number of threads that was asked for, and beside it with one and
 * with three, where that has a meaning. Close it when done.
 */
final class Subject implements AutoCloseable {
    private final Device device;
    private final Stream second;
    private final List<AutoCloseable> opened = new ArrayList<>();
    private final Map<Device, Stream> streams = new LinkedHashMap<>();
    private final Map<Device, MemoryPool> pools = new LinkedHashMap<>();
    private final List<Device> otherThreads = new ArrayList<>();
    private final Trial.Tamper tamper;
    private @Nullable Map<String, Double> limits;
    private Consumer<List<Operand.Region>> listener = _ -> {};

    /**
     * Opens a device.
     *
     * @param threads threads that a run may use, 0 for the usual number
     */
    Subject(DeviceInfo info, int threads, Trial.Tamper tamper) {
        this.tamper = tamper;
        try {
            device = add(threads == 0 ? Device.open(info.name()) : Device.open(info.name(), threads));
            second = keep(device.newStream());
            if (info.threads() > 0) {
                for (int other : new int[] {1, 3}) {
                    if (other != device.info().threads()) {
                        otherThreads.add(add(Device.open(info.name(), other)));
                    }
                }
            }
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    private Device add(Device device) {
        keep(device);
        streams.put(device, keep(device.newStream()));
        if (!device.info().hostMemory()) {
            pools.put(device, keep(MemoryPool.of(device)));
        }
        return device;
    }

    private <T extends AutoCloseable> T keep(T object) {
        opened.add(object);
        return object;
    }

    String name() {
        return device.name();
    }

    Device device() {
        return device;
    }

    /** The same device with other numbers of threads. */
    List<Device> otherThreads() {
        return otherThreads;
    }

    /** The first stream of one of the devices. */
    Stream stream(Device on) {
        Stream stream = streams.get(on);
        if (stream == null) {
            throw new IllegalArgumentException(on + " is not of this subject");
        }
        return stream;
    }

    /** Another stream of the device. */
    Stream second() {
        return second;
    }

    Trial.Tamper tamper() {
        return tamper;
    }

    /** Who is told where the operands of a trial lie before it runs. */
    void listener(Consumer<List<Operand.Region>> listener) {
        this.listener = listener;
    }

    void announce(List<Operand.Region> regions) {
        listener.accept(regions);
    }

    /** Hands out memory of a device that has its own, and notes it; null where kernels compute on host memory. */
    @Nullable SegmentAllocator memory(Device on, List<MemorySegment> taken) {
        MemoryPool pool = pools.get(on);
        if (pool == null) {
            return null;
        }
        return (bytes, alignment) -> {
            MemorySegment block = pool.allocate(bytes, alignment);
            taken.add(block);
            return block;
        };
    }

    void free(Device on, List<MemorySegment> taken) {
        MemoryPool pool = pools.get(on);
        if (pool != null) {
            taken.forEach(pool::free);
        }
        taken.clear();
    }

    /** The device's measured ceilings by name, measured at the first call. */
    Map<String, Double> limits() {
        if (limits == null) {
            limits = Limits.measure(device);
        }
        return limits;
    }

    /** The ceilings, if they have been measured. */
    Map<String, Double> knownLimits() {
        return limits == null ? Map.of() : limits;
    }

    /** Where operands of a case lie; the cases take turns. */
    Placement placement(Case test) {
        // Who tampers with outputs needs memory around them.
        int kinds = tamper == Trial.Tamper.NONE ? Placement.values().length : 2;
        return Placement.values()[Math.floorMod(test.name().hashCode(), kinds)];
    }

    /** How the names of its kernels begin. */
    String kernelPrefix() {
        return kernelPrefix(device.name());
    }

    /**
     * How the names of a device's kernels begin. A number selects one of several devices that are alike; any other
     * selector is a level, which its kernels must name.
     */
    static String kernelPrefix(String device) {
        String[] parts = device.split(":", 2);
        return parts.length == 1 || parts[1].matches("\\d+") ? parts[0] + "." : parts[0] + "." + parts[1] + ".";
    }

    @Override
    public void close() {
        Shared.closeAll(opened);
    }
}
