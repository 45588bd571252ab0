package io.gatun.bench.validate;

import io.gatun.Device;
import io.gatun.PlanInfo;
import io.gatun.bench.report.Timing;
import java.util.ArrayList;
import java.util.List;

/**
 * Looks at what an operator computes: every element against its reference, everything around the outputs and all inputs
 * for having been left alone, and the same bits again on another stream, in a repeat, and with other numbers of
 * threads.
 */
final class ValueExamination implements Case.Examination {
    private final OperatorCase test;
    private final OperatorCase.Problem problem;

    ValueExamination(OperatorCase test, OperatorCase.Problem problem) {
        this.test = test;
        this.problem = problem;
    }

    @Override
    public Finding on(Subject subject) {
        List<byte[]> results = new ArrayList<>();
        double[] milliseconds = new double[3];
        Trial.Course course = (trial, run) -> {
            milliseconds[0] = trial.once(run);
            results.addAll(trial.results());
            milliseconds[1] = trial.once(run, subject.second());
            trial.expectBits(results, "on another stream");
            milliseconds[2] = trial.once(run);
            trial.expectBits(results, "in a repeat");
        };
        try (Shared shared = new Shared();
                Trial trial = trial(subject, subject.device(), shared, course)) {
            problem.run(trial);
            for (Device device : subject.otherThreads()) {
                if (!sameWith(device, subject, results)) {
                    trial.fail("other bits with " + device.info().threads() + " threads than with "
                            + subject.device().info().threads());
                }
            }
            return Finding.of(trial.compare(), test.degenerate(), trial.kernel(), timing(milliseconds, trial.plan()));
        }
    }

    private boolean sameWith(Device device, Subject subject, List<byte[]> results) {
        boolean[] same = new boolean[1];
        Trial.Course course = (trial, run) -> {
            trial.once(run);
            same[0] = Trial.same(trial.results(), results);
        };
        try (Shared shared = new Shared();
                Trial trial = trial(subject, device, shared, course)) {
            problem.run(trial);
        }
        return same[0];
    }

    private Trial trial(Subject subject, Device device, Shared shared, Trial.Course course) {
        return new Trial(subject, subject.stream(device), shared, subject.placement(test), course);
    }

    private Timing timing(double[] milliseconds, PlanInfo plan) {
        double low = Math.min(milliseconds[1], milliseconds[2]);
        double high = Math.max(milliseconds[1], milliseconds[2]);
        double warm = (low + high) / 2;
        double rate = test.fillsPlan() && warm > 0 ? 1 / (warm * 1e6) : 0;
        return new Timing(2, milliseconds[0], warm, low, high, null, plan.flops() * rate, plan.bytes() * rate, null,
                null);
    }
}
