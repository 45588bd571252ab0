package io.gatun.bench.cli;

import io.gatun.Gatun;
import io.gatun.NotAvailableException;
import java.io.PrintWriter;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** The gatun command: exit code 0 when all is well, 1 when something failed, 2 when it was used wrongly. */
@Command(
        name = "gatun",
        mixinStandardHelpOptions = true,
        versionProvider = GatunCommand.Version.class,
        description = "Looks at and validates the devices that Gatun's kernels run on.",
        subcommands = {ValidateCommand.class, DevicesCommand.class, MemoryCommand.class})
public final class GatunCommand implements Runnable {
    static final int FAILED = 1;
    static final int MISUSED = 2;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    /** Runs the command and ends the process with its exit code. */
    public static void main(String[] args) {
        PrintWriter out = new PrintWriter(System.out, true);
        PrintWriter err = new PrintWriter(System.err, true);
        System.exit(run(out, err, args));
    }

    static int run(PrintWriter out, PrintWriter err, String... args) {
        return new CommandLine(new GatunCommand())
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setOut(out)
                .setErr(err)
                .setExecutionExceptionHandler(GatunCommand::explain)
                .execute(args);
    }

    private static int explain(Exception exception, CommandLine command, CommandLine.ParseResult parsed) {
        if (exception instanceof NotAvailableException) {
            command.getErr().println("gatun: not available: " + exception.getMessage());
            return MISUSED;
        }
        exception.printStackTrace(command.getErr());
        return FAILED;
    }

    @Override
    public void run() {
        throw new ParameterException(spec.commandLine(), "Name a command");
    }

    static final class Version implements IVersionProvider {
        @Override
        public String[] getVersion() {
            return new String[] {"gatun " + Gatun.version()};
        }
    }
}
