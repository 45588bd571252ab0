package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.math.BigDecimal;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class TensorTest {
    private final Arena arena = Arena.ofConfined();

    @AfterEach
    void close() {
        arena.close();
    }

    @Test
    void aTensorIsAViewOfTheCallersMemory() {
        MemorySegment memory = arena.allocate(24, 4);
        Tensor tensor = Tensor.of(memory, DType.F32, 2, 3);
        assertSame(memory, tensor.memory());
        tensor.setFloat(7, 1, 2);
        assertEquals(7, memory.getAtIndex(ValueLayout.JAVA_FLOAT, 5));
        memory.setAtIndex(ValueLayout.JAVA_FLOAT, 0, 9);
        assertEquals(9, tensor.getFloat(0, 0));
    }

    @Test
    void memoryThatDoesNotServeIsRefused() {
        Expect.illegalArgument("heap", () -> Tensor.of(MemorySegment.ofArray(new float[6]), DType.F32, 2, 3));
        Expect.illegalArgument("heap", () ->
                Tensor.allocate((bytes, alignment) -> MemorySegment.ofArray(new long[9]), DType.F32, 2));
        Expect.illegalArgument("23 bytes, expected at least 24", () ->
                Tensor.of(arena.allocate(23, 8), DType.F32, 2, 3));
        Expect.illegalArgument("multiple of 4", () -> Tensor.of(arena.allocate(64, 64).asSlice(2), DType.F32, 2, 3));
        assertThrows(NullPointerException.class, () -> Tensor.of(null, DType.F32, 2));
        assertThrows(NullPointerException.class, () -> Tensor.of(arena.allocate(8), (TensorSpec) null));
        assertEquals(0, Tensor.of(arena.allocate(0, 8), DType.F32, 0, 3).memory().byteSize());
    }

    @Test
    void allocatedTensorsAreAlignedForTheWidestVectors() {
        for (int i = 0; i < 10; i++) {
            assertEquals(0, Tensor.allocate(arena, DType.S8, 3).memory().address() % 64);
        }
    }

    @Test
    void viewsShareTheMemory() {
        Tensor tensor = Tensor.allocate(arena, DType.F32, 3, 4).copyFrom(counting(12));
        assertArrayEquals(new float[] {5, 6, 9, 10}, tensor.slice(0, 1, 3).slice(1, 1, 3).toFloatArray());
        assertArrayEquals(new float[] {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}, tensor.transpose(0, 1).toFloatArray());
        assertEquals(6, tensor.reshape(2, 6).getFloat(1, 0));
        assertEquals(11, tensor.transpose(0, 1).slice(0, 3, 4).getFloat(0, 2));
        assertEquals(0, tensor.slice(0, 3, 3).toFloatArray().length);
        assertEquals(0, tensor.slice(1, 4, 4).toFloatArray().length);
        tensor.slice(0, 2, 3).setFloat(-1, 0, 3);
        assertEquals(-1, tensor.getFloat(2, 3));
        Expect.illegalArgument("contiguous", () -> tensor.transpose(0, 1).reshape(12));
        Expect.illegalArgument("10 elements, expected the 12", () -> tensor.reshape(10));
    }

    @Test
    void valuesGoInAndOutInRowMajorOrder() {
        float[] values = counting(24);
        TensorSpec spec = TensorSpec.of(DType.F32, 2, 3, 4);
        for (TensorSpec layout : new TensorSpec[] {spec, spec.withStrides(1, 8, 2), spec.withStrides(40, 10, 2)}) {
            Tensor tensor = Tensor.of(arena.allocate(layout.byteSpan(), 64), layout).copyFrom(values);
            assertArrayEquals(values, tensor.toFloatArray(), layout::toString);
            assertEquals(values[1 * 12 + 2 * 4 + 3], tensor.getFloat(1, 2, 3));
        }
        Tensor small = Tensor.allocate(arena, DType.F32, 2);
        Expect.illegalArgument("3 of them, expected the 2", () -> small.copyFrom(new float[3]));
        Expect.illegalArgument("3 of them, expected the 2", () -> small.copyFrom(new long[3]));
        Expect.illegalArgument("S64 or S32", () -> small.copyFrom(new long[2]));
        assertThrows(IllegalArgumentException.class,
                () -> Tensor.of(small.memory().asReadOnly(), small.spec()).copyFrom(new float[2]));
    }

    @Test
    void longsGoIntoIntegers() {
        Tensor longs = Tensor.allocate(arena, DType.S64, 2, 2).transpose(0, 1);
        longs.copyFrom(new long[] {1, 2, 3, Long.MIN_VALUE});
        assertEquals(2, longs.memory().getAtIndex(ValueLayout.JAVA_LONG, 2));
        assertEquals((float) Long.MIN_VALUE, longs.getFloat(1, 1));
        Tensor ints = Tensor.allocate(arena, DType.S32, 2).copyFrom(new long[] {5, Integer.MIN_VALUE});
        assertArrayEquals(new float[] {5, Integer.MIN_VALUE}, ints.toFloatArray());
        Expect.illegalArgument("2147483648", () -> ints.copyFrom(new long[] {5, 2147483648L}));
    }

    @ParameterizedTest
    @EnumSource(names = {"S8", "U8", "S32", "S64"})
    void integersAreRoundedToEvenAndLimited(DType dtype) {
        Tensor tensor = Tensor.allocate(arena, dtype, 1);
        float[][] cases = {{2.5f, 2}, {3.5f, 4}, {0.49f, 0}, {100, 100}};
        for (float[] c : cases) {
            tensor.setFloat(c[0], 0);
            assertEquals(c[1], tensor.getFloat(0));
        }
        float[] limits = switch (dtype) {
            case S8 -> new float[] {-128, 127};
            case U8 -> new float[] {0, 255};
            case S32 -> new float[] {Integer.MIN_VALUE, Integer.MAX_VALUE};
            default -> new float[] {Long.MIN_VALUE, Long.MAX_VALUE};
        };
        tensor.setFloat(Float.NEGATIVE_INFINITY, 0);
        assertEquals(limits[0], tensor.getFloat(0));
        tensor.setFloat(Float.POSITIVE_INFINITY, 0);
        assertEquals(limits[1], tensor.getFloat(0));
        Expect.illegalArgument("NaN", () -> tensor.setFloat(Float.NaN, 0));
    }

    /** Every number of both FP8 formats is read as written, and what lies between goes to the nearest, ties to even. */
    @ParameterizedTest
    @EnumSource(names = {"F8E4M3", "F8E5M2"})
    void float8IsTheNearestWithTiesToEven(DType dtype) {
        Tensor tensor = Tensor.allocate(arena, dtype, 1);
        int finite = dtype == DType.F8E4M3 ? 0x7e : 0x7b;
        float before = 0;
        for (int bits = 0; bits <= finite; bits++) {
            tensor.memory().set(ValueLayout.JAVA_BYTE, 0, (byte) bits);
            float value = tensor.getFloat(0);
            assertTrue(bits == 0 ? value == 0 : value > before, "they rise with their bits");
            float[][] cases = {{value, bits}, {(value + before) / 2, bits % 2 == 0 || bits == 0 ? bits : bits - 1},
                    {Math.nextUp((value + before) / 2), bits}};
            for (float[] c : cases) {
                tensor.setFloat(c[0], 0);
                assertEquals((byte) c[1], tensor.memory().get(ValueLayout.JAVA_BYTE, 0));
                tensor.setFloat(-c[0], 0);
                assertEquals((byte) ((int) c[1] | 0x80), tensor.memory().get(ValueLayout.JAVA_BYTE, 0));
            }
            before = value;
        }
        assertEquals(dtype == DType.F8E4M3 ? 448 : 57344, before);
        tensor.setFloat(1e30f, 0);
        assertEquals(dtype == DType.F8E4M3 ? 448 : Float.POSITIVE_INFINITY, tensor.getFloat(0));
        tensor.setFloat(Float.NaN, 0);
        assertTrue(Float.isNaN(tensor.getFloat(0)));
    }

    /** BF16 rounding against exact decimal arithmetic, on random bits and around every tie. */
    @Test
    void bfloat16IsTheNearestWithTiesToEven() {
        Random random = new Random(1);
        for (int i = 0; i < 20_000; i++) {
            int bits = random.nextInt();
            if ((i & 1) == 0) {
                bits = (bits & 0xffff0000) | 0x8000 + random.nextInt(-1, 2);
            }
            float value = Float.intBitsToFloat(bits);
            if (!Float.isFinite(value)) {
                continue;
            }
            float below = Float.intBitsToFloat(bits & 0xffff0000);
            float above = Float.intBitsToFloat((bits & 0xffff0000) + 0x10000);
            float expected;
            if (Float.isInfinite(above)) {
                expected = (bits & 0xffff) >= 0x8000 ? above : below;
            } else {
                BigDecimal exact = new BigDecimal(value);
                BigDecimal toBelow = exact.subtract(new BigDecimal(below)).abs();
                BigDecimal toAbove = new BigDecimal(above).subtract(exact).abs();
                int nearer = toBelow.compareTo(toAbove);
                boolean belowIsEven = (bits & 0x10000) == 0;
                expected = nearer < 0 || nearer == 0 && belowIsEven ? below : above;
            }
            short rounded = Tensor.toBFloat16(value);
            assertEquals(
                    Float.floatToRawIntBits(expected), rounded << 16, () -> "rounding " + Float.toHexString(value));
        }
    }

    @Test
    void halvesKeepTheirSpecialValues() {
        for (DType dtype : new DType[] {DType.BF16, DType.F16}) {
            Tensor tensor = Tensor.allocate(arena, dtype, 1);
            for (float value : new float[] {0f, -0f, 1, -2.5f, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY}) {
                tensor.setFloat(value, 0);
                assertEquals(Float.floatToRawIntBits(value), Float.floatToRawIntBits(tensor.getFloat(0)));
            }
            for (int nan : new int[] {0x7f800001, 0x7fc00000, 0xffffffff, 0x7f80ffff}) {
                tensor.setFloat(Float.intBitsToFloat(nan), 0);
                assertTrue(Float.isNaN(tensor.getFloat(0)));
            }
            tensor.setFloat(Float.MAX_VALUE, 0);
            assertEquals(Float.POSITIVE_INFINITY, tensor.getFloat(0));
        }
        Tensor half = Tensor.allocate(arena, DType.F16, 1);
        half.setFloat(0x1.ffcp0f, 0);
        assertEquals(0x1.ffcp0f, half.getFloat(0));
        half.setFloat(0x1p-24f, 0);
        assertEquals(0x1p-24f, half.getFloat(0));
    }

    @Test
    void indicesAreChecked() {
        Tensor tensor = Tensor.allocate(arena, DType.F32, 2, 3);
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.getFloat(0));
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.getFloat(0, 3));
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.getFloat(-1, 0));
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.setFloat(1, 2, 0));
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.slice(0, 1, 3));
    }

    @Test
    void tensorsOfAClosedArenaAreDetected() {
        Arena other = Arena.ofConfined();
        Tensor tensor = Tensor.allocate(other, DType.F32, 2);
        other.close();
        assertThrows(IllegalStateException.class, () -> tensor.getFloat(0));
    }

    private static float[] counting(int count) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = i;
        }
        return values;
    }
}
