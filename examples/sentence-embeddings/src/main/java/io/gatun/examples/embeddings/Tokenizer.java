package io.gatun.examples.embeddings;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import java.io.IOException;
import java.io.InputStream;
import java.util.Arrays;
import java.util.Map;

/** Splits text into the word pieces of the model's vocabulary. Safe to use from several threads. */
public final class Tokenizer implements AutoCloseable {
    /** The longest sequence that the model has positions for, its two marker tokens included. */
    public static final int MAX_TOKENS = 512;

    static {
        // The library asks the cloud provider's metadata service where it runs unless it is told not to.
        System.setProperty("OPT_OUT_TRACKING", "true");
    }

    private final HuggingFaceTokenizer tokenizer;

    private Tokenizer(HuggingFaceTokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /**
     * The tokenizer that belongs to {@link MiniLm}, read from the class or module path.
     *
     * @throws IOException when it cannot be read
     */
    public static Tokenizer load() throws IOException {
        try (InputStream json = MiniLm.resource("all-minilm-l6-v2-tokenizer.json")) {
            // Left alone, it would cut every text at 128 tokens and pad it to 128.
            return new Tokenizer(
                    HuggingFaceTokenizer.newInstance(json, Map.of("truncation", "false", "padding", "false")));
        }
    }

    /**
     * The tokens of a text.
     *
     * @param ids the token numbers, from the marker [CLS] to the marker [SEP]; an empty text is these two alone
     * @param dropped how many tokens before [SEP] were left out because the text is longer than {@link #MAX_TOKENS}
     */
    public record Tokens(long[] ids, int dropped) {}

    /** Splits {@code text}; what is beyond {@link #MAX_TOKENS} tokens is dropped. */
    public Tokens encode(String text) {
        long[] ids = tokenizer.encode(text).getIds();
        if (ids.length <= MAX_TOKENS) {
            return new Tokens(ids, 0);
        }
        long[] kept = Arrays.copyOf(ids, MAX_TOKENS);
        kept[MAX_TOKENS - 1] = ids[ids.length - 1];
        return new Tokens(kept, ids.length - MAX_TOKENS);
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
