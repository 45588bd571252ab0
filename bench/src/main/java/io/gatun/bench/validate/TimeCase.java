package io.gatun.bench.validate;

import io.gatun.PlanInfo;
import io.gatun.Stream;
import io.gatun.bench.report.Timing;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * How long an operator takes, beside what it computes: {@code time gemm f32 f32->f32 m128 k768 n768 seed=1}. Warm runs
 * find operands where the run before left them, cold ones find none of them in a cache.
 */
record TimeCase(OperatorCase inner) implements OperatorCheck {
    static final String CHECK = "time";
    private static final int LEAST_RUNS = 9;
    private static final int MOST_RUNS = 500;
    private static final double ENOUGH_MS = 25;
    private static final int COLD_RUNS = 3;

    /** More than a core reaches of the caches of today's processors: filling it drives everything else out. */
    private static final class Sweep {
        static final MemorySegment MEMORY = Arena.global().allocate(512L << 20, 4096);
    }

    @Override
    public String check() {
        return CHECK;
    }

    @Override
    public boolean alone() {
        return true;
    }

    @Override
    public Examination prepare() {
        OperatorCase.Problem problem = inner.problem();
        return subject -> {
            Map<String, Double> limits = subject.limits();
            Times times = new Times();
            try (Shared shared = new Shared();
                    Trial trial = new Trial(subject, subject.stream(subject.device()), shared,
                            Operand.Placement.ALIGNED, (self, run) -> times.take(self, run, subject))) {
                problem.run(trial);
                Timing timing = times.timing(trial.plan(), limits);
                return Finding.of(trial.compare(), inner.degenerate(), trial.kernel(), timing);
            }
        };
    }

    private final class Times {
        private double first;
        private final List<Double> warm = new ArrayList<>();
        private final List<Double> cold = new ArrayList<>();

        void take(Trial trial, Trial.Run run, Subject subject) {
            Stream stream = subject.stream(subject.device());
            first = trial.once(run, stream);
            trial.timed(run, stream);
            for (double sum = 0; warm.size() < LEAST_RUNS || sum < ENOUGH_MS && warm.size() < MOST_RUNS; ) {
                double milliseconds = trial.timed(run, stream);
                warm.add(milliseconds);
                sum += milliseconds;
            }
            if (subject.device().info().hostMemory()) {
                for (int i = 0; i < COLD_RUNS; i++) {
                    Sweep.MEMORY.fill((byte) i);
                    cold.add(trial.timed(run, stream));
                }
            }
            trial.once(run, stream); // what is compared
        }

        Timing timing(PlanInfo plan, Map<String, Double> limits) {
            double median = quantile(warm, 0.5);
            Double coldMedian = cold.isEmpty() ? null : quantile(cold, 0.5);
            double rate = inner.fillsPlan() ? 1 / (median * 1e6) : 0;
            Double compute = limits.get(Limits.name(inner.dtype()));
            Double memory = limits.get(Limits.MEMORY);
            Double roofline = null;
            String bound = null;
            if (inner.fillsPlan() && compute != null && memory != null) {
                double computeMs = plan.flops() / compute * 1e3;
                double memoryMs = plan.bytes() / memory * 1e3;
                bound = computeMs >= memoryMs ? "compute" : "memory";
                // Only what comes from memory is held up by it.
                double took = computeMs >= memoryMs || coldMedian == null ? median : coldMedian;
                roofline = Math.max(computeMs, memoryMs) / took;
            }
            return new Timing(warm.size(), first, median, quantile(warm, 0.25), quantile(warm, 0.75), coldMedian,
                    plan.flops() * rate, plan.bytes() * rate, roofline, bound);
        }

        private static double quantile(List<Double> samples, double part) {
            List<Double> sorted = samples.stream().sorted().toList();
            return sorted.get((int) Math.round(part * (sorted.size() - 1)));
        }
    }
}
