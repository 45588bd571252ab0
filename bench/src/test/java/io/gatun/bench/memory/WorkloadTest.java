package io.gatun.bench.memory;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.Device;
import io.gatun.MemoryDomain;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class WorkloadTest {
    /** What the pool needs of the traces, with room for where slabs happen to lie: a change that makes it worse should be seen. */
    @ParameterizedTest
    @CsvSource({"DECODER, 1, 1.02, 0.57", "DECODER, 2, 1.02, 0.57", "DECODER, 3, 1.02, 0.57", "DECODER, 5, 1.02, 0.57",
        "TRAINING, 1, 1.02, 0.78", "TRAINING, 2, 1.02, 0.78", "MINILM, 1, 1.02, 0.45", "MINILM, 2, 1.02, 0.50"})
    void thePoolNeedsLittleMoreThanWhatLives(
            Workload workload, long seed, double ofLive, double ofMallocs) {
        Trace trace = workload.trace(seed);
        Replay.Need need = Replay.need(trace);
        try (Device device = Device.open("cpu", 1)) {
            Replay.Peak peak = Replay.adaptive(trace, device);
            double shared = Replay.shared(trace, device).external();
            assertTrue(peak.external() <= Math.min(0.05, shared / 2), () -> peak + ", beside " + shared);
            assertTrue(peak.reserved() >= need.allLive(), peak::toString);
            assertTrue(peak.reserved() <= ofLive * need.allLive(), peak::toString);
            assertTrue(peak.activations() <= 1.10 * need.live().get(MemoryDomain.ACTIVATIONS), peak::toString);
            assertTrue(peak.reserved() <= ofMallocs * need.untilRequestEnds(), peak::toString);
        }
    }

    @ParameterizedTest
    @EnumSource
    void aTraceIsTheSameForTheSameSeedAndFromItsFile(Workload workload, @TempDir Path folder) throws IOException {
        Trace trace = workload.trace(7);
        assertEquals(trace, workload.trace(7));
        Path file = folder.resolve("a.trace");
        trace.write(file);
        assertEquals(trace, Trace.read(file));
    }

    @Test
    void whatIsNoTraceIsNamedByItsLine(@TempDir Path folder) throws IOException {
        Path file = folder.resolve("a.trace");
        Files.writeString(file, "gatun-memory-trace 1\n+ 0 WEIGHTS 100 64 0\n+ 1 NOTHING 100 64 0\n");
        IOException e = assertThrows(IOException.class, () -> Trace.read(file));
        assertTrue(e.getMessage().contains("line 3"), e::getMessage);
    }
}
