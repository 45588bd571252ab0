package io.gatun.bench.compare;

import io.gatun.bench.report.AtomicFile;
import io.gatun.bench.report.Escape;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** Figures as SVG: bars of the part of its limit that each reached, and a roofline. */
final class Charts {
    private static final String STYLE = "<style>text{font:12px sans-serif;fill:#222}.small{font-size:10px}"
            + ".ours{fill:#1f77b4}.peer{fill:#bbb}.line{stroke:#222;fill:none}.grid{stroke:#ddd}</style>";
    private static final int LABELS = 380;
    private static final int BARS = 500;
    private static final int BAR = 14;

    private Charts() {}

    /** Writes both beside a file of figures. */
    static void write(List<Outcome> outcomes, Path json) throws IOException {
        String name = json.getFileName().toString().replaceFirst("\\.json$", "");
        String bars = bars(outcomes);
        String roofline = roofline(outcomes);
        AtomicFile.write(json.resolveSibling(name + "-bars.svg"), out -> out.write(bars));
        AtomicFile.write(json.resolveSibling(name + "-roofline.svg"), out -> out.write(roofline));
    }

    /** A bar for each row, Gatun's and below it the peer's; full length is the limit. */
    static String bars(List<Outcome> outcomes) {
        StringBuilder body = new StringBuilder();
        int y = 30;
        for (double part : new double[] {0, 0.25, 0.5, 0.75, 1}) {
            body.append(text(LABELS + part * BARS, 18, "middle", format("%.2f", part)));
        }
        body.append(text(LABELS - 8, 18, "end", "part of the limit"));
        for (Outcome outcome : outcomes) {
            Row row = outcome.row();
            if (row == null || row.fractionOfLimit() == null) {
                continue;
            }
            String label = format("%s %s %s%s, %d threads", row.name(), row.shape(), row.dtype(),
                    row.cold() ? " cold" : "", row.threads());
            body.append(text(LABELS - 8, y + 11, "end", label));
            body.append(bar(y, row.fractionOfLimit(), "ours", "Gatun, " + row.limit()));
            y += BAR;
            if (row.peer() != null && row.peerFraction() != null) {
                body.append(bar(y, row.peerFraction(), "peer", row.peer()));
                y += BAR;
            }
            y += 8;
        }
        return svg(LABELS + BARS + 240, y + 10, body);
    }

    private static String bar(int y, double fraction, String style, String label) {
        return format("<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>%n", style, LABELS, y,
                        Math.min(fraction, Figure.MOST) * BARS, BAR - 2)
                + text(LABELS + Math.min(fraction, Figure.MOST) * BARS + 6, y + 10, "start",
                        format("%.2f %s", fraction, label));
    }

    /** Arithmetic per second over operations per byte, both logarithmic. */
    static String roofline(List<Outcome> outcomes) {
        List<Point> points = new ArrayList<>();
        for (Outcome outcome : outcomes) {
            Row row = outcome.row();
            if (row != null && row.fractionOfLimit() != null) {
                Point point = new Point(
                        outcome.task().flops() / outcome.task().bytes(), outcome.flopsPerSecond(),
                        outcome.flopsPerSecond() / row.fractionOfLimit(),
                        row.name() + " " + row.shape() + ", " + row.threads() + " threads");
                if (!points.contains(point)) {
                    points.add(point);
                }
            }
        }
        if (points.isEmpty()) {
            return svg(400, 60, new StringBuilder(text(20, 35, "start", "There are no figures with a limit.")));
        }
        Axis x = Axis.of(points.stream().mapToDouble(Point::intensity).toArray(), 70, 870);
        Axis y = Axis.of(points.stream().flatMapToDouble(p ->
                java.util.stream.DoubleStream.of(p.rate, p.limit)).toArray(), 550, 40);
        StringBuilder body = new StringBuilder();
        for (int power = x.low; power <= x.high; power++) {
            double at = x.at(Math.pow(10, power));
            body.append(format("<line class=\"grid\" x1=\"%1$.1f\" y1=\"40\" x2=\"%1$.1f\" y2=\"550\"/>%n", at));
            body.append(text(at, 568, "middle", "1e" + power));
        }
        for (int power = y.low; power <= y.high; power++) {
            double at = y.at(Math.pow(10, power));
            body.append(format("<line class=\"grid\" x1=\"70\" y1=\"%1$.1f\" x2=\"870\" y2=\"%1$.1f\"/>%n", at));
            body.append(text(62, at + 4, "end", "1e" + power));
        }
        body.append(text(470, 588, "middle", "operations per byte"));
        body.append(text(70, 26, "start", "operations per second; a line leads up to each one's limit"));
        for (Point point : points) {
            body.append(format("<line class=\"line\" x1=\"%1$.1f\" y1=\"%2$.1f\" x2=\"%1$.1f\" y2=\"%3$.1f\"/>%n",
                    x.at(point.intensity), y.at(point.rate), y.at(point.limit)));
            body.append(format("<line class=\"line\" x1=\"%.1f\" y1=\"%3$.1f\" x2=\"%.1f\" y2=\"%3$.1f\"/>%n",
                    x.at(point.intensity) - 6, x.at(point.intensity) + 6, y.at(point.limit)));
            body.append(format("<circle class=\"ours\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%s</title></circle>%n",
                    x.at(point.intensity), y.at(point.rate), Escape.html(point.name)));
        }
        return svg(900, 600, body);
    }

    private record Point(double intensity, double rate, double limit, String name) {}

    /** A logarithmic axis of whole powers of ten. */
    private record Axis(int low, int high, double from, double to) {
        static Axis of(double[] values, double from, double to) {
            double least = java.util.Arrays.stream(values).min().orElse(1);
            double most = java.util.Arrays.stream(values).max().orElse(1);
            int low = (int) Math.floor(Math.log10(least));
            return new Axis(low, Math.max(low + 1, (int) Math.ceil(Math.log10(most))), from, to);
        }

        double at(double value) {
            return from + (to - from) * (Math.log10(value) - low) / (high - low);
        }
    }

    private static String text(double x, double y, String anchor, @Nullable String text) {
        return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>%n", x, y, anchor,
                Escape.html(text == null ? "" : text));
    }

    private static String svg(int width, int height, StringBuilder body) {
        return format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%1$d\" height=\"%2$d\""
                        + " viewBox=\"0 0 %1$d %2$d\">%n%3$s%n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>%n",
                width, height, STYLE) + body + "</svg>\n";
    }

    private static String format(String format, Object... values) {
        return String.format(Locale.ROOT, format, values);
    }
}
