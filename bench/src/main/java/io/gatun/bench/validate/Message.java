package io.gatun.bench.validate;

import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report.BackendEntry;
import io.gatun.bench.report.Report.DeviceEntry;
import io.gatun.bench.report.Report.Support;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What the process that directs a validation and the one that runs a backend tell each other: a line of JSON each. */
@JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "is")
@JsonSubTypes({
    @JsonSubTypes.Type(Message.Open.class),
    @JsonSubTypes.Type(Message.Opened.class),
    @JsonSubTypes.Type(Message.Refused.class),
    @JsonSubTypes.Type(Message.Examine.class),
    @JsonSubTypes.Type(Message.Begins.class),
    @JsonSubTypes.Type(Message.Operands.class),
    @JsonSubTypes.Type(Message.Ended.class),
    @JsonSubTypes.Type(Message.Close.class),
    @JsonSubTypes.Type(Message.Done.class)
})
sealed interface Message {
    /** To the backend's process: open what {@code device} stands for. */
    record Open(@Nullable String library, String device, int threads) implements Message {}

    /**
     * The answer: what is there.
     *
     * @param claims what the devices claim to serve, with nothing counted yet
     */
    record Opened(String gatun, int abi, List<BackendEntry> backends, List<DeviceEntry> devices, List<Support> claims)
            implements Message {}

    /** The other answer: nothing is there, and why. */
    record Refused(String why) implements Message {}

    /**
     * To the backend's process: run a case on the devices named.
     *
     * @param next the line of the case that is likely to follow, or null
     */
    record Examine(String line, List<String> devices, @Nullable String next) implements Message {}

    /** The case is prepared, and begins on the first of the devices; when it has ended there, on the next. */
    record Begins() implements Message {}

    /** The runs of the case are on operands at these addresses, too. */
    record Operands(List<Operand.Region> regions) implements Message {}

    /**
     * The case ended on a device.
     *
     * @param limits the device's measured ceilings, when they are known
     */
    record Ended(Outcome outcome, Map<String, Double> limits) implements Message {}

    /** To the backend's process: close everything, and end. */
    record Close() implements Message {}

    /** The answer to {@link Examine} and {@link Close} when there is no more to say. */
    record Done() implements Message {}

    /** The text of a message, without a line's end. */
    default String text() {
        try {
            return Json.MAPPER.writeValueAsString(this);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Reads a message. */
    static Message parse(String text) throws IOException {
        return Json.MAPPER.readValue(text, Message.class);
    }

    /** The one mapper, apart from the interface so that it is made when it is used. */
    final class Json {
        private static final ObjectMapper MAPPER = new ObjectMapper();

        private Json() {}
    }
}
