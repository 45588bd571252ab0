package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A device with memory of its own: the example of a vendor's backend, which says that the host does not reach its memory. */
class HiddenMemoryTest {
    @TempDir
    static Path folder;

    private Device device;
    private MemoryPool pool;
    private Stream stream;

    @BeforeAll
    static void load() throws Exception {
        Path library = folder.resolve("libgatun_sample.so");
        Path root = Path.of("").toAbsolutePath().getParent();
        Process compiler = new ProcessBuilder(
                        "cc", "-std=c11", "-O1", "-fPIC", "-shared", "-I" + root.resolve("native/include"),
                        root.resolve("examples/vendor-backend/sample.c").toString(), "-o", library.toString(), "-lm",
                        "-lpthread")
                .inheritIO()
                .start();
        assertEquals(0, compiler.waitFor());
        Gatun.loadBackend(library);
    }

    @BeforeEach
    void open() {
        device = Device.open("sample:0");
        pool = MemoryPool.of(device);
        stream = device.newStream();
    }

    @AfterEach
    void close() {
        stream.close();
        pool.close();
        device.close();
    }

    /** Everything that would read or write a segment. */
    private static void assertHidden(MemorySegment segment) {
        MemorySegment host = Arena.ofAuto().allocate(segment.byteSize());
        assertThrows(IllegalStateException.class, () -> segment.get(ValueLayout.JAVA_BYTE, 0));
        assertThrows(IllegalStateException.class, () -> segment.set(ValueLayout.JAVA_BYTE, 0, (byte) 1));
        assertThrows(IllegalStateException.class, () -> segment.fill((byte) 1));
        assertThrows(IllegalStateException.class, () -> segment.toArray(ValueLayout.JAVA_BYTE));
        assertThrows(IllegalStateException.class, () -> MemorySegment.copy(segment, 0, host, 0, 4));
        assertThrows(IllegalStateException.class, () -> MemorySegment.copy(host, 0, segment, 0, 4));
        assertThrows(IllegalStateException.class, () -> segment.mismatch(host));
        assertThrows(IllegalStateException.class, () -> segment.asByteBuffer().get(0));
        assertThrows(IllegalStateException.class, () -> segment.asSlice(1).get(ValueLayout.JAVA_BYTE, 0));
        assertThrows(IllegalStateException.class, () -> segment.getString(0));
        assertEquals(segment.address() + 2, segment.asSlice(2, 1).address());
    }

    @Test
    void segmentsCannotBeAccessed() {
        assertFalse(device.info().hostMemory());
        MemorySegment block = pool.allocate(100, 64);
        assertEquals(100, block.byteSize());
        assertHidden(block);
        assertThrows(IllegalStateException.class, () -> pool.allocateFrom(ValueLayout.JAVA_INT, 1, 2));
        try (PoolArena arena = pool.newArena()) {
            assertHidden(arena.allocate(64));
            arena.reset();
            assertHidden(arena.allocate(64));
            assertHidden(arena.tensor(DType.F32, 4, 4).memory());
        }
        pool.free(block);
        assertThrows(IllegalStateException.class, () -> pool.free(block));
    }

    @Test
    void tensorsSayHowToGetAtTheirContent() {
        Tensor tensor = pool.tensor(DType.F32, 2, 3);
        for (Function<Tensor, Object> access : java.util.List.<Function<Tensor, Object>>of(
                one -> one.getFloat(0, 0),
                one -> {
                    one.setFloat(1, 0, 0);
                    return one;
                },
                one -> one.copyFrom(new float[6]),
                Tensor::toFloatArray)) {
            for (Tensor view : new Tensor[] {tensor, tensor.reshape(6).reshape(2, 3), tensor.slice(0, 0, 2)}) {
                String message = String.valueOf(
                        assertThrows(UnsupportedOperationException.class, () -> access.apply(view)).getMessage());
                assertTrue(message.contains("sample:0") && message.contains("copyToHost"), message);
            }
        }
        Tensor integers = pool.tensor(DType.S64, 3);
        assertThrows(UnsupportedOperationException.class, () -> integers.copyFrom(new long[3]));
        pool.free(tensor);
    }

    @Test
    void runsAndCopies() {
        float[] values = {1, 2, 3, 4, -1, 0};
        try (Arena arena = Arena.ofConfined(); PoolArena on = pool.newArena()) {
            Tensor host = Tensor.allocate(arena, DType.F32, 2, 3).copyFrom(values);
            Tensor x = on.tensor(DType.F32, 4, 3).slice(0, 1, 3);
            Tensor out = pool.tensor(DType.F32, 2, 3);
            stream.copyToDevice(host.memory(), x.memory());
            try (BiasActivation.Plan plan =
                    BiasActivation.of(Activation.RELU).plan(device, x.spec(), out.spec())) {
                plan.run(stream, x, null, out);
                stream.synchronize();
                Tensor back = Tensor.allocate(arena, DType.F32, 2, 3);
                stream.copyToHost(out.memory(), back.memory());
                assertArrayEquals(new float[] {1, 2, 3, 4, 0, 0}, back.toFloatArray());

                IllegalArgumentException wrong =
                        assertThrows(IllegalArgumentException.class, () -> plan.run(stream, host, null, out));
                assertTrue(String.valueOf(wrong.getMessage()).startsWith("x: memory of the host"), wrong.getMessage());
                assertThrows(IllegalArgumentException.class, () -> plan.run(stream, x, null, back));
                on.reset();
                assertThrows(IllegalStateException.class, () -> plan.run(stream, x, null, out));
            }
            assertThrows(
                    IllegalArgumentException.class, () -> stream.copyToDevice(host.memory(), host.slice(0, 0, 2).memory()));
            assertThrows(IllegalArgumentException.class, () -> stream.copyToDevice(out.memory(), out.memory()));
            pool.free(out);
        }
    }

    @Test
    void otherDevicesRefuseIt() {
        try (Device cpu = Device.open("cpu"); Stream onCpu = cpu.newStream(); Arena arena = Arena.ofConfined()) {
            Tensor hidden = pool.tensor(DType.F32, 2, 3);
            Tensor host = Tensor.allocate(arena, DType.F32, 2, 3);
            try (Softmax.Plan plan = Softmax.of().plan(cpu, host.spec(), host.spec())) {
                assertThrows(IllegalArgumentException.class, () -> plan.run(onCpu, hidden, host));
                assertThrows(IllegalArgumentException.class, () -> plan.run(onCpu, host, hidden));
            }
            assertThrows(IllegalArgumentException.class, () -> PackedWeights.pack(cpu, DType.F32, hidden));
            assertThrows(IllegalArgumentException.class, () -> onCpu.copyToHost(hidden.memory(), host.memory()));
        }
    }
}
