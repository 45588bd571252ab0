/** Memory of devices as segments. */
@NullMarked
package io.gatun.bindings.memory;

import org.jspecify.annotations.NullMarked;
