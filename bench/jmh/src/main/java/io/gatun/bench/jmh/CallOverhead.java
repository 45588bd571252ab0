package io.gatun.bench.jmh;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Softmax;
import io.gatun.Stream;
import io.gatun.Tensor;
import io.gatun.bench.compare.CallFromC;
import java.lang.foreign.Arena;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** What a call costs: a plan of one element from Java, on memory of each kind of arena, and the same call from C. */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class CallOverhead {
    private static final int LOOP = 10_000;

    /** Gatun's own, on one arena. */
    @State(Scope.Thread)
    public static class FromJava {
        /** The kind of arena that both tensors are in. */
        @Param({"global", "confined", "shared"})
        public String arena = "";

        private Arena memory = Arena.global();
        private Device device;
        private Stream stream;
        private Softmax.Plan plan;
        private Tensor x;
        private Tensor out;

        @Setup
        public void open() {
            memory = switch (arena) {
                case "confined" -> Arena.ofConfined();
                case "shared" -> Arena.ofShared();
                default -> Arena.global();
            };
            device = Device.open("cpu", 1);
            stream = device.newStream();
            x = Tensor.allocate(memory, DType.F32, 1, 1);
            out = Tensor.allocate(memory, DType.F32, 1, 1);
            plan = Softmax.of().plan(device, x.spec(), out.spec());
        }

        @TearDown
        public void close() {
            plan.close();
            stream.close();
            device.close();
            if (!arena.equals("global")) {
                memory.close();
            }
        }
    }

    /** The loop in C. */
    @State(Scope.Thread)
    public static class FromC {
        private CallFromC calls;

        @Setup
        public void open() {
            calls = new CallFromC("cpu");
        }
    }

    /** {@code plan.run}. */
    @Benchmark
    public void java(FromJava state) {
        state.plan.run(state.stream, state.x, state.out);
    }

    /** {@code gtn_softmax_run}. */
    @Benchmark
    @OperationsPerInvocation(LOOP)
    public void c(FromC state) {
        state.calls.run(LOOP);
    }
}
