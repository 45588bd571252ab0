package io.gatun;

import java.io.File;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Another Java virtual machine with what this one has on its paths. */
final class Child {
    private Child() {}

    /** Describes a process that runs the {@code main} of a class, with the collector that has one thread. */
    static ProcessBuilder of(Class<?> main, List<String> options, Object... arguments) throws URISyntaxException {
        String path = String.join(File.pathSeparator, location(main), location(MemoryPool.class),
                System.getProperty("java.class.path"), System.getProperty("jdk.module.path", ""));
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-cp", path,
                "--enable-native-access=ALL-UNNAMED", "-XX:+UseSerialGC", "-XX:-UsePerfData"));
        command.addAll(options);
        String cache = System.getProperty("io.gatun.cache");
        if (cache != null) {
            command.add("-Dio.gatun.cache=" + cache);
        }
        command.add(main.getName());
        for (Object argument : arguments) {
            command.add(argument.toString());
        }
        ProcessBuilder process = new ProcessBuilder(command).redirectErrorStream(true);
        process.environment().keySet().removeIf(name -> name.startsWith("GATUN_") || name.equals("JAVA_TOOL_OPTIONS"));
        return process;
    }

    private static String location(Class<?> type) throws URISyntaxException {
        return Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI()).toString();
    }
}
