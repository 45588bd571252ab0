package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PoolEventsTest {
    @Test
    void theFlightRecorderIsTold(@TempDir Path folder) throws Exception {
        Path file = folder.resolve("pool.jfr");
        try (Recording recording = new Recording();
                Device device = Device.open("cpu", 1);
                MemoryPool pool = MemoryPool.builder(device).limit(MemoryDomain.KV_CACHE, 1 << 20).build()) {
            recording.enable("io.gatun.PoolGrowth");
            recording.enable("io.gatun.PoolTrim");
            recording.enable("io.gatun.PoolFailure");
            recording.start();
            pool.free(pool.allocate(MemoryDomain.KV_CACHE, 64, 64));
            pool.trim();
            assertThrows(GatunException.class, () -> pool.allocate(MemoryDomain.KV_CACHE, 2 << 20, 64));
            recording.stop();
            recording.dump(file);
        }
        List<RecordedEvent> events = RecordingFile.readAllEvents(file).stream()
                .filter(event -> event.getEventType().getName().startsWith("io.gatun.Pool"))
                .toList();
        assertEquals(3, events.size(), events::toString);
        for (RecordedEvent event : events) {
            assertEquals("KV_CACHE", event.getString("domain"));
            assertTrue(event.getString("device").startsWith("cpu"));
            switch (event.getEventType().getName()) {
                case "io.gatun.PoolGrowth" -> {
                    assertEquals(1 << 20, event.getLong("bytes"));
                    assertEquals(1 << 20, event.getLong("reservedBytes"));
                }
                case "io.gatun.PoolTrim" -> {
                    assertEquals(1 << 20, event.getLong("bytes"));
                    assertEquals(0, event.getLong("reservedBytes"));
                }
                default -> {
                    assertEquals(2 << 20, event.getLong("bytes"));
                    assertTrue(event.getString("reason").contains("limit of 1048576"));
                }
            }
        }
    }
}
