package io.gatun;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;

/** Of two that give one block back, one is told that it is not theirs to give, and neither gets what the other has then. */
@JCStressTest
@Outcome(id = {"1, 0", "0, 1"}, expect = Expect.ACCEPTABLE, desc = "one gave it back")
@Outcome(expect = Expect.FORBIDDEN, desc = "both did, or none, or memory was handed out twice")
@State
public class FreeStress {
    private static final MemoryPool POOL = MemoryPool.of(Device.open("cpu"));

    private final MemorySegment block = POOL.allocate(256, 64);

    @Actor
    public void one(II_Result result) {
        result.r1 = free(block);
        use(1);
    }

    @Actor
    public void two(II_Result result) {
        result.r2 = free(block);
        use(2);
    }

    private static int free(MemorySegment block) {
        try {
            POOL.free(block);
            return 1;
        } catch (IllegalArgumentException | IllegalStateException e) {
            return 0;
        }
    }

    private static void use(int mark) {
        MemorySegment mine = POOL.allocate(256, 64);
        mine.set(ValueLayout.JAVA_INT, 0, mark);
        Thread.onSpinWait();
        if (mine.get(ValueLayout.JAVA_INT, 0) != mark) {
            throw new AssertionError("two have one block");
        }
        POOL.free(mine);
    }
}
