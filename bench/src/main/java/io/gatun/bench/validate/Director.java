package io.gatun.bench.validate;

import io.gatun.NotAvailableException;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.Report.Comparison;
import io.gatun.bench.report.Report.Environment;
import io.gatun.bench.report.Verdict;
import io.gatun.bench.validate.WorkerProcess.Died;
import io.gatun.bench.validate.WorkerProcess.Late;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.jspecify.annotations.Nullable;

/**
 * Directs a validation run from a process that never opens a native library: a {@link Worker} runs the backend. When
 * that process dies or gives no answer, it costs the case that it was at, and the next worker goes on with the one
 * after it.
 */
public final class Director {
    /** How long the references of the largest case may take, which have nothing to do with the backend. */
    private static final Duration PREPARATION = Duration.ofMinutes(10);

    /** Crashes, and time-outs, of an operator on a device after which its other cases are not run. */
    private static final int MOST_CRASHES = 10;

    private static final int MOST_TIMEOUTS = 3;

    /** How often a case that seems slower than in the baseline is measured again. */
    private static final int SECOND_LOOKS = 2;

    /** Is told what happens, from the thread that runs. */
    public interface Watcher {
        /** The devices are open, and so many outcomes are to come. */
        void opened(List<String> devices, int outcomes);

        /** A case ended on a device. */
        void outcome(Outcome outcome);
    }

    /**
     * What to run.
     *
     * @param library a backend's library to open first, or null
     * @param device one device, or all of a backend
     * @param threads of a run, 0 for the usual number
     * @param timeout after which a case that gives no answer is ended
     * @param failFast whether to end with the first case that fails, crashes or times out
     * @param brief whether it is over before code that is compiled with more effort pays
     */
    public record Job(List<Case> cases, @Nullable Path library, String device, int threads, Duration timeout,
            boolean failFast, boolean brief) {}

    private final Job job;
    private final Findings findings;
    private final Watcher watcher;
    private final Map<String, Integer> deaths = new HashMap<>();
    private @Nullable WorkerProcess worker;
    private volatile boolean stopped;

    /**
     * A run that has not begun.
     *
     * @param environment what is known before; times, versions and devices are filled in
     */
    public Director(Job job, Environment environment, Watcher watcher) {
        this.job = job;
        this.findings = new Findings(environment);
        this.watcher = watcher;
    }

    /** What has been found out so far; any thread may ask. */
    public Report report() {
        return findings.report();
    }

    /** Takes no more outcomes: this process is about to end, and its workers with it. */
    public Report stop() {
        stopped = true;
        return report();
    }

    /**
     * Runs everything.
     *
     * @param baseline an earlier report to compare times with, or null
     * @throws NotAvailableException when the backend or device is not there
     * @throws IOException when no process can be started
     * @throws CancellationException when it was stopped
     */
    public void run(@Nullable Report baseline, double threshold) throws IOException {
        try {
            start();
            List<String> devices = findings.devices();
            watcher.opened(devices, job.cases().size() * devices.size());
            Baseline earlier = baseline == null ? null : new Baseline(baseline, threshold);
            if (earlier != null) {
                String why = earlier.whyNot(findings.report().environment(), findings.report().devices());
                if (!why.isEmpty()) {
                    throw new NotAvailableException("times cannot be compared with the baseline: " + why);
                }
            }
            for (int i = 0; i < job.cases().size(); i++) {
                if (job.failFast() && findings.failed()) {
                    return; // the report says that it is not complete
                }
                Case next = i + 1 < job.cases().size() ? job.cases().get(i + 1) : null;
                examine(job.cases().get(i), devices, next, true);
            }
            if (earlier != null) {
                compare(earlier, devices);
            }
            close();
            findings.complete();
        } finally {
            if (worker != null) {
                worker.close();
            }
        }
    }

    private WorkerProcess start() throws IOException {
        try {
            WorkerProcess started = WorkerProcess.start(job.brief());
            worker = started;
            String library = job.library() == null ? null : job.library().toAbsolutePath().toString();
            started.send(new Message.Open(library, job.device(), job.threads()));
            switch (started.receive(job.timeout().multipliedBy(2))) {
                case Message.Opened opened -> findings.opened(opened);
                case Message.Refused refused -> throw new NotAvailableException(refused.why());
                case Message other -> throw new IllegalStateException("unexpected: " + other);
            }
            return started;
        } catch (Died | Late e) {
            throw new NotAvailableException(
                    "the process that opened " + (job.library() == null ? job.device() : job.library()) + ": "
                            + e.getMessage());
        }
    }

    /** Runs a case on devices, and again on those that are left when the worker dies. */
    private void examine(Case test, List<String> devices, @Nullable Case next, boolean report) throws IOException {
        List<String> left = new ArrayList<>();
        for (String device : devices) {
            String why = givenUp(test, device);
            if (why.isEmpty()) {
                left.add(device);
            } else {
                add(test, ended(test, device, Verdict.NOT_AVAILABLE, why), report);
            }
        }
        while (!left.isEmpty()) {
            WorkerProcess current = worker == null ? start() : worker;
            String device = left.getFirst();
            List<Operand.Region> regions = new ArrayList<>();
            Duration patience = PREPARATION;
            try {
                current.send(new Message.Examine(test.name(), left, next == null ? null : next.name()));
                while (!left.isEmpty()) {
                    switch (current.receive(patience)) {
                        case Message.Begins _ -> patience = job.timeout();
                        case Message.Operands operands -> regions.addAll(operands.regions());
                        case Message.Ended ended -> {
                            findings.limits(ended.outcome().device(), ended.limits());
                            add(test, ended.outcome(), report);
                            left.remove(ended.outcome().device());
                            device = left.isEmpty() ? device : left.getFirst();
                        }
                        case Message.Done _ -> throw new IllegalStateException("no outcome for " + left);
                        case Message other -> throw new IllegalStateException("unexpected: " + other);
                    }
                }
                if (!(current.receive(job.timeout()) instanceof Message.Done)) {
                    throw new IllegalStateException("a case ended twice");
                }
            } catch (Died e) {
                String detail = e.getMessage() + touched(current.faultAddress(), regions);
                lost(test, left, device, Verdict.CRASHED, detail, report);
            } catch (Late e) {
                lost(test, left, device, Verdict.TIMED_OUT, String.valueOf(e.getMessage()), report);
            }
        }
    }

    private void lost(Case test, List<String> left, String device, Verdict verdict, String detail, boolean report) {
        if (worker != null) {
            worker.close();
            worker = null;
        }
        checkStopped();
        deaths.merge(key(test, device, verdict), 1, Integer::sum);
        // Also when the last device had given its outcome already: that process did not survive the case.
        add(test, ended(test, device, verdict, detail), report);
        left.remove(device);
    }

    /** Who interrupts this process at a terminal interrupts the worker as well, which may be noticed first. */
    private void checkStopped() {
        try {
            Thread.sleep(200);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
        if (stopped) {
            throw new CancellationException();
        }
    }

    private String givenUp(Case test, String device) {
        int crashes = deaths.getOrDefault(key(test, device, Verdict.CRASHED), 0);
        int timeouts = deaths.getOrDefault(key(test, device, Verdict.TIMED_OUT), 0);
        if (crashes < MOST_CRASHES && timeouts < MOST_TIMEOUTS) {
            return "";
        }
        return "given up: " + crashes + " crashes and " + timeouts + " time-outs of " + test.operator() + " before";
    }

    private static String key(Case test, String device, Verdict verdict) {
        return verdict + "\n" + device + "\n" + test.operator();
    }

    private static Outcome ended(Case test, String device, Verdict verdict, String detail) {
        return Finding.of(verdict, detail).outcome(test, device);
    }

    private void add(Case test, Outcome outcome, boolean report) {
        findings.add(test, outcome);
        if (report) {
            watcher.outcome(outcome);
        }
    }

    /** Which operand an address is next to, as the end of a sentence. */
    static String touched(@Nullable Long address, List<Operand.Region> regions) {
        if (address == null) {
            return "";
        }
        String nearest = "";
        long least = 2 * GuardedMemory.PAGE;
        for (Operand.Region region : regions) {
            long beyond = address - region.end();
            long before = region.start() - address;
            if (beyond >= 0 && beyond < least) {
                least = beyond;
                nearest = ", touching memory " + beyond + " bytes past the end of " + region.name();
            } else if (before > 0 && before < least) {
                least = before;
                nearest = ", touching memory " + before + " bytes before the start of " + region.name();
            }
        }
        return nearest;
    }

    /** Compares times with an earlier report, and measures again what seems slower: the fastest time counts. */
    private void compare(Baseline baseline, List<String> devices) throws IOException {
        Comparison comparison = baseline.compare(findings.report().outcomes());
        for (int look = 0; look < SECOND_LOOKS; look++) {
            for (Report.Compared entry : comparison.entries()) {
                if (entry.verdict().equals("slower") && devices.contains(entry.device())) {
                    Outcome before = findings.outcome(entry.device(), entry.name());
                    Case test = Case.parse(entry.name());
                    examine(test, List.of(entry.device()), null, false);
                    Outcome after = findings.outcome(entry.device(), entry.name());
                    if (after.time() != null && before.time() != null
                            && after.time().warmMs() > before.time().warmMs()) {
                        findings.add(test, before);
                    }
                }
            }
            comparison = baseline.compare(findings.report().outcomes());
        }
        findings.comparison(comparison);
    }

    /** Lets the worker close everything: a crash there is an outcome, too. */
    private void close() {
        if (worker == null) {
            return;
        }
        Case close = new LeakCase(null, 0);
        String when = "when everything was closed: ";
        try {
            worker.send(new Message.Close());
            worker.receive(job.timeout());
        } catch (Died e) {
            add(close, ended(close, job.device(), Verdict.CRASHED, when + e.getMessage()), true);
        } catch (Late e) {
            add(close, ended(close, job.device(), Verdict.TIMED_OUT, when + e.getMessage()), true);
        }
    }
}
