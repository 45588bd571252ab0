package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.MemoryPool;
import io.gatun.Stream;
import io.gatun.bench.report.Verdict;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Memory is returned: {@code leak softmax f32->f32 r5 n33 seed=1} opens a stream, packed weights and a plan, runs it
 * and closes everything, again and again; {@code leak device seed=1} does so with the device itself and a memory pool.
 *
 * <p>What the process holds is looked at after every {@value #ROUNDS} rounds. The virtual machine takes and gives memory
 * as well, most of it while it compiles, so windows in which its compilers have run do not count. A leak is as large in
 * every round: one window in which nothing changes is a pass, and {@value #ENOUGH} that grow alike, and as many more
 * after a second, are a leak.
 *
 * @param inner the operator, or null for the device
 */
record LeakCase(@Nullable OperatorCase inner, long seed) implements Case {
    static final String CHECK = "leak";
    private static final String DEVICE = "device";
    private static final int ROUNDS = 10;
    private static final int ENOUGH = 10;
    private static final int MOST_WINDOWS = 200;
    private static final int PAUSE_MS = 2;
    private static final int MOST_PAUSES = 2000;
    private static final int SECOND_LOOK_MS = 1000;
    private static final int WARM_UP = 10;

    /** Bytes per round that count as a change: no allocation takes fewer. */
    private static final long LEAST = 16;

    static LeakCase parse(String line) {
        if (line.startsWith(DEVICE)) {
            Words words = new Words(line);
            words.flag(DEVICE);
            LeakCase test = new LeakCase(null, words.seed());
            words.end();
            return test;
        }
        return new LeakCase(OperatorCase.parse(line), 0);
    }

    @Override
    public String name() {
        return CHECK + " " + (inner == null ? DEVICE + " seed=" + seed : inner.name());
    }

    @Override
    public String check() {
        return CHECK;
    }

    @Override
    public String operator() {
        return inner == null ? DEVICE : inner.operator();
    }

    @Override
    public String types() {
        return inner == null ? "" : inner.types();
    }

    @Override
    public @Nullable DType dtype() {
        return inner == null ? null : inner.dtype();
    }

    @Override
    public boolean alone() {
        return true;
    }

    @Override
    public Examination prepare() {
        OperatorCase.Problem problem = inner == null ? null : inner.problem();
        return subject -> {
            String[] kernel = {""};
            Runnable round = problem == null ? () -> device(subject) : () -> kernel[0] = run(subject, problem);
            Finding leak = leak(round);
            return new Finding(leak.verdict(), leak.detail(), kernel[0], 0, 0, 0, null);
        };
    }

    private String run(Subject subject, OperatorCase.Problem problem) {
        try (Stream stream = subject.device().newStream();
                Shared shared = new Shared();
                Trial trial = new Trial(subject, stream, shared, subject.placement(this), Trial::once)) {
            problem.run(trial);
            return trial.kernel();
        }
    }

    private static void device(Subject subject) {
        try (Device device = Device.open(subject.name());
                Stream stream = device.newStream();
                MemoryPool pool = MemoryPool.of(device)) {
            pool.allocate(1 << 20, 64);
            stream.synchronize();
        }
    }

    private static Finding leak(Runnable round) {
        repeat(WARM_UP, round);
        Finding first = look(round);
        if (first.verdict() == Verdict.PASS) {
            return first;
        }
        pause(SECOND_LOOK_MS);
        return look(round);
    }

    private static Finding look(Runnable round) {
        List<Long> allocated = new ArrayList<>();
        List<Long> mapped = new ArrayList<>();
        for (int window = 0; window < MOST_WINDOWS; window++) {
            long activity = compilations();
            ProcessMemory before = ProcessMemory.now();
            repeat(ROUNDS, round);
            ProcessMemory after = ProcessMemory.now();
            if (compilations() == activity) {
                long moreAllocated = (after.allocated() - before.allocated()) / ROUNDS;
                long moreMapped = (after.mapped() - before.mapped()) / ROUNDS;
                if (Math.abs(moreAllocated) < LEAST && Math.abs(moreMapped) < LEAST) {
                    return Finding.of(Verdict.PASS, "");
                }
                allocated.add(moreAllocated);
                mapped.add(moreMapped);
                if (alike(allocated) >= ENOUGH || alike(mapped) >= ENOUGH) {
                    return Finding.of(Verdict.FAIL, median(allocated) + " bytes more are allocated, and " + median(mapped)
                            + " mapped, after each round of opening, running and closing");
                }
            }
            awaitRest();
        }
        return Finding.of(Verdict.MISTRUSTED, "the virtual machine was never at rest");
    }

    /** How many windows grow by the median, give or take a factor of two. */
    private static long alike(List<Long> growth) {
        long median = median(growth);
        return median < LEAST ? 0 : growth.stream().filter(g -> g >= median / 2 && g <= 2 * median).count();
    }

    /** Changes whenever the virtual machine compiles or loads something, also while it is still at it. */
    private static long compilations() {
        return ProcessMemory.compilersRan() + ManagementFactory.getClassLoadingMXBean().getTotalLoadedClassCount();
    }

    /** Waits for the compilers to be done with what they are at, a few seconds at most. */
    private static void awaitRest() {
        long before = compilations();
        for (int i = 0; i < MOST_PAUSES; i++) {
            pause(PAUSE_MS);
            long now = compilations();
            if (now == before) {
                return;
            }
            before = now;
        }
    }

    private static void pause(int milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static long median(List<Long> values) {
        return values.stream().sorted().toList().get(values.size() / 2);
    }

    private static void repeat(int times, Runnable round) {
        for (int i = 0; i < times; i++) {
            round.run();
        }
    }
}
