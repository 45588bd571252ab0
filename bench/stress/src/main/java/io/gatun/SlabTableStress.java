package io.gatun;

import java.lang.foreign.Arena;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.ZZ_Result;

/** Slabs are found while another one comes and goes. */
@JCStressTest
@Outcome(id = {"true, true", "true, false"}, expect = Expect.ACCEPTABLE, desc = "what stays is found, the other one or not")
@Outcome(expect = Expect.FORBIDDEN, desc = "a slab that was there all the time was not found, or half of one was")
@State
public class SlabTableStress {
    private static final long BYTES = 32L << 20;

    private final SlabTable table = new SlabTable();
    private final Slab stays = slab(1);
    private final Slab comes = slab(2);

    public SlabTableStress() {
        table.add(stays);
    }

    private static Slab slab(int place) {
        return new Slab(null, place * BYTES, BYTES, Arena.global(), false, false);
    }

    @Actor
    public void change() {
        table.add(comes);
        table.remove(comes);
    }

    @Actor
    public void look(ZZ_Result result) {
        Slab found = table.find(comes.address + BYTES / 2);
        if (found != null && (found != comes || found.granules() != BYTES / Slab.GRANULE)) {
            throw new AssertionError("the slab at " + found.address + " was found");
        }
        result.r1 = table.find(stays.address + BYTES - 1) == stays;
        result.r2 = found != null;
    }
}
