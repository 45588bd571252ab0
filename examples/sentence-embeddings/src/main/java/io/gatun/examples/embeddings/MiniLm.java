package io.gatun.examples.embeddings;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.gatun.Activation;
import io.gatun.Attention;
import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Gemm;
import io.gatun.LayerNorm;
import io.gatun.MemoryPool;
import io.gatun.PackedWeights;
import io.gatun.Stream;
import io.gatun.Tensor;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.function.Consumer;

/**
 * all-MiniLM-L6-v2: a BERT encoder of six layers. The mean of its output over a text's tokens, scaled to length 1, is
 * the text's embedding; the dot product of two embeddings tells how close the texts are in meaning.
 *
 * <p>A batch needs no padding. The tokens of all its texts lie one after the other in arrays of [tokens, size], so a
 * linear layer is one matrix product over all of them, and offsets tell the attention where each text begins. A layer
 * is seven calls:
 *
 * <pre>
 *   qkv     = x Wqkv + b                       [tokens, 1152]: query, key and value side by side
 *   context = attention(q, k, v)               q, k and v are strided views of qkv, [tokens, 12, 32]
 *   x       = norm(context Wp + b + x)         two calls, both in place
 *   inner   = gelu(x We + b)                   [tokens, 1536]
 *   x       = norm(inner Wc + b + x)           two calls, both in place
 * </pre>
 *
 * <p>Weights are packed and plans are made once, for at most {@code maxTokens} tokens; {@link #embed} splits what is
 * larger. Calls from several threads take turns.
 */
public final class MiniLm implements AutoCloseable {
    /** The length of an embedding. */
    public static final int SIZE = 384;

    /** How many tokens are encoded at once unless the caller chooses: enough to fill the kernels, in 15 MB. */
    public static final int DEFAULT_MAX_TOKENS = 1024;

    private static final int VOCABULARY = 30522;
    private static final int LAYERS = 6;
    private static final int HEADS = 12;
    private static final int HEAD_SIZE = SIZE / HEADS;
    private static final int INNER = 4 * SIZE;
    private static final float EPSILON = 1e-12f;

    private record Linear(PackedWeights weights, Tensor bias) {}

    private record Norm(Tensor gamma, Tensor beta) {}

    private record Layer(
            Linear qkv, Linear projection, Norm first, Linear expansion, Linear contraction, Norm second) {}

    /** What {@link #close} has to close, the newest first. */
    private final Deque<Runnable> open = new ArrayDeque<>();

    private final Device device;
    private final Precision precision;
    private final int maxTokens;
    private final Stream stream;
    private final MemoryPool pool;

    private final float[] words;
    private final float[] positions;
    private final Norm embeddingNorm;
    private final List<Layer> layers = new ArrayList<>();

    private final Tensor x;
    private final Tensor qkv;
    private final Tensor qkvHeads;
    private final Tensor context;
    private final Tensor inner;
    private final Tensor offsets;

    private final LayerNorm.Plan norm;
    private final Gemm.Plan qkvPlan;
    private final Attention.Plan attention;
    private final Gemm.Plan projection;
    private final Gemm.Plan expansion;
    private final Gemm.Plan contraction;

    private MiniLm(Device device, Precision precision, int maxTokens, OnnxWeights model) {
        this.device = device;
        this.precision = precision;
        this.maxTokens = maxTokens;
        try {
            stream = own(device.newStream(), Stream::close);
            pool = own(MemoryPool.of(device), MemoryPool::close);

            words = model.floats("embeddings.word_embeddings.weight", VOCABULARY, SIZE);
            positions = positionsOfFirstType(model);
            embeddingNorm = norm(model, "embeddings.LayerNorm");
            for (int i = 0; i < LAYERS; i++) {
                layers.add(layer(model, "encoder.layer." + i));
            }

            DType activations = precision.activations();
            x = pool.tensor(DType.F32, maxTokens, SIZE);
            qkv = pool.tensor(activations, maxTokens, 3 * SIZE);
            qkvHeads = qkv.reshape(maxTokens, 3 * HEADS, HEAD_SIZE);
            context = pool.tensor(activations, maxTokens, SIZE);
            inner = pool.tensor(activations, maxTokens, INNER);
            offsets = pool.tensor(DType.S64, maxTokens + 1);

            norm = own(LayerNorm.of(EPSILON).plan(device, x.spec(), x.spec()), LayerNorm.Plan::close);
            Gemm linear = Gemm.of(precision.weights()).bias();
            qkvPlan = own(linear.plan(device, x.spec(), qkv.spec()), Gemm.Plan::close);
            projection = own(linear.residual().plan(device, context.spec(), x.spec()), Gemm.Plan::close);
            expansion = own(
                    linear.activation(Activation.GELU_ERF).plan(device, x.spec(), inner.spec()), Gemm.Plan::close);
            contraction = own(linear.residual().plan(device, inner.spec(), x.spec()), Gemm.Plan::close);
            attention = own(
                    Attention.dense()
                            .packed(maxTokens)
                            .plan(
                                    device,
                                    heads(qkvHeads, 0).spec(),
                                    heads(qkvHeads, 1).spec(),
                                    heads(qkvHeads, 2).spec(),
                                    context.reshape(maxTokens, HEADS, HEAD_SIZE).spec()),
                    Attention.Plan::close);
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    /**
     * Reads the model from the class or module path and prepares it for a device.
     *
     * @param device stays the caller's: close it after the encoder
     * @throws IOException when the model cannot be read
     */
    public static MiniLm load(Device device, Precision precision) throws IOException {
        return load(device, precision, DEFAULT_MAX_TOKENS);
    }

    /**
     * Reads the model from the class or module path and prepares it for a device.
     *
     * @param device stays the caller's: close it after the encoder
     * @param maxTokens how many tokens are encoded at once, at least {@link Tokenizer#MAX_TOKENS}; memory grows with it
     * @throws IOException when the model cannot be read
     */
    public static MiniLm load(Device device, Precision precision, int maxTokens) throws IOException {
        if (maxTokens < Tokenizer.MAX_TOKENS) {
            throw new IllegalArgumentException(
                    "maxTokens is " + maxTokens + ", expected at least " + Tokenizer.MAX_TOKENS);
        }
        try (InputStream model = resource("all-minilm-l6-v2.onnx")) {
            return new MiniLm(device, precision, maxTokens, OnnxWeights.read(model));
        }
    }

    static InputStream resource(String name) throws IOException {
        InputStream resource = MiniLm.class.getClassLoader().getResourceAsStream(name);
        if (resource == null) {
            throw new FileNotFoundException(name + " is not on the class or module path");
        }
        return resource;
    }

    /**
     * The embeddings of a batch of texts of any lengths, in their order.
     *
     * @param texts the token numbers of each text, as {@link Tokenizer} gives them
     * @return one array of {@link #SIZE} elements and Euclidean length 1 for each text
     * @throws IllegalArgumentException when a text has no tokens, more than {@link Tokenizer#MAX_TOKENS}, or one that
     *     is not in the vocabulary
     * @throws IllegalStateException when the encoder is closed
     */
    public synchronized float[][] embed(List<long[]> texts) {
        for (int i = 0; i < texts.size(); i++) {
            check(i, texts.get(i));
        }
        float[][] embeddings = new float[texts.size()][];
        int first = 0;
        while (first < embeddings.length) {
            int end = first;
            int tokens = 0;
            while (end < embeddings.length && tokens + texts.get(end).length <= maxTokens) {
                tokens += texts.get(end++).length;
            }
            List<long[]> part = texts.subList(first, end);
            lookUp(part);
            encode(tokens, part.size());
            for (int i = 0; i < part.size(); i++) {
                embeddings[first + i] = pool(i);
            }
            first = end;
        }
        return embeddings;
    }

    private static void check(int index, long[] text) {
        if (text.length < 1 || text.length > Tokenizer.MAX_TOKENS) {
            throw new IllegalArgumentException("text " + index + " has " + text.length + " tokens, expected 1 to "
                    + Tokenizer.MAX_TOKENS);
        }
        for (long token : text) {
            if (token < 0 || token >= VOCABULARY) {
                throw new IllegalArgumentException(
                        "text " + index + " has the token " + token + ", expected 0 to " + (VOCABULARY - 1));
            }
        }
    }

    /** Fills x with the sums of word and position embeddings, and the offsets. */
    private void lookUp(List<long[]> texts) {
        MemorySegment rows = x.memory();
        long row = 0;
        for (int i = 0; i < texts.size(); i++) {
            offsets.memory().setAtIndex(JAVA_LONG, i, row);
            long[] text = texts.get(i);
            for (int position = 0; position < text.length; position++, row++) {
                int word = (int) text[position] * SIZE;
                for (int d = 0; d < SIZE; d++) {
                    rows.setAtIndex(JAVA_FLOAT, row * SIZE + d, words[word + d] + positions[position * SIZE + d]);
                }
            }
        }
        offsets.memory().setAtIndex(JAVA_LONG, texts.size(), row);
    }

    /** Runs the six layers over the first {@code tokens} rows of x, in place. */
    private void encode(int tokens, int texts) {
        Tensor x = this.x.slice(0, 0, tokens);
        Tensor qkv = this.qkv.slice(0, 0, tokens);
        Tensor heads = qkvHeads.slice(0, 0, tokens);
        Tensor q = heads(heads, 0);
        Tensor k = heads(heads, 1);
        Tensor v = heads(heads, 2);
        Tensor context = this.context.slice(0, 0, tokens);
        Tensor contextHeads = context.reshape(tokens, HEADS, HEAD_SIZE);
        Tensor inner = this.inner.slice(0, 0, tokens);
        Tensor offsets = this.offsets.slice(0, 0, texts + 1);

        norm.run(stream, x, embeddingNorm.gamma, embeddingNorm.beta, x);
        for (Layer layer : layers) {
            qkvPlan.run(stream, layer.qkv.weights, x, layer.qkv.bias, qkv);
            attention.run(stream, q, k, v, contextHeads, offsets, offsets, null);
            projection.run(stream, layer.projection.weights, context, layer.projection.bias, x, x);
            norm.run(stream, x, layer.first.gamma, layer.first.beta, x);
            expansion.run(stream, layer.expansion.weights, x, layer.expansion.bias, inner);
            contraction.run(stream, layer.contraction.weights, inner, layer.contraction.bias, x, x);
            norm.run(stream, x, layer.second.gamma, layer.second.beta, x);
        }
        stream.synchronize();
    }

    /** The mean over the rows of one text, scaled to length 1. */
    private float[] pool(int text) {
        long first = offsets.memory().getAtIndex(JAVA_LONG, text);
        long end = offsets.memory().getAtIndex(JAVA_LONG, text + 1);
        MemorySegment rows = x.memory();
        float[] sum = new float[SIZE];
        for (long row = first; row < end; row++) {
            for (int d = 0; d < SIZE; d++) {
                sum[d] += rows.getAtIndex(JAVA_FLOAT, row * SIZE + d);
            }
        }
        double squares = 0;
        for (float s : sum) {
            squares += (double) s * s;
        }
        float scale = (float) (1 / Math.sqrt(squares)); // the division by the number of tokens cancels out
        for (int d = 0; d < SIZE; d++) {
            sum[d] *= scale;
        }
        return sum;
    }

    /** Query (0), key (1) or value (2) of [tokens, 36, 32]: a view of 12 heads. */
    private static Tensor heads(Tensor qkv, int part) {
        return qkv.slice(1, (long) part * HEADS, (long) (part + 1) * HEADS);
    }

    private Layer layer(OnnxWeights model, String name) {
        return new Layer(
                linear(
                        model,
                        SIZE,
                        SIZE,
                        name + ".attention.self.query",
                        name + ".attention.self.key",
                        name + ".attention.self.value"),
                linear(model, SIZE, SIZE, name + ".attention.output.dense"),
                norm(model, name + ".attention.output.LayerNorm"),
                linear(model, SIZE, INNER, name + ".intermediate.dense"),
                linear(model, INNER, SIZE, name + ".output.dense"),
                norm(model, name + ".output.LayerNorm"));
    }

    /** Linear layers with the same input, as one: their weights [in, out] and biases [out] side by side. */
    private Linear linear(OnnxWeights model, int in, int out, String... names) {
        Tensor weights = pool.tensor(DType.F32, in, (long) names.length * out);
        Tensor bias = pool.tensor(DType.F32, (long) names.length * out);
        for (int i = 0; i < names.length; i++) {
            long from = (long) i * out;
            weights.slice(1, from, from + out).copyFrom(model.floats(names[i] + ".weight", in, out));
            bias.slice(0, from, from + out).copyFrom(model.floats(names[i] + ".bias", out));
        }
        PackedWeights packed = own(PackedWeights.pack(device, precision.weights(), weights), PackedWeights::close);
        pool.free(weights);
        return new Linear(packed, bias);
    }

    private Norm norm(OnnxWeights model, String name) {
        return new Norm(
                pool.tensor(DType.F32, SIZE).copyFrom(model.floats(name + ".weight", SIZE)),
                pool.tensor(DType.F32, SIZE).copyFrom(model.floats(name + ".bias", SIZE)));
    }

    /** Position embeddings plus the embedding of token type 0, which every token of a single text has. */
    private static float[] positionsOfFirstType(OnnxWeights model) {
        float[] positions = model.floats("embeddings.position_embeddings.weight", Tokenizer.MAX_TOKENS, SIZE);
        float[] types = model.floats("embeddings.token_type_embeddings.weight", 2, SIZE);
        for (int i = 0; i < positions.length; i++) {
            positions[i] += types[i % SIZE];
        }
        return positions;
    }

    private <T> T own(T resource, Consumer<T> close) {
        open.push(() -> close.accept(resource));
        return resource;
    }

    /** Releases weights, plans and memory. Closing twice does nothing. */
    @Override
    public synchronized void close() {
        while (!open.isEmpty()) {
            open.pop().run();
        }
    }
}
