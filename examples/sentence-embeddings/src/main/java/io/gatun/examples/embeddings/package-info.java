/** Sentences to vectors: tokenizer, encoder and a command that shows which sentences mean the same. */
@NullMarked
package io.gatun.examples.embeddings;

import org.jspecify.annotations.NullMarked;
