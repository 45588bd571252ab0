/** The peers: each library behind the interface that {@code io.gatun.bench.compare} times. */
@NullMarked
package io.gatun.bench.peers;

import org.jspecify.annotations.NullMarked;
