import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Compares what validation said of every fault with what it should have said: {@code java Faults.java FOLDER}. The
 * folder holds {@code faults}, the lines of saboteur-faults, and of each fault its report NAME.json and exit code
 * NAME.exit. Prints a table and ends with exit code 1 when a fault was missed.
 */
final class Faults {
    /** A line of saboteur-faults. */
    private record Fault(String name, List<String> verdicts, String wrong) {
        static Fault parse(String line) {
            String[] fields = line.split(";", -1);
            return new Fault(fields[0], Arrays.asList(fields[1].split("\\|")), fields[4]);
        }

        /** Whether the backend is well behaved: then a validation must have nothing against it. */
        boolean honest() {
            return verdicts.contains("pass") || verdicts.contains("unsupported");
        }
    }

    /** One thing that a report says: a verdict, and of what. */
    private record Finding(String verdict, String detail) {}

    public static void main(String[] args) throws IOException {
        Path folder = Path.of(args[0]);
        int missed = 0;
        List<Fault> faults = Files.readAllLines(folder.resolve("faults")).stream().map(Fault::parse).toList();
        System.out.printf("%-18s %-15s %6s  %-6s %s%n", "fault", "expected", "found", "",
                "what was wrong, and the first finding");
        for (Fault fault : faults) {
            int exit = Integer.parseInt(Files.readString(folder.resolve(fault.name() + ".exit")).strip());
            Path json = folder.resolve(fault.name() + ".json");
            List<Finding> findings = Files.exists(json) ? findings(json) : List.of();
            List<Finding> expected = findings.stream().filter(f -> fault.verdicts().contains(f.verdict())).toList();
            List<Finding> unexpected = findings.stream()
                    .filter(f -> !f.verdict().equals("pass") && !fault.verdicts().contains(f.verdict()))
                    .toList();
            boolean good = !expected.isEmpty()
                    && exit == (fault.honest() ? 0 : 1)
                    && (!fault.honest() || unexpected.isEmpty());
            missed += good ? 0 : 1;
            System.out.printf("%-18s %-15s %6d  %-6s %s%n", fault.name(), String.join("|", fault.verdicts()),
                    expected.size(), good ? "" : "MISSED", fault.wrong());
            Finding first = fault.honest() ? first(unexpected) : first(expected);
            if (first != null) {
                System.out.printf("%50s %s%n", "", first.detail().strip());
            }
            if (!good) {
                System.out.printf("%50s exit code %d%s, others: %s%n", "", exit,
                        Files.exists(json) ? "" : ", no report", tally(unexpected));
            }
        }
        System.out.printf("%d of %d faults as expected%n", faults.size() - missed, faults.size());
        System.exit(missed == 0 && !faults.isEmpty() ? 0 : 1);
    }

    private static Finding first(List<Finding> findings) {
        return findings.isEmpty() ? null : findings.getFirst();
    }

    private static Map<String, Integer> tally(List<Finding> findings) {
        Map<String, Integer> tally = new LinkedHashMap<>();
        findings.forEach(finding -> tally.merge(finding.verdict(), 1, Integer::sum));
        return tally;
    }

    /** Outcomes with their verdicts, contradictions between claims and deeds, and times that became slower. */
    private static List<Finding> findings(Path json) throws IOException {
        List<Finding> findings = new ArrayList<>();
        Object report = new Json(Files.readString(json)).value();
        for (Object outcome : list(field(report, "outcomes"))) {
            findings.add(new Finding(text(outcome, "verdict"),
                    text(outcome, "check") + ": " + text(outcome, "case") + ": " + text(outcome, "detail")));
        }
        for (Object entry : list(field(report, "support"))) {
            if (!text(entry, "contradiction").isEmpty()) {
                findings.add(new Finding("contradiction", text(entry, "contradiction")));
            }
        }
        if (field(report, "comparison") != null) {
            for (Object entry : list(field(field(report, "comparison"), "entries"))) {
                if (text(entry, "verdict").equals("slower")) {
                    findings.add(new Finding("slower", text(entry, "name")));
                }
            }
        }
        return findings;
    }

    private static Object field(Object object, String name) {
        Map<?, ?> fields = (Map<?, ?>) object;
        if (!fields.containsKey(name)) {
            throw new IllegalArgumentException("the report has no '" + name + "' here, only " + fields.keySet());
        }
        return fields.get(name);
    }

    private static String text(Object object, String name) {
        return String.valueOf(field(object, name));
    }

    private static List<?> list(Object value) {
        return (List<?>) value;
    }

    /** Reads JSON: objects as maps, arrays as lists, strings, and all else as its own text. */
    private static final class Json {
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Object value() {
            return switch (peek()) {
                case '{' -> object();
                case '[' -> array();
                case '"' -> string();
                default -> word();
            };
        }

        private Map<String, Object> object() {
            Map<String, Object> fields = new LinkedHashMap<>();
            at++;
            while (peek() != '}') {
                skip(',');
                peek();
                String name = string();
                peek();
                skip(':');
                fields.put(name, value());
            }
            at++;
            return fields;
        }

        private List<Object> array() {
            List<Object> values = new ArrayList<>();
            at++;
            while (peek() != ']') {
                skip(',');
                values.add(value());
            }
            at++;
            return values;
        }

        private String string() {
            StringBuilder value = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                char c = text.charAt(at);
                if (c == '\\') {
                    c = text.charAt(++at);
                    if (c == 'u') {
                        c = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16);
                        at += 4;
                    } else {
                        c = switch (c) {
                            case 'n' -> '\n';
                            case 't' -> '\t';
                            case 'r' -> '\r';
                            case 'b' -> '\b';
                            case 'f' -> '\f';
                            default -> c;
                        };
                    }
                }
                value.append(c);
            }
            at++;
            return value.toString();
        }

        private Object word() {
            int start = at;
            while (at < text.length() && ",]} \n\r\t".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            if (at == start) {
                throw new IllegalArgumentException("no JSON at character " + at);
            }
            String word = text.substring(start, at);
            return word.equals("null") ? null : word;
        }

        private char peek() {
            while (Character.isWhitespace(text.charAt(at))) {
                at++;
            }
            return text.charAt(at);
        }

        private void skip(char c) {
            if (text.charAt(at) == c) {
                at++;
            }
        }
    }
}
