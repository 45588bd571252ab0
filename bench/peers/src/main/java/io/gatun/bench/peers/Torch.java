package io.gatun.bench.peers;

import io.gatun.DType;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Optional;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.CompilationUnit;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Function;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.IValueVector;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.QualifiedName;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.jspecify.annotations.Nullable;

/**
 * libtorch: products, convolutions, attention and operators on rows, into outputs of their own where it has such a form. INT8
 * products are {@code _int_mm}, of activations from {@link Quantizer}; scales are left out of its time.
 */
final class Torch implements Peer {
    Torch() {
        torch.get_num_threads(); // loads it
    }

    @Override
    public String name() {
        return "libtorch " + Native.version(torch.class);
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        torch.set_num_threads(threads);
        Run run = new Run();
        try {
            switch (task) {
                case Task.Gemm gemm when gemm.format() == DType.S8 -> run.integers(gemm, operands, threads);
                case Task.Gemm gemm -> run.product(gemm, operands);
                case Task.Convolve conv -> run.convolution(conv, operands);
                case Task.Attend attend -> run.attention(attend, operands);
                case Task.Rows rows -> run.rows(rows, operands);
                case Task.Int4 _, Task.MiniLm _, Task.Call _ -> {
                    run.close();
                    return Optional.empty();
                }
            }
            return Optional.of(run);
        } catch (RuntimeException | Error e) {
            run.close();
            throw e;
        }
    }

    /** What runs on one set; gives the result, which may be a new tensor. */
    @FunctionalInterface
    private interface Body {
        Tensor run(int set) throws Exception;
    }

    private static final class Run implements Call {
        private final Arena arena = Arena.ofShared();
        private final NoGradGuard guard = new NoGradGuard();
        private @Nullable Quantizer quantizer;
        private @Nullable Weights weights;
        private boolean bf16;
        private Body body = _ -> {
            throw new IllegalStateException("nothing to run");
        };
        private @Nullable CompilationUnit unit; // owns the function that runs
        private @Nullable Tensor last;

        private Tensor tensor(MemorySegment memory, ScalarType type, long... shape) {
            return torch.from_blob(Native.pointer(memory), shape, new TensorOptions(type));
        }

        private ScalarType type(DType dtype) {
            bf16 = dtype == DType.BF16;
            return bf16 ? ScalarType.BFloat16 : ScalarType.Float;
        }

        private Tensor output(ScalarType type, long... shape) {
            long bytes = type == ScalarType.BFloat16 ? 2 : 4;
            for (long extent : shape) {
                bytes *= extent;
            }
            return tensor(arena.allocate(bytes, 4096), type, shape);
        }

        void product(Task.Gemm task, Operands operands) {
            ScalarType type = type(task.format());
            Tensor a = tensor(operands.memory("a"), type, task.m(), task.k());
            Tensor out = output(type, task.m(), task.n());
            Tensor[] w = new Tensor[operands.sets()];
            for (int set = 0; set < w.length; set++) {
                w[set] = tensor(operands.memory("w", set), type, task.k(), task.n());
            }
            body = set -> torch.mm_out(out, a, w[set]);
        }

        void integers(Task.Gemm task, Operands operands, int threads) {
            Quantizer activations = new Quantizer(operands.values("a"), true, threads);
            quantizer = activations;
            Weights integers = Weights.of(operands.values("w"), task.k(), task.n());
            weights = integers;
            Tensor[] w = new Tensor[operands.sets()];
            for (int set = 0; set < w.length; set++) {
                MemorySegment copy = arena.allocate(integers.bytes().length, 4096);
                integers.copyTo(copy);
                w[set] = tensor(copy, ScalarType.Char, task.k(), task.n());
            }
            Tensor a = tensor(activations.out(), ScalarType.Char, task.m(), task.k());
            // The one operator that the Java API has no method for.
            CompilationUnit compiled = torch.compile("def product(a, w):\n    return torch._int_mm(a, w)\n");
            unit = compiled;
            Function product = compiled.get_function(new QualifiedName("product"));
            body = set -> {
                activations.run();
                // A reference of its own: the one that toTensor() gives ends with what apply() gives.
                return new Tensor(product.apply(new IValueVector(new IValue(a), new IValue(w[set]))).toTensor());
            };
        }

        /** Three operators, x with channels last. */
        void convolution(Task.Convolve task, Operands operands) {
            ScalarType type = type(task.format());
            boolean planes = task.dimensions() == 2;
            long[] shape = task.shape(1, task.size(), task.size());
            shape[shape.length - 1] = task.channels();
            Tensor stored = tensor(operands.memory("x"), type, shape);
            Tensor x = planes ? stored.permute(0, 3, 1, 2) : stored.permute(0, 4, 1, 2, 3);
            Tensor w = tensor(
                    operands.memory("w"), type, task.shape(task.columns(), task.channels() / task.groups(), task.kernel()));
            TensorOptional gamma = column(task, operands, "gamma");
            TensorOptional beta = column(task, operands, "beta");
            TensorOptional mean = column(task, operands, "mean");
            TensorOptional variance = column(task, operands, "variance");
            TensorOptional none = new TensorOptional();
            long[] stride = task.each(task.stride());
            long[] padding = task.each(task.kernel() / 2);
            long[] dilation = task.each(1);
            body = _ -> {
                Tensor sums = planes
                        ? torch.conv2d(x, w, none, stride, padding, dilation, task.groups())
                        : torch.conv3d(x, w, none, stride, padding, dilation, task.groups());
                return torch.relu(torch.batch_norm(
                        sums, gamma, beta, mean, variance, false, 0.1, Task.Convolve.EPSILON, false));
            };
        }

        private TensorOptional column(Task.Convolve task, Operands operands, String name) {
            return new TensorOptional(tensor(operands.memory(name), ScalarType.Float, task.columns()));
        }

        void attention(Task.Attend task, Operands operands) {
            ScalarType type = type(task.format());
            Tensor q = heads(tensor(operands.memory("q"), type, 1, task.q(), task.heads(), task.d()));
            Tensor[] keys = new Tensor[operands.sets()];
            Tensor[] values = new Tensor[operands.sets()];
            for (int set = 0; set < keys.length; set++) {
                keys[set] = heads(tensor(operands.memory("k", set), type, 1, task.k(), task.heads(), task.d()));
                values[set] = heads(tensor(operands.memory("v", set), type, 1, task.k(), task.heads(), task.d()));
            }
            boolean causal = task.kind() == Task.Attend.Kind.CAUSAL;
            TensorOptional mask = task.kind() == Task.Attend.Kind.WINDOW
                    ? new TensorOptional(window(task, type))
                    : new TensorOptional();
            DoubleOptional scale = new DoubleOptional();
            body = set -> torch.scaled_dot_product_attention(
                            q, keys[set], values[set], mask, 0.0, causal, scale, false)
                    .transpose(1, 2);
        }

        /** [1, length, heads, d] as [1, heads, length, d], which it asks for; nothing is copied. */
        private static Tensor heads(Tensor tensor) {
            return tensor.transpose(1, 2);
        }

        /** It has no windows: a dense mask that is added, 0 where a query sees and minus infinity elsewhere. */
        private Tensor window(Task.Attend task, ScalarType type) {
            int bytes = type == ScalarType.BFloat16 ? 2 : 4;
            long row = (long) bytes * task.k();
            MemorySegment mask = arena.allocate(row * task.q(), 4096);
            for (long i = 0; i < task.q(); i++) {
                long position = task.k() - task.q() + i;
                for (long j = 0; j < task.k(); j++) {
                    boolean visible = j <= position && j > position - task.window();
                    if (!visible && bytes == 2) {
                        mask.set(ValueLayout.JAVA_SHORT, i * row + 2 * j, (short) 0xff80);
                    } else if (!visible) {
                        mask.set(ValueLayout.JAVA_FLOAT, i * row + 4 * j, Float.NEGATIVE_INFINITY);
                    }
                }
            }
            return tensor(mask, type, 1, 1, task.q(), task.k());
        }

        void rows(Task.Rows task, Operands operands) {
            ScalarType type = type(DType.F32);
            Tensor x = tensor(operands.memory("x"), type, task.rows(), task.n());
            Tensor out = output(type, task.rows(), task.n());
            long[] shape = {task.n()};
            TensorOptional gamma = new TensorOptional(tensor(operands.memory("gamma"), type, task.n()));
            TensorOptional beta = new TensorOptional(tensor(operands.memory("beta"), type, task.n()));
            Tensor mean = output(type, task.rows(), 1);
            Tensor deviation = output(type, task.rows(), 1);
            double epsilon = Task.Rows.EPSILON;
            DoubleOptional optional = new DoubleOptional(epsilon);
            body = switch (task.kind()) {
                case NORM_LAYER -> _ -> {
                    torch.native_layer_norm_out(out, mean, deviation, x, shape, gamma, beta, epsilon);
                    return out;
                };
                case NORM_RMS -> _ -> torch.rms_norm(x, shape, gamma, optional);
                case SOFTMAX -> _ -> torch.softmax_out(out, x, -1);
                case GELU_ERF -> _ -> torch.gelu_out(out, x, "none");
                case GELU_TANH -> _ -> torch.gelu_out(out, x, "tanh");
                case SILU -> _ -> torch.silu_out(out, x);
            };
        }

        @Override
        public void run(int set) throws Exception {
            try (PointerScope _ = new PointerScope()) {
                Tensor result = body.run(set);
                result.retainReference(); // the scope lets go of what the run has made
                if (last != null) {
                    last.close();
                }
                last = result;
            }
        }

        @Override
        public float[] result() {
            if (last == null) {
                throw new IllegalStateException("it has not run");
            }
            try (PointerScope _ = new PointerScope()) {
                Tensor dense = last.contiguous();
                MemorySegment memory = MemorySegment.ofAddress(dense.data_ptr().address())
                        .reinterpret(dense.numel() * dense.element_size());
                if (weights != null && quantizer != null) {
                    return weights.dequantized(memory.toArray(ValueLayout.JAVA_INT), quantizer.scale());
                }
                return bf16 ? Native.widened(memory) : Native.toFloats(memory);
            }
        }

        @Override
        public void close() {
            if (last != null) {
                last.close();
            }
            guard.close();
            if (quantizer != null) {
                quantizer.close();
            }
            arena.close();
        }
    }
}
