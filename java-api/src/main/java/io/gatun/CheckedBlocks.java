package io.gatun;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/**
 * The single blocks of a pool in check mode. Each has a scope of its own, which ends when it is freed, so that Java
 * cannot use it any more; and for native code, which can, it lies between red zones, is poisoned when it is freed, and
 * is used again only some frees later, after a look at the poison. Everything is remembered with where it was
 * allocated. Thread-safe.
 */
final class CheckedBlocks {
    private static final long ZONE = 64;
    private static final byte RED = (byte) 0xa5;
    private static final byte POISON = (byte) 0xdd; // as a floating-point number far from anything, as an index wild
    private static final int MOST_WAITING = 64;
    private static final long MOST_WAITING_BYTES = 16 << 20;

    /**
     * Held while a life ends. That stops every thread for a moment, which the virtual machine does once at a time; threads
     * that ask for it together wake each other for nothing, while those that wait for this lock are stopped already.
     */
    private static final Object ENDING = new Object();

    /** A block and its zones. */
    private static final class Checked {
        final Block block;
        final long before; // bytes of the zone before
        final MemorySegment whole; // with the zones
        final MemorySegment segment;
        final Arena life;
        final Throwable allocated = new Throwable("allocated here");
        @Nullable Throwable freed;

        Checked(
                Block block, long bytes, long before, long all, Object pool, @Nullable Device hiddenFrom) {
            this.block = block;
            this.before = before;
            this.whole = DeviceMemory.segment(block.address, all, Arena.global());
            this.life = Arena.ofShared();
            // The pool's own scope must be reachable from the segment, or the pool could be taken for forgotten.
            MemorySegment real = DeviceMemory.segment(
                    block.address + before, bytes, life, () -> Reference.reachabilityFence(pool));
            this.segment = hiddenFrom == null
                    ? real
                    : DeviceMemory.hidden(life, hiddenFrom).asSlice(real.address(), bytes);
        }

        void end() {
            synchronized (ENDING) {
                life.close();
            }
        }

        String describe() {
            return segment.byteSize() + " bytes at 0x" + Long.toHexString(segment.address());
        }
    }

    private final Device device;
    private final boolean hostMemory;
    private final Map<Long, Checked> live = new ConcurrentHashMap<>();
    private final Deque<Checked> waiting = new ArrayDeque<>(); // freed, not yet given back
    private long waitingBytes;
    private final List<String> reports = new ArrayList<>();

    CheckedBlocks(Device device, boolean hostMemory) {
        this.device = device;
        this.hostMemory = hostMemory;
    }

    /**
     * Hands out a block. {@code pool} stays reachable as long as the segment.
     *
     * @param atOnce whether it fails at once when the domain is full, whatever was chosen for that
     */
    MemorySegment allocate(DomainHeap heap, long bytes, long alignment, boolean atOnce, Object pool) {
        long before = Math.max(alignment, ZONE);
        long all = before + (bytes + ZONE - 1) / ZONE * ZONE + ZONE;
        Block block = heap.take(all, alignment, atOnce);
        block.owner = this;
        Checked checked = new Checked(block, bytes, before, all, pool, hostMemory ? null : device);
        if (hostMemory) {
            checked.whole.asSlice(0, before).fill(RED);
            checked.segment.fill(POISON);
            checked.whole.asSlice(before + bytes).fill(RED);
        }
        live.put(checked.segment.address(), checked);
        return checked.segment;
    }

    /**
     * Ends the use of a block, and returns what gives its memory back, or null if {@code segment} is none in use.
     *
     * @throws IllegalStateException if a run uses it, which stays so; or if its zones were written to, in which case it
     *     is no longer in use
     */
    @Nullable Runnable free(MemorySegment segment) {
        Checked checked = live.get(segment.address());
        if (checked == null || checked.segment != segment) {
            return null;
        }
        try {
            checked.end();
        } catch (IllegalStateException e) {
            if (!checked.life.scope().isAlive()) {
                return null; // another thread was faster
            }
            throw new IllegalStateException("block: " + checked.describe() + " cannot be freed: a run uses it", e);
        }
        checked.freed = new Throwable("freed here");
        live.remove(segment.address(), checked);
        String damage = damage(checked);
        if (damage != null) {
            keep(checked);
            throw new IllegalStateException(damage, checked.allocated);
        }
        return () -> keep(checked);
    }

    /** Says what is wrong with the zones around a block. */
    private @Nullable String damage(Checked checked) {
        if (!hostMemory) {
            return null;
        }
        long end = checked.before + checked.segment.byteSize();
        long at = firstOther(checked.whole, 0, checked.before, RED);
        if (at < 0) {
            at = firstOther(checked.whole, end, checked.whole.byteSize(), RED);
        }
        return at < 0 ? null : "block: " + checked.describe() + ": byte " + (at - checked.before)
                + " outside it was written to by native code";
    }

    /**
     * Returns where the first byte is that is not {@code expected}, or -1. If the first byte is, then the others are as long
     * as each is as its neighbour, which is compared many at a time.
     */
    private static long firstOther(MemorySegment memory, long from, long to, byte expected) {
        if (memory.get(ValueLayout.JAVA_BYTE, from) != expected) {
            return from;
        }
        long same = MemorySegment.mismatch(memory, from, to - 1, memory, from + 1, to);
        return same < 0 ? -1 : from + same + 1;
    }

    private void keep(Checked checked) {
        if (hostMemory) {
            checked.whole.fill(POISON);
        }
        List<Checked> due = new ArrayList<>();
        synchronized (this) {
            waiting.add(checked);
            waitingBytes += checked.whole.byteSize();
            while (waiting.size() > MOST_WAITING || waitingBytes > MOST_WAITING_BYTES) {
                Checked first = waiting.remove();
                waitingBytes -= first.whole.byteSize();
                due.add(first);
            }
        }
        due.forEach(this::give);
    }

    /** Gives back everything that was freed. */
    void giveAll() {
        List<Checked> due;
        synchronized (this) {
            due = List.copyOf(waiting);
            waiting.clear();
            waitingBytes = 0;
        }
        due.forEach(this::give);
    }

    private void give(Checked checked) {
        if (hostMemory) {
            long at = firstOther(checked.whole, 0, checked.whole.byteSize(), POISON);
            if (at >= 0) {
                checked.allocated.addSuppressed(checked.freed);
                report("block: " + checked.describe() + ": byte " + (at - checked.before)
                        + " was written to by native code after the block was freed", checked.allocated);
            }
        }
        DomainHeap.give(checked.block, this, checked.whole.byteSize());
    }

    /** Says whether a segment is of a block in use, or of none any more. */
    boolean mayBeOurs(MemorySegment segment) {
        return !DeviceMemory.behind(segment).scope().isAlive()
                || live.values().stream().anyMatch(checked -> checked.segment.scope().equals(segment.scope()));
    }

    /** Adds to a complaint about {@code segment} what is known of the block that it was. */
    IllegalStateException explain(IllegalStateException complaint, MemorySegment segment) {
        synchronized (this) {
            for (Checked checked : waiting) {
                if (checked.segment == segment) {
                    complaint.addSuppressed(checked.allocated);
                    complaint.addSuppressed(checked.freed);
                }
            }
        }
        return complaint;
    }

    /**
     * Ends the use of all blocks, and reports those that were not freed.
     *
     * @throws IllegalStateException if a run uses one; the use of some of the others is over then
     */
    void close() {
        for (Checked checked : live.values()) {
            checked.end();
            live.remove(checked.segment.address(), checked);
            String damage = damage(checked);
            report(damage != null ? damage : "block: " + checked.describe() + " was never freed", checked.allocated);
        }
        giveAll();
    }

    private void report(String what, Throwable where) {
        synchronized (reports) {
            reports.add(what);
        }
        System.getLogger("io.gatun").log(Level.WARNING, what, where);
    }

    /** Returns what was reported. */
    List<String> reports() {
        synchronized (reports) {
            return List.copyOf(reports);
        }
    }
}
