package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bindings.memory.DeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;
import org.junit.jupiter.api.parallel.Resources;

/** Check mode: what is wrong is found, and told with where the block was allocated. */
@ResourceLock(Resources.SYSTEM_PROPERTIES)
class PoolCheckTest {
    private final Device device = Device.open("cpu", 1);
    private final MemoryPool pool = checked(device);

    private static MemoryPool checked(Device device) {
        System.setProperty("io.gatun.pool.check", "true");
        try {
            return MemoryPool.of(device);
        } finally {
            System.clearProperty("io.gatun.pool.check");
        }
    }

    @AfterEach
    void close() {
        pool.close();
        device.close();
    }

    private static MemorySegment allocatedHere(MemoryPool pool, long bytes) {
        return pool.allocate(bytes, 64);
    }

    private static void names(String method, Throwable where) {
        assertEquals("allocated here", where.getMessage());
        assertTrue(Arrays.stream(where.getStackTrace()).anyMatch(frame -> frame.getMethodName().equals(method)));
    }

    /** Writes as native code can. */
    private static void scribble(long address) {
        DeviceMemory.segment(address, 1, Arena.global()).set(ValueLayout.JAVA_BYTE, 0, (byte) 1);
    }

    @Test
    void useAfterFreeThrows() {
        MemorySegment block = allocatedHere(pool, 100);
        MemorySegment slice = block.asSlice(10, 10);
        MemorySegment other = pool.allocate(100, 64).fill((byte) 7);
        block.fill((byte) 1);
        pool.free(block);
        assertThrows(IllegalStateException.class, () -> block.get(ValueLayout.JAVA_BYTE, 0));
        assertThrows(IllegalStateException.class, () -> slice.set(ValueLayout.JAVA_BYTE, 0, (byte) 0));
        assertEquals(7, other.get(ValueLayout.JAVA_BYTE, 99));
        pool.free(other);
    }

    @Test
    void aDoubleFreeTellsOfTheFirst() {
        MemorySegment block = allocatedHere(pool, 100);
        pool.free(block);
        IllegalStateException e =
                Expect.failure(IllegalStateException.class, "freed already", () -> pool.free(block));
        names("allocatedHere", e.getSuppressed()[0]);
        assertEquals("freed here", e.getSuppressed()[1].getMessage());
        Expect.illegalArgument("this pool", () -> pool.free(Arena.ofAuto().allocate(8)));
        MemorySegment slice = allocatedHere(pool, 100);
        Expect.illegalState("slice", () -> pool.free(slice.asSlice(0, 10)));
        pool.free(slice);
    }

    @Test
    void writesAroundABlockAreFound() {
        for (long bytes : new long[] {0, 1, 100, 4096, 100_000}) {
            for (long at : new long[] {-64, -1, bytes, bytes + 63}) {
                MemorySegment block = allocatedHere(pool, bytes);
                scribble(block.address() + at);
                IllegalStateException e = Expect.failure(
                        IllegalStateException.class, "byte " + at + " outside it", () -> pool.free(block));
                names("allocatedHere", e.getCause());
                Expect.illegalState("freed already", () -> pool.free(block));
            }
        }
        assertEquals(0, pool.statistics().blocks() - waiting());
    }

    private long waiting() {
        long before = pool.statistics().blocks();
        pool.trim();
        return before - pool.statistics().blocks();
    }

    @Test
    void writesAfterAFreeAreFound() {
        MemorySegment block = allocatedHere(pool, 100);
        pool.free(block);
        scribble(block.address() + 33);
        assertEquals(List.of(), pool.reports());
        pool.trim(); // the block is given back for others
        assertEquals(1, pool.reports().size());
        assertTrue(pool.reports().getFirst().contains("byte 33 was written to by native code after"),
                pool.reports()::toString);
    }

    @Test
    void leaksAreReportedAtTheEnd() {
        MemoryPool leaking = checked(device);
        MemorySegment a = leaking.allocate(123, 64);
        leaking.free(leaking.allocate(77, 64));
        leaking.close();
        assertEquals(1, leaking.reports().size());
        assertTrue(leaking.reports().getFirst().contains("123 bytes"), leaking.reports()::toString);
        assertTrue(leaking.reports().getFirst().endsWith("was never freed"));
        assertThrows(IllegalStateException.class, () -> a.get(ValueLayout.JAVA_BYTE, 0));
        Expect.illegalState("closed", () -> leaking.allocate(1, 1));
    }

    @Test
    void whatWorksWorks() {
        Random random = new Random(3);
        MemorySegment[] live = new MemorySegment[100];
        for (int i = 0; i < 5000; i++) {
            int at = random.nextInt(live.length);
            if (live[at] != null) {
                assertEquals((byte) at, live[at].get(ValueLayout.JAVA_BYTE, live[at].byteSize() - 1));
                pool.free(live[at]);
            }
            long alignment = 1L << random.nextInt(random.nextInt(100) == 0 ? 22 : 10);
            live[at] = pool.allocate(1 + random.nextInt(1 << random.nextInt(1, 15)), alignment).fill((byte) at);
            assertEquals(0, live[at].address() % alignment);
        }
        for (MemorySegment segment : live) {
            if (segment != null) {
                pool.free(segment);
            }
        }
        pool.trim();
        assertEquals(0, pool.statistics().reservedBytes());
        assertEquals(List.of(), pool.reports());
        try (Stream stream = device.newStream();
                Softmax.Plan plan = Softmax.of().plan(
                        device, TensorSpec.of(DType.F32, 1, 2), TensorSpec.of(DType.F32, 1, 2))) {
            Tensor x = pool.tensor(DType.F32, 1, 2).copyFrom(new float[2]);
            plan.run(stream, x, x);
            assertArrayEquals(new float[] {.5f, .5f}, x.toFloatArray());
            pool.free(x);
            assertThrows(IllegalStateException.class, () -> plan.run(stream, x, x));
        }
    }

    @Test
    void aRunKeepsItsBlock() throws InterruptedException {
        try (LongRun run = new LongRun();
                MemoryPool own = checked(run.device);
                Stream stream = run.device.newStream();
                Gemm.Plan plan = Gemm.of(DType.F32).residual().plan(run.device, run.a.spec(), run.out.spec())) {
            Tensor out = own.tensor(DType.F32, run.out.size(0), run.out.size(1));
            Future<?> inside = run.start(stream, plan, out);
            Expect.illegalState("a run uses it", () -> own.free(out));
            Expect.illegalState("a run uses memory of it", own::close);
            assertFalse(inside.isDone(), "the run was over too soon to tell anything");
            LongRun.await(inside);
            own.free(out);
        }
    }
}
