package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_plan_info;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * An operator made ready for a device: its arguments are checked, the kernel is chosen and the scratch memory known.
 *
 * <p>A plan is immutable and may run on any number of streams of its device at once. Each operator has a {@code run} of
 * its own. Every run checks that each tensor has the plan's element type, rank and strides (those of dimensions of at
 * most one index do not matter), and the plan's shape with the leading dimension, where rows or tokens are counted, at
 * most the plan's. Then it makes one native call, and no object on the Java heap. It throws
 * <ul>
 *   <li>{@link IllegalArgumentException} for a tensor that does not fit, is read-only though it is an output, or
 *       overlaps where it must not, and for a stream of another device; outputs are then untouched;
 *   <li>{@link IllegalStateException} if the plan, the stream or the memory of a tensor is closed, or another thread
 *       uses the stream;
 *   <li>{@link WrongThreadException} if the memory of a tensor is confined to another thread.
 * </ul>
 */
public abstract sealed class Plan implements AutoCloseable
        permits Attention.Plan,
                BiasActivation.Plan,
                Conv.Plan,
                FakeQuantize.Plan,
                Gemm.Plan,
                Glu.Plan,
                LayerNorm.Plan,
                Merge.Plan,
                Mix.Plan,
                Pooling.Plan,
                RmsNorm.Plan,
                Rope.Plan,
                Route.Plan,
                Selection.Plan,
                Softmax.Plan {
    final long handle;
    final Handle owned;
    final Device device;
    private final PlanInfo info;

    /** How one operator asks for its plan. */
    interface Factory {
        int plan(MemorySegment desc, MemorySegment plan, MemorySegment message);
    }

    /** How one operator fills in its descriptor. */
    interface Description {
        MemorySegment describe(SegmentAllocator arena);
    }

    /** {@code precision} names the types that the plan is for: see {@link PlanInfo#precision}. */
    Plan(Device device, String precision, Description description, Factory factory) {
        this.device = device;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            MemorySegment plan = arena.allocate(ValueLayout.JAVA_LONG);
            Status.check(factory.plan(description.describe(arena), plan, message), message, device.owned);
            this.handle = plan.get(ValueLayout.JAVA_LONG, 0);
            MemorySegment info = gtn_plan_info.allocate(arena);
            gtn_plan_info.size(info, (int) gtn_plan_info.sizeof());
            Status.check(gatun_h.gtn_plan_query(handle, info, message), message);
            this.info = new PlanInfo(
                    gtn_plan_info.kernel(info).getString(0),
                    operator(gtn_plan_info.op(info)),
                    precision,
                    gtn_plan_info.flops(info),
                    gtn_plan_info.bytes(info),
                    gtn_plan_info.workspace_bytes(info),
                    gtn_plan_info.blocks(info));
        }
        this.owned = new Handle(this, Handle.Kind.PLAN, handle, "the plan " + info.kernel(), device);
    }

    private static String operator(int op) {
        if (op == gatun_h.GTN_OP_GEMM()) {
            return "gemm";
        }
        if (op == gatun_h.GTN_OP_ATTENTION()) {
            return "attention";
        }
        if (op == gatun_h.GTN_OP_NORM()) {
            return "norm";
        }
        if (op == gatun_h.GTN_OP_SOFTMAX()) {
            return "softmax";
        }
        if (op == gatun_h.GTN_OP_ACTIVATION()) {
            return "activation";
        }
        if (op == gatun_h.GTN_OP_MERGE()) {
            return "merge";
        }
        if (op == gatun_h.GTN_OP_ROUTE()) {
            return "route";
        }
        if (op == gatun_h.GTN_OP_MIX()) {
            return "mix";
        }
        if (op == gatun_h.GTN_OP_GLU()) {
            return "glu";
        }
        if (op == gatun_h.GTN_OP_SELECT()) {
            return "select";
        }
        if (op == gatun_h.GTN_OP_CONV()) {
            return "conv";
        }
        if (op == gatun_h.GTN_OP_POOLING()) {
            return "pooling";
        }
        if (op == gatun_h.GTN_OP_FAKE_QUANTIZE()) {
            return "fake_quantize";
        }
        return op == gatun_h.GTN_OP_ROPE() ? "rope" : "operator " + op;
    }

    /**
     * Returns what it was planned for.
     *
     * @return the device
     */
    public final Device device() {
        return device;
    }

    /**
     * Returns what the plan says of itself.
     *
     * @return kernel, operations and bytes
     */
    public final PlanInfo info() {
        return info;
    }

    /** Checks that {@code stream} is of the plan's device. */
    final void check(Stream stream) {
        if (stream.device != device) {
            throw new IllegalArgumentException("stream: of another " + stream.device
                    + ", expected one of the plan's device");
        }
    }

    /** Turns the status of a run into an exception. */
    final RuntimeException failure(int status, Stream stream, @Nullable Handle weights) {
        if (status == gatun_h.GTN_BUSY()) {
            return new IllegalStateException(
                    stream.owned + " is in use by another thread: a stream serves one thread at a time");
        }
        if (status == gatun_h.GTN_STALE_HANDLE()) {
            return weights == null
                    ? Status.exception(status, "the plan or the stream is closed", owned, stream.owned)
                    : Status.exception(
                            status, "the plan, the stream or the weights are closed", owned, stream.owned,
                            weights);
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment message = Status.message(arena);
            gatun_h.gtn_stream_message(stream.handle, message);
            return Status.exception(status, Status.text(message));
        }
    }

    /**
     * Closes the plan. Closing it again does nothing.
     *
     * @throws IllegalStateException if a run is inside; it stays open
     */
    @Override
    public final void close() {
        owned.close();
        Reference.reachabilityFence(this);
    }

    @Override
    public String toString() {
        return info.kernel() + " on " + device;
    }
}
