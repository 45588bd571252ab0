package io.gatun.examples.embeddings;

import ai.onnxruntime.OrtException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/** The texts of the accuracy tests and what ONNX Runtime makes of them, computed once. */
record Reference(List<String> texts, List<long[]> tokens, float[][] embeddings) {
    private static final class Holder {
        static final Reference SHARED = compute();
    }

    static Reference shared() {
        return Holder.SHARED;
    }

    private static Reference compute() {
        List<String> texts = Sentences.varied(20260101);
        List<long[]> tokens = new ArrayList<>();
        try (Tokenizer tokenizer = Tokenizer.load();
                OnnxRuntimeEncoder encoder = OnnxRuntimeEncoder.load(
                        "all-minilm-l6-v2.onnx", Runtime.getRuntime().availableProcessors())) {
            for (String text : texts) {
                tokens.add(tokenizer.encode(text).ids());
            }
            return new Reference(texts, tokens, encoder.embed(tokens));
        } catch (IOException | OrtException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The cosine between an embedding of text {@code index} and the reference's. */
    double cosine(int index, float[] embedding) {
        float[] expected = embeddings[index];
        return SentenceEmbeddings.dot(embedding, expected)
                / Math.sqrt(SentenceEmbeddings.dot(embedding, embedding) * SentenceEmbeddings.dot(expected, expected));
    }
}
