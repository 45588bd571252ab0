package io.gatun.bench.memory;

import io.gatun.MemoryDomain;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * What a program asked of a memory pool, in order. The text form, which {@code MemoryPool.Builder.trace} writes as
 * well, has a line for each event: {@code + tensor domain bytes alignment request} for an allocation, {@code - tensor}
 * for a free, and {@code . request} for the end of a request. Request 0 does not end: weights are in it, and what is
 * not known to belong to a request.
 *
 * @param events in order
 */
public record Trace(List<Event> events) {
    private static final String HEADER = "gatun-memory-trace 1";

    /** One of the events. */
    public sealed interface Event {}

    /**
     * An allocation.
     *
     * @param tensor its number, 0 or more
     * @param domain what it is for
     * @param bytes its size
     * @param alignment of its first byte
     * @param request what it belongs to
     */
    public record Take(int tensor, MemoryDomain domain, long bytes, long alignment, int request) implements Event {}

    /**
     * The free of a tensor.
     *
     * @param tensor its number
     */
    public record Give(int tensor) implements Event {}

    /**
     * The end of a request; all of its tensors are free.
     *
     * @param request its number
     */
    public record End(int request) implements Event {}

    /** Returns one more than the largest number of a tensor. */
    int tensors() {
        int most = -1;
        for (Event event : events) {
            most = event instanceof Take take ? Math.max(most, take.tensor) : most;
        }
        return most + 1;
    }

    /**
     * Reads a file.
     *
     * @param file in the text form
     * @return the trace
     * @throws IOException if it cannot be read, or is none; the message names the line
     */
    public static Trace read(Path file) throws IOException {
        List<Event> events = new ArrayList<>();
        try (BufferedReader reader = Files.newBufferedReader(file)) {
            if (!HEADER.equals(reader.readLine())) {
                throw new IOException(file + ": line 1, expected " + HEADER);
            }
            for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                try {
                    events.add(parse(line.split(" ")));
                } catch (IllegalArgumentException | ArrayIndexOutOfBoundsException e) {
                    throw new IOException(file + ": line " + (events.size() + 2) + ": " + line, e);
                }
            }
        }
        return new Trace(events);
    }

    private static Event parse(String[] words) {
        int number = Integer.parseInt(words[1]);
        return switch (words[0]) {
            case "+" -> new Take(number, MemoryDomain.valueOf(words[2]), Long.parseLong(words[3]),
                    Long.parseLong(words[4]), Integer.parseInt(words[5]));
            case "-" -> new Give(number);
            case "." -> new End(number);
            default -> throw new IllegalArgumentException(words[0]);
        };
    }

    /**
     * Writes a file.
     *
     * @param file where to
     * @throws IOException if it cannot be written
     */
    public void write(Path file) throws IOException {
        try (BufferedWriter writer = Files.newBufferedWriter(file)) {
            writer.write(HEADER + "\n");
            for (Event event : events) {
                writer.write(switch (event) {
                    case Take take -> "+ " + take.tensor + " " + take.domain.name() + " " + take.bytes + " "
                            + take.alignment + " " + take.request + "\n";
                    case Give give -> "- " + give.tensor + "\n";
                    case End end -> ". " + end.request + "\n";
                });
            }
        }
    }
}
