package io.gatun.bench.report;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The line that repeats one case on one device, quoted for a shell. */
public final class RepeatLine {
    private static final Pattern PLAIN = Pattern.compile("[A-Za-z0-9_.:/@%+=,-]+");
    private static final Pattern BACKEND = Pattern.compile("\\s(--backend[= ](?:'[^']*'|\"[^\"]*\"|\\S)+)");

    private RepeatLine() {}

    /** The line for an outcome, with the library and the number of threads that the run was asked for. */
    public static String of(Report.Environment environment, Outcome outcome) {
        return start(environment, outcome.device()) + quoted(outcome.name());
    }

    /** The line up to the case. */
    static String start(Report.Environment environment, String device) {
        StringBuilder line = new StringBuilder("./gatun validate");
        Matcher backend = BACKEND.matcher(environment.command());
        if (backend.find()) {
            line.append(' ').append(backend.group(1));
        }
        line.append(" --device ").append(word(device));
        if (environment.threads() > 0) {
            line.append(" --threads ").append(environment.threads());
        }
        return line.append(" --case ").toString();
    }

    private static String word(String text) {
        return PLAIN.matcher(text).matches() ? text : "'" + text.replace("'", "'\\''") + "'";
    }

    private static String quoted(String text) {
        return '"' + text.replaceAll("[\\\\\"$`]", "\\\\$0") + '"';
    }
}
