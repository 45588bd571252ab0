package io.gatun.bench.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;
import org.xml.sax.SAXException;

class JUnitXmlTest {
    @TempDir
    private Path folder;

    private Element write(Report report) throws IOException, ParserConfigurationException, SAXException {
        Path file = folder.resolve("report.xml");
        JUnitXml.write(report, file);
        Document document = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(file.toFile());
        assertEquals("testsuites", document.getDocumentElement().getTagName());
        return document.getDocumentElement();
    }

    private static List<Element> all(Element parent, String tag) {
        NodeList nodes = parent.getElementsByTagName(tag);
        List<Element> elements = new ArrayList<>();
        for (int i = 0; i < nodes.getLength(); i++) {
            elements.add((Element) nodes.item(i));
        }
        return elements;
    }

    private static Element only(Element parent, String tag) {
        List<Element> elements = all(parent, tag);
        assertEquals(1, elements.size(), tag);
        return elements.getFirst();
    }

    private static Element testCase(Element root, String device, String name) {
        return all(root, "testsuite").stream()
                .filter(suite -> suite.getAttribute("name").equals(device))
                .flatMap(suite -> all(suite, "testcase").stream())
                .filter(test -> test.getAttribute("name").equals(name))
                .filter(test -> !test.getAttribute("classname").equals("baseline"))
                .findFirst()
                .orElseThrow(() -> new AssertionError("no " + name + " on " + device));
    }

    @Test
    void everyOutcomeIsACaseOfItsDevicesSuite() throws Exception {
        Report report = SampleReports.rich();
        Element root = write(report);
        assertEquals(List.of("cpu:avx2", "cpu:scalar", "cpu:vnni"),
                all(root, "testsuite").stream().map(suite -> suite.getAttribute("name")).toList());
        for (Outcome outcome : report.outcomes()) {
            Element test = testCase(root, outcome.device(), outcome.name().isEmpty() ? "cpu:vnni" : outcome.name());
            List<String> children = all(test, "*").stream().map(Element::getTagName).toList();
            assertEquals(switch (outcome.verdict()) {
                case PASS -> List.of();
                case FAIL -> List.of("failure");
                case CRASHED, TIMED_OUT -> List.of("error");
                case UNSUPPORTED, MISTRUSTED, NOT_AVAILABLE -> List.of("skipped");
            }, children, outcome.toString());
        }
        assertEquals("gemm int8 f32->f32",
                testCase(root, "cpu:scalar", "gemm int8 f32->f32 m33 k129 n65").getAttribute("classname"));
        assertEquals("0.001250",
                testCase(root, "cpu:avx2", "time gemm int8 f32->f32 m512 k512 n512").getAttribute("time"));
    }

    @Test
    void whatDidNotPassSaysWhy() throws Exception {
        Element root = write(SampleReports.rich());
        Element failure = only(testCase(root, "cpu:scalar", "gemm int8 f32->f32 m33 k129 n65"), "failure");
        assertEquals("fail", failure.getAttribute("type"));
        assertEquals("out[3, 4] is 1.5, expected 1.25 within 1e-05", failure.getAttribute("message"));
        assertTrue(failure.getTextContent().contains("ratio 25000.0"), failure.getTextContent());
        assertTrue(failure.getTextContent().endsWith("--backend /opt/acme/libgatun_acme.so --device cpu:scalar"
                + " --case \"gemm int8 f32->f32 m33 k129 n65\""), failure.getTextContent());
        Element error = only(testCase(root, "cpu:scalar", "leak attention f32 b1 q2 k3 hq1 dk8"), "error");
        assertEquals("timed out", error.getAttribute("type"));
        assertEquals("mistrusted: no value tells right from wrong",
                only(testCase(root, "cpu:avx2", "gemm f32 f32->f32 m0 k8 n8"), "skipped").getAttribute("message"));
        assertEquals("not available: the processor has no AVX-512 VNNI",
                only(testCase(root, "cpu:vnni", "cpu:vnni"), "skipped").getAttribute("message"));
    }

    @Test
    void countsAreThoseOfTheCases() throws Exception {
        Element root = write(SampleReports.rich());
        List<Element> counted = new ArrayList<>(all(root, "testsuite"));
        counted.add(root);
        for (Element element : counted) {
            assertEquals(all(element, "testcase").size(), Integer.parseInt(element.getAttribute("tests")));
            assertEquals(all(element, "failure").size(), Integer.parseInt(element.getAttribute("failures")));
            assertEquals(all(element, "error").size(), Integer.parseInt(element.getAttribute("errors")));
            assertEquals(all(element, "skipped").size(), Integer.parseInt(element.getAttribute("skipped")));
        }
        assertEquals(4, all(root, "failure").size(), "two outcomes, a contradiction and a slower case");
        assertEquals(2, all(root, "error").size());
        assertEquals("41.250000", root.getAttribute("time"));
    }

    @Test
    void everySuiteHasTheEnvironment() throws Exception {
        Element root = write(SampleReports.rich());
        for (Element suite : all(root, "testsuite")) {
            assertEquals("2026-03-04T05:06:07Z", suite.getAttribute("timestamp"));
            assertTrue(all(suite, "property").stream().anyMatch(property ->
                    property.getAttribute("name").equals("Gatun")
                            && property.getAttribute("value").equals("0.1.0+0123456789ab")));
        }
    }

    @Test
    void aRunThatEndedEarlyIsAnError() throws Exception {
        Element root = write(SampleReports.empty());
        assertEquals("not complete", only(root, "error").getAttribute("type"));
    }

    @Test
    void anyCharacterGivesValidXml() throws Exception {
        StringBuilder text = new StringBuilder("]]> <!-- & \" ' </testcase>");
        for (int c = 0; c <= 0xFFFF; c++) {
            text.append((char) c); // control characters, halves of surrogate pairs, what is no character at all
        }
        text.append("\ud83d\ude00 end");
        String name = "gemm " + text;
        Outcome outcome = new Outcome(name, "value", "gemm", text.toString(), "cpu", Verdict.FAIL, text.toString(), "",
                Double.NaN, 0, 0, null);
        Element root = write(SampleReports.report(true, SampleReports.environment("" + text), List.of(), List.of(),
                List.of(), List.of(outcome), null));
        Element failure = only(root, "failure");
        assertTrue(failure.getTextContent().startsWith("]]> <!-- & \" ' </testcase>"));
        assertTrue(failure.getTextContent().contains("\ud83d\ude00 end"));
        assertTrue(failure.getAttribute("message").contains("\ud83d\ude00 end"));
        assertTrue(only(root, "testcase").getAttribute("name").startsWith("gemm ]]> <!-- & \" ' </testcase>"));
    }
}
