/** Traces of what programs ask of memory, and their replay against the pool and other allocators. */
@NullMarked
package io.gatun.bench.memory;

import org.jspecify.annotations.NullMarked;
