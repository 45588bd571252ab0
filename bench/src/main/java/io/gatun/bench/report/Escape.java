package io.gatun.bench.report;

/** Makes text from libraries that nobody here wrote safe to print: reasons, descriptions and names of kernels. */
public final class Escape {
    private static final int REPLACEMENT = 0xFFFD;

    private Escape() {}

    /** One line without anything that steers a terminal: what does not print becomes a space or U+FFFD. */
    public static String line(String text) {
        StringBuilder line = new StringBuilder(text.length());
        text.codePoints().forEach(c -> line.appendCodePoint(switch (Character.getType(c)) {
            case Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> ' ';
            case Character.CONTROL -> Character.isWhitespace(c) ? ' ' : REPLACEMENT;
            case Character.FORMAT, Character.SURROGATE, Character.UNASSIGNED -> REPLACEMENT;
            default -> c;
        }));
        return line.toString();
    }

    /** Text that an XML 1.0 document may hold; escaping is left to its writer. */
    static String xml(String text) {
        StringBuilder valid = new StringBuilder(text.length());
        text.codePoints().forEach(c -> valid.appendCodePoint(isXml(c) ? c : REPLACEMENT));
        return valid.toString();
    }

    private static boolean isXml(int c) {
        return c == '\t' || c == '\n' || c >= ' ' && c <= 0xD7FF || c >= 0xE000 && c <= 0xFFFD || c >= 0x10000;
    }

    /** Text and attribute values of HTML. */
    public static String html(String text) {
        return xml(text)
                .replace("&", "&amp;")
                .replace("<", "&lt;")
                .replace(">", "&gt;")
                .replace("\"", "&quot;")
                .replace("'", "&#39;");
    }

    /** A cell of a Markdown table. */
    static String markdown(String text) {
        return line(text).replaceAll("[\\\\`*_\\[\\]|~$]", "\\\\$0").replace("&", "&amp;").replace("<", "&lt;");
    }
}
