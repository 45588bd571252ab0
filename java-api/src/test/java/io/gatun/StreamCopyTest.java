package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class StreamCopyTest {
    private final Device device = Device.open("cpu");
    private final Stream stream = device.newStream();
    private final MemoryPool pool = MemoryPool.of(device);
    private final Arena arena = Arena.ofConfined();

    @AfterEach
    void close() {
        arena.close();
        pool.close();
        stream.close();
        device.close();
    }

    private static void assertRefused(String word, Runnable copy) {
        String message = String.valueOf(assertThrows(IllegalArgumentException.class, copy::run).getMessage());
        assertTrue(message.contains(word), message);
    }

    @Test
    void thereAndBack() {
        byte[] bytes = new byte[1000];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) (i * 7);
        }
        MemorySegment from = arena.allocateFrom(ValueLayout.JAVA_BYTE, bytes);
        MemorySegment onDevice = pool.allocate(bytes.length, 64);
        MemorySegment to = arena.allocate(bytes.length);
        stream.copyToDevice(from, onDevice);
        stream.copyToHost(onDevice, to);
        assertArrayEquals(bytes, to.toArray(ValueLayout.JAVA_BYTE));
    }

    @Test
    void nothingToCopy() {
        stream.copyToDevice(arena.allocate(0), pool.allocate(0, 64));
        stream.copyToHost(pool.allocate(0, 64), arena.allocate(0));
    }

    @Test
    void wrongArguments() {
        MemorySegment host = arena.allocate(64);
        MemorySegment onDevice = pool.allocate(64, 64);
        MemorySegment heap = MemorySegment.ofArray(new byte[64]);
        assertRefused("host", () -> stream.copyToDevice(heap, onDevice));
        assertRefused("host", () -> stream.copyToHost(onDevice, heap));
        assertRefused("onDevice", () -> stream.copyToDevice(host, onDevice.asReadOnly()));
        assertRefused("host", () -> stream.copyToHost(onDevice, host.asReadOnly()));
        assertRefused("63", () -> stream.copyToDevice(host.asSlice(1), onDevice));
        assertRefused("overlap", () -> stream.copyToHost(host.asSlice(0, 32), host.asSlice(16, 32)));
        assertEquals(0, host.get(ValueLayout.JAVA_BYTE, 0));
    }

    @Test
    void closedMemory() {
        MemorySegment onDevice = pool.allocate(64, 64);
        MemorySegment gone;
        try (Arena brief = Arena.ofConfined()) {
            gone = brief.allocate(64);
        }
        assertThrows(IllegalStateException.class, () -> stream.copyToDevice(gone, onDevice));
    }
}
