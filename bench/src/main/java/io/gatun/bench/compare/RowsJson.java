package io.gatun.bench.compare;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import io.gatun.bench.report.AtomicFile;
import java.io.IOException;
import java.io.Serial;
import java.math.BigDecimal;
import java.math.MathContext;
import java.nio.file.Path;
import java.util.List;

/** Rows as a JSON array, each on a line of its own: names are those of {@link Row}'s components. */
final class RowsJson {
    private static final MathContext DIGITS = new MathContext(5);
    private static final JsonMapper MAPPER = JsonMapper.builder()
            .addModule(new SimpleModule()
                    .addSerializer(double.class, new Rounded())
                    .addSerializer(Double.class, new Rounded()))
            .build();

    private RowsJson() {}

    /** Writes the file, as a whole or not at all. */
    static void write(List<Row> rows, Path file) throws IOException {
        AtomicFile.write(file, out -> out.write(text(rows)));
    }

    static String text(List<Row> rows) throws JsonProcessingException {
        StringBuilder text = new StringBuilder("[");
        for (int i = 0; i < rows.size(); i++) {
            text.append(i == 0 ? "\n  " : ",\n  ").append(MAPPER.writeValueAsString(rows.get(i)));
        }
        return text.append("\n]\n").toString();
    }

    private static final class Rounded extends StdSerializer<Double> {
        @Serial
        private static final long serialVersionUID = 1;

        Rounded() {
            super(Double.class);
        }

        @Override
        public void serialize(Double value, JsonGenerator out, SerializerProvider provider) throws IOException {
            if (Double.isFinite(value)) {
                out.writeNumber(new BigDecimal(value).round(DIGITS).stripTrailingZeros());
            } else {
                out.writeNull();
            }
        }
    }
}
