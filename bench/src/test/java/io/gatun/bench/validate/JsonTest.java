package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.JsonText;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class JsonTest {
    @Test
    void readsBackAsItWas() {
        Map<String, Object> value = Map.of(
                "text", "a \"quoted\" \\ line\nand\ttab \u0001 \u00e9 \ud83d\ude00",
                "numbers", List.of(1.0, -2.5e-30, 0.0, 1e300),
                "empty", List.of(),
                "nothing", Map.of(),
                "nested", Map.of("list", List.of(List.of(true), Map.of("false", false))));
        assertEquals(value, JsonText.parse(Json.text(value)));
    }

    @Test
    void whatIsNotFiniteIsNull() {
        String text = Json.text(List.of(Double.NaN, Double.POSITIVE_INFINITY, Float.NaN));
        assertEquals("[\n  null,\n  null,\n  null\n]\n", text);
        assertTrue(JsonText.parse(text) instanceof List<?> list && list.size() == 3);
    }
}
