package io.gatun.examples.embeddings;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

class TokenizerTest {
    private static final long CLS = 101;
    private static final long SEP = 102;

    private static Tokenizer tokenizer;

    @BeforeAll
    static void load() throws IOException {
        tokenizer = Tokenizer.load();
    }

    @AfterAll
    static void close() {
        tokenizer.close();
    }

    @Test
    void splitsIntoWordPieces() {
        assertArrayEquals(new long[] {CLS, 7592, 2088, SEP}, tokenizer.encode("Hello world").ids());
        assertEquals(tokenizer.encode("hello WORLD").ids().length, 4);
    }

    @Test
    void emptyTextIsTwoTokens() {
        assertArrayEquals(new long[] {CLS, SEP}, tokenizer.encode("").ids());
    }

    @Test
    void doesNotPadOrCutAt128() {
        Tokenizer.Tokens tokens = tokenizer.encode("sea ".repeat(200));
        assertEquals(202, tokens.ids().length);
        assertEquals(0, tokens.dropped());
    }

    @Test
    void keepsExactlyTheLongestText() {
        Tokenizer.Tokens tokens = tokenizer.encode("sea ".repeat(510));
        assertEquals(512, tokens.ids().length);
        assertEquals(0, tokens.dropped());
    }

    @Test
    void cutsWhatIsLongerAndEndsItWithTheMarker() {
        String text = Sentences.words(new Random(3), 600);
        Tokenizer.Tokens all = tokenizer.encode(text);
        assertEquals(512, all.ids().length);
        assertEquals(CLS, all.ids()[0]);
        assertEquals(SEP, all.ids()[511]);
        assertEquals(1, tokenizer.encode("sea ".repeat(511)).dropped());
    }
}
