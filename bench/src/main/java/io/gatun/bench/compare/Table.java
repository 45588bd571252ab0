package io.gatun.bench.compare;

import io.gatun.bench.report.Escape;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** Outcomes as text: figures in columns, and then what there are no figures for. */
final class Table {
    private static final List<String> HEAD = List.of(
            "name", "shape", "type", "threads", "", "ours ms", "peer ms", "speedup", "of limit", "peer's", "dropped",
            "peer", "limit");

    private Table() {}

    static String of(List<Outcome> outcomes) {
        List<List<String>> lines = new ArrayList<>();
        lines.add(HEAD);
        StringBuilder notes = new StringBuilder();
        for (Outcome outcome : outcomes) {
            Row row = outcome.row();
            if (row != null) {
                lines.add(cells(row, outcome.dropped()));
            } else {
                notes.append(note(outcome)).append('\n');
            }
        }
        StringBuilder text = new StringBuilder();
        if (lines.size() > 1) {
            int[] widths = new int[HEAD.size()];
            for (List<String> line : lines) {
                for (int i = 0; i < widths.length; i++) {
                    widths[i] = Math.max(widths[i], line.get(i).length());
                }
            }
            for (List<String> line : lines) {
                StringBuilder padded = new StringBuilder();
                for (int i = 0; i < widths.length; i++) {
                    boolean number = i >= 5 && i <= 10 || i == 3;
                    padded.append(("%" + (number ? "" : "-") + Math.max(1, widths[i]) + "s  ").formatted(line.get(i)));
                }
                text.append(padded.toString().stripTrailing()).append('\n');
            }
        }
        return text.append(notes).toString();
    }

    private static List<String> cells(Row row, int dropped) {
        return List.of(
                row.name(), row.shape(), row.dtype(), Integer.toString(row.threads()), row.cold() ? "cold" : "",
                time(row.oursMs()), time(row.peerMs()), number(row.speedup()), number(row.fractionOfLimit()),
                number(row.peerFraction()), Integer.toString(dropped), row.peer() == null ? "-" : row.peer(),
                row.limit());
    }

    /** Why there are no figures. */
    static String note(Outcome outcome) {
        Task task = outcome.task();
        return Escape.line("%s %s %s, %d threads%s%s: %s".formatted(
                task.name(), task.shape(), task.dtype(), outcome.threads(), task.cold() ? ", cold" : "",
                outcome.peer() == null ? "" : ", " + outcome.peer(), outcome.why()));
    }

    private static String time(@Nullable Double milliseconds) {
        return milliseconds == null
                ? "-"
                : String.format(Locale.ROOT, milliseconds < 0.01 ? "%.6f" : "%.3f", milliseconds);
    }

    private static String number(@Nullable Double value) {
        return value == null ? "-" : String.format(Locale.ROOT, "%.2f", value);
    }
}
