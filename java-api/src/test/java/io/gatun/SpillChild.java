package io.gatun;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;

/** A process that works on a spill tier and says what it does, to be killed, or to meet a full disk. */
final class SpillChild {
    static final int BYTES = 20_000;
    static final int BLOCKS = 40;
    static final int MANY = 3000; // so that it takes a while to make a file

    private static final OutputStream OUT = new FileOutputStream(FileDescriptor.out);

    private SpillChild() {}

    /** Starts it, with at most {@code mostKib} KiB for any file if that is not 0. */
    static Process start(long mostKib, Object... arguments) throws IOException, URISyntaxException {
        ProcessBuilder process = Child.of(SpillChild.class, List.of("-Xshare:auto", "-XX:TieredStopAtLevel=1"), arguments);
        if (mostKib > 0) {
            process.command().addAll(0, List.of("bash", "-c", "ulimit -f " + mostKib + " && exec \"$@\"", "bash"));
        }
        return process.start();
    }

    /** In one call of the system, so that a line is there or not. */
    private static void say(String line) throws IOException {
        OUT.write((line + "\n").getBytes());
    }

    public static void main(String[] arguments) throws IOException {
        Path file = Path.of(arguments[1]);
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            switch (arguments[0]) {
                case "make" -> {
                    say("making");
                    builder(pool, file, MANY).open().close();
                    say("made");
                    System.in.read(); // until it is killed
                }
                case "work" -> work(
                        builder(pool, file, BLOCKS).residentBlocks(8).open(),
                        new SplittableRandom(Long.parseLong(arguments[2])),
                        Long.parseLong(arguments[3]));
                case "full" -> full(pool, file);
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
    }

    static SpillTier.Builder builder(MemoryPool pool, Path file, int blocks) {
        return SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, BYTES, blocks);
    }

    /** Random changes, each told before it is made, and flushes, each told when it is done. */
    private static void work(SpillTier tier, SplittableRandom random, long firstVersion) throws IOException {
        say("open");
        for (long version = firstVersion; ; version++) {
            long key = random.nextInt(BLOCKS);
            switch (random.nextInt(16)) {
                case 0, 1 -> {
                    tier.flush();
                    say("flushed");
                }
                case 2 -> {
                    say("remove " + key);
                    tier.remove(key);
                }
                case 3 -> tier.evict((1 + random.nextInt(8)) * BYTES);
                case 4 -> tier.prefetch(key, (key + 1) % BLOCKS, (key + 2) % BLOCKS);
                case 5, 6, 7 -> SpillContent.version(tier, key);
                case 8 -> {
                    say("remove " + key);
                    try (SpillTier.Pin pin = tier.edit(key)) {
                        if (pin != null) {
                            SpillContent.fill(pin.memory(), key, version); // and is not committed
                        }
                    }
                }
                default -> {
                    say("write " + key + " " + version);
                    if (tier.contains(key)) {
                        SpillContent.edit(tier, key, version);
                    } else {
                        SpillContent.create(tier, key, version);
                    }
                }
            }
        }
    }

    /** What is said where a file may not become as large as is needed. */
    private static void full(MemoryPool pool, Path file) throws IOException {
        try {
            builder(pool, file.resolveSibling("other"), MANY).open();
            say("no error");
        } catch (UncheckedIOException e) {
            say("make: " + e.getMessage());
        }
        SpillTier tier = builder(pool, file, BLOCKS).residentBlocks(BLOCKS).open();
        long flushed = 0;
        try {
            for (long key = 0; key < BLOCKS; key++) {
                SpillContent.create(tier, key, key);
                tier.flush();
                flushed++;
            }
            say("no error");
        } catch (UncheckedIOException e) {
            say("write: " + e.getMessage());
        }
        for (long key = 0; key <= flushed; key++) {
            if (SpillContent.version(tier, key) != key) {
                say("block " + key + " is lost");
            }
        }
        try {
            tier.close();
            say("no error");
        } catch (UncheckedIOException e) {
            say("close: " + e.getMessage());
        }
        say("flushed " + flushed);
    }
}
