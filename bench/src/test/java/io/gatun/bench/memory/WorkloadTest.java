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
    @CsvSource({"DECODER, 0.04, 1.06, 1.25, 0.60", "TRAINING, 0.01, 1.11, 1.02, 0.85", "MINILM, 0.12, 1.18, 1.80, 0.45"})
    void thePoolNeedsLittleMoreThanWhatLives(
            Workload workload, double external, double ofLive, double ofActivations, double ofMallocs) {
        Trace trace = workload.trace(1);
        Replay.Need need = Replay.need(trace);
        try (Device device = Device.open("cpu", 1)) {
            Replay.Peak peak = Replay.adaptive(trace, device);
            assertTrue(peak.external() <= external, peak::toString);
            assertTrue(peak.reserved() >= need.allLive(), peak::toString);
            assertTrue(peak.reserved() <= ofLive * need.allLive(), peak::toString);
            assertTrue(peak.activations() <= ofActivations * need.live().get(MemoryDomain.ACTIVATIONS), peak::toString);
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
