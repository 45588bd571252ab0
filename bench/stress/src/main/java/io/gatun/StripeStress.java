package io.gatun;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.I_Result;

/** Who holds a stripe holds it alone, and sees what its last holder wrote. */
@JCStressTest
@Outcome(id = "2", expect = Expect.ACCEPTABLE, desc = "the second saw what the first had written")
@Outcome(expect = Expect.FORBIDDEN, desc = "a plain write was lost")
@State
public class StripeStress {
    private final Stripe[] stripes = {new Stripe(new BlockNumbers(), new UsedBytes())};
    private int count;

    @Actor
    public void one() {
        add();
    }

    @Actor
    public void two() {
        add();
    }

    private void add() {
        Stripe stripe = Stripe.hold(stripes);
        count++;
        stripe.release();
    }

    @Arbiter
    public void look(I_Result result) {
        result.r1 = count;
    }
}
