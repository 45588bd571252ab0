/** The gatun command. */
@NullMarked
package io.gatun.bench.cli;

import org.jspecify.annotations.NullMarked;
