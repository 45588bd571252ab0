package io.gatun.bench.validate;

import io.gatun.Backend;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.GatunException;
import io.gatun.NotAvailableException;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Verdict;
import io.gatun.bench.validate.Case.Examination;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Predicate;

/**
 * Runs cases on devices in this process. Operands and expectations of a case are made once, and then every device runs
 * it.
 *
 * <p>Close it when done: the devices stay open until then.
 */
final class Validation implements AutoCloseable {
    private final List<AutoCloseable> opened = new ArrayList<>();
    private final List<Subject> subjects = new ArrayList<>();
    private final List<DeviceInfo> missing = new ArrayList<>();

    /** Is told what a case is about to do, and what came of it. */
    interface Listener {
        /** The next run is on operands at these addresses of the host's memory. */
        default void operands(List<Operand.Region> regions) {}

        /** The case ended on a device. */
        void outcome(Outcome outcome);
    }

    private Validation() {}

    /**
     * Opens what a name stands for: one device, such as {@code cpu:avx2}, or all of a backend, such as {@code cpu}.
     * Levels of that backend that are not there are kept as {@link #missing}.
     *
     * @param threads threads that a run may use, 0 for the usual number
     * @throws NotAvailableException when the device, or every device of the backend, is not there
     */
    static Validation open(String name, int threads) {
        return open(name, threads, Trial.Tamper.NONE);
    }

    static Validation open(String name, int threads, Trial.Tamper tamper) {
        Validation validation = new Validation();
        try {
            for (DeviceInfo info : resolve(name)) {
                if (info.available()) {
                    Subject subject = new Subject(info, threads, tamper);
                    validation.opened.add(subject);
                    validation.subjects.add(subject);
                } else {
                    validation.missing.add(info);
                }
            }
            if (validation.subjects.isEmpty()) {
                DeviceInfo first = validation.missing.getFirst();
                throw new NotAvailableException(first.name() + ": " + first.reason());
            }
            return validation;
        } catch (RuntimeException e) {
            validation.close();
            throw e;
        }
    }

    private static List<DeviceInfo> resolve(String name) {
        String backendName = name.contains(":") ? name.substring(0, name.indexOf(':')) : name;
        List<Backend> backends = Gatun.backends();
        Backend backend = backends.stream()
                .filter(b -> b.name().equals(backendName))
                .findFirst()
                .orElseThrow(() -> new NotAvailableException("there is no backend '" + backendName + "', only "
                        + String.join(", ", backends.stream().map(Backend::name).toList())));
        if (!backend.available()) {
            throw new NotAvailableException("backend " + backendName + ": " + backend.reason());
        }
        List<DeviceInfo> devices = backend.devices();
        List<DeviceInfo> wanted = devices.stream()
                .filter(d -> name.equals(backendName) ? d.name().contains(":") : d.name().equals(name))
                .toList();
        if (wanted.isEmpty()) {
            wanted = devices.stream().filter(d -> d.name().equals(name)).toList();
        }
        if (wanted.isEmpty()) {
            throw new NotAvailableException("there is no device '" + name + "', only "
                    + String.join(", ", devices.stream().map(DeviceInfo::name).toList()));
        }
        return wanted;
    }

    /** The devices that cases run on. */
    List<Subject> subjects() {
        return subjects;
    }

    /** Devices that were asked for and are not there, with the reason. */
    List<DeviceInfo> missing() {
        return missing;
    }

    /** Reports what is missing, and runs every case on every device. */
    void run(List<Case> cases, Consumer<Outcome> report) {
        missing.forEach(info -> report.accept(Outcome.notAvailable(info.name(), info.reason())));
        cases.forEach(test -> run(test, test.prepare(), _ -> true, report::accept));
    }

    /** Runs a case, of which this is the examination, on the devices whose names are wanted. */
    void run(Case test, Examination examination, Predicate<String> wanted, Listener listener) {
        for (Subject subject : subjects) {
            if (wanted.test(subject.name())) {
                subject.listener(listener::operands);
                listener.outcome(examine(examination, subject).outcome(test, subject.name()));
            }
        }
    }

    private static Finding examine(Examination examination, Subject subject) {
        try {
            return examination.on(subject);
        } catch (UnsupportedOperationException e) {
            return Finding.of(Verdict.UNSUPPORTED, String.valueOf(e.getMessage()));
        } catch (GatunException | IllegalArgumentException | IllegalStateException e) {
            return Finding.of(Verdict.FAIL, "threw " + e);
        }
    }

    @Override
    public void close() {
        Shared.closeAll(opened);
    }
}
