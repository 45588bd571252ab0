package io.gatun.bench.peers;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_ATTR_SCALES;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_ATTR_ZERO_POINTS;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_BIAS;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_WEIGHTS;

import io.gatun.DType;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.LongStream;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.convolution_forward;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.global.dnnl.algorithm;
import org.bytedeco.dnnl.global.dnnl.prop_kind;
import org.bytedeco.dnnl.matmul;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.memory.data_type;
import org.bytedeco.dnnl.memory.format_tag;
import org.bytedeco.dnnl.post_ops;
import org.bytedeco.dnnl.primitive_attr;
import org.bytedeco.dnnl.reorder;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.Pointer;

/**
 * oneDNN: products and convolutions with weights in the layout that it chooses. INT8 activations are quantized by
 * {@link Quantizer}, scales and zero points applied within its product.
 */
final class OneDnn implements Peer {
    private static final String THREADS = "libgomp.so.1";

    private final engine cpu = new engine(engine.kind.cpu, 0);

    @Override
    public String name() {
        return "oneDNN " + org.bytedeco.dnnl.global.dnnl.DNNL_VERSION_MAJOR + "."
                + org.bytedeco.dnnl.global.dnnl.DNNL_VERSION_MINOR;
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        if (!(task instanceof Task.Gemm || task instanceof Task.Convolve)) {
            return Optional.empty();
        }
        Native.call(THREADS, "omp_set_num_threads", threads);
        return Optional.of(task instanceof Task.Convolve conv
                ? new Convolution(conv, operands)
                : new Product((Task.Gemm) task, operands, threads));
    }

    /** A convolution with the normalisation in its weights and bias, and the ReLU after it, in one primitive. */
    private final class Convolution implements Call {
        private final Arena arena = Arena.ofShared();
        private final Task.Convolve task;
        private final stream queue = new stream(cpu);
        private final List<Pointer> kept = new ArrayList<>(); // what the library has pointers to
        private final MemorySegment out;
        private final convolution_forward convolution;
        private final IntMemoryMap arguments = new IntMemoryMap();

        Convolution(Task.Convolve task, Operands operands) {
            this.task = task;
            boolean bf16 = task.format() == DType.BF16;
            data_type type = bf16 ? data_type.bf16 : data_type.f32;
            format_tag images = task.dimensions() == 2 ? format_tag.nhwc : format_tag.ndhwc;
            boolean grouped = task.groups() > 1;
            format_tag source = task.dimensions() == 2
                    ? grouped ? format_tag.goihw : format_tag.oihw
                    : grouped ? format_tag.goidhw : format_tag.oidhw;
            long inputs = task.channels() / task.groups();
            long[] kernel = grouped
                    ? LongStream.concat(
                            LongStream.of(task.groups()),
                            LongStream.of(task.shape(task.columns() / task.groups(), inputs, task.kernel()))).toArray()
                    : task.shape(task.columns(), inputs, task.kernel());
            long[] outShape = task.shape(1, task.columns(), task.outSize());
            memory.desc x = desc(task.shape(1, task.channels(), task.size()), type, images);
            memory.desc y = desc(outShape, type, images);
            memory.desc bias = desc(new long[] {task.columns()}, data_type.f32, format_tag.a);
            out = arena.allocate((long) task.format().bytes() * LongStream.of(outShape).reduce(1, (a, b) -> a * b), 64);
            post_ops after = keep(new post_ops());
            after.append_eltwise(algorithm.eltwise_relu, 0, 0);
            primitive_attr attributes = keep(new primitive_attr());
            attributes.set_post_ops(after);
            long[] padding = task.each(task.kernel() / 2);
            convolution_forward.primitive_desc description;
            try {
                description = keep(new convolution_forward.primitive_desc(
                        cpu, prop_kind.forward_inference, algorithm.convolution_direct, x,
                        desc(kernel, type, format_tag.any), bias, y, task.each(task.stride()), padding, padding, attributes,
                        false));
            } catch (RuntimeException e) {
                throw new UnsupportedOperationException("it has no such convolution on this processor", e);
            }
            convolution = new convolution_forward(description);
            float[] w = operands.values("w").clone();
            float[] shift = new float[task.columns()];
            for (int o = 0; o < shift.length; o++) {
                double scale = operands.values("gamma")[o] / Math.sqrt(operands.values("variance")[o] + Task.Convolve.EPSILON);
                shift[o] = (float) (operands.values("beta")[o] - operands.values("mean")[o] * scale);
                for (int i = o * task.terms(); i < (o + 1) * task.terms(); i++) {
                    w[i] = (float) (w[i] * scale);
                }
            }
            memory plain = floats(desc(kernel, data_type.f32, source), w);
            memory packed = keep(new memory(description.weights_desc(), cpu));
            keep(new reorder(plain, packed)).execute(queue, plain, packed);
            queue._wait();
            arguments.put(DNNL_ARG_SRC, keep(new memory(x, cpu, Native.pointer(operands.memory("x")))))
                    .put(DNNL_ARG_WEIGHTS, packed)
                    .put(DNNL_ARG_BIAS, floats(bias, shift))
                    .put(DNNL_ARG_DST, keep(new memory(y, cpu, Native.pointer(out))));
        }

        private <T extends Pointer> T keep(T object) {
            kept.add(object);
            return object;
        }

        private memory.desc desc(long[] shape, data_type type, format_tag layout) {
            return keep(new memory.desc(shape, type, layout));
        }

        private memory floats(memory.desc layout, float[] values) {
            MemorySegment copy = arena.allocate(4L * values.length, 64);
            MemorySegment.copy(values, 0, copy, ValueLayout.JAVA_FLOAT, 0, values.length);
            return keep(new memory(layout, cpu, Native.pointer(copy)));
        }

        @Override
        public void run(int set) {
            convolution.execute(queue, arguments);
            queue._wait();
        }

        /** Channels first, as others give it. */
        @Override
        public float[] result() {
            float[] stored = task.format() == DType.BF16 ? Native.widened(out) : Native.toFloats(out);
            int columns = task.columns();
            int positions = stored.length / columns;
            float[] result = new float[stored.length];
            for (int i = 0; i < positions; i++) {
                for (int o = 0; o < columns; o++) {
                    result[o * positions + i] = stored[i * columns + o];
                }
            }
            return result;
        }

        @Override
        public void close() {
            arguments.close();
            convolution.close();
            kept.reversed().forEach(Pointer::close);
            queue.close();
            arena.close();
        }
    }

    private final class Product implements Call {
        private final Arena arena = Arena.ofShared();
        private final Task.Gemm task;
        private final stream queue = new stream(cpu);
        private final MemorySegment out;
        private final MemorySegment scale = arena.allocate(4, 64);
        private final MemorySegment zero = arena.allocate(4, 64);
        private final Quantizer quantizer;
        private final matmul product;
        private final List<IntMemoryMap> arguments = new ArrayList<>();
        private final List<Object> kept = new ArrayList<>(); // what the library has pointers to

        Product(Task.Gemm task, Operands operands, int threads) {
            this.task = task;
            int m = task.m();
            int n = task.n();
            int k = task.k();
            boolean int8 = task.format() == DType.S8;
            data_type source = task.format() == DType.BF16 ? data_type.bf16 : int8 ? data_type.u8 : data_type.f32;
            data_type kernel = task.format() == DType.BF16 ? data_type.bf16 : int8 ? data_type.s8 : data_type.f32;
            data_type target = task.format() == DType.BF16 ? data_type.bf16 : data_type.f32;
            quantizer = new Quantizer(int8 ? operands.values("a") : new float[0], false, threads);
            out = arena.allocate((task.format() == DType.BF16 ? 2L : 4L) * m * n, 64);
            primitive_attr attributes = keep(new primitive_attr());
            if (int8) {
                attributes.set_scales_mask(DNNL_ARG_SRC, 0);
                attributes.set_zero_points_mask(DNNL_ARG_SRC, 0);
                attributes.set_scales_mask(DNNL_ARG_WEIGHTS, 2); // of each column
            }
            matmul.primitive_desc description = keep(describe(
                    desc(source, format_tag.ab, m, k), desc(kernel, format_tag.any, k, n),
                    desc(target, format_tag.ab, m, n), attributes));
            product = new matmul(description);
            memory a = keep(new memory(
                    desc(source, format_tag.ab, m, k), cpu,
                    Native.pointer(int8 ? quantizer.out() : operands.memory("a"))));
            memory result = keep(new memory(desc(target, format_tag.ab, m, n), cpu, Native.pointer(out)));
            Weights weights = int8 ? Weights.of(operands.values("w"), k, n) : Weights.of(new float[0], 0, 1);
            MemorySegment columns = arena.allocate(4L * n, 64);
            MemorySegment integers = arena.allocate(Math.max(1, weights.bytes().length), 64);
            if (int8) {
                MemorySegment.copy(weights.scales(), 0, columns, ValueLayout.JAVA_FLOAT, 0, n);
                weights.copyTo(integers);
            }
            memory plain = keep(new memory(
                    desc(kernel, format_tag.ab, k, n), cpu,
                    Native.pointer(int8 ? integers : operands.memory("w"))));
            for (int set = 0; set < operands.sets(); set++) {
                memory packed = keep(new memory(description.weights_desc(), cpu));
                keep(new reorder(plain, packed)).execute(queue, plain, packed);
                IntMemoryMap map = new IntMemoryMap()
                        .put(DNNL_ARG_SRC, a)
                        .put(DNNL_ARG_WEIGHTS, packed)
                        .put(DNNL_ARG_DST, result);
                if (int8) {
                    map.put(DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, one(data_type.f32, 1, scale))
                            .put(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC, one(data_type.s32, 1, zero))
                            .put(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, one(data_type.f32, n, columns));
                }
                arguments.add(map);
            }
            queue._wait();
        }

        private matmul.primitive_desc describe(
                memory.desc source, memory.desc kernel, memory.desc target, primitive_attr attributes) {
            try {
                return new matmul.primitive_desc(cpu, source, kernel, target, attributes, false);
            } catch (RuntimeException e) {
                // BF16 without AVX-512, say
                throw new UnsupportedOperationException("it has no such product on this processor", e);
            }
        }

        private <T> T keep(T object) {
            kept.add(object);
            return object;
        }

        private memory.desc desc(data_type type, format_tag layout, long rows, long columns) {
            return keep(new memory.desc(new long[] {rows, columns}, type, layout));
        }

        private memory one(data_type type, long elements, MemorySegment at) {
            return keep(new memory(
                    keep(new memory.desc(new long[] {elements}, type, format_tag.a)), cpu, Native.pointer(at)));
        }

        @Override
        public void run(int set) throws Exception {
            if (task.format() == DType.S8) {
                quantizer.run();
                scale.set(ValueLayout.JAVA_FLOAT, 0, quantizer.scale());
                zero.set(ValueLayout.JAVA_INT, 0, quantizer.zero());
            }
            product.execute(queue, arguments.get(set));
            queue._wait();
        }

        @Override
        public float[] result() {
            return task.format() == DType.BF16 ? Native.widened(out) : Native.toFloats(out);
        }

        @Override
        public void close() {
            arguments.forEach(IntMemoryMap::close);
            for (Object object : kept.reversed()) {
                ((Pointer) object).close();
            }
            product.close();
            queue.close();
            quantizer.close();
            arena.close();
        }
    }
}
