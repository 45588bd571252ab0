package io.gatun.bench.peers;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_ATTR_SCALES;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_ATTR_ZERO_POINTS;
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
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.matmul;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.memory.data_type;
import org.bytedeco.dnnl.memory.format_tag;
import org.bytedeco.dnnl.primitive_attr;
import org.bytedeco.dnnl.reorder;
import org.bytedeco.dnnl.stream;

/**
 * oneDNN: products with weights in the layout that it chooses. INT8 activations are quantized by {@link Quantizer},
 * scales and zero points applied within its product.
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
        if (!(task instanceof Task.Gemm gemm)) {
            return Optional.empty();
        }
        Native.call(THREADS, "omp_set_num_threads", threads);
        return Optional.of(new Product(gemm, operands, threads));
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
                ((org.bytedeco.javacpp.Pointer) object).close();
            }
            product.close();
            queue.close();
            quantizer.close();
            arena.close();
        }
    }
}
