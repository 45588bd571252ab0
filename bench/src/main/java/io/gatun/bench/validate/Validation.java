package io.gatun.bench.validate;

import io.gatun.Backend;
import io.gatun.Device;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.GatunException;
import io.gatun.NotAvailableException;
import io.gatun.Stream;
import io.gatun.bench.validate.Case.Problem;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/**
 * Runs cases on devices. Operands and expectations of a case are made once, and then every device runs it.
 *
 * <p>Close it when done: the devices stay open until then.
 */
public final class Validation implements AutoCloseable {
    private final List<Opened> devices = new ArrayList<>();
    private final List<DeviceInfo> missing = new ArrayList<>();
    private final Trial.Tamper tamper;

    private record Opened(Device device, Stream stream, String kernelPrefix) {}

    private Validation(Trial.Tamper tamper) {
        this.tamper = tamper;
    }

    /**
     * Opens what a name stands for: one device, such as {@code cpu:avx2}, or all of a backend, such as {@code cpu}.
     * Levels of that backend that are not there are kept as {@link #missing}.
     *
     * @param threads threads that a run may use, 0 for the usual number
     * @throws NotAvailableException when the device, or every device of the backend, is not there
     */
    public static Validation open(String name, int threads) {
        return open(name, threads, Trial.Tamper.NONE);
    }

    static Validation open(String name, int threads, Trial.Tamper tamper) {
        Validation validation = new Validation(tamper);
        try {
            for (DeviceInfo info : resolve(name)) {
                validation.add(info, threads);
            }
            if (validation.devices.isEmpty()) {
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

    private void add(DeviceInfo info, int threads) {
        if (!info.available()) {
            missing.add(info);
            return;
        }
        if (!info.hostMemory()) {
            String why = "it computes on memory of its own alone, and validation has its operands in the host's";
            missing.add(new DeviceInfo(info.name(), info.description(), false, why, info.threads(), false,
                    info.memoryBytes()));
            return;
        }
        Device device = threads == 0 ? Device.open(info.name()) : Device.open(info.name(), threads);
        devices.add(new Opened(device, device.newStream(), kernelPrefix(info.name())));
    }

    /**
     * How the names of a device's kernels begin. A number selects one of several devices that are alike; any other
     * selector is a level, which its kernels must name.
     */
    static String kernelPrefix(String device) {
        String[] parts = device.split(":", 2);
        return parts.length == 1 || parts[1].matches("\\d+") ? parts[0] + "." : parts[0] + "." + parts[1] + ".";
    }

    /** The devices that cases run on. */
    public List<DeviceInfo> devices() {
        return devices.stream().map(opened -> opened.device().info()).toList();
    }

    /** Devices that were asked for and are not there, with the reason. */
    public List<DeviceInfo> missing() {
        return List.copyOf(missing);
    }

    /** Reports what is missing, and runs every case on every device. */
    public void run(List<Case> cases, Consumer<Outcome> report) {
        missing.forEach(info -> report.accept(Outcome.notAvailable(info.name(), info.reason())));
        for (Case test : cases) {
            Problem problem = test.problem();
            devices.forEach(opened -> report.accept(run(test, problem, opened)));
        }
    }

    private Outcome run(Case test, Problem problem, Opened opened) {
        String device = opened.device().name();
        try (Arena arena = Arena.ofConfined()) {
            // Half of the cases have operands that are aligned to their elements alone.
            boolean aligned = (test.name().hashCode() & 1) == 0;
            Trial trial = new Trial(opened.device(), opened.stream(), arena, aligned, tamper);
            problem.run(trial);
            Comparison comparison = trial.compare();
            if (!trial.kernel().startsWith(opened.kernelPrefix())) {
                comparison.fail("ran another kernel: " + trial.kernel() + ", not a " + opened.kernelPrefix() + "*");
            }
            boolean failed = !comparison.failures().isEmpty();
            boolean tested = comparison.telling() > 0 || test.degenerate();
            Verdict verdict = failed ? Verdict.FAIL : tested ? Verdict.PASS : Verdict.MISTRUSTED;
            String detail = failed
                    ? String.join("; ", comparison.failures())
                    : tested ? "" : "no expected value tells right from wrong";
            return new Outcome(test.name(), test.family(), test.types(), device, verdict, comparison.ratio(),
                    comparison.error(), comparison.tolerance(), trial.kernel(), trial.milliseconds(), detail);
        } catch (UnsupportedOperationException e) {
            return Outcome.of(test, device, Verdict.UNSUPPORTED, "", String.valueOf(e.getMessage()));
        } catch (GatunException | IllegalArgumentException | IllegalStateException e) {
            return Outcome.of(test, device, Verdict.FAIL, "", "threw " + e);
        }
    }

    @Override
    public void close() {
        for (Opened opened : devices) {
            opened.stream().close();
            opened.device().close();
        }
        devices.clear();
    }
}
