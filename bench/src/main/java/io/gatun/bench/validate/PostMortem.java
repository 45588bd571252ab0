package io.gatun.bench.validate;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Reads what a process prints, so that it never waits for a reader, and keeps what tells how it died: the virtual
 * machine's own report of a fatal error, and the last line otherwise.
 */
final class PostMortem {
    private static final Pattern SIGNAL = Pattern.compile("#\\s+(SIG[A-Z]+) \\(.*");
    private static final Pattern FRAME = Pattern.compile("# [CVJvj]\\s+(\\[.*)");
    private static final Pattern ADDRESS = Pattern.compile("siginfo: .*si_addr: 0x([0-9a-f]+).*");
    private static final Map<Integer, String> SIGNALS = Map.of(2, "SIGINT", 4, "SIGILL", 6, "SIGABRT", 7, "SIGBUS", 8,
            "SIGFPE", 9, "SIGKILL", 11, "SIGSEGV", 15, "SIGTERM", 31, "SIGSYS");
    private static final int LONGEST = 300;

    private final Thread reader;
    private @Nullable String signal;
    private @Nullable String frame;
    private @Nullable Long address;
    private String last = "";

    PostMortem(InputStream output) {
        reader = Thread.ofPlatform().daemon().name("worker's output").start(() -> read(output));
    }

    private void read(InputStream output) {
        try (BufferedReader in = new BufferedReader(new InputStreamReader(output, StandardCharsets.ISO_8859_1))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                keep(line);
            }
        } catch (IOException e) {
            // the process is gone
        }
    }

    private synchronized void keep(String line) {
        Matcher signals = SIGNAL.matcher(line);
        Matcher frames = FRAME.matcher(line);
        Matcher addresses = ADDRESS.matcher(line);
        if (signal == null && signals.matches()) {
            signal = signals.group(1);
        } else if (signal != null && frame == null && frames.matches()) {
            frame = frames.group(1);
        } else if (signal != null && address == null && addresses.matches()) {
            address = Long.parseUnsignedLong(addresses.group(1), 16);
        } else if (signal == null && !line.isBlank()) {
            last = line.length() > LONGEST ? line.substring(0, LONGEST) : line;
        }
    }

    /** How the process died, once it has. */
    String cause(int exitCode) {
        try {
            reader.join(5000); // what it printed last
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
        synchronized (this) {
            if (signal != null) {
                return signal + (frame == null ? "" : " in " + frame);
            }
            String said = last.isEmpty() ? "" : "; it last printed: " + last;
            String name = exitCode > 128 ? SIGNALS.get(exitCode - 128) : null;
            return (name != null ? name : "the process ended with exit code " + exitCode) + said;
        }
    }

    /** The address that it touched, when that is what it died of. */
    synchronized @Nullable Long address() {
        return address;
    }
}
