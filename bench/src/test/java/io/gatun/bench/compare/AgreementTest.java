package io.gatun.bench.compare;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.DType;
import org.junit.jupiter.api.Test;

class AgreementTest {
    private static boolean agree(Agreement agreement, float[] a, float[] b) {
        assertEquals(agreement.disagreement(a, b).isEmpty(), agreement.disagreement(b, a).isEmpty());
        return agreement.disagreement(a, b).isEmpty();
    }

    @Test
    void elements() {
        Agreement agreement = new Agreement.Elements(0.5, 0.25);
        assertTrue(agree(agreement, new float[] {1, 0, 8}, new float[] {1, 0.5f, 10}));
        assertFalse(agree(agreement, new float[] {0}, new float[] {0.75f}));
        assertFalse(agree(agreement, new float[] {8}, new float[] {12}));
        assertFalse(agree(agreement, new float[] {1}, new float[] {1, 1}));
        assertEquals("element 2 is 3.0 against 9.0, 2.18 times as far as rounding explains",
                agreement.disagreement(new float[] {0, 8, 3}, new float[] {0, 11, 9}).orElseThrow());
    }

    @Test
    void whatIsNotFiniteAgreesWithItselfAlone() {
        Agreement agreement = new Agreement.Elements(1, 1);
        float infinity = Float.POSITIVE_INFINITY;
        assertTrue(agree(agreement, new float[] {infinity}, new float[] {infinity}));
        assertFalse(agree(agreement, new float[] {infinity}, new float[] {1}));
        assertFalse(agree(agreement, new float[] {infinity}, new float[] {-infinity}));
        assertFalse(agree(agreement, new float[] {Float.NaN}, new float[] {1}));
        assertFalse(agree(agreement, new float[] {Float.NaN}, new float[] {Float.NaN}));
    }

    @Test
    void equalElementsAreWithinABoundOfNothing() {
        assertTrue(agree(new Agreement.Elements(0, 0), new float[] {1}, new float[] {1}));
        assertFalse(agree(new Agreement.Elements(0, 0), new float[] {1}, new float[] {Math.nextUp(1f)}));
    }

    @Test
    void directions() {
        Agreement agreement = new Agreement.Cosine(2, 0.9);
        assertTrue(agree(agreement, new float[] {1, 0, 0, 1}, new float[] {2, 0.1f, 0, 3}));
        assertFalse(agree(agreement, new float[] {1, 0, 0, 1}, new float[] {1, 0, 1, 1}));
        assertFalse(agree(agreement, new float[] {0, 0}, new float[] {1, 0}));
        assertFalse(agree(agreement, new float[] {1, 0}, new float[] {1, 0, 0, 1}));
    }

    /** Gatun's own result agrees with a plain loop, and not with one that lost a product. */
    @Test
    void boundsOfProductsTellALostOne() throws Exception {
        for (DType format : new DType[] {DType.F32, DType.BF16, DType.S8}) {
            Task.Gemm task = new Task.Gemm(format, 7, 9, 64, false);
            try (Operands operands = Operands.of(task);
                    Peer.Call ours = new Ours("cpu").prepare(task, operands, 1).orElseThrow()) {
                ours.run(0);
                float[] plain = new float[7 * 9];
                for (int i = 0; i < plain.length; i++) {
                    for (int l = 0; l < 64; l++) {
                        plain[i] += operands.values("a")[i / 9 * 64 + l] * operands.values("w")[l * 9 + i % 9];
                    }
                }
                Agreement agreement = task.agreement(operands);
                assertEquals("", agreement.disagreement(ours.result(), plain).orElse(""), format::toString);
                // As far off as a typical product, or for INT8 as a typical sum.
                plain[40] += format == DType.S8 ? 8 : 1;
                assertFalse(agreement.disagreement(ours.result(), plain).isEmpty(), format::toString);
            }
        }
    }
}
