package io.gatun;

import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.System.Logger.Level;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes what a pool is asked for to a file, in order: see {@link MemoryPool.Builder#trace}. Thread-safe; who gives a
 * block back does so holding this, so that its next user is recorded later.
 */
final class PoolTrace {
    private final Path file;
    private final BufferedWriter writer;
    private final Map<Long, Integer> tensors = new HashMap<>(); // by address, of single blocks
    private int tensorCount;
    private int requestCount;
    private boolean ended;

    PoolTrace(Path file) {
        this.file = file;
        try {
            writer = Files.newBufferedWriter(file);
        } catch (IOException e) {
            throw new UncheckedIOException("trace: " + file + " cannot be written", e);
        }
        write("gatun-memory-trace 1\n");
    }

    /** A single block was handed out. */
    synchronized void take(long address, MemoryDomain domain, long bytes, long alignment) {
        tensors.put(address, take(domain, bytes, alignment, 0));
    }

    /** A single block was given back. */
    synchronized void give(long address) {
        Integer tensor = tensors.remove(address);
        if (tensor != null) {
            write("- " + tensor + "\n");
        }
    }

    /** Returns the number of a new request. */
    synchronized int request() {
        return ++requestCount;
    }

    /** Something was handed out that belongs to a request. Returns its number. */
    synchronized int take(MemoryDomain domain, long bytes, long alignment, int request) {
        write("+ " + tensorCount + " " + domain.name() + " " + bytes + " " + alignment + " " + request + "\n");
        return tensorCount++;
    }

    /** A request gave back what it had. */
    synchronized void end(int request, List<Integer> had) {
        for (int tensor : had) {
            write("- " + tensor + "\n");
        }
        write(". " + request + "\n");
    }

    /** A recording that fails must not fail the program: it ends. */
    private void write(String line) {
        if (!ended) {
            try {
                writer.write(line);
            } catch (IOException e) {
                fail(e);
            }
        }
    }

    synchronized void close() {
        ended = true;
        try {
            writer.close();
        } catch (IOException e) {
            fail(e);
        }
    }

    private void fail(IOException e) {
        ended = true;
        System.getLogger("io.gatun").log(Level.WARNING, "the trace " + file + " ends early", e);
    }
}
