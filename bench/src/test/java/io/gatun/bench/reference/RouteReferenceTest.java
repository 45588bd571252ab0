package io.gatun.bench.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.reference.RouteReference.Choice;
import io.gatun.bench.reference.RouteReference.Kind;
import io.gatun.bench.reference.RouteReference.Rule;
import org.junit.jupiter.api.Test;

class RouteReferenceTest {
    private static final float INF = Float.POSITIVE_INFINITY;
    private static final float LN3 = (float) Math.log(3);

    @Test
    void softmaxByHand() {
        // Shares of 1, 3, 1 and 3 eighths.
        float[] x = {0, LN3, 0, LN3};
        Choice choice = RouteReference.choose(new Rule(Kind.SOFTMAX, 3, 0, 0, false, 2), x, null);
        assertArrayEquals(new int[] {1, 3, 0}, choice.experts());
        assertArrayEquals(new double[] {0.75, 0.75, 0.25}, choice.weights().value(), 1e-7);
        assertTrue(choice.clear(), "equal logits go by their numbers");
        choice = RouteReference.choose(new Rule(Kind.SOFTMAX, 3, 0, 0, true, 1), x, null);
        assertArrayEquals(new double[] {3 / 7.0, 3 / 7.0, 1 / 7.0}, choice.weights().value(), 1e-7);
    }

    @Test
    void aBiasChoosesAndDoesNotWeigh() {
        float[] x = {0, LN3, -LN3, 0};
        Choice choice =
                RouteReference.choose(new Rule(Kind.SIGMOID, 2, 0, 0, false, 1), x, new float[] {0, 0, 1, -0.125f});
        assertArrayEquals(new int[] {2, 1}, choice.experts());
        assertArrayEquals(new double[] {0.25, 0.75}, choice.weights().value(), 1e-7);
        assertTrue(choice.clear());
    }

    @Test
    void groupsAreWorthTheirBestOrTheirTwoBest() {
        // Scores of 3/4 and 1/4, twice 1/2 and 5/8 each, and twice 0.
        float[] x = {LN3, -LN3, (float) Math.log(5 / 3.0), 0.125f, -INF, -INF};
        Choice choice = RouteReference.choose(new Rule(Kind.SIGMOID, 1, 3, 1, false, 1), x, null);
        assertArrayEquals(new int[] {2}, choice.experts());
        assertEquals(0.625, choice.weights().value()[0], 1e-7);
        choice = RouteReference.choose(new Rule(Kind.SOFTMAX, 1, 3, 1, false, 1), x, null);
        assertArrayEquals(new int[] {0}, choice.experts());
        choice = RouteReference.choose(new Rule(Kind.SOFTMAX, 4, 3, 2, false, 1), x, null);
        assertArrayEquals(new int[] {0, 2, 3, 1}, choice.experts());
    }

    @Test
    void whatIsTooCloseIsNotClear() {
        Rule rule = new Rule(Kind.SIGMOID, 1, 0, 0, false, 1);
        float next = Math.nextUp(0.5f);
        assertFalse(RouteReference.choose(rule, new float[] {0.5f, next}, null).clear());
        assertTrue(RouteReference.choose(rule, new float[] {0.5f, 0.501f}, null).clear());
        assertTrue(RouteReference.choose(rule, new float[] {0.5f, next, 3}, null).clear(), "neither is chosen");
        Rule two = new Rule(Kind.SIGMOID, 2, 0, 0, false, 1);
        assertFalse(RouteReference.choose(two, new float[] {0.5f, next, -3}, null).clear(), "which comes first");
        assertFalse(RouteReference.choose(rule, new float[] {0.5f, 0.5f}, new float[] {1e-9f, 0}).clear());
        Rule groups = new Rule(Kind.SIGMOID, 1, 2, 1, false, 1);
        assertFalse(RouteReference.choose(groups, new float[] {0.5f, next}, null).clear());
        assertTrue(RouteReference.choose(groups, new float[] {0.5f, 0.5f}, null).clear());
    }

    @Test
    void whatIsNotANumber() {
        for (float wrong : new float[] {Float.NaN, INF}) {
            Choice choice =
                    RouteReference.choose(new Rule(Kind.SOFTMAX, 2, 0, 0, true, 1), new float[] {1, 2, wrong}, null);
            assertArrayEquals(new int[] {0, 1}, choice.experts());
            assertTrue(Double.isNaN(choice.weights().value()[0]) && Double.isNaN(choice.weights().value()[1]));
        }
        Rule sigmoid = new Rule(Kind.SIGMOID, 2, 0, 0, false, 1);
        Choice choice = RouteReference.choose(sigmoid, new float[] {1, -INF, INF}, null);
        assertArrayEquals(new int[] {2, 0}, choice.experts());
        assertEquals(1, choice.weights().value()[0]);
        for (Kind kind : Kind.values()) {
            choice = RouteReference.choose(new Rule(kind, 2, 0, 0, true, 1), new float[] {-INF, -INF, -INF}, null);
            assertArrayEquals(new int[] {0, 1}, choice.experts());
            assertArrayEquals(new double[2], choice.weights().value());
            assertArrayEquals(new double[2], choice.weights().bound(), "0, exactly");
        }
    }
}
