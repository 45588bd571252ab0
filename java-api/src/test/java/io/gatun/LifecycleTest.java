package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Opening, closing, and use at the wrong time or from the wrong thread. */
class LifecycleTest {
    private static final TensorSpec SPEC = TensorSpec.of(DType.F32, 2, 4);

    private final Device device = Device.open("cpu", 1);
    private final Stream stream = device.newStream();
    private final Arena arena = Arena.ofShared();
    private final Tensor x = Tensor.allocate(arena, DType.F32, 2, 4);

    @AfterEach
    void close() {
        stream.close();
        device.close();
        arena.close();
    }

    @Test
    void devicesSayWhatTheyAre() {
        assertTrue(device.name().startsWith("cpu:"), device::name);
        assertEquals(device.name(), device.info().name());
        assertEquals(1, device.info().threads());
        assertTrue(device.info().available());
        assertTrue(device.info().hostMemory());
        try (Device best = Device.best();
                Device scalar = Device.open("cpu:scalar")) {
            assertTrue(best.info().available());
            assertEquals("cpu:scalar", scalar.name());
            assertEquals(Runtime.getRuntime().availableProcessors(), scalar.info().threads());
        }
        assertTrue(Gatun.version().matches("\\d+\\.\\d+\\.\\d+\\+[0-9a-f]{12}"), Gatun::version);
        Backend cpu = Gatun.backends().stream().filter(backend -> backend.name().equals("cpu")).findAny().orElseThrow();
        assertTrue(cpu.available(), cpu::reason);
        assertEquals("", cpu.reason());
        assertEquals(Gatun.version(), cpu.version(), "the core and the backend were built from the same sources");
        assertEquals(2, cpu.abiVersion());
        assertTrue(cpu.devices().stream().anyMatch(info -> info.name().equals("cpu:scalar") && info.available()));
        for (Backend backend : Gatun.backends()) {
            assertEquals(backend.available(), backend.reason().isEmpty(), backend::toString);
        }
    }

    @Test
    void devicesSayWhatTheyServe() {
        for (Operator operator : Operator.values()) {
            for (DType dtype : DType.values()) {
                boolean half = operator != Operator.NORM && operator != Operator.SOFTMAX
                        && operator != Operator.ACTIVATION && operator != Operator.CONV
                        && operator != Operator.FAKE_QUANTIZE;
                boolean weights = dtype == DType.S8 || dtype == DType.U8 || dtype == DType.F8E4M3
                        || dtype == DType.F8E5M2;
                boolean served = dtype == DType.F32 || dtype == DType.BF16
                        || (weights && operator == Operator.GEMM) || (dtype == DType.F16 && half);
                assertEquals(Optional.of(served), device.supports(operator, dtype), operator + " " + dtype);
            }
        }
        Device closed = Device.open("cpu", 1);
        closed.close();
        assertThrows(IllegalStateException.class, () -> closed.supports(Operator.GEMM, DType.F32));
    }

    @Test
    void devicesMeasureTheirLimits() {
        for (Limit limit : Limit.values()) {
            double measured = device.measure(limit).orElseThrow();
            assertTrue(measured > 1e8 && measured < 1e15, limit + ": " + measured);
        }
        Device closed = Device.open("cpu", 1);
        closed.close();
        assertThrows(IllegalStateException.class, () -> closed.measure(Limit.F32));
    }

    @Test
    void closingTwiceIsHarmless() {
        Device other = Device.open("cpu", 1);
        Stream otherStream = other.newStream();
        Event event = other.newEvent();
        PackedWeights weights = PackedWeights.pack(other, DType.F32, x);
        Softmax.Plan plan = Softmax.of().plan(other, SPEC, SPEC);
        for (AutoCloseable closeable : new AutoCloseable[] {plan, weights, event, otherStream, other}) {
            try {
                closeable.close();
                closeable.close();
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        }
    }

    @Test
    void useAfterCloseNamesTheObject() {
        Device other = Device.open("cpu", 1);
        other.close();
        String name = "the device " + other.name() + " is closed";
        Expect.illegalState(name, other::newStream);
        Expect.illegalState(name, other::newEvent);
        Expect.illegalState(name, () -> Softmax.of().plan(other, SPEC, SPEC));
        Expect.illegalState(name, () -> PackedWeights.pack(other, DType.F32, x));
        try (MemoryPool pool = MemoryPool.of(other)) {
            Expect.illegalState(name, () -> pool.allocate(1, 1));
        }

        Stream closedStream = device.newStream();
        closedStream.close();
        Event event = device.newEvent();
        Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC);
        Expect.illegalState("the stream on cpu", closedStream::synchronize);
        Expect.illegalState("the stream on cpu", () -> plan.run(closedStream, x, x));
        Expect.illegalState("the stream on cpu", () -> event.record(closedStream));
        plan.close();
        Expect.illegalState("the plan cpu", () -> plan.run(stream, x, x));
        event.close();
        Expect.illegalState("the event on cpu", () -> event.record(stream));
        Expect.illegalState("the event on cpu", event::synchronize);
        Expect.illegalState("the event on cpu", event::isDone);
        Expect.illegalState("the event on cpu", () -> event.elapsedMillis(event));

        PackedWeights weights = PackedWeights.pack(device, DType.F32, Tensor.allocate(arena, DType.F32, 4, 4));
        weights.close();
        try (Gemm.Plan gemm = Gemm.of(DType.F32).plan(device, SPEC, SPEC)) {
            Expect.illegalState("the packed weight matrix F32[4, 4] is closed",
                    () -> gemm.run(stream, weights, x, Tensor.allocate(arena, DType.F32, 2, 4)));
        }
        assertEquals("softmax", plan.info().operator());
        assertEquals(device, plan.device());
        assertEquals(device, stream.device());
    }

    @Test
    void aDeviceStaysOpenWhileSomethingOfItIs() {
        try (Device other = Device.open("cpu", 1)) {
            try (Stream open = other.newStream()) {
                Expect.illegalState("1 streams", other::close);
                open.synchronize();
            }
            try (Event open = other.newEvent()) {
                Expect.illegalState("1 events", other::close);
                assertFalse(open.toString().isEmpty());
            }
            try (Softmax.Plan open = Softmax.of().plan(other, SPEC, SPEC)) {
                Expect.illegalState("1 plans", other::close);
                assertFalse(open.toString().isEmpty());
            }
            try (PackedWeights open = PackedWeights.pack(other, DType.F32, x)) {
                Expect.illegalState("1 packed weights", other::close);
                assertFalse(open.toString().isEmpty());
            }
        }
    }

    @Test
    void eventsMeasureTime() {
        try (Event start = device.newEvent();
                Event end = device.newEvent();
                Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC)) {
            start.record(stream);
            for (int i = 0; i < 100; i++) {
                plan.run(stream, x, x);
            }
            end.record(stream);
            end.synchronize();
            assertTrue(start.isDone());
            assertTrue(start.elapsedMillis(end) > 0);
        }
    }

    @Test
    void whileARunIsInsideNothingOfItCloses() throws InterruptedException {
        try (LongRun run = new LongRun()) {
            Future<?> inside = run.start();
            Expect.illegalState("the plan cpu.scalar", run.plan::close);
            Expect.illegalState("the packed weight matrix", run.weights::close);
            Expect.illegalState("the stream on cpu:scalar", run.stream::close);
            assertThrows(IllegalStateException.class, run.shared::close);
            assertThrows(IllegalStateException.class, run.arena::close);
            Expect.illegalState("memory pool", run.device::close);
            assertFalse(inside.isDone(), "the run was over too soon to tell anything");
            LongRun.await(inside);
            // and everything still works
            run.plan.run(run.stream, run.weights, run.a.slice(0, 0, 1), null, run.residual.slice(0, 0, 1),
                    run.out.slice(0, 0, 1));
        }
    }

    @Test
    void aPoolStaysOpenWhileARunUsesIt() throws InterruptedException {
        try (LongRun run = new LongRun();
                MemoryPool pool = MemoryPool.of(run.device);
                Stream own = run.device.newStream();
                Gemm.Plan plan = Gemm.of(DType.F32).residual().plan(run.device, run.a.spec(), run.out.spec())) {
            Tensor out = pool.tensor(DType.F32, run.out.size(0), run.out.size(1));
            Future<?> inside = run.start(own, plan, out);
            Expect.illegalState("a run uses memory of it", pool::close);
            assertFalse(inside.isDone(), "the run was over too soon to tell anything");
            LongRun.await(inside);
            assertEquals(0, out.getFloat(0, 0));
        }
    }

    @Test
    void aStreamServesOneThreadAtATime() throws InterruptedException {
        try (LongRun run = new LongRun()) {
            Future<?> inside = run.start();
            Expect.illegalState("in use by another thread", () -> run.plan.run(
                    run.stream, run.weights, run.a.slice(0, 0, 1), null, run.residual.slice(0, 0, 1),
                    run.out.slice(0, 0, 1)));
            Expect.illegalState("another thread", run.stream::synchronize);
            assertFalse(inside.isDone(), "the run was over too soon to tell anything");
            LongRun.await(inside);
            run.stream.synchronize();
        }
    }

    @Test
    void aConfinedSegmentOfAnotherThreadLeavesTheStreamUsable() throws Exception {
        try (Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC);
                ExecutorService thread = Executors.newSingleThreadExecutor()) {
            Arena confined = thread.submit(Arena::ofConfined).get();
            Tensor foreign = thread.submit(() -> Tensor.allocate(confined, DType.F32, 2, 4)).get();
            for (int i = 0; i < 3; i++) {
                assertThrows(WrongThreadException.class, () -> plan.run(stream, foreign, x));
                assertThrows(WrongThreadException.class, () -> plan.run(stream, x, foreign));
            }
            plan.run(stream, x, x);
            assertArrayEquals(new float[] {.25f, .25f, .25f, .25f, .25f, .25f, .25f, .25f}, x.toFloatArray(), 1e-6f);
            thread.submit(confined::close).get(); // nothing was left held
        }
    }

    @Test
    void memoryOfAClosedArenaLeavesTheStreamUsable() {
        try (Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC)) {
            for (Arena other : new Arena[] {Arena.ofConfined(), Arena.ofShared()}) {
                Tensor gone = Tensor.allocate(other, DType.F32, 2, 4);
                plan.run(stream, gone, x);
                other.close();
                assertThrows(IllegalStateException.class, () -> plan.run(stream, gone, x));
                assertThrows(IllegalStateException.class, () -> plan.run(stream, x, gone));
                assertThrows(IllegalStateException.class, () -> PackedWeights.pack(device, DType.F32, gone));
            }
            plan.run(stream, x, x);
        }
    }

    @Test
    void everyKindOfArenaServes() {
        try (Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC);
                Arena confined = Arena.ofConfined()) {
            for (Arena any : new Arena[] {confined, Arena.ofAuto(), Arena.global()}) {
                Tensor tensor = Tensor.allocate(any, DType.F32, 2, 4);
                plan.run(stream, tensor, tensor);
                assertEquals(.25f, tensor.getFloat(1, 3), 1e-6f);
            }
        }
    }

    /** Runs in one thread against a close in another: each run works, or says what is closed. */
    @Test
    void closingIsAtomicToRuns() throws Exception {
        try (ExecutorService thread = Executors.newSingleThreadExecutor()) {
            for (int round = 0; round < 50; round++) {
                Softmax.Plan plan = Softmax.of().plan(device, SPEC, SPEC);
                AtomicBoolean started = new AtomicBoolean();
                Future<?> runs = thread.submit(() -> {
                    while (true) {
                        plan.run(stream, x, x);
                        started.set(true);
                    }
                });
                while (!started.get()) {
                    Thread.onSpinWait();
                }
                while (true) {
                    try {
                        plan.close();
                        break;
                    } catch (IllegalStateException e) {
                        assertTrue(e.getMessage().contains("the plan cpu"), e::getMessage);
                    }
                }
                Exception e = assertThrows(Exception.class, runs::get);
                assertEquals(IllegalStateException.class, e.getCause().getClass(), () -> "" + e.getCause());
                assertTrue(e.getCause().getMessage().contains("is closed"), e.getCause()::getMessage);
            }
        }
    }

    @Test
    void whatIsForgottenIsClosed() {
        Device forgetful = Device.open("cpu", 1);
        forget(forgetful);
        eventually(forgetful::close);
    }

    private static void forget(Device device) {
        device.newStream().synchronize();
        device.newEvent();
        Softmax.of().plan(device, SPEC, SPEC);
        try (Arena arena = Arena.ofConfined()) {
            PackedWeights.pack(device, DType.F32, Tensor.allocate(arena, DType.F32, 2, 4));
        }
        MemoryPool pool = MemoryPool.of(device);
        pool.allocate(1, 1);
        pool.newArena().allocate(1);
    }

    @Test
    void aForgottenPoolLivesAsLongAsItsSegments() throws InterruptedException {
        Device forgetful = Device.open("cpu", 1);
        MemorySegment[] segments = {
            MemoryPool.of(forgetful).allocate(64, 64).fill((byte) 1),
            MemoryPool.of(forgetful).newArena().allocate(64, 64).fill((byte) 2)
        };
        for (int i = 0; i < 10; i++) {
            System.gc();
            Thread.sleep(20);
        }
        Expect.illegalState("2 memory pools", forgetful::close);
        assertEquals(1, segments[0].get(ValueLayout.JAVA_BYTE, 63));
        assertEquals(2, segments[1].get(ValueLayout.JAVA_BYTE, 63));
        Reference.reachabilityFence(segments);
        segments = null;
        eventually(forgetful::close);
    }

    /** Repeats a close that is refused until the garbage collector has found what is in its way. */
    private static void eventually(Runnable close) {
        long end = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (true) {
            System.gc();
            try {
                close.run();
                return;
            } catch (IllegalStateException e) {
                if (System.nanoTime() > end) {
                    throw e;
                }
            }
            try {
                Thread.sleep(10);
            } catch (InterruptedException e) {
                throw new AssertionError(e);
            }
        }
    }
}
