/**
 * Gatun beside its peers: the same operators on the same data with the same threads, in turns, each beside what the
 * machine could do at best in that moment. The peers themselves are in a module of their own, {@code bench/peers}.
 */
@NullMarked
package io.gatun.bench.compare;

import org.jspecify.annotations.NullMarked;
