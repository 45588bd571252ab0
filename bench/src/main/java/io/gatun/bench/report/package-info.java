/** What a validation run found out, and the forms in which it is handed on. */
@NullMarked
package io.gatun.bench.report;

import org.jspecify.annotations.NullMarked;
