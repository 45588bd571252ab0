package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Seeded random operations on a tier against a map of what must be there: every block that is pinned has the version it
 * was committed with last, to the last byte, and what is not there is none, also after the tier was closed and opened.
 * {@code -Dio.gatun.spill.operations=5000000} asks for more.
 */
class SpillRandomTest {
    private static final long OPERATIONS = Long.getLong("io.gatun.spill.operations", 300_000);
    private static final int KEYS = 96;
    private static final int BLOCKS = 64;
    private static final int RESIDENT = 24;
    private static final int PINS = 8;

    private record Held(SpillTier.Pin pin, long version) {}

    private final Map<Long, Long> model = new HashMap<>();
    private final List<Held> pins = new ArrayList<>();

    @Test
    void againstAModel(@TempDir Path folder) {
        try (Device device = Device.open("cpu", 1); MemoryPool pool = MemoryPool.of(device)) {
            SpillTier.Builder builder = SpillTier.builder(
                            pool, MemoryDomain.KV_CACHE, folder.resolve("spill"), 1000, BLOCKS)
                    .residentBlocks(RESIDENT);
            SplittableRandom random = new SplittableRandom(7);
            int times = 10;
            for (int opened = 0; opened < times; opened++) {
                try (SpillTier tier = builder.open()) {
                    assertEquals(model.size(), tier.statistics().foundBlocks());
                    for (long i = 0; i < OPERATIONS / times; i++) {
                        operate(tier, random, opened * OPERATIONS + i);
                        assertTrue(tier.statistics().residentBlocks() <= RESIDENT);
                    }
                    while (!pins.isEmpty()) {
                        unpin(0);
                    }
                    SpillTier.Statistics statistics = tier.statistics();
                    assertEquals(model.size(), statistics.blocks());
                    assertEquals(0, statistics.damaged() + statistics.failures() + statistics.pins());
                    assertTrue(statistics.reads() > OPERATIONS / times / 20, statistics::toString);
                    assertTrue(statistics.hits() > statistics.reads() / 10, statistics::toString);
                }
            }
            pool.trim(); // in check mode blocks are given back later
            assertEquals(0, pool.statistics().blocks());
        }
    }

    private void operate(SpillTier tier, SplittableRandom random, long version) {
        long key = random.nextInt(10) == 0 ? random.nextInt(KEYS) : random.nextInt(KEYS / 3); // some are asked for more
        boolean pinned = pins.stream().anyMatch(held -> held.pin.key() == key);
        switch (random.nextInt(20)) {
            case 0, 1, 2 -> create(tier, key, version, random.nextInt(10) > 0);
            case 3, 4 -> {
                if (!pinned) {
                    edit(tier, key, version, random.nextInt(20) > 0);
                }
            }
            case 5 -> {
                if (!pinned) {
                    assertEquals(model.remove(key) != null, tier.remove(key));
                }
            }
            case 6, 7 -> tier.prefetch(key, (key + 1) % KEYS);
            case 8 -> {
                if (random.nextInt(50) == 0) {
                    tier.flush();
                    assertEquals(0, tier.statistics().unwrittenBlocks());
                }
            }
            case 9 -> {
                if (random.nextInt(20) == 0) {
                    tier.evict(random.nextInt(8000));
                }
            }
            case 10, 11, 12, 13 -> {
                if (pins.size() < PINS) {
                    pin(tier, key);
                } else {
                    unpin(random.nextInt(PINS));
                }
            }
            default -> {
                assertEquals(model.containsKey(key), tier.contains(key));
                assertEquals(model.getOrDefault(key, -1L), SpillContent.version(tier, key));
            }
        }
    }

    private void create(SpillTier tier, long key, long version, boolean commit) {
        if (!model.containsKey(key) && model.size() == BLOCKS) {
            Expect.failure(GatunException.class, "no room for block", () -> tier.create(key));
            return;
        }
        try (SpillTier.Pin pin = tier.create(key)) {
            assertEquals(model.containsKey(key), pin == null);
            if (pin != null) {
                SpillContent.fill(pin.memory(), key, version);
                if (commit) {
                    pin.commit();
                    model.put(key, version);
                }
            }
        }
    }

    private void edit(SpillTier tier, long key, long version, boolean commit) {
        try (SpillTier.Pin pin = tier.edit(key)) {
            assertEquals(model.containsKey(key), pin != null);
            if (pin != null) {
                assertEquals(model.get(key), SpillContent.version(pin.memory(), key));
                SpillContent.fill(pin.memory(), key, version);
                model.remove(key);
                if (commit) {
                    pin.commit();
                    model.put(key, version);
                }
            }
        }
    }

    private void pin(SpillTier tier, long key) {
        SpillTier.Pin pin = tier.pin(key);
        if (pin == null) {
            assertFalse(model.containsKey(key));
            assertNull(model.get(key));
            return;
        }
        pins.add(new Held(pin, model.get(key)));
    }

    /** What was pinned has not changed under it. */
    private void unpin(int place) {
        Held held = pins.remove(place);
        assertEquals(held.version, SpillContent.version(held.pin.memory(), held.pin.key()));
        held.pin.close();
    }
}
