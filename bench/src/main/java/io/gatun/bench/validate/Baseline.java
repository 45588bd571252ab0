package io.gatun.bench.validate;

import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report;
import io.gatun.bench.report.Report.Compared;
import io.gatun.bench.report.Report.Comparison;
import io.gatun.bench.report.Report.DeviceEntry;
import io.gatun.bench.report.Timing;
import io.gatun.bench.report.Verdict;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * An earlier report whose times later ones are compared with, as far as device and processor are the same.
 *
 * <p>A case counts as slower when its median warm run takes longer by more than the threshold, and three quarters of
 * its runs took longer than three quarters of the earlier ones. A median that is further off without that is noise.
 *
 * @param threshold by which part a case must be slower to count as such
 */
record Baseline(Report report, double threshold) {
    /**
     * Why times of two reports cannot be compared, or "".
     *
     * @param environment of the later report
     */
    String whyNot(Report.Environment environment, List<DeviceEntry> devices) {
        if (!report.environment().cpu().equals(environment.cpu())) {
            return "it was made on another processor: " + report.environment().cpu();
        }
        if (report.environment().threads() != environment.threads()
                || report.environment().processors() != environment.processors()) {
            return "it was made with another number of threads or processors";
        }
        List<String> names = report.devices().stream().map(DeviceEntry::name).toList();
        return devices.stream().map(DeviceEntry::name).anyMatch(names::contains)
                ? ""
                : "it has none of the devices";
    }

    Comparison compare(List<Outcome> outcomes) {
        Map<String, Outcome> before = new HashMap<>();
        report.outcomes().forEach(outcome -> before.put(key(outcome), outcome));
        List<Compared> entries = new ArrayList<>();
        for (Outcome after : outcomes) {
            Outcome earlier = before.get(key(after));
            if (earlier != null && timed(after) && timed(earlier) && after.time() != null && earlier.time() != null) {
                entries.add(new Compared(after.name(), after.device(), earlier.time().warmMs(), after.time().warmMs(),
                        verdict(earlier.time(), after.time())));
            }
        }
        return new Comparison(report.environment().started(), threshold, entries);
    }

    private static boolean timed(Outcome outcome) {
        return outcome.check().equals(TimeCase.CHECK) && outcome.verdict() == Verdict.PASS;
    }

    private String verdict(Timing before, Timing after) {
        double ratio = after.warmMs() / before.warmMs();
        if (ratio > 1 + threshold) {
            return after.lowMs() > before.highMs() ? "slower" : "noise";
        }
        if (ratio < 1 / (1 + threshold)) {
            return after.highMs() < before.lowMs() ? "faster" : "noise";
        }
        return "same";
    }

    private static String key(Outcome outcome) {
        return outcome.device() + "\n" + outcome.name();
    }
}
