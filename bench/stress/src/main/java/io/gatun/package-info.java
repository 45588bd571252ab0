/** Stress tests of what the memory pool does without its locks, in the package whose classes they are about. */
@org.jspecify.annotations.NullMarked
package io.gatun;
