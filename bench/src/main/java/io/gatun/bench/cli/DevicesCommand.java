package io.gatun.bench.cli;

import io.gatun.Backend;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.bench.validate.Json;
import java.io.PrintWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Lists every backend and device, and why those that are not available are not. */
@Command(name = "devices", mixinStandardHelpOptions = true, description = "Lists backends and their devices.")
final class DevicesCommand implements Runnable {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(names = "--json", description = "Print JSON.")
    private boolean json;

    @Override
    public void run() {
        PrintWriter out = spec.commandLine().getOut();
        List<Backend> backends = Gatun.backends();
        if (json) {
            out.print(Json.text(backends.stream().map(DevicesCommand::json).toList()));
            out.flush();
        } else {
            backends.forEach(backend -> print(out, backend));
        }
    }

    private static void print(PrintWriter out, Backend backend) {
        if (!backend.available()) {
            out.printf("%s: not available: %s%n", backend.name(), backend.reason());
        } else {
            out.printf("%s %s, backend ABI %d, %s%n", backend.name(), backend.version(), backend.abiVersion(),
                    backend.path());
        }
        for (DeviceInfo device : backend.devices()) {
            if (device.available()) {
                String threads = device.threads() > 0 ? ", " + device.threads() + " threads" : "";
                out.printf("  %-12s %s%s%n", device.name(), device.description(), threads);
            } else {
                out.printf("  %-12s not available: %s%n", device.name(), device.reason());
            }
        }
    }

    private static Map<String, Object> json(Backend backend) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", backend.name());
        json.put("version", backend.version());
        json.put("abiVersion", backend.abiVersion());
        json.put("path", backend.path() == null ? "" : backend.path().toString());
        json.put("available", backend.available());
        json.put("reason", backend.reason());
        json.put("devices", backend.devices().stream().map(DevicesCommand::json).toList());
        return json;
    }

    private static Map<String, Object> json(DeviceInfo device) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", device.name());
        json.put("description", device.description());
        json.put("available", device.available());
        json.put("reason", device.reason());
        json.put("threads", device.threads());
        json.put("hostMemory", device.hostMemory());
        json.put("memoryBytes", device.memoryBytes());
        return json;
    }
}
