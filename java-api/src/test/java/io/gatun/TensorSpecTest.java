package io.gatun;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class TensorSpecTest {
    @Test
    void aNewSpecIsRowMajor() {
        TensorSpec spec = TensorSpec.of(DType.BF16, 2, 3, 5);
        assertArrayEquals(new long[] {15, 5, 1}, spec.strides());
        assertEquals(30, spec.elements());
        assertEquals(60, spec.byteSpan());
        assertTrue(spec.isContiguous());
        assertEquals("BF16[2, 3, 5]", spec.toString());
    }

    @Test
    void sizesMayBeZero() {
        TensorSpec spec = TensorSpec.of(DType.F32, 0, 3);
        assertEquals(0, spec.elements());
        assertEquals(0, spec.byteSpan());
        assertTrue(spec.isContiguous());
        assertArrayEquals(new long[] {3, 1}, spec.strides());
        assertEquals(1, TensorSpec.of(DType.F32, 3, 0).stride(1));
        assertEquals(0, TensorSpec.of(DType.F32, Long.MAX_VALUE, 0).byteSpan());
    }

    @Test
    void theSpanOfAViewEndsWithItsLastElement() {
        TensorSpec spec = TensorSpec.of(DType.F32, 4, 3).withStrides(10, 2);
        assertEquals((3 * 10 + 2 * 2 + 1) * 4, spec.byteSpan());
        assertFalse(spec.isContiguous());
        assertEquals("F32[4, 3] strides [10, 2]", spec.toString());
        assertEquals(4, TensorSpec.of(DType.F32, 4, 3).withStrides(0, 0).byteSpan());
    }

    @Test
    void aDimensionOfOneDoesNotMatterToContiguity() {
        assertTrue(TensorSpec.of(DType.F32, 1, 3).withStrides(77, 1).isContiguous());
        assertTrue(TensorSpec.of(DType.F32, 3, 1).transpose(0, 1).isContiguous());
        assertFalse(TensorSpec.of(DType.F32, 3, 2).transpose(0, 1).isContiguous());
    }

    @Test
    void viewsKeepTheStrides() {
        TensorSpec spec = TensorSpec.of(DType.S8, 4, 6);
        assertEquals(TensorSpec.of(DType.S8, 6, 4).withStrides(1, 6), spec.transpose(0, 1));
        assertEquals(TensorSpec.of(DType.S8, 4, 2).withStrides(6, 1), spec.slice(1, 3, 5));
        assertEquals(0, spec.slice(0, 4, 4).elements());
    }

    @Test
    void equalityIsOfTypeShapeAndStrides() {
        TensorSpec spec = TensorSpec.of(DType.F32, 4, 6);
        assertEquals(spec, TensorSpec.of(DType.F32, 4, 6));
        assertEquals(spec.hashCode(), TensorSpec.of(DType.F32, 4, 6).hashCode());
        assertNotEquals(spec, TensorSpec.of(DType.S32, 4, 6));
        assertNotEquals(spec, TensorSpec.of(DType.F32, 6, 4));
        assertNotEquals(spec, spec.withStrides(7, 1));
    }

    @Test
    void itDoesNotShareItsArrays() {
        long[] shape = {2, 3};
        TensorSpec spec = TensorSpec.of(DType.F32, shape);
        shape[0] = 100;
        spec.shape()[0] = 100;
        spec.strides()[0] = 100;
        assertEquals(TensorSpec.of(DType.F32, 2, 3), spec);
    }

    @Test
    void smallerLeadingSizesFit() {
        TensorSpec planned = TensorSpec.of(DType.F32, 4, 6);
        assertTrue(TensorSpec.of(DType.F32, 4, 6).fits(planned, 1));
        assertTrue(TensorSpec.of(DType.F32, 0, 6).fits(planned, 1));
        assertTrue(TensorSpec.of(DType.F32, 1, 6).withStrides(99, 1).fits(planned, 1), "one row has no stride");
        assertFalse(TensorSpec.of(DType.F32, 2, 6).withStrides(7, 1).fits(planned, 1));
        assertFalse(TensorSpec.of(DType.F32, 5, 6).fits(planned, 1));
        assertFalse(TensorSpec.of(DType.F32, 4, 5).withStrides(6, 1).fits(planned, 1));
        assertFalse(TensorSpec.of(DType.F32, 3, 6).fits(planned, 0));
        assertFalse(TensorSpec.of(DType.S32, 4, 6).fits(planned, 1));
        assertFalse(TensorSpec.of(DType.F32, 4, 6, 1).fits(planned, 1));
    }

    @Test
    void wrongArgumentsAreNamed() {
        Expect.illegalArgument("rank 0", () -> TensorSpec.of(DType.F32));
        Expect.illegalArgument("rank 7", () -> TensorSpec.of(DType.F32, 1, 1, 1, 1, 1, 1, 1));
        Expect.illegalArgument("[2, -1]", () -> TensorSpec.of(DType.F32, 2, -1));
        Expect.illegalArgument("63 bits", () -> TensorSpec.of(DType.F32, Long.MAX_VALUE));
        Expect.illegalArgument("63 bits", () -> TensorSpec.of(DType.S8, Long.MAX_VALUE, 2));
        Expect.illegalArgument("63 bits", () -> TensorSpec.of(DType.S8, 2, Long.MAX_VALUE));
        Expect.illegalArgument("63 bits", () -> TensorSpec.of(DType.S8, 1L << 31, 1L << 31, 4));
        Expect.illegalArgument("63 bits", () -> TensorSpec.of(DType.S8, 2, 2).withStrides(Long.MAX_VALUE, 1));
        Expect.illegalArgument("strides [1]", () -> TensorSpec.of(DType.S8, 2, 2).withStrides(1));
        Expect.illegalArgument("strides [-1, 1]", () -> TensorSpec.of(DType.S8, 2, 2).withStrides(-1, 1));
        assertEquals(Long.MAX_VALUE, TensorSpec.of(DType.S8, Long.MAX_VALUE).byteSpan());
        TensorSpec spec = TensorSpec.of(DType.F32, 2, 3);
        assertThrows(NullPointerException.class, () -> TensorSpec.of(null, 1));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.size(2));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.stride(-1));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.transpose(0, 2));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.slice(2, 0, 0));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.slice(1, -1, 2));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.slice(1, 2, 1));
        assertThrows(IndexOutOfBoundsException.class, () -> spec.slice(1, 0, 4));
    }
}
