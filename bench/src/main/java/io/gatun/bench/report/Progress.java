package io.gatun.bench.report;

import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarConsumer;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/**
 * A line on a terminal that tells how far a run has come: outcomes, failures, and the case that runs. Without a
 * terminal nothing is written.
 *
 * <p>Calls may come from any thread.
 */
public final class Progress implements AutoCloseable {
    private static final int WIDTH = 80;
    /** Columns that the counts and times of the bar take. */
    private static final int BAR = 50;

    private final @Nullable ProgressBar bar;
    private final Line line;
    private int failures;
    private String current = "";

    private Progress(@Nullable ProgressBar bar, Line line) {
        this.bar = bar;
        this.line = line;
    }

    /** Progress over so many outcomes, on the standard error stream if that is a terminal. */
    public static Progress of(long outcomes) {
        boolean terminal = isTerminal();
        return of(outcomes, System.err, terminal, terminal ? width() : 0);
    }

    static Progress of(long outcomes, PrintStream out, boolean terminal, int width) {
        Line line = new Line(out, width);
        if (!terminal) {
            return new Progress(null, line);
        }
        return new Progress(new ProgressBarBuilder()
                .setInitialMax(outcomes)
                .setTaskName("validate")
                .setStyle(ProgressBarStyle.ASCII)
                .setConsumer(line)
                .setUpdateIntervalMillis(200)
                .continuousUpdate()
                .clearDisplayOnFinish()
                .build(), line);
    }

    /** Names the case that runs now. */
    public synchronized void at(String device, String name) {
        current = device + " " + name;
        show();
    }

    /** Counts an outcome. */
    public synchronized void add(Outcome outcome) {
        switch (outcome.verdict()) {
            case FAIL, CRASHED, TIMED_OUT -> failures++;
            case PASS, UNSUPPORTED, MISTRUSTED, NOT_AVAILABLE -> {}
        }
        if (bar != null) {
            bar.step();
        }
        show();
    }

    /** Prints other text to the terminal; the line is out of the way meanwhile. */
    public void aside(Runnable print) {
        if (bar == null) {
            print.run();
        } else {
            line.aside(print);
        }
    }

    /** Removes the line. */
    @Override
    public void close() {
        if (bar != null) {
            bar.close();
            line.remove();
        }
    }

    private void show() {
        if (bar != null) {
            String message = Escape.line(failures + " failed, " + current);
            bar.setExtraMessage(message.substring(0, Math.min(message.length(), line.room())));
        }
    }

    /** The last line of the terminal. */
    private static final class Line implements ProgressBarConsumer {
        private final PrintStream out;
        private final int width;
        private boolean closed;

        Line(PrintStream out, int width) {
            this.out = out;
            this.width = width;
        }

        @Override
        public int getMaxRenderedLength() {
            return width - 1; // terminals wrap at the last column
        }

        /** How much may be said beside the bar and its counts. */
        int room() {
            return Math.max(10, (width - BAR) * 2 / 3);
        }

        @Override
        public synchronized void accept(String text) {
            if (!closed) {
                out.print("\r" + text);
                out.flush();
            }
        }

        @Override
        public synchronized void clear() {
            out.print("\r" + " ".repeat(width - 1) + "\r");
            out.flush();
        }

        synchronized void aside(Runnable print) {
            clear();
            print.run();
        }

        @Override
        public synchronized void close() {
            closed = true;
        }

        /** Removes the line for good: the bar's own thread may have drawn it once more after it was cleared. */
        synchronized void remove() {
            closed = true;
            clear();
        }
    }

    private static boolean isTerminal() {
        try {
            String file = Files.readSymbolicLink(Path.of("/proc/self/fd/2")).toString();
            return file.startsWith("/dev/pts/") || file.startsWith("/dev/tty") || file.equals("/dev/console");
        } catch (IOException | UnsupportedOperationException e) {
            return false; // no Linux: better nothing than escape sequences in a log
        }
    }

    /** The columns of the terminal, or the usual number when it does not tell. */
    private static int width() {
        try {
            Process stty = new ProcessBuilder("stty", "size")
                    .redirectInput(new File("/dev/tty"))
                    .redirectError(ProcessBuilder.Redirect.DISCARD)
                    .start();
            String size = new String(stty.getInputStream().readAllBytes(), StandardCharsets.US_ASCII).strip();
            if (stty.waitFor(1, TimeUnit.SECONDS) && stty.exitValue() == 0 && size.matches("\\d+ [1-9]\\d{1,3}")) {
                return Integer.parseInt(size.substring(size.indexOf(' ') + 1));
            }
        } catch (IOException e) {
            return WIDTH;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return WIDTH;
    }
}
