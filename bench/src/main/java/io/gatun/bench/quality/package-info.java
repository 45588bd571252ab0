/** What approximations cost in quality, measured: for reading, not for passing. */
@NullMarked
package io.gatun.bench.quality;

import org.jspecify.annotations.NullMarked;
