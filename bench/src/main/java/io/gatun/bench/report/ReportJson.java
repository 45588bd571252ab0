package io.gatun.bench.report;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.annotation.JsonSetter;
import com.fasterxml.jackson.annotation.Nulls;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.core.util.Separators;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.std.StdDeserializer;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import java.io.IOException;
import java.io.Serial;
import java.math.BigDecimal;
import java.math.MathContext;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Map;

/**
 * Reports as JSON files, of the form that {@code docs/report.schema.json} describes: names are those of the records'
 * components, except that a case's line is called {@code case}. Every outcome is on a line of its own.
 */
public final class ReportJson {
    private static final int DIGITS = 6;
    private static final JsonMapper MAPPER = mapper(DIGITS);
    private static final DefaultPrettyPrinter LINES = new DefaultPrettyPrinter(
            Separators.createDefaultInstance().withObjectFieldValueSpacing(Separators.Spacing.AFTER))
                    .withObjectIndenter(new UpTo(2))
                    .withArrayIndenter(new UpTo(3));

    private ReportJson() {}

    /** Writes a report. The file appears as a whole or not at all. */
    public static void write(Report report, Path file) throws IOException {
        AtomicFile.write(file, out -> {
            MAPPER.writer(LINES).without(JsonGenerator.Feature.AUTO_CLOSE_TARGET).writeValue(out, report);
            out.write('\n');
        });
    }

    /**
     * Reads a report.
     *
     * @throws IOException if the file cannot be read or holds no report of this version; the message names the file,
     *     the place and what is wrong with it
     */
    public static Report read(Path file) throws IOException {
        try {
            byte[] text = Files.readAllBytes(file);
            JsonNode schema = MAPPER.readTree(text).path("schema");
            if (!schema.isInt()) {
                throw new IOException(file + ": it is no report of gatun validate: a number 'schema' is missing");
            }
            if (schema.intValue() != Report.SCHEMA) {
                throw new IOException(file + ": it is a report of version " + schema + ", expected " + Report.SCHEMA);
            }
            return MAPPER.readValue(text, Report.class);
        } catch (NoSuchFileException e) {
            throw new IOException(file + ": there is no such file", e);
        } catch (JsonProcessingException e) {
            throw new IOException(file + place(e) + ": " + e.getOriginalMessage(), e);
        }
    }

    private static String place(JsonProcessingException e) {
        StringBuilder place = new StringBuilder();
        if (e.getLocation() != null && e.getLocation().getLineNr() > 0) {
            place.append(", line ").append(e.getLocation().getLineNr());
        }
        if (e instanceof JsonMappingException mapping && !mapping.getPath().isEmpty()) {
            place.append(", ");
            String dot = "";
            for (JsonMappingException.Reference step : mapping.getPath()) {
                if (step.getFieldName() == null) {
                    place.append('[').append(step.getIndex()).append(']');
                } else {
                    place.append(dot).append(step.getFieldName());
                }
                dot = ".";
            }
        }
        return place.toString();
    }

    /** Writes and reads the records; numbers are rounded to so many significant digits. */
    static JsonMapper mapper(int digits) {
        SimpleModule numbers = new SimpleModule()
                .addSerializer(double.class, new Rounded(digits))
                .addSerializer(Double.class, new Rounded(digits))
                .addDeserializer(double.class, new NullIsNaN());
        JsonMapper.Builder mapper = JsonMapper.builder()
                .addModule(numbers)
                .addMixIn(Outcome.class, OutcomeForm.class)
                .addMixIn(Timing.class, TimingForm.class)
                .addMixIn(Report.DeviceEntry.class, DeviceForm.class)
                .enable(SerializationFeature.WRITE_ENUMS_USING_TO_STRING,
                        SerializationFeature.ORDER_MAP_ENTRIES_BY_KEYS)
                .enable(DeserializationFeature.READ_ENUMS_USING_TO_STRING,
                        DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES,
                        DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES,
                        DeserializationFeature.FAIL_ON_NUMBERS_FOR_ENUMS,
                        DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
                .disable(DeserializationFeature.ACCEPT_FLOAT_AS_INT)
                .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
                .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
                .enable(JsonWriteFeature.ESCAPE_NON_ASCII) // half a surrogate pair survives, and any terminal shows it
                .defaultSetterInfo(JsonSetter.Value.forValueNulls(Nulls.FAIL, Nulls.FAIL));
        // Where null means something: nothing was timed, compared, claimed or measured, or a number was not finite.
        for (Class<?> type : new Class<?>[] {Timing.class, Report.Comparison.class, Boolean.class, Double.class,
                double.class}) {
            mapper.withConfigOverride(type,
                    config -> config.setSetterInfo(JsonSetter.Value.forValueNulls(Nulls.SET)));
        }
        return mapper.build();
    }

    private interface OutcomeForm {
        @JsonProperty("case")
        String name();
    }

    private interface TimingForm {
        @JsonSetter(nulls = Nulls.SET)
        String bound();
    }

    private interface DeviceForm {
        @JsonSetter(contentNulls = Nulls.SKIP)
        Map<String, Double> limits();
    }

    /** Numbers that are not finite become null: JSON has none. */
    private static final class Rounded extends StdSerializer<Double> {
        @Serial
        private static final long serialVersionUID = 1;

        private final int digits;

        Rounded(int digits) {
            super(Double.class);
            this.digits = digits;
        }

        @Override
        public void serialize(Double value, JsonGenerator out, SerializerProvider provider) throws IOException {
            if (Double.isFinite(value)) {
                out.writeNumber(BigDecimal.valueOf(value).round(new MathContext(digits)).doubleValue());
            } else {
                out.writeNull();
            }
        }
    }

    private static final class NullIsNaN extends StdDeserializer<Double> {
        @Serial
        private static final long serialVersionUID = 1;

        NullIsNaN() {
            super(Double.class);
        }

        @Override
        public Double deserialize(JsonParser in, DeserializationContext context) throws IOException {
            return in.currentToken().isNumeric()
                    ? in.getDoubleValue()
                    : (Double) context.handleUnexpectedToken(double.class, in);
        }

        @Override
        public Double getNullValue(DeserializationContext context) {
            return Double.NaN;
        }
    }

    /** Breaks lines inside what is nested so deep at most; what lies deeper stays on one line. */
    private record UpTo(int most) implements DefaultPrettyPrinter.Indenter {
        private static final DefaultIndenter LINE = new DefaultIndenter("  ", "\n");

        @Override
        public void writeIndentation(JsonGenerator out, int level) throws IOException {
            if (out.getOutputContext().getNestingDepth() <= most) {
                LINE.writeIndentation(out, level);
            } else {
                out.writeRaw(' ');
            }
        }

        @Override
        public boolean isInline() {
            return false;
        }
    }
}
