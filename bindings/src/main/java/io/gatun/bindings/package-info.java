/** Finding and loading the native libraries. */
@NullMarked
package io.gatun.bindings;

import org.jspecify.annotations.NullMarked;
