package io.gatun.bench.compare;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.Limit;
import java.util.EnumSet;
import java.util.Map;
import org.junit.jupiter.api.Test;

class CeilingTest {
    private static final Map<Limit, Double> RATES = Map.of(Limit.S8, 1000.0, Limit.CACHE, 100.0, Limit.MEMORY, 40.0);

    @Test
    void whatTheCacheDoesNotHoldComesFromMemory() {
        assertEquals(0.32, Ceiling.largest(Ceiling.warm(32, 32)).seconds(RATES), 1e-12);
        assertEquals(0.32 + 0.8, Ceiling.largest(Ceiling.warm(64, 32)).seconds(RATES), 1e-12);
        assertEquals(1.6, Ceiling.largest(Ceiling.read(true, 64)).seconds(RATES), 1e-12);
    }

    @Test
    void theLargestPartBinds() {
        Ceiling ceiling = Ceiling.largest(new Ceiling.Part("products", Limit.S8, 1500), Ceiling.warm(64, 32));
        assertEquals(1.5, ceiling.seconds(RATES), 1e-12);
        assertEquals("products", ceiling.name(RATES));
        assertEquals(EnumSet.of(Limit.S8, Limit.CACHE, Limit.MEMORY), ceiling.limits());
    }

    @Test
    void partsThatFollowEachOtherAdd() {
        Ceiling ceiling = Ceiling.sum(new Ceiling.Part("products", Limit.S8, 1500), Ceiling.warm(32, 32));
        assertEquals(1.82, ceiling.seconds(RATES), 1e-12);
        assertEquals("products + L3 read", ceiling.name(RATES));
    }
}
