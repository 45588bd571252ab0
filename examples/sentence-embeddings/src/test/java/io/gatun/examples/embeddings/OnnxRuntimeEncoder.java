package io.gatun.examples.embeddings;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.IOException;
import java.io.InputStream;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** The same model in ONNX Runtime, with the same pooling: the reference. */
final class OnnxRuntimeEncoder implements AutoCloseable {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;

    private OnnxRuntimeEncoder(byte[] model, int threads) throws OrtException {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(threads);
            options.setInterOpNumThreads(1);
            session = environment.createSession(model, options);
        }
    }

    /** Loads the model of that name from the class path. */
    static OnnxRuntimeEncoder load(String name, int threads) throws IOException, OrtException {
        try (InputStream model = MiniLm.resource(name)) {
            return new OnnxRuntimeEncoder(model.readAllBytes(), threads);
        }
    }

    /** The embeddings of texts of any lengths; only texts of one length share a batch, so nothing is ever padded. */
    float[][] embed(List<long[]> texts) throws OrtException {
        Map<Integer, List<Integer>> byLength = new TreeMap<>();
        for (int i = 0; i < texts.size(); i++) {
            byLength.computeIfAbsent(texts.get(i).length, length -> new ArrayList<>()).add(i);
        }
        float[][] embeddings = new float[texts.size()][];
        for (List<Integer> same : byLength.values()) {
            float[][] part = embedSameLength(same.stream().map(texts::get).toList());
            for (int i = 0; i < part.length; i++) {
                embeddings[same.get(i)] = part[i];
            }
        }
        return embeddings;
    }

    /** The embeddings of texts that all have the same number of tokens. */
    float[][] embedSameLength(List<long[]> texts) throws OrtException {
        int length = texts.getFirst().length;
        long[] shape = {texts.size(), length};
        LongBuffer ids = LongBuffer.allocate(texts.size() * length);
        LongBuffer mask = LongBuffer.allocate(ids.capacity());
        for (long[] text : texts) {
            ids.put(text);
        }
        while (mask.hasRemaining()) {
            mask.put(1);
        }
        LongBuffer types = LongBuffer.allocate(ids.capacity());
        try (OnnxTensor idTensor = OnnxTensor.createTensor(environment, ids.flip(), shape);
                OnnxTensor maskTensor = OnnxTensor.createTensor(environment, mask.flip(), shape);
                OnnxTensor typeTensor = OnnxTensor.createTensor(environment, types, shape);
                OrtSession.Result result = session.run(Map.of(
                        "input_ids", idTensor, "attention_mask", maskTensor, "token_type_ids", typeTensor))) {
            return pool(((OnnxTensor) result.get(0)).getFloatBuffer(), texts.size(), length);
        }
    }

    private static float[][] pool(FloatBuffer hidden, int texts, int length) {
        float[][] embeddings = new float[texts][MiniLm.SIZE];
        float[] row = new float[MiniLm.SIZE];
        for (float[] embedding : embeddings) {
            for (int t = 0; t < length; t++) {
                hidden.get(row);
                for (int d = 0; d < row.length; d++) {
                    embedding[d] += row[d];
                }
            }
            float norm = (float) Math.sqrt(SentenceEmbeddings.dot(embedding, embedding));
            for (int d = 0; d < row.length; d++) {
                embedding[d] /= norm;
            }
        }
        return embeddings;
    }

    @Override
    public void close() throws OrtException {
        session.close();
    }
}
