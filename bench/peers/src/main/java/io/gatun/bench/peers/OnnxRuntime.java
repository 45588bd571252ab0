package io.gatun.bench.peers;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import io.gatun.DType;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import io.gatun.bench.reference.WeightQuantizer;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * ONNX Runtime: a model of one node for each operator, with weights as constants that it packs, and outputs in memory
 * that stays. On the CPU it has no BF16.
 */
final class OnnxRuntime implements Peer {
    private static final String OWN = "com.microsoft";

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();

    @Override
    public String name() {
        return "ONNX Runtime " + environment.getVersion();
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) throws Exception {
        if (task instanceof Task.MiniLm encoder) {
            return Optional.of(MiniLmEncoder.theirs(environment, encoder, threads));
        }
        Run run = new Run(threads);
        try {
            boolean known = switch (task) {
                case Task.Gemm gemm -> run.product(gemm, operands);
                case Task.Int4 gemm -> run.product(gemm, operands);
                case Task.Attend attend -> run.attention(attend, operands);
                case Task.Rows rows -> run.rows(rows, operands);
                case Task.Convolve _, Task.MiniLm _, Task.Call _ -> false;
            };
            if (!known) {
                run.close();
                return Optional.empty();
            }
            return Optional.of(run);
        } catch (Exception | Error e) {
            run.close();
            throw e;
        }
    }

    private final class Run implements Call {
        private final Arena arena = Arena.ofShared();
        private final int threads;
        private final List<OrtSession> sessions = new ArrayList<>();
        private final List<Map<String, OnnxTensor>> inputs = new ArrayList<>();
        private final Map<String, OnnxTensor> outputs = new HashMap<>();
        private final List<OnnxTensor> kept = new ArrayList<>();
        private MemorySegment out = MemorySegment.NULL;

        Run(int threads) {
            this.threads = threads;
        }

        private void session(byte[] model) throws OrtException {
            try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
                options.setIntraOpNumThreads(threads);
                options.setInterOpNumThreads(1);
                sessions.add(environment.createSession(model, options));
            }
        }

        private OnnxTensor tensor(MemorySegment memory, long... shape) throws OrtException {
            OnnxTensor tensor = OnnxTensor.createTensor(environment, Native.buffer(memory).asFloatBuffer(), shape);
            kept.add(tensor);
            return tensor;
        }

        private OnnxTensor integers(int value, long... shape) throws OrtException {
            MemorySegment memory = arena.allocate(4, 64);
            memory.set(ValueLayout.JAVA_INT, 0, value);
            OnnxTensor tensor = OnnxTensor.createTensor(environment, Native.buffer(memory), shape, OnnxJavaType.INT32);
            kept.add(tensor);
            return tensor;
        }

        private void output(long... shape) throws OrtException {
            long elements = 1;
            for (long extent : shape) {
                elements *= extent;
            }
            out = arena.allocate(4 * elements, 4096);
            outputs.put("y", tensor(out, shape));
        }

        boolean product(Task.Gemm task, Operands operands) throws OrtException {
            if (task.format() == DType.BF16) {
                return false;
            }
            int m = task.m();
            int n = task.n();
            int k = task.k();
            OnnxModel model;
            if (task.format() == DType.F32) {
                model = OnnxModel.of("MatMul", "", "a", "w")
                        .constant("w", OnnxModel.FLOAT, bytes(operands.values("w")), k, n);
            } else {
                // Quantizes activations, one scale for all, multiplies and scales, in one node.
                Weights weights = Weights.of(operands.values("w"), k, n);
                model = OnnxModel.of("DynamicQuantizeMatMul", OWN, "a", "w", "s")
                        .constant("w", OnnxModel.INT8, weights.bytes(), k, n)
                        .constant("s", OnnxModel.FLOAT, bytes(weights.scales()), n);
            }
            model.input("a", OnnxModel.FLOAT, m, k).output("y", OnnxModel.FLOAT, m, n);
            OnnxTensor a = tensor(operands.memory("a"), m, k);
            output(m, n);
            byte[] bytes = model.bytes();
            for (int set = 0; set < operands.sets(); set++) {
                session(bytes); // packs weights of its own
                inputs.add(Map.of("a", a));
            }
            return true;
        }

        /** Products in FP32, as Gatun's are: its accuracy level 1. */
        boolean product(Task.Int4 task, Operands operands) throws OrtException {
            WeightQuantizer weights = task.weights(operands);
            int group = Task.Int4.QUANTIZATION.groupSize();
            byte[] model = OnnxModel.of("MatMulNBits", OWN, "a", "w", "s")
                    .attribute("K", (long) task.k())
                    .attribute("N", (long) task.n())
                    .attribute("bits", 4L)
                    .attribute("block_size", (long) group)
                    .attribute("accuracy_level", 1L)
                    .constant("w", OnnxModel.UINT8, weights.integerBytes(), task.n(), weights.blocks(), group / 2)
                    .constant("s", OnnxModel.FLOAT, bytes(weights.scales()), task.n(), weights.blocks())
                    .input("a", OnnxModel.FLOAT, task.m(), task.k())
                    .output("y", OnnxModel.FLOAT, task.m(), task.n())
                    .bytes();
            OnnxTensor a = tensor(operands.memory("a"), task.m(), task.k());
            output(task.m(), task.n());
            for (int set = 0; set < operands.sets(); set++) {
                session(model);
                inputs.add(Map.of("a", a));
            }
            return true;
        }

        /** Decoding with its multi-head attention: the other appends to a cache, and copies it. */
        boolean attention(Task.Attend task, Operands operands) throws OrtException {
            if (task.format() != DType.F32) {
                return false;
            }
            long row = (long) task.heads() * task.d();
            boolean decode = task.kind() == Task.Attend.Kind.DECODE;
            OnnxModel model = decode
                    ? OnnxModel.of("MultiHeadAttention", OWN, "q", "k", "v").attribute("num_heads", task.heads())
                    : OnnxModel.of("GroupQueryAttention", OWN, "q", "k", "v", "", "", "last", "length")
                            .attribute("num_heads", task.heads())
                            .attribute("kv_num_heads", task.heads());
            if (task.kind() == Task.Attend.Kind.WINDOW) {
                model.attribute("local_window_size", (long) task.window());
            }
            model.input("q", OnnxModel.FLOAT, 1, task.q(), row)
                    .input("k", OnnxModel.FLOAT, 1, task.k(), row)
                    .input("v", OnnxModel.FLOAT, 1, task.k(), row)
                    .output("y", OnnxModel.FLOAT, 1, task.q(), row);
            if (!decode) {
                long[] cache = {1, task.heads(), -1, task.d()};
                model.input("last", OnnxModel.INT32, 1).input("length", OnnxModel.INT32, 1)
                        .output("present_k", OnnxModel.FLOAT, cache)
                        .output("present_v", OnnxModel.FLOAT, cache);
                for (String name : List.of("present_k", "present_v")) {
                    outputs.put(name, tensor(
                            arena.allocate(4 * row * task.k(), 4096), 1, task.heads(), task.k(), task.d()));
                }
            }
            session(model.bytes());
            output(1, task.q(), row);
            OnnxTensor q = tensor(operands.memory("q"), 1, task.q(), row);
            for (int set = 0; set < operands.sets(); set++) {
                Map<String, OnnxTensor> all = new HashMap<>(Map.of(
                        "q", q,
                        "k", tensor(operands.memory("k", set), 1, task.k(), row),
                        "v", tensor(operands.memory("v", set), 1, task.k(), row)));
                if (!decode) {
                    all.put("last", integers(task.k() - 1, 1));
                    all.put("length", integers(task.k(), 1));
                }
                inputs.add(all);
            }
            return true;
        }

        boolean rows(Task.Rows task, Operands operands) throws OrtException {
            int n = task.n();
            OnnxModel model = switch (task.kind()) {
                case NORM_LAYER -> OnnxModel.of("LayerNormalization", "", "x", "gamma", "beta")
                        .attribute("epsilon", Task.Rows.EPSILON)
                        .constant("gamma", OnnxModel.FLOAT, bytes(operands.values("gamma")), n)
                        .constant("beta", OnnxModel.FLOAT, bytes(operands.values("beta")), n);
                case NORM_RMS -> OnnxModel.of("SimplifiedLayerNormalization", "", "x", "gamma")
                        .attribute("epsilon", Task.Rows.EPSILON)
                        .constant("gamma", OnnxModel.FLOAT, bytes(operands.values("gamma")), n);
                case SOFTMAX -> OnnxModel.of("Softmax", "", "x");
                case GELU_ERF -> OnnxModel.of("Gelu", "", "x").attribute("approximate", "none");
                case GELU_TANH -> OnnxModel.of("Gelu", "", "x").attribute("approximate", "tanh");
                case SILU -> OnnxModel.of("QuickGelu", OWN, "x").attribute("alpha", 1.0f); // x sigmoid(alpha x)
            };
            session(model.input("x", OnnxModel.FLOAT, task.rows(), n)
                    .output("y", OnnxModel.FLOAT, task.rows(), n)
                    .bytes());
            inputs.add(Map.of("x", tensor(operands.memory("x"), task.rows(), n)));
            output(task.rows(), n);
            return true;
        }

        @Override
        public void run(int set) throws OrtException {
            sessions.get(set % sessions.size()).run(inputs.get(set), outputs).close();
        }

        @Override
        public float[] result() {
            return Native.toFloats(out);
        }

        @Override
        public void close() {
            try {
                for (OrtSession session : sessions) {
                    session.close();
                }
            } catch (OrtException e) {
                throw new IllegalStateException(e);
            }
            kept.forEach(OnnxTensor::close);
            arena.close();
        }
    }

    private static byte[] bytes(float[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(values);
        return bytes.array();
    }
}
