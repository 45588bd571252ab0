package io.gatun.bench.validate;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;

/**
 * Plans and packed weights that one or several trials of a case use: every trial asks for the same ones in the same
 * order, the first to ask opens each of them, and all are closed together.
 */
final class Shared implements AutoCloseable {
    private final List<AutoCloseable> opened = new ArrayList<>();

    /** The object number {@code position}, opened if nobody has asked for it yet. */
    @SuppressWarnings("unchecked") // the same case asks for the same types in the same order
    synchronized <T extends AutoCloseable> T open(int position, Supplier<T> opener) {
        if (position == opened.size()) {
            opened.add(opener.get());
        }
        return (T) opened.get(position);
    }

    @Override
    public void close() {
        closeAll(opened);
    }

    /** Closes objects, the last one first, and forgets them. */
    static void closeAll(List<AutoCloseable> objects) {
        try {
            while (!objects.isEmpty()) {
                objects.removeLast().close();
            }
        } catch (RuntimeException e) {
            throw e;
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }
}
