package io.gatun.bench.validate;

import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Timing;
import io.gatun.bench.report.Verdict;
import org.jspecify.annotations.Nullable;

/** What an examination showed: all of an {@link Outcome} but the names of case and device. */
record Finding(Verdict verdict, String detail, String kernel, double ratio, double error, double tolerance,
        @Nullable Timing time) {

    static Finding of(Verdict verdict, String detail) {
        return new Finding(verdict, detail, "", 0, 0, 0, null);
    }

    /**
     * What a comparison says.
     *
     * @param mayBeEmpty whether it is no matter that no expected value tells right from wrong
     */
    static Finding of(Comparison comparison, boolean mayBeEmpty, String kernel, @Nullable Timing time) {
        boolean failed = !comparison.failures().isEmpty();
        boolean tested = comparison.telling() > 0 || mayBeEmpty;
        String detail = failed
                ? String.join("; ", comparison.failures())
                : tested ? "" : "no expected value tells right from wrong";
        return new Finding(failed ? Verdict.FAIL : tested ? Verdict.PASS : Verdict.MISTRUSTED, detail, kernel,
                comparison.ratio(), comparison.error(), comparison.tolerance(), time);
    }

    Outcome outcome(Case test, String device) {
        return new Outcome(test.name(), test.check(), test.operator(), test.types(), device, verdict, detail, kernel,
                ratio, error, tolerance, time);
    }
}
