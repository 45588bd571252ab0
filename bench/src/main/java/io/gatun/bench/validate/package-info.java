/**
 * Validation: a catalogue of cases, run on devices and held to the references.
 *
 * <p>A {@link io.gatun.bench.validate.Case} is one line of text that repeats it exactly. A
 * {@link io.gatun.bench.validate.Trial} is one run of a case on one device; a {@link
 * io.gatun.bench.validate.Comparison} says how far its outputs are from what was expected.
 */
@NullMarked
package io.gatun.bench.validate;

import org.jspecify.annotations.NullMarked;
