package io.gatun.bench.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.Backend;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.NotAvailableException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Lists every backend and device, and why those that are not available are not. */
@Command(name = "devices", mixinStandardHelpOptions = true, description = "Lists backends and their devices.")
final class DevicesCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(names = "--json", description = "Print JSON.")
    private boolean json;

    @Option(
            names = "--backend",
            paramLabel = "FILE",
            description = "Load these backend libraries as well; any number of files.",
            arity = "1..*")
    private List<Path> libraries = new ArrayList<>();

    @Override
    public Integer call() throws JsonProcessingException {
        PrintWriter out = spec.commandLine().getOut();
        for (Path library : libraries) {
            try {
                Gatun.loadBackend(library);
            } catch (NotAvailableException e) {
                // it is listed with the reason
            }
        }
        List<Backend> backends = Gatun.backends();
        if (json) {
            List<Map<String, Object>> list = backends.stream().map(DevicesCommand::json).toList();
            out.println(new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(list));
        } else {
            backends.forEach(backend -> print(out, backend));
        }
        return 0;
    }

    private static void print(PrintWriter out, Backend backend) {
        if (!backend.available()) {
            String path = backend.path() == null ? "" : " (" + backend.path() + ")";
            out.printf("%s%s: not available: %s%n", backend.name(), path, backend.reason());
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
