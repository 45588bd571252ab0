package io.gatun.bench.peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import io.gatun.DType;
import io.gatun.Device;
import io.gatun.bench.compare.Operands;
import io.gatun.bench.compare.Peer;
import io.gatun.bench.compare.Task;
import io.gatun.examples.embeddings.MiniLm;
import io.gatun.examples.embeddings.Precision;
import java.io.FileNotFoundException;
import java.io.InputStream;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.stream.Stream;

/**
 * The encoder all-MiniLM-L6-v2 from tokens to embeddings: Gatun's example, and ONNX Runtime with the model's own graph.
 */
final class MiniLmEncoder {
    private static final int VOCABULARY_FROM = 1000; // what comes before are special tokens
    private static final int VOCABULARY_TO = 30000;

    private MiniLmEncoder() {}

    private static List<long[]> texts(Task.MiniLm task) {
        Random random = new Random(11);
        return Stream.generate(() -> random.longs(task.tokens(), VOCABULARY_FROM, VOCABULARY_TO).toArray())
                .limit(task.texts())
                .toList();
    }

    private static float[] flat(float[][] rows) {
        float[] all = new float[rows.length * rows[0].length];
        for (int i = 0; i < rows.length; i++) {
            System.arraycopy(rows[i], 0, all, i * rows[0].length, rows[0].length);
        }
        return all;
    }

    /** The example's encoder. */
    record Ours(String device) implements Peer {
        @Override
        public String name() {
            return "Gatun";
        }

        @Override
        public Optional<Call> prepare(Task task, Operands operands, int threads) throws Exception {
            if (!(task instanceof Task.MiniLm encoder)) {
                return Optional.empty();
            }
            Precision precision = switch (encoder.format()) {
                case F32 -> Precision.F32;
                case BF16 -> Precision.BF16;
                default -> Precision.INT8;
            };
            Device opened = Device.open(device, threads);
            MiniLm model;
            try {
                model = MiniLm.load(opened, precision);
            } catch (Exception | Error e) {
                opened.close();
                throw e;
            }
            List<long[]> texts = texts(encoder);
            return Optional.of(new Call() {
                private float[][] embeddings = {};

                @Override
                public void run(int set) {
                    embeddings = model.embed(texts);
                }

                @Override
                public float[] result() {
                    return flat(embeddings);
                }

                @Override
                public void close() {
                    model.close();
                    opened.close();
                }
            });
        }
    }

    /** ONNX Runtime's: the FP32 model beside Gatun's FP32 and BF16, the quantized one beside INT8. */
    static Peer.Call theirs(OrtEnvironment environment, Task.MiniLm task, int threads) throws Exception {
        String name = task.format() == DType.S8 ? "all-minilm-l6-v2-q.onnx" : "all-minilm-l6-v2.onnx";
        byte[] model;
        try (InputStream in = MiniLmEncoder.class.getClassLoader().getResourceAsStream(name)) {
            if (in == null) {
                throw new FileNotFoundException(name + " is not on the class path");
            }
            model = in.readAllBytes();
        }
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(threads);
            options.setInterOpNumThreads(1);
            return new Encoder(environment, environment.createSession(model, options), texts(task));
        }
    }

    private static final class Encoder implements Peer.Call {
        private final OrtEnvironment environment;
        private final OrtSession session;
        private final List<long[]> texts;
        private float[][] embeddings = {};

        Encoder(OrtEnvironment environment, OrtSession session, List<long[]> texts) {
            this.environment = environment;
            this.session = session;
            this.texts = texts;
        }

        @Override
        public void run(int set) throws OrtException {
            int tokens = texts.getFirst().length;
            long[] shape = {texts.size(), tokens};
            LongBuffer ids = LongBuffer.allocate(texts.size() * tokens);
            LongBuffer mask = LongBuffer.allocate(ids.capacity());
            texts.forEach(ids::put);
            while (mask.hasRemaining()) {
                mask.put(1);
            }
            try (OnnxTensor idTensor = OnnxTensor.createTensor(environment, ids.flip(), shape);
                    OnnxTensor maskTensor = OnnxTensor.createTensor(environment, mask.flip(), shape);
                    OnnxTensor typeTensor =
                            OnnxTensor.createTensor(environment, LongBuffer.allocate(ids.capacity()), shape);
                    OrtSession.Result result = session.run(Map.of(
                            "input_ids", idTensor, "attention_mask", maskTensor, "token_type_ids", typeTensor))) {
                embeddings = pool(((OnnxTensor) result.get(0)).getFloatBuffer(), tokens);
            }
        }

        /** The mean over a text's tokens, at length 1, which the graph leaves to its users. */
        private float[][] pool(FloatBuffer hidden, int tokens) {
            float[][] all = new float[texts.size()][MiniLm.SIZE];
            float[] row = new float[MiniLm.SIZE];
            for (float[] embedding : all) {
                for (int t = 0; t < tokens; t++) {
                    hidden.get(row);
                    for (int d = 0; d < row.length; d++) {
                        embedding[d] += row[d];
                    }
                }
                double square = 0;
                for (float value : embedding) {
                    square += (double) value * value;
                }
                for (int d = 0; d < row.length; d++) {
                    embedding[d] /= (float) Math.sqrt(square);
                }
            }
            return all;
        }

        @Override
        public float[] result() {
            return flat(embeddings);
        }

        @Override
        public void close() {
            try {
                session.close();
            } catch (OrtException e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
