package io.gatun.bench.compare;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.DType;
import java.util.List;
import org.junit.jupiter.api.Test;

class FigureTest {
    private static final Task TASK = new Task.Gemm(DType.F32, 512, 256, 128, false);

    private static Sample sample(int round, double seconds, double before, double after, double disturbed) {
        return new Sample(round, seconds, before, after, disturbed);
    }

    @Test
    void medians() {
        assertTrue(Double.isNaN(Figure.median()));
        assertEquals(3, Figure.median(3));
        assertEquals(2, Figure.median(9, 2, 1));
        assertEquals(2.5, Figure.median(4, 1, 3, 2));
    }

    @Test
    void samplesBesideLimitsThatDifferAreDropped() {
        assertTrue(sample(0, 2, 1.0, 1.1, 0).undisturbed(0.1));
        assertFalse(sample(0, 2, 1.0, 1.2, 0).undisturbed(0.1));
        assertFalse(sample(0, 2, 1.2, 1.0, 0).undisturbed(0.1));
        assertTrue(sample(0, 2, 1.2, 1.0, 0).undisturbed(0.2));
    }

    @Test
    void samplesThatWereKeptWaitingAreDropped() {
        assertTrue(sample(0, 2, 1, 1, 0.1).undisturbed(0.1));
        assertFalse(sample(0, 2, 1, 1, 0.11).undisturbed(0.1));
    }

    @Test
    void eachSampleIsHeldToItsOwnLimits() {
        // The machine became half as fast; so did what ran on it.
        Figure figure = Figure.of(
                List.of(sample(0, 2, 1, 1, 0), sample(1, 4, 2, 2, 0), sample(2, 99, 1, 2, 0), sample(3, 99, 1, 1, 1)),
                0.1);
        assertEquals(2, figure.dropped());
        assertEquals(3, figure.seconds());
        assertEquals(0.5, figure.fraction());
        assertFalse(figure.broken());
    }

    @Test
    void withoutLimitThereIsNoFraction() {
        Figure figure = Figure.of(List.of(sample(0, 2, 0, 0, 0)), 0.1);
        assertEquals(1, figure.samples().size());
        assertTrue(Double.isNaN(figure.fraction()));
        assertFalse(figure.broken());
    }

    @Test
    void speedupIsOfNeighbours() {
        Figure ours = Figure.of(List.of(sample(0, 1, 1, 1, 0), sample(1, 2, 1, 1, 0), sample(2, 50, 1, 1, 0)), 0.1);
        Figure theirs = Figure.of(List.of(sample(0, 3, 1, 1, 0), sample(1, 6, 1, 1, 0), sample(2, 1, 1, 1, 9)), 0.1);
        assertEquals(3, ours.speedup(theirs));
        Figure none = Figure.of(List.of(sample(2, 1, 1, 1, 0)), 0.1);
        assertTrue(Double.isNaN(Figure.of(List.of(sample(0, 1, 1, 1, 0)), 0.1).speedup(none)));
    }

    @Test
    void figuresBecomeARow() {
        Figure ours = Figure.of(List.of(sample(0, 0.002, 0.001, 0.001, 0)), 0.1);
        Figure theirs = Figure.of(List.of(sample(0, 0.005, 0.001, 0.001, 0), sample(1, 1, 1, 1, 1)), 0.1);
        Outcome outcome = Outcome.of(TASK, 2, ours, "Peer 1", theirs, "fp32 products");
        assertEquals(
                new Row("gemm.fp32", "512x256x128", "f32", 2, false, 2, "Peer 1", 5.0, 2.5, 0.5, 0.2, "fp32 products"),
                outcome.row());
        assertFalse(outcome.failed());
        assertEquals(1, outcome.dropped());
        assertEquals(2.0 * 512 * 256 * 128 / 0.002, outcome.flopsPerSecond());
    }

    @Test
    void moreThanTheLimitIsRefused() {
        Figure good = Figure.of(List.of(sample(0, 1, 1.02, 1.02, 0)), 0.1);
        Figure broken = Figure.of(List.of(sample(0, 1, 1.05, 1.05, 0)), 0.1);
        assertNotNull(Outcome.of(TASK, 1, good, "Peer 1", good, "fp32 products").row());
        Outcome ours = Outcome.of(TASK, 1, broken, "Peer 1", good, "fp32 products");
        assertNull(ours.row());
        assertTrue(ours.failed());
        assertEquals("refused: Gatun at 1.05 of its limit (fp32 products) is a broken measurement", ours.why());
        Outcome theirs = Outcome.of(TASK, 1, good, "Peer 1", broken, "fp32 products");
        assertNull(theirs.row());
        assertTrue(theirs.failed());
        assertTrue(theirs.why().startsWith("refused: Peer 1 at 1.05"), theirs.why());
    }

    @Test
    void nothingUndisturbedIsNoFigure() {
        Figure good = Figure.of(List.of(sample(0, 1, 1, 1, 0)), 0.1);
        Figure disturbed = Figure.of(List.of(sample(0, 1, 1, 2, 0)), 0.1);
        for (Outcome outcome : List.of(
                Outcome.of(TASK, 1, disturbed, "Peer 1", good, "x"),
                Outcome.of(TASK, 1, good, "Peer 1", disturbed, "x"),
                Outcome.of(TASK, 1, disturbed, null, null, "x"))) {
            assertNull(outcome.row());
            assertFalse(outcome.failed());
            assertTrue(outcome.why().contains("disturbed"), outcome.why());
        }
    }
}
