package io.gatun.bench.validate;

import java.util.List;
import java.util.Map;

/** Writes maps, lists, strings, numbers and booleans as JSON (RFC 8259). Numbers that are not finite become null. */
public final class Json {
    private final StringBuilder text = new StringBuilder();

    private Json() {}

    /** The text of a value, indented, with a newline at its end. */
    public static String text(Object value) {
        Json json = new Json();
        json.value(value, "\n");
        return json.text.append('\n').toString();
    }

    private void value(Object value, String newline) {
        switch (value) {
            case Map<?, ?> map -> {
                String separator = "{";
                for (Map.Entry<?, ?> entry : map.entrySet()) {
                    text.append(separator).append(newline).append("  ");
                    string(String.valueOf(entry.getKey()));
                    text.append(": ");
                    value(entry.getValue(), newline + "  ");
                    separator = ",";
                }
                text.append(map.isEmpty() ? "{}" : newline + "}");
            }
            case List<?> list -> {
                String separator = "[";
                for (Object element : list) {
                    text.append(separator).append(newline).append("  ");
                    value(element, newline + "  ");
                    separator = ",";
                }
                text.append(list.isEmpty() ? "[]" : newline + "]");
            }
            case Double number -> text.append(Double.isFinite(number) ? number.toString() : "null");
            case Float number -> text.append(Float.isFinite(number) ? number.toString() : "null");
            case Number number -> text.append(number);
            case Boolean bool -> text.append(bool);
            default -> string(value.toString());
        }
    }

    private void string(String value) {
        text.append('"');
        for (char c : value.toCharArray()) {
            switch (c) {
                case '"' -> text.append("\\\"");
                case '\\' -> text.append("\\\\");
                case '\n' -> text.append("\\n");
                case '\r' -> text.append("\\r");
                case '\t' -> text.append("\\t");
                default -> {
                    if (c < ' ' || Character.isSurrogate(c)) {
                        text.append(String.format("\\u%04x", (int) c));
                    } else {
                        text.append(c);
                    }
                }
            }
        }
        text.append('"');
    }
}
