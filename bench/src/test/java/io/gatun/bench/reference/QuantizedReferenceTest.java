package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class QuantizedReferenceTest {
    @Test
    void ofExactRows() {
        // A scale of 1 and a zero point of 55: 200 is the highest, -55 the lowest.
        QuantizedReference.Quantized q = QuantizedReference.rows(Expected.exact(new float[] {-55, 0, 200, 3.25f}), 4);
        assertEquals(1, q.scales().value()[0], 1e-9);
        assertEquals(55, q.zeros().value()[0]);
        assertEquals(0, q.zeros().bound()[0]);
        double[] expected = {0, 55, 255, 58};
        for (int i = 0; i < 4; i++) {
            assertEquals(expected[i], q.values().value()[i]);
            assertEquals(0, q.values().bound()[i]);
            assertEquals(expected[i], q.values().naive()[i]);
        }
    }

    @Test
    void ofRowsWithErrors() {
        Expected row = Expected.of(3, 1);
        row.set(0, 0, 0, 0);
        row.set(1, 255, 0.25, 255);
        row.set(2, 12.4, 0.2, 12.4f);
        QuantizedReference.Quantized q = QuantizedReference.rows(row, 3);
        assertTrue(q.scales().bound()[0] >= 0.25 / 255);
        assertEquals(0.4, q.values().value()[2] - 12, 1e-6, "12.4 may as well become 13");
        assertTrue(q.values().bound()[2] > 0.7);
    }

    @Test
    void ofZerosAndOfWhatIsNotFinite() {
        QuantizedReference.Quantized q =
                QuantizedReference.rows(Expected.exact(new float[] {0, 0, 1, Float.POSITIVE_INFINITY}), 2);
        assertEquals(0, q.scales().value()[0]);
        assertEquals(0, q.scales().bound()[0]);
        assertTrue(Double.isNaN(q.scales().value()[1]));
        assertEquals(0, q.values().value()[3]);
        assertEquals(0, q.values().bound()[3]);
    }
}
