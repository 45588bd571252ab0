package io.gatun.bench.report;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import javax.xml.stream.XMLOutputFactory;
import javax.xml.stream.XMLStreamException;
import javax.xml.stream.XMLStreamWriter;
import org.jspecify.annotations.Nullable;

/**
 * Reports in the form of JUnit's XML files, which build servers show: one suite per device, one test case per outcome.
 *
 * <p>A failure is a failure; a crash and a time-out are errors; everything else that did not pass is skipped, with the
 * reason. What makes a report bad as a whole is there, too: a contradiction between claims and deeds and a case that
 * became slower are failures, and a run that did not come to its end is an error.
 */
public final class JUnitXml {
    private JUnitXml() {}

    /** Writes a report. The file appears as a whole or not at all. */
    public static void write(Report report, Path file) throws IOException {
        List<Suite> suites = suites(report);
        AtomicFile.write(file, out -> {
            try {
                XMLStreamWriter xml = XMLOutputFactory.newDefaultFactory().createXMLStreamWriter(out);
                new Document(xml).write(report, suites);
                xml.close();
            } catch (XMLStreamException e) {
                throw new IOException(file + ": " + e.getMessage(), e);
            }
        });
    }

    private enum Result {
        PASSED, FAILURE, ERROR, SKIPPED
    }

    /** One test case; {@code type} and {@code message} say why it did not pass. */
    private record Entry(String classname, String name, @Nullable Timing time, Result result, String type,
            String message, String text) {}

    private record Suite(String name, List<Entry> entries) {
        long count(Result result) {
            return entries.stream().filter(entry -> entry.result() == result).count();
        }
    }

    private static List<Suite> suites(Report report) {
        Map<String, List<Entry>> devices = new LinkedHashMap<>();
        for (Outcome outcome : report.outcomes()) {
            add(devices, outcome.device(), entry(report.environment(), outcome));
        }
        for (Report.Support support : report.support()) {
            if (!support.contradiction().isEmpty()) {
                add(devices, support.device(), new Entry("support", support.operator() + " " + support.dtype(), null,
                        Result.FAILURE, "contradiction", support.contradiction(), ""));
            }
        }
        if (report.comparison() != null) {
            for (Report.Compared compared : report.comparison().entries()) {
                if (compared.verdict().equals("slower")) {
                    String message = String.format(Locale.ROOT, "%.4g ms, was %.4g ms", compared.afterMs(),
                            compared.beforeMs());
                    add(devices, compared.device(), new Entry("baseline", compared.name(), null, Result.FAILURE,
                            compared.verdict(), message, ""));
                }
            }
        }
        if (!report.complete()) {
            add(devices, "run", new Entry("run", "complete", null, Result.ERROR, "not complete",
                    "the run did not come to its end: cases are missing", ""));
        }
        List<Suite> suites = new ArrayList<>();
        devices.forEach((device, entries) -> suites.add(new Suite(device, entries)));
        return suites;
    }

    private static void add(Map<String, List<Entry>> devices, String device, Entry entry) {
        devices.computeIfAbsent(device, _ -> new ArrayList<>()).add(entry);
    }

    private static Entry entry(Report.Environment environment, Outcome outcome) {
        Result result = switch (outcome.verdict()) {
            case PASS -> Result.PASSED;
            case FAIL -> Result.FAILURE;
            case CRASHED, TIMED_OUT -> Result.ERROR;
            case UNSUPPORTED, MISTRUSTED, NOT_AVAILABLE -> Result.SKIPPED;
        };
        String type = outcome.verdict().toString();
        if (outcome.name().isEmpty()) {
            return new Entry("device", outcome.device(), null, result, type, outcome.detail(), "");
        }
        String text = String.format(Locale.ROOT, "%s%nerror %.6g, tolerance %.6g, ratio %.6g%n%s", outcome.detail(),
                outcome.error(), outcome.tolerance(), outcome.ratio(), RepeatLine.of(environment, outcome));
        return new Entry((outcome.operator() + " " + outcome.types()).strip(), outcome.name(), outcome.time(), result,
                type, outcome.detail(), text);
    }

    /** Writes one document. */
    private record Document(XMLStreamWriter xml) {
        void write(Report report, List<Suite> suites) throws XMLStreamException {
            xml.writeStartDocument("UTF-8", "1.0");
            start(0, "testsuites");
            attribute("name", "gatun validate");
            counts(suites.stream().flatMap(suite -> suite.entries().stream()).toList());
            attribute("time", seconds(report.environment().seconds()));
            for (Suite suite : suites) {
                start(1, "testsuite");
                attribute("name", suite.name());
                counts(suite.entries());
                attribute("timestamp", report.environment().started());
                properties(report.environment());
                for (Entry entry : suite.entries()) {
                    testCase(entry);
                }
                end(1);
            }
            end(0);
            xml.writeCharacters("\n");
            xml.writeEndDocument();
        }

        private void counts(List<Entry> entries) throws XMLStreamException {
            Suite all = new Suite("", entries);
            attribute("tests", String.valueOf(entries.size()));
            attribute("failures", String.valueOf(all.count(Result.FAILURE)));
            attribute("errors", String.valueOf(all.count(Result.ERROR)));
            attribute("skipped", String.valueOf(all.count(Result.SKIPPED)));
        }

        private void properties(Report.Environment environment) throws XMLStreamException {
            start(2, "properties");
            for (Map.Entry<String, String> property : EnvironmentText.of(environment).entrySet()) {
                start(3, "property");
                attribute("name", property.getKey());
                attribute("value", property.getValue());
                xml.writeEndElement();
            }
            end(2);
        }

        private void testCase(Entry entry) throws XMLStreamException {
            start(2, "testcase");
            attribute("classname", entry.classname());
            attribute("name", entry.name());
            if (entry.time() != null) {
                attribute("time", seconds(entry.time().warmMs() / 1000));
            }
            switch (entry.result()) {
                case PASSED -> xml.writeEndElement();
                case FAILURE -> reason("failure", entry);
                case ERROR -> reason("error", entry);
                case SKIPPED -> reason("skipped", entry);
            }
        }

        private void reason(String element, Entry entry) throws XMLStreamException {
            start(3, element);
            if (entry.result() != Result.SKIPPED) {
                attribute("type", entry.type());
                attribute("message", entry.message());
                xml.writeCharacters(Escape.xml(entry.text()));
            } else { // which has no type in the usual form
                attribute("message", entry.type() + ": " + entry.message());
            }
            xml.writeEndElement();
            end(2);
        }

        private void start(int depth, String element) throws XMLStreamException {
            xml.writeCharacters("\n" + "  ".repeat(depth));
            xml.writeStartElement(element);
        }

        private void end(int depth) throws XMLStreamException {
            xml.writeCharacters("\n" + "  ".repeat(depth));
            xml.writeEndElement();
        }

        private void attribute(String name, String value) throws XMLStreamException {
            xml.writeAttribute(name, Escape.line(value));
        }

        private static String seconds(double seconds) {
            return String.format(Locale.ROOT, "%.6f", seconds);
        }
    }
}
