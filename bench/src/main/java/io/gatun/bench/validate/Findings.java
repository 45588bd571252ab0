package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.Report.BackendEntry;
import io.gatun.bench.report.Report.Comparison;
import io.gatun.bench.report.Report.DeviceEntry;
import io.gatun.bench.report.Report.Support;
import io.gatun.bench.report.Verdict;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What a run has found out so far. Any thread may ask for the report at any time: it holds what there is. */
final class Findings {
    private final long start = System.nanoTime();
    private final Instant started = Instant.now().truncatedTo(ChronoUnit.SECONDS);
    private final Report.Environment settings;
    private final List<BackendEntry> backends = new ArrayList<>();
    private final Map<String, DeviceEntry> devices = new LinkedHashMap<>();
    private final List<Support> claims = new ArrayList<>();
    private final Map<String, Outcome> outcomes = new LinkedHashMap<>();
    private final Map<String, DType> dtypes = new LinkedHashMap<>();
    private @Nullable Comparison comparison;
    private boolean failed;
    private String gatun = "";
    private int abi;
    private boolean complete;

    /**
     * Nothing yet.
     *
     * @param settings what is known of the environment before anything ran
     */
    Findings(Report.Environment settings) {
        this.settings = settings;
    }

    /** What the first process of the backend said of itself; those after it say the same. */
    synchronized void opened(Message.Opened opened) {
        if (devices.isEmpty()) {
            gatun = opened.gatun();
            abi = opened.abi();
            backends.addAll(opened.backends());
            claims.addAll(opened.claims());
            opened.devices().forEach(device -> devices.put(device.name(), device));
            opened.devices().stream()
                    .filter(device -> !device.available())
                    .forEach(device -> add(null, Outcome.notAvailable(device.name(), device.reason())));
        }
    }

    /** Adds an outcome, in place of an earlier one of the same case on the same device. */
    synchronized void add(@Nullable Case test, Outcome outcome) {
        String key = outcome.device() + "\n" + outcome.name();
        outcomes.put(key, outcome);
        failed |= switch (outcome.verdict()) {
            case FAIL, CRASHED, TIMED_OUT -> true;
            case PASS, UNSUPPORTED, MISTRUSTED, NOT_AVAILABLE -> false;
        };
        if (test != null && test.dtype() != null) {
            dtypes.put(key, test.dtype());
        }
    }

    /** The outcome of a case on a device, which must be there. */
    synchronized Outcome outcome(String device, String name) {
        Outcome outcome = outcomes.get(device + "\n" + name);
        if (outcome == null) {
            throw new IllegalArgumentException("'" + name + "' did not run on " + device);
        }
        return outcome;
    }

    /** The ceilings of a device. */
    synchronized void limits(String device, Map<String, Double> limits) {
        devices.computeIfPresent(device, (_, old) -> limits.isEmpty()
                ? old
                : new DeviceEntry(old.name(), old.backend(), old.description(), old.available(), old.reason(),
                        old.threads(), old.hostMemory(), old.memoryBytes(), limits));
    }

    synchronized void comparison(Comparison comparison) {
        this.comparison = comparison;
    }

    /** Whether a case has failed, crashed or timed out. */
    synchronized boolean failed() {
        return failed;
    }

    synchronized void complete() {
        complete = true;
    }

    /** The names of the devices that are there. */
    synchronized List<String> devices() {
        return devices.values().stream().filter(DeviceEntry::available).map(DeviceEntry::name).toList();
    }

    synchronized Report report() {
        Map<String, Integer> summary = new LinkedHashMap<>();
        for (Verdict verdict : Verdict.values()) {
            summary.put(verdict.toString(), 0);
        }
        outcomes.values().forEach(outcome -> summary.merge(outcome.verdict().toString(), 1, Integer::sum));
        Report.Environment environment = new Report.Environment(started.toString(),
                (System.nanoTime() - start) / 1e9, settings.cpu(), settings.isa(), settings.processors(),
                settings.memoryBytes(), settings.os(), settings.jvm(), gatun, abi, settings.catalogue(),
                settings.filter(), settings.shard(), settings.seed(), settings.threads(), settings.timeoutSeconds(),
                settings.command());
        return new Report(Report.SCHEMA, complete, environment, List.copyOf(backends), List.copyOf(devices.values()),
                summary, support(), List.copyOf(outcomes.values()), comparison);
    }

    private List<Support> support() {
        List<Support> support = new ArrayList<>();
        for (Support claim : claims) {
            int ran = 0;
            int passed = 0;
            int declined = 0;
            for (Map.Entry<String, Outcome> entry : outcomes.entrySet()) {
                Outcome outcome = entry.getValue();
                DType dtype = dtypes.get(entry.getKey());
                if (dtype == null || !claim.device().equals(outcome.device())
                        || !claim.operator().equals(outcome.operator())
                        || !claim.dtype().equals(Claims.name(dtype))) {
                    continue;
                }
                switch (outcome.verdict()) {
                    case UNSUPPORTED -> declined++;
                    case NOT_AVAILABLE -> {}
                    default -> ran++;
                }
                passed += outcome.verdict() == Verdict.PASS ? 1 : 0;
            }
            support.add(new Support(claim.device(), claim.operator(), claim.dtype(), claim.claimed(), ran, passed,
                    declined, contradiction(claim.claimed(), ran, declined)));
        }
        return support;
    }

    private static String contradiction(@Nullable Boolean claimed, int ran, int declined) {
        if (claimed == null) {
            return "";
        }
        if (claimed && ran == 0 && declined > 0) {
            String all = declined == 1 ? "the one case" : "all " + declined + " cases";
            return "claims to serve it, and declined " + all;
        }
        if (!claimed && ran > 0) {
            return "claims not to serve it, and ran " + (ran == 1 ? "a case" : ran + " cases");
        }
        return "";
    }
}
