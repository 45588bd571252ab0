/**
 * Validation: a catalogue of cases, what each of them looks at, and the processes that run them.
 */
@NullMarked
package io.gatun.bench.validate;

import org.jspecify.annotations.NullMarked;
