package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Plan;
import io.gatun.PlanInfo;
import io.gatun.Stream;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.validate.Operand.Placement;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * The operands of a case on one device, and runs of its plan on them. It hands out operands, keeps what their memory
 * held before the first run, and knows what each output should hold and what must be as it was.
 */
final class Trial implements AutoCloseable {
    /** What an output should hold after a run. */
    record Output(Operand operand, long[] run, Expected expected, boolean fresh) {}

    /** One run of the plan on operands of this trial. */
    @FunctionalInterface
    interface Run {
        void on(Stream stream);
    }

    /** What is done with the plan: how often it is run, on which streams, and what is looked at between runs. */
    @FunctionalInterface
    interface Course {
        void follow(Trial trial, Run run);
    }

    /** Changes outputs after a run, so that tests can see whether the comparison notices. */
    @FunctionalInterface
    interface Tamper {
        void tamper(Operand output, long[] run);

        /** Leaves everything as it is. */
        Tamper NONE = (_, _) -> {};
    }

    private final Subject subject;
    private final Stream stream;
    private final Device device;
    private final Shared shared;
    private final Placement placement;
    private final Course course;
    private final Arena arena = Arena.ofConfined();
    private final GuardedMemory guarded = new GuardedMemory(arena);
    private final List<MemorySegment> onDevice = new ArrayList<>();
    private final List<Operand> inputs = new ArrayList<>();
    private final List<Output> outputs = new ArrayList<>();
    private final List<String> damage = new ArrayList<>();
    private final List<byte[]> inputsBefore = new ArrayList<>();
    private final List<byte[]> outputsBefore = new ArrayList<>();
    private final List<PlanInfo> plans = new ArrayList<>();
    private int opened;

    /**
     * A trial.
     *
     * @param stream of one of the subject's devices, for copies, and for runs unless the course has others
     * @param shared holds plans and weights; the trial does not close it
     */
    Trial(Subject subject, Stream stream, Shared shared, Placement placement, Course course) {
        this.subject = subject;
        this.stream = stream;
        this.device = stream.device();
        this.shared = shared;
        this.placement = placement;
        this.course = course;
    }

    Device device() {
        return device;
    }

    /** Opens a plan or packed weights, or takes those of another trial of the case: see {@link Shared}. */
    <T extends AutoCloseable> T open(Supplier<T> opener) {
        return shared.open(opened++, opener);
    }

    /** An input: everything in its memory that is no value of its own is NaN. */
    Operand input(String name, DType dtype, long[] shape, long[] strides) {
        Operand operand = allocate(name, dtype, shape, strides);
        operand.spoil();
        inputs.add(operand);
        return operand;
    }

    /** An input without gaps that holds {@code values}. */
    Operand input(String name, DType dtype, float[] values, long... shape) {
        Operand operand = input(name, dtype, shape, Operand.rowMajor(shape));
        operand.fill(values, shape);
        return operand;
    }

    /** An input of S64 integers. */
    Operand input(String name, long[] values) {
        Operand operand = allocate(name, DType.S64, new long[] {values.length}, new long[] {1});
        operand.fill(values);
        inputs.add(operand);
        return operand;
    }

    /** An input of S32 integers without gaps. */
    Operand input(String name, int[] values, long... shape) {
        Operand operand = allocate(name, DType.S32, shape, Operand.rowMajor(shape));
        operand.fill(values);
        inputs.add(operand);
        return operand;
    }

    /** An input of bytes, U8, without gaps. */
    Operand input(String name, byte[] values, long... shape) {
        return input(name, DType.U8, values, shape);
    }

    /** An input of a type of one byte, without gaps. */
    Operand input(String name, DType dtype, byte[] values, long... shape) {
        Operand operand = allocate(name, dtype, shape, Operand.rowMajor(shape));
        operand.fill(values);
        inputs.add(operand);
        return operand;
    }

    /** An output whose leading {@code run} part is to be written. Poison of U8 is a number as any other: it tells nothing. */
    Operand output(String name, DType dtype, long[] shape, long[] strides, long[] run, Expected expected) {
        Operand operand = allocate(name, dtype, shape, strides);
        outputs.add(new Output(operand, run, expected, dtype != DType.U8));
        return operand;
    }

    /** Makes an input an output as well. */
    Operand overwrite(Operand input, long[] run, Expected expected) {
        inputs.remove(input);
        outputs.add(new Output(input, run, expected, false));
        return input;
    }

    private Operand allocate(String name, DType dtype, long[] shape, long[] strides) {
        return Operand.allocate(guarded, subject.memory(device, onDevice), name, dtype, shape, strides, placement);
    }

    /** Follows the trial's course with the plan: the last thing that a case does. */
    void execute(Plan plan, Run run) {
        execute(List.of(plan), run);
    }

    /** The same with plans that a run executes one after the other. */
    void execute(List<? extends Plan> all, Run run) {
        all.forEach(plan -> plans.add(plan.info()));
        inputs.forEach(input -> inputsBefore.add(input.snapshot()));
        outputs.forEach(output -> outputsBefore.add(output.operand().snapshot()));
        subject.announce(regions());
        inputs.forEach(input -> input.upload(stream));
        course.follow(this, run);
        for (int i = 0; i < inputs.size(); i++) {
            inputs.get(i).download(stream);
            if (inputs.get(i).differs(inputsBefore.get(i)) >= 0) {
                damage.add("the input " + inputs.get(i).name() + " was written");
            }
        }
    }

    private List<Operand.Region> regions() {
        List<Operand.Region> regions = new ArrayList<>();
        inputs.forEach(input -> regions.add(input.region()));
        outputs.forEach(output -> regions.add(output.operand().region()));
        return regions;
    }

    /** Runs the plan once on outputs as they were at first. Returns the milliseconds that it took. */
    double once(Run run, Stream stream) {
        for (int i = 0; i < outputs.size(); i++) {
            outputs.get(i).operand().restore(outputsBefore.get(i));
            outputs.get(i).operand().upload(stream);
        }
        double milliseconds = timed(run, stream);
        outputs.forEach(output -> output.operand().download(stream));
        outputs.forEach(output -> subject.tamper().tamper(output.operand(), output.run()));
        return milliseconds;
    }

    /** Runs the plan once on the trial's stream, as {@link #once(Run, Stream)} does. */
    double once(Run run) {
        return once(run, stream);
    }

    /** Expects the run to throw this, with a message, and to leave every output as it was. */
    void refused(Run run, Class<? extends RuntimeException> expected) {
        try {
            once(run);
            fail("was accepted, expected " + expected.getSimpleName());
        } catch (UnsupportedOperationException e) {
            throw e;
        } catch (RuntimeException e) {
            if (!expected.isInstance(e)) {
                fail("threw " + e + ", expected " + expected.getSimpleName());
            } else if (e.getMessage() == null || e.getMessage().isBlank()) {
                fail("threw " + e + " without a message");
            }
            outputs.forEach(output -> output.operand().download(stream));
        }
        for (int i = 0; i < outputs.size(); i++) {
            if (outputs.get(i).operand().differs(outputsBefore.get(i)) >= 0) {
                fail(outputs.get(i).operand().name() + " was written though the call was to be refused");
            }
        }
    }

    /**
     * Expects of a run whose arrays lead nowhere, on a device whose memory the host does not see, that it stays within its
     * outputs: it may do with them what it likes, and may refuse them.
     */
    void contained(Run run) {
        try {
            once(run);
        } catch (IllegalArgumentException e) {
            outputs.forEach(output -> output.operand().download(stream));
        }
        for (int i = 0; i < outputs.size(); i++) {
            String outside = outputs.get(i).operand().differenceOutside(outputsBefore.get(i));
            if (!outside.isEmpty()) {
                fail(outside);
            }
        }
    }

    /** What was noted, and nothing about values. */
    Comparison notes() {
        Comparison comparison = new Comparison();
        damage.stream().distinct().forEach(comparison::fail);
        return comparison;
    }

    /** Runs the plan once more, on outputs as the run before left them. */
    double timed(Run run, Stream stream) {
        long start = System.nanoTime();
        run.on(stream);
        stream.synchronize();
        return (System.nanoTime() - start) / 1e6;
    }

    /** What the memory of every output holds now. */
    List<byte[]> results() {
        return outputs.stream().map(output -> output.operand().snapshot()).toList();
    }

    /** Notes a failure unless the outputs hold the same bits as they did then. */
    void expectBits(List<byte[]> results, String where) {
        for (int i = 0; i < outputs.size(); i++) {
            if (outputs.get(i).operand().differs(results.get(i)) >= 0) {
                damage.add(outputs.get(i).operand().name() + " holds other bits " + where);
            }
        }
    }

    /** Whether two trials' outputs hold the same bits. */
    static boolean same(List<byte[]> some, List<byte[]> others) {
        for (int i = 0; i < some.size(); i++) {
            if (!Arrays.equals(some.get(i), others.get(i))) {
                return false;
            }
        }
        return true;
    }

    /** Notes a failure. */
    void fail(String why) {
        damage.add(why);
    }

    /** Compares every output with what is expected; to be called once. */
    Comparison compare() {
        Comparison comparison = notes();
        for (int i = 0; i < outputs.size(); i++) {
            comparison.add(outputs.get(i), outputsBefore.get(i));
        }
        if (plans.isEmpty() || !plans.stream().allMatch(one -> one.kernel().startsWith(subject.kernelPrefix()))) {
            comparison.fail("ran another kernel: " + kernel() + ", not a " + subject.kernelPrefix() + "*");
        }
        return comparison;
    }

    /** The kernel that the plan chose, or those of all plans in the order of their first run. */
    String kernel() {
        return plans.stream().map(PlanInfo::kernel).distinct().collect(Collectors.joining(" "));
    }

    /** What the plan says of itself, once it was executed; of several plans, the last. */
    PlanInfo plan() {
        if (plans.isEmpty()) {
            throw new IllegalStateException("the case has not executed its plan");
        }
        return plans.getLast();
    }

    @Override
    public void close() {
        subject.free(device, onDevice);
        arena.close();
    }
}
