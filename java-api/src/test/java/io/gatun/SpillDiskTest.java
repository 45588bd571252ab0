package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A full disk is an error, when the file is made and when it is written, and the process lives. */
class SpillDiskTest {
    @TempDir
    Path folder;

    /** With a limit on the size of files, which is an error where there is no more room, and needs no rights. */
    @Test
    void noRoomForAFileOrTheEndOfIt() throws Exception {
        Path file = folder.resolve("spill");
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            SpillChild.builder(pool, file, SpillChild.BLOCKS).open().close(); // longer than the process may write
            Process process = SpillChild.start(256, "full", file);
            String said = new String(process.getInputStream().readAllBytes());
            assertTrue(process.waitFor(60, TimeUnit.SECONDS));
            assertEquals(0, process.exitValue(), said);
            String other = "the spill file " + folder.resolve("other");
            assertTrue(said.contains("make: " + other + " cannot be opened: File too large"), said);
            assertTrue(said.contains("write: the spill file " + file + " cannot be written: File too large"), said);
            assertTrue(said.contains("close: the spill file " + file + " cannot be written: File too large"), said);
            assertFalse(said.contains("no error") || said.contains("lost"), said);
            assertEquals(0, Files.size(folder.resolve("other")), "what was written of it was given back");
            int flushed = Integer.parseInt(said.substring(said.lastIndexOf(' ') + 1).strip());
            assertTrue(flushed > 5 && flushed < 20, said);
            try (SpillTier tier = SpillChild.builder(pool, file, SpillChild.BLOCKS).open()) {
                assertEquals(flushed, tier.statistics().foundBlocks());
                for (long key = 0; key < flushed; key++) {
                    assertEquals(key, SpillContent.version(tier, key));
                }
            }
        }
    }

    /** On a file system of 8 MiB. A file with holes gets no room for them when that is full; a map of it would kill. */
    @Test
    void aFullFileSystem() throws Exception {
        assumeTrue(run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder.toString()), "may not mount here");
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            Path file = folder.resolve("spill");
            Expect.failure(UncheckedIOException.class, "it is full",
                    () -> SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, 1 << 20, 8).open());
            SpillTier.Builder builder = SpillTier.builder(pool, MemoryDomain.KV_CACHE, file, 1 << 20, 4);
            builder.open().close();
            withHoles(file);
            Path filler = folder.resolve("filler");
            Expect.failure(IOException.class, "No space left", () -> Files.write(filler, new byte[9 << 20]));
            String full = "the spill file " + file + " cannot be written: No space left on device";
            try (SpillTier tier = builder.open()) {
                SpillContent.create(tier, 1, 1);
                Expect.failure(UncheckedIOException.class, full, tier::flush);
                assertEquals(1, SpillContent.version(tier, 1));
                Files.delete(filler);
                tier.flush();
                tier.evict(1);
                assertEquals(1, SpillContent.version(tier, 1));
            }
        } finally {
            run("umount", "-l", folder.toString());
        }
    }

    /** Leaves the header of a file that has no blocks, and its length. */
    private static void withHoles(Path file) throws IOException {
        try (RandomAccessFile content = new RandomAccessFile(file.toFile(), "rw")) {
            long bytes = content.length();
            content.setLength(SpillFile.PAGE);
            content.setLength(bytes);
        }
    }

    private static boolean run(String... command) throws InterruptedException {
        try {
            return new ProcessBuilder(command).redirectErrorStream(true).start().waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
    }
}
