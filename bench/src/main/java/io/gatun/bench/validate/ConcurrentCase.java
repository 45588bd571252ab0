package io.gatun.bench.validate;

import io.gatun.Stream;
import io.gatun.bench.report.Verdict;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Several streams at once: {@code concurrent gemm f32 f32->f32 m33 k64 n65 seed=1}. Each thread has a stream and
 * operands of its own; the plan and packed weights are one for all. Every run of every thread must give the same bits,
 * and the right ones.
 */
record ConcurrentCase(OperatorCase inner) implements OperatorCheck {
    static final String CHECK = "concurrent";
    private static final int THREADS = 4;
    private static final int RUNS = 8;

    @Override
    public String check() {
        return CHECK;
    }

    @Override
    public Examination prepare() {
        OperatorCase.Problem problem = inner.problem();
        return subject -> examine(subject, problem);
    }

    /** What one thread saw. */
    private record Seen(Finding finding, List<byte[]> results) {}

    private Finding examine(Subject subject, OperatorCase.Problem problem) {
        CyclicBarrier start = new CyclicBarrier(THREADS);
        List<Future<Seen>> futures = new ArrayList<>();
        try (Shared shared = new Shared();
                ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
            for (int i = 0; i < THREADS; i++) {
                futures.add(threads.submit(() -> thread(subject, problem, shared, start)));
            }
            List<Seen> seen = new ArrayList<>();
            for (Future<Seen> future : futures) {
                seen.add(future.get());
            }
            Finding first = seen.getFirst().finding();
            for (Seen other : seen) {
                if (!other.finding().detail().isEmpty()) {
                    return other.finding();
                }
                if (!Trial.same(other.results(), seen.getFirst().results())) {
                    return new Finding(Verdict.FAIL,
                            "other bits on streams that run at the same time", first.kernel(), first.ratio(),
                            first.error(), first.tolerance(), null);
                }
            }
            return first;
        } catch (ExecutionException e) {
            throw GuardedMemory.rethrow(e.getCause());
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private Seen thread(Subject subject, OperatorCase.Problem problem, Shared shared, CyclicBarrier start) {
        List<byte[]> results = new ArrayList<>();
        try (Stream stream = subject.device().newStream()) {
            Trial.Course course = (trial, run) -> {
                await(start);
                for (int i = 0; i < RUNS; i++) {
                    trial.once(run);
                    if (i == 0) {
                        results.addAll(trial.results());
                    } else {
                        trial.expectBits(results, "while other streams run");
                    }
                }
            };
            try (Trial trial = new Trial(subject, stream, shared, subject.placement(inner), course)) {
                problem.run(trial);
                return new Seen(Finding.of(trial.compare(), inner.degenerate(), trial.kernel(), null), results);
            }
        } catch (RuntimeException | Error e) {
            start.reset(); // the others must not wait for this thread
            throw e;
        }
    }

    private static void await(CyclicBarrier start) {
        try {
            start.await();
        } catch (BrokenBarrierException e) {
            throw new IllegalStateException("another thread failed", e);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
