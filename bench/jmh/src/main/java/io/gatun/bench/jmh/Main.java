package io.gatun.bench.jmh;

import java.nio.file.Path;
import java.util.concurrent.Callable;
import java.util.regex.Pattern;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.format.ResultFormatType;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** The Java part of {@code ./gatun bench}: times, and bytes of Java heap for each call. */
@Command(name = "gatun bench", mixinStandardHelpOptions = true, description = "Times calls from Java.")
public final class Main implements Callable<Integer> {
    private static final String NAME = "call.overhead";

    @Option(names = "--filter", paramLabel = "REGEX", description = "Only those whose name contains a match.")
    private Pattern filter = Pattern.compile("");

    @Option(names = "--quick", description = "Seconds instead of minutes.")
    private boolean quick;

    @Option(names = "--json", paramLabel = "FILE", description = "Write JMH's results.")
    private Path json;

    private Main() {}

    /** Runs and ends the process: with 1 when a benchmark failed, 2 when the command was used wrongly. */
    public static void main(String[] args) {
        System.exit(new CommandLine(new Main()).execute(args));
    }

    @Override
    public Integer call() throws RunnerException {
        if (!filter.matcher(NAME).find()) {
            return 0;
        }
        ChainedOptionsBuilder options = new OptionsBuilder()
                .include(CallOverhead.class.getName() + "\\.")
                .addProfiler(GCProfiler.class)
                .shouldFailOnError(true)
                .jvmArgs(
                        "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                        "-Dgatun.bench.calls=" + System.getProperty("gatun.bench.calls"));
        TimeValue time = TimeValue.milliseconds(quick ? 200 : 1000);
        options.forks(quick ? 1 : 3).warmupIterations(quick ? 3 : 5).warmupTime(time)
                .measurementIterations(quick ? 3 : 5).measurementTime(time);
        if (json != null) {
            options.resultFormat(ResultFormatType.JSON).result(json.toString());
        }
        new Runner(options.build()).run();
        return 0;
    }
}
