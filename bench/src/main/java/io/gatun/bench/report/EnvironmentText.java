package io.gatun.bench.report;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** Where and how a run took place, as names and values for people. */
final class EnvironmentText {
    private EnvironmentText() {}

    static Map<String, String> of(Report.Environment environment) {
        Map<String, String> text = new LinkedHashMap<>();
        text.put("Processor", environment.cpu());
        text.put("Instruction sets", String.join(" ", environment.isa()));
        text.put("Processors", String.valueOf(environment.processors()));
        text.put("Memory", String.format(Locale.ROOT, "%.1f GiB", environment.memoryBytes() / 0x1p30));
        text.put("System", environment.os());
        text.put("Java", environment.jvm());
        text.put("Gatun", environment.gatun());
        text.put("ABI", String.valueOf(environment.abi()));
        text.put("Started", environment.started());
        text.put("Took", String.format(Locale.ROOT, "%.1f s", environment.seconds()));
        text.put("Catalogue", environment.catalogue());
        text.put("Filter", environment.filter().isEmpty() ? "none" : environment.filter());
        text.put("Shard", environment.shard());
        text.put("Seed", String.valueOf(environment.seed()));
        text.put("Threads", environment.threads() == 0 ? "all" : String.valueOf(environment.threads()));
        text.put("Time limit", String.format(Locale.ROOT, "%.1f s per case", environment.timeoutSeconds()));
        text.put("Command", environment.command());
        return text;
    }
}
