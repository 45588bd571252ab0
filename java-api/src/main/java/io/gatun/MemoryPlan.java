package io.gatun;

import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * Places in one block of memory for tensors whose lifetimes are known, such as the activations of a graph: tensors that
 * live at the same time never overlap, and those that do not may take each other's place. Immutable.
 *
 * <p>A tensor lives from the step that writes it to the last step that reads it, both inside, so that what a step reads
 * and what it writes are always apart. For a step that works in place, input and output are one tensor with one
 * lifetime.
 *
 * {@snippet :
 * TensorSpec rows = TensorSpec.of(DType.F32, 512, 768);
 * MemoryPlan plan = MemoryPlan.of(List.of(
 *         MemoryPlan.Lifetime.of(rows, 0, 2), // written in step 0, read in steps 1 and 2
 *         MemoryPlan.Lifetime.of(rows, 1, 2),
 *         MemoryPlan.Lifetime.of(rows, 2, 3),
 *         MemoryPlan.Lifetime.of(rows, 3, 4))); // in the place of one of the first two
 * MemorySegment block = pool.allocate(plan.bytes(), plan.alignment());
 * Tensor first = plan.tensor(block, 0, rows);
 * // ...
 * pool.free(block);
 * }
 *
 * <p>Finding the least block is NP-hard (it is dynamic storage allocation; Garey and Johnson 1979, SR2). The plan is
 * the best of several greedy ones (Pisarchyk and Lee 2020, Efficient Memory Management for Deep Neural Net Inference,
 * section 5) and of a local search from there. The same lifetimes give the same plan.
 */
public final class MemoryPlan {
    private static final long DEFAULT_ALIGNMENT = 64;
    private static final long MOST_ALIGNMENT = 2L << 20;

    private final long[] sizes;
    private final long[] offsets;
    private final long bytes;
    private final long alignment;
    private final long maxLiveBytes;

    /**
     * The memory that a tensor takes, and when.
     *
     * @param bytes its size, 0 or more
     * @param alignment of its first byte, a power of two up to 2 MiB
     * @param first the step that writes it, 0 or more
     * @param last the last step that reads it, {@code first} or later
     */
    public record Lifetime(long bytes, long alignment, int first, int last) {
        /**
         * Makes a lifetime.
         *
         * @throws IllegalArgumentException if a number is none of these
         */
        public Lifetime {
            Arguments.atLeast("bytes", bytes, 0);
            if (alignment < 1 || alignment > MOST_ALIGNMENT || Long.bitCount(alignment) != 1) {
                throw new IllegalArgumentException(
                        "alignment: " + alignment + ", expected a power of two up to " + MOST_ALIGNMENT);
            }
            Arguments.atLeast("first", first, 0);
            if (last < first) {
                throw new IllegalArgumentException("last: " + last + ", expected " + first + " or more, as first is");
            }
        }

        /**
         * Makes the lifetime of a tensor, aligned to 64 bytes.
         *
         * @param spec the tensor
         * @param first the step that writes it, 0 or more
         * @param last the last step that reads it, {@code first} or later
         * @return the lifetime
         * @throws IllegalArgumentException if a step is none of these
         */
        public static Lifetime of(TensorSpec spec, int first, int last) {
            return new Lifetime(spec.byteSpan(), DEFAULT_ALIGNMENT, first, last);
        }
    }

    private MemoryPlan(List<Lifetime> lifetimes) {
        int count = lifetimes.size();
        this.sizes = new long[count];
        long[] alignments = new long[count];
        int[] first = new int[count];
        int[] last = new int[count];
        long most = 1;
        long sum = 0;
        for (int i = 0; i < count; i++) {
            Lifetime lifetime = lifetimes.get(i);
            sizes[i] = lifetime.bytes;
            alignments[i] = lifetime.alignment;
            first[i] = lifetime.first;
            last[i] = lifetime.last;
            most = Math.max(most, lifetime.alignment);
            sum += lifetime.bytes;
            if (sum < 0 || sum > Long.MAX_VALUE - (i + 1) * MOST_ALIGNMENT) {
                throw new IllegalArgumentException(
                        "lifetimes: more bytes in the first " + (i + 1) + " of them than fit in 63 bits");
            }
        }
        Offsets placed = new Offsets(sizes, alignments, first, last);
        this.offsets = placed.best();
        this.bytes = placed.bytes();
        this.maxLiveBytes = placed.maxLiveBytes();
        this.alignment = most;
    }

    /**
     * Plans. Hundreds of tensors take milliseconds, and 10,000 take about a second.
     *
     * @param lifetimes one for each tensor, numbered from 0 in the order of this list
     * @return the plan
     * @throws IllegalArgumentException if the sizes sum up to more than 63 bits hold
     */
    public static MemoryPlan of(List<Lifetime> lifetimes) {
        return new MemoryPlan(List.copyOf(lifetimes));
    }

    /**
     * Returns the size of the block.
     *
     * @return bytes, {@link #maxLiveBytes} or more
     */
    public long bytes() {
        return bytes;
    }

    /**
     * Returns what the block is to be aligned to.
     *
     * @return the largest alignment of a tensor
     */
    public long alignment() {
        return alignment;
    }

    /**
     * Returns what no plan can do without.
     *
     * @return the most bytes that live in one step
     */
    public long maxLiveBytes() {
        return maxLiveBytes;
    }

    /**
     * Returns where a tensor lies.
     *
     * @param index the number of the tensor
     * @return bytes from the start of the block, a multiple of the tensor's alignment
     * @throws IndexOutOfBoundsException if there is no such tensor
     */
    public long offset(int index) {
        return offsets[index];
    }

    /**
     * Returns the memory of a tensor.
     *
     * @param block the block, at least as large and as aligned as planned, such as {@link MemoryPool#allocate} gives
     * @param index the number of the tensor
     * @return a slice of the block
     * @throws IllegalArgumentException if the block is too small or not aligned
     * @throws IndexOutOfBoundsException if there is no such tensor
     */
    public MemorySegment slice(MemorySegment block, int index) {
        long offset = offsets[index];
        if (block.byteSize() < bytes) {
            throw new IllegalArgumentException(
                    "block: " + block.byteSize() + " bytes, expected at least " + bytes + " as planned");
        }
        if ((block.address() & (alignment - 1)) != 0) {
            throw new IllegalArgumentException("block: address 0x" + Long.toHexString(block.address())
                    + ", expected a multiple of " + alignment + " as planned");
        }
        return block.asSlice(offset, sizes[index]);
    }

    /**
     * Returns a tensor in its place.
     *
     * @param block the block, as in {@link #slice}
     * @param index the number of the tensor
     * @param spec type, shape and strides, within the bytes that were planned
     * @return the tensor, over memory of the block
     * @throws IllegalArgumentException as in {@link #slice} and {@link Tensor#of(MemorySegment, TensorSpec)}
     * @throws IndexOutOfBoundsException if there is no such tensor
     */
    public Tensor tensor(MemorySegment block, int index, TensorSpec spec) {
        return Tensor.of(slice(block, index), spec);
    }

    /**
     * Returns the size of the block and what lives at most.
     *
     * @return such as {@code 4 tensors in 4718592 bytes, of which 4718592 live at most}
     */
    @Override
    public String toString() {
        return offsets.length + " tensors in " + bytes + " bytes, of which " + maxLiveBytes + " live at most";
    }
}
