package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ErfTest {
    @ParameterizedTest
    @CsvSource({
        "0.1, 0.11246291601828489221, 0.88753708398171510779",
        "0.5, 0.52049987781304653768, 0.47950012218695346232",
        "1, 0.84270079294971486934, 0.15729920705028513066",
        "2, 0.99532226501895273416, 0.0046777349810472658379",
        "3, 0.99997790950300141456, 2.2090496998585441373e-5",
        "5, 0.99999999999846254021, 1.5374597944280348502e-12",
        "10, 1, 2.0884875837625447570e-45"
    })
    void knownValues(double x, double erf, double erfc) {
        assertEquals(erf, Erf.erf(x), 1e-15);
        assertEquals(-erf, Erf.erf(-x), 1e-15);
        assertEquals(1, Erf.erfc(x) / erfc, x < 2.5 ? 1e-13 : 1e-14);
        assertEquals(2 - erfc, Erf.erfc(-x), 1e-15);
    }

    @Test
    void edges() {
        assertEquals(0, Erf.erf(0));
        assertEquals(1, Erf.erf(Double.POSITIVE_INFINITY));
        assertEquals(0, Erf.erfc(Double.POSITIVE_INFINITY));
        assertEquals(2, Erf.erfc(Double.NEGATIVE_INFINITY));
        assertTrue(Double.isNaN(Erf.erf(Double.NaN)));
        assertTrue(Double.isNaN(Erf.erfc(Double.NaN)));
    }

    /** erf' = 2/sqrt(pi) exp(-x^2), by differences that are exact to the third order, across both formulas. */
    @Test
    void derivative() {
        double h = 1e-3;
        for (double x = -4; x < 4; x += 0.0371) {
            double near = Erf.erf(x + h) - Erf.erf(x - h);
            double far = Erf.erf(x + 2 * h) - Erf.erf(x - 2 * h);
            assertEquals(2 / Math.sqrt(Math.PI) * Math.exp(-x * x), (8 * near - far) / (12 * h), 1e-11, "at " + x);
        }
    }
}
