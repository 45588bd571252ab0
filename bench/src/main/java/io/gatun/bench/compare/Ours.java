package io.gatun.bench.compare;

import io.gatun.Activation;
import io.gatun.Attention;
import io.gatun.BiasActivation;
import io.gatun.Conv;
import io.gatun.ConvWeights;
import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Gatun;
import io.gatun.Gemm;
import io.gatun.LayerNorm;
import io.gatun.MemoryPool;
import io.gatun.PackedWeights;
import io.gatun.RmsNorm;
import io.gatun.Softmax;
import io.gatun.Stream;
import io.gatun.Tensor;
import io.gatun.TensorSpec;
import io.gatun.bench.reference.WeightQuantizer;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;

/** Gatun through its Java API, as an application would call it. */
public final class Ours implements Peer {
    private final String device;

    /** On a device such as {@code cpu}. */
    public Ours(String device) {
        this.device = device;
    }

    @Override
    public String name() {
        return "Gatun " + Gatun.version();
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        if (task instanceof Task.MiniLm) {
            return Optional.empty(); // a program of several operators: an example has it
        }
        Run run = new Run(Device.open(device, threads));
        try {
            switch (task) {
                case Task.Gemm gemm -> run.gemm(gemm, operands);
                case Task.Int4 gemm -> run.int4(gemm, operands);
                case Task.Convolve conv -> run.convolution(conv, operands);
                case Task.Attend attend -> run.attention(attend, operands);
                case Task.Rows rows -> run.rows(rows, operands);
                default -> run.smallest();
            }
            return Optional.of(run);
        } catch (RuntimeException | Error e) {
            run.close();
            throw e;
        }
    }

    /** What runs on one set. */
    @FunctionalInterface
    private interface Body {
        void run(int set);
    }

    private static final class Run implements Call {
        private final Device device;
        private final Deque<Runnable> open = new ArrayDeque<>();
        private final Stream stream;
        private final MemoryPool pool;
        private Body body = _ -> { };
        private Tensor out;

        Run(Device device) {
            this.device = own(device, Device::close);
            this.stream = own(device.newStream(), Stream::close);
            this.pool = own(MemoryPool.of(device), MemoryPool::close);
            this.out = pool.tensor(DType.F32, 1, 1);
        }

        private <T> T own(T object, Consumer<T> close) {
            open.push(() -> close.accept(object));
            return object;
        }

        void gemm(Task.Gemm task, Operands operands) {
            DType dtype = task.format() == DType.BF16 ? DType.BF16 : DType.F32;
            Tensor a = Tensor.of(operands.memory("a"), dtype, task.m(), task.k());
            out = pool.tensor(dtype, task.m(), task.n());
            Gemm.Plan plan = own(Gemm.of(task.format()).plan(device, a.spec(), out.spec()), Gemm.Plan::close);
            Tensor source = Tensor.of(operands.memory("w"), dtype, task.k(), task.n());
            List<PackedWeights> weights = new ArrayList<>();
            for (int set = 0; set < operands.sets(); set++) {
                weights.add(own(PackedWeights.pack(device, task.format(), source), PackedWeights::close));
            }
            body = set -> plan.run(stream, weights.get(set), a, out);
        }

        void int4(Task.Int4 task, Operands operands) {
            Tensor a = Tensor.of(operands.memory("a"), DType.F32, task.m(), task.k());
            out = pool.tensor(DType.F32, task.m(), task.n());
            Gemm.Plan plan = own(Gemm.of(Task.Int4.QUANTIZATION).plan(device, a.spec(), out.spec()), Gemm.Plan::close);
            WeightQuantizer quantized = task.weights(operands);
            List<PackedWeights> weights = new ArrayList<>();
            try (Arena arena = Arena.ofConfined()) {
                Tensor integers = Tensor.of(
                        arena.allocateFrom(ValueLayout.JAVA_BYTE, quantized.integerBytes()), DType.U8, task.n(),
                        quantized.blocks(), Task.Int4.QUANTIZATION.groupSize() / 2);
                Tensor scales = Tensor.of(
                        arena.allocateFrom(ValueLayout.JAVA_FLOAT, quantized.scales()), DType.F32, task.n(),
                        quantized.blocks());
                for (int set = 0; set < operands.sets(); set++) {
                    weights.add(own(
                            PackedWeights.ofQuantized(device, Task.Int4.QUANTIZATION, task.k(), integers, scales, null),
                            PackedWeights::close));
                }
            }
            body = set -> plan.run(stream, weights.get(set), a, out);
        }

        void convolution(Task.Convolve task, Operands operands) {
            Tensor x = Tensor.of(operands.memory("x"), channelsLast(task, task.channels(), task.size()));
            TensorSpec spec = channelsLast(task, task.columns(), task.outSize());
            out = Tensor.of(own(Arena.ofShared(), Arena::close).allocate(spec.elements() * task.format().bytes(), 4096), spec);
            Conv.Plan plan = own(
                    Conv.of(task.format(), task.each(task.kernel()))
                            .stride(task.each(task.stride()))
                            .padding(task.each(task.kernel() / 2))
                            .groups(task.groups())
                            .activation(Activation.RELU)
                            .plan(device, x.spec(), spec),
                    Conv.Plan::close);
            Tensor source = Tensor.of(
                    operands.memory("w"), task.format(),
                    task.shape(task.columns(), task.channels() / task.groups(), task.kernel()));
            ConvWeights weights = own(
                    ConvWeights.pack(
                            device, task.format(), task.groups(), source, column(task, operands, "gamma"),
                            column(task, operands, "beta"), column(task, operands, "mean"),
                            column(task, operands, "variance"), Task.Convolve.EPSILON),
                    ConvWeights::close);
            body = _ -> plan.run(stream, weights, x, null, null, out);
        }

        private static Tensor column(Task.Convolve task, Operands operands, String name) {
            return Tensor.of(operands.memory(name), DType.F32, task.columns());
        }

        private static TensorSpec channelsLast(Task.Convolve task, long channels, long size) {
            long[] strides = new long[2 + task.dimensions()];
            strides[1] = 1;
            long stride = channels;
            for (int d = strides.length - 1; d >= 2; d--) {
                strides[d] = stride;
                stride *= size;
            }
            strides[0] = stride;
            return TensorSpec.of(task.format(), task.shape(1, channels, size)).withStrides(strides);
        }

        void attention(Task.Attend task, Operands operands) {
            Tensor q = Tensor.of(operands.memory("q"), task.format(), 1, task.q(), task.heads(), task.d());
            out = pool.tensor(task.format(), 1, task.q(), task.heads(), task.d());
            List<Tensor> keys = new ArrayList<>();
            List<Tensor> values = new ArrayList<>();
            for (int set = 0; set < operands.sets(); set++) {
                long[] shape = {1, task.k(), task.heads(), task.d()};
                keys.add(Tensor.of(operands.memory("k", set), task.format(), shape));
                values.add(Tensor.of(operands.memory("v", set), task.format(), shape));
            }
            Attention pattern = task.kind() == Task.Attend.Kind.WINDOW
                    ? Attention.causal().window(task.window() - 1)
                    : Attention.causal();
            Attention.Plan plan = own(
                    pattern.plan(device, q.spec(), keys.getFirst().spec(), values.getFirst().spec()),
                    Attention.Plan::close);
            body = set -> plan.run(stream, q, keys.get(set), values.get(set), out);
        }

        void rows(Task.Rows task, Operands operands) {
            Tensor x = Tensor.of(operands.memory("x"), DType.F32, task.rows(), task.n());
            Tensor gamma = Tensor.of(operands.memory("gamma"), DType.F32, task.n());
            Tensor beta = Tensor.of(operands.memory("beta"), DType.F32, task.n());
            out = pool.tensor(DType.F32, task.rows(), task.n());
            switch (task.kind()) {
                case NORM_LAYER -> {
                    LayerNorm.Plan plan = own(
                            LayerNorm.of(Task.Rows.EPSILON).plan(device, x.spec(), out.spec()), LayerNorm.Plan::close);
                    body = _ -> plan.run(stream, x, gamma, beta, out);
                }
                case NORM_RMS -> {
                    RmsNorm.Plan plan = own(
                            RmsNorm.of(Task.Rows.EPSILON).plan(device, x.spec(), out.spec()), RmsNorm.Plan::close);
                    body = _ -> plan.run(stream, x, gamma, out);
                }
                case SOFTMAX -> softmax(x);
                case GELU_ERF -> activation(Activation.GELU_ERF, x);
                case GELU_TANH -> activation(Activation.GELU_TANH, x);
                case SILU -> activation(Activation.SILU, x);
            }
        }

        private void softmax(Tensor x) {
            Softmax.Plan plan = own(Softmax.of().plan(device, x.spec(), out.spec()), Softmax.Plan::close);
            body = _ -> plan.run(stream, x, out);
        }

        private void activation(Activation activation, Tensor x) {
            BiasActivation.Plan plan = own(
                    BiasActivation.of(activation).plan(device, x.spec(), out.spec()), BiasActivation.Plan::close);
            body = _ -> plan.run(stream, x, out);
        }

        void smallest() {
            softmax(pool.tensor(DType.F32, 1, 1).copyFrom(new float[] {1}));
        }

        @Override
        public void run(int set) {
            body.run(set);
        }

        @Override
        public float[] result() {
            return out.toFloatArray();
        }

        @Override
        public void close() {
            while (!open.isEmpty()) {
                open.pop().run();
            }
        }
    }
}
