package io.gatun;

import java.lang.foreign.Arena;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.Z_Result;

/** A number is looked up while others are given, which makes the table grow. */
@JCStressTest
@Outcome(id = "true", expect = Expect.ACCEPTABLE, desc = "the block of the number")
@Outcome(expect = Expect.FORBIDDEN, desc = "another one, or none")
@State
public class BlockNumbersStress {
    private static final Slab SLAB = new Slab(null, Slab.ALIGNMENT, Slab.GRANULE, Arena.global(), true, false);

    private final BlockNumbers numbers = new BlockNumbers();
    private final Block first = new Block(SLAB, null, 0, 1);
    private final Block[] more = new Block[256];

    public BlockNumbersStress() {
        numbers.add(first);
        for (int i = 0; i < more.length; i++) {
            more[i] = new Block(SLAB, null, 0, 1);
            if (i < more.length - 1) {
                numbers.add(more[i]);
            }
        }
    }

    @Actor
    public void give() {
        numbers.add(more[more.length - 1]); // the one that there is no room for
    }

    @Actor
    public void look(Z_Result result) {
        result.r1 = numbers.get(first.number) == first;
    }
}
