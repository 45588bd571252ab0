package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A device with memory of its own: the example of a vendor's backend, which says that the host does not reach its memory. */
class HiddenMemoryTest {
    private static final Path ROOT = Path.of("").toAbsolutePath().getParent();
    private static final Path SAMPLE = ROOT.resolve("examples/vendor-backend");

    @TempDir
    static Path folder;

    private Device device;
    private MemoryPool pool;
    private Stream stream;

    @BeforeAll
    static void load() throws Exception {
        compile(SAMPLE.resolve("sample.c"), "sample");
        compile(Files.writeString(folder.resolve("pinned.c"), PINNED), "pinned");
    }

    private static void compile(Path source, String name) throws Exception {
        Path library = folder.resolve("libgatun_" + name + ".so");
        Process compiler = new ProcessBuilder(
                        "cc", "-std=c11", "-O1", "-fPIC", "-shared", "-I" + ROOT.resolve("native/include"), "-I" + SAMPLE,
                        source.toString(), "-o", library.toString(), "-lm", "-lpthread")
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

    /** The same backend with memory of the host that its device reaches, at most 4 MiB at a time. */
    private static final String PINNED = """
            #define gtn_backend_entry sample_entry
            #include "sample.c"
            #undef gtn_backend_entry
            static gtn_status pin(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
              if (bytes <= 4 << 20) return memory_alloc(device, bytes, alignment, memory, message);
              snprintf(message->text, sizeof message->text, "there is no more to pin");
              return GTN_OUT_OF_MEMORY;
            }
            static gtn_status named(int32_t index, gtn_device_info* info, gtn_message* message) {
              gtn_status status = device_info(index, info, message);
              snprintf(info->name, sizeof info->name, "pinned:0");
              return status;
            }
            static gtn_status described(void* device, gtn_device_info* info, gtn_message* message) {
              (void)device;
              return named(0, info, message);
            }
            GTN_API const gtn_backend* gtn_backend_entry(void) {
              static gtn_backend table;
              table = *sample_entry();
              table.name = "pinned";
              table.device_info = named;
              table.device_describe = described;
              table.host_memory_alloc = pin;
              table.host_memory_free = memory_free;
              return &table;
            }
            """;

    @Test
    void stagingIsDeclined() {
        assertThrows(UnsupportedOperationException.class, () -> MemoryPool.builder(device).staging().build());
    }

    @Test
    void aStagingPoolIsTheHosts() {
        try (Device pinned = Device.open("pinned:0");
                MemoryPool staging = MemoryPool.builder(pinned).staging().coldStart(MemoryDomain.WORKSPACE, 10_000).build();
                MemoryPool memory = MemoryPool.of(pinned);
                Stream queue = pinned.newStream();
                PoolArena request = staging.newArena(MemoryDomain.WORKSPACE)) {
            assertFalse(pinned.info().hostMemory());
            Tensor there = memory.tensor(DType.F32, 4, 25);
            Tensor out = memory.tensor(DType.F32, 4, 25);
            MemorySegment in = staging.allocate(400, 64).fill((byte) 3);
            queue.copyToDevice(in, there.memory());
            MemorySegment back = request.allocate(400, 64);
            assertEquals(0, back.get(ValueLayout.JAVA_BYTE, 7));
            queue.copyToHost(there.memory(), back);
            assertEquals(-1, in.mismatch(back));
            Expect.illegalArgument("memory of the host", () -> queue.copyToDevice(in, back));
            try (Softmax.Plan plan = Softmax.of().plan(pinned, there.spec(), out.spec())) {
                Tensor host = staging.tensor(DType.F32, 4, 25);
                assertThrows(IllegalArgumentException.class, () -> plan.run(queue, host, out));
                staging.free(host);
            }
            Expect.failure(GatunException.class, "no more to pin", () -> staging.allocate(5 << 20, 64));
            staging.free(in);
            Expect.illegalArgument("expected a block that this pool allocated", () -> staging.free(there));
            assertTrue(staging.trim() > 0);
            assertTrue(staging.statistics().reservedBytes() >= 10_000);
        }
    }

    /** Plans on the device could not run on its pages. */
    @Test
    void aStagingPoolHasNoKvCache() {
        TensorSpec pages = TensorSpec.of(DType.F32, 2, 4, 1, 4);
        long bytes = KvCache.blockBytes(1, pages, pages);
        try (Device pinned = Device.open("pinned:0");
                MemoryPool staging = MemoryPool.builder(pinned).staging().build();
                MemoryPool memory = MemoryPool.of(pinned);
                SpillTier tier = SpillTier.builder(staging, MemoryDomain.KV_CACHE, folder.resolve("tier"), bytes, 4).open()) {
            KvCache.of(memory, 1, pages, pages).close();
            assertThrows(UnsupportedOperationException.class, () -> KvCache.of(staging, 1, pages, pages));
            assertThrows(UnsupportedOperationException.class, () -> KvCache.of(staging, 1, pages, pages, tier));
            assertThrows(UnsupportedOperationException.class, () -> KvCache.of(memory, 1, pages, pages, tier));
        }
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
