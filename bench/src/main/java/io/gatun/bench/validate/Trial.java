package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Device;
import io.gatun.Plan;
import io.gatun.Stream;
import io.gatun.bench.reference.Expected;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * One run of a case on one device. It hands out operands, times the run, and knows what each output should hold and
 * what must be as it was.
 */
final class Trial {
    /** What an output should hold after the run. */
    record Output(Operand operand, long[] run, Expected expected, boolean fresh) {}

    private final Device device;
    private final Stream stream;
    private final Arena arena;
    private final boolean aligned;
    private final Tamper tamper;
    private final List<Operand> inputs = new ArrayList<>();
    private final List<Output> outputs = new ArrayList<>();
    private final List<String> damage = new ArrayList<>();
    private final List<byte[]> before = new ArrayList<>();
    private String kernel = "";
    private double milliseconds;

    /** Changes outputs after a run, so that tests can see whether the comparison notices. */
    @FunctionalInterface
    interface Tamper {
        void tamper(Operand output, long[] run);

        /** Leaves everything as it is. */
        Tamper NONE = (_, _) -> {};
    }

    /**
     * A trial.
     *
     * @param aligned whether operands start on 64-byte boundaries, or are aligned to their elements alone
     */
    Trial(Device device, Stream stream, Arena arena, boolean aligned, Tamper tamper) {
        this.device = device;
        this.stream = stream;
        this.arena = arena;
        this.aligned = aligned;
        this.tamper = tamper;
    }

    Device device() {
        return device;
    }

    Stream stream() {
        return stream;
    }

    /** An input: everything in its memory that is no value of its own is NaN. */
    Operand input(String name, DType dtype, long[] shape, long[] strides) {
        Operand operand = Operand.allocate(arena, name, dtype, shape, strides, aligned);
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

    /** An input of integers. */
    Operand input(String name, long[] values) {
        Operand operand = Operand.dense(arena, name, DType.S64, values.length);
        operand.fill(values);
        inputs.add(operand);
        return operand;
    }

    /** An output whose leading {@code run} part is to be written. */
    Operand output(String name, DType dtype, long[] shape, long[] strides, long[] run, Expected expected) {
        Operand operand = Operand.allocate(arena, name, dtype, shape, strides, aligned);
        outputs.add(new Output(operand, run, expected, true));
        return operand;
    }

    /** Makes an input an output as well. */
    Operand overwrite(Operand input, long[] run, Expected expected) {
        inputs.remove(input);
        outputs.add(new Output(input, run, expected, false));
        return input;
    }

    /** Runs the operator, with memory recorded before and inputs compared after. */
    void execute(Plan plan, Runnable run) {
        kernel = plan.info().kernel();
        List<byte[]> untouched = inputs.stream().map(Operand::snapshot).toList();
        outputs.forEach(output -> before.add(output.operand().snapshot()));
        long start = System.nanoTime();
        run.run();
        stream.synchronize();
        milliseconds = (System.nanoTime() - start) / 1e6;
        outputs.forEach(output -> tamper.tamper(output.operand(), output.run()));
        for (int i = 0; i < inputs.size(); i++) {
            if (inputs.get(i).differs(untouched.get(i)) >= 0) {
                damage.add("the input " + inputs.get(i).name() + " was written");
            }
        }
    }

    /** Compares every output; the worst comes first to mind. */
    Comparison compare() {
        Comparison comparison = new Comparison();
        damage.forEach(comparison::fail);
        for (int i = 0; i < outputs.size(); i++) {
            comparison.add(outputs.get(i), before.get(i));
        }
        return comparison;
    }

    String kernel() {
        return kernel;
    }

    double milliseconds() {
        return milliseconds;
    }
}
