package io.gatun;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.JJ_Result;

/** The peak is that of an order in which the stripes may have told of their bytes. */
@JCStressTest
@Outcome(id = "2, 8", expect = Expect.ACCEPTABLE, desc = "the one that takes came first")
@Outcome(id = "2, 6", expect = Expect.ACCEPTABLE, desc = "the one that gives back came first")
@Outcome(expect = Expect.FORBIDDEN, desc = "no order gives that")
@State
public class UsedBytesStress {
    private final UsedBytes bytes = new UsedBytes();

    @Actor
    public void take() {
        bytes.add(4, 8); // 8 taken, 4 of them given back
    }

    @Actor
    public void giveBack() {
        bytes.add(-2, 0);
    }

    @Arbiter
    public void look(JJ_Result result) {
        result.r1 = bytes.now();
        result.r2 = bytes.peak();
    }
}
