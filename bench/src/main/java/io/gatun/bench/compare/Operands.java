package io.gatun.bench.compare;

import io.gatun.DType;
import io.gatun.bench.reference.Bf16;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.DoubleSupplier;

/**
 * The data of a task, the same for every library: normally distributed, in native memory, row-major, in the task's
 * element type. What cold runs take from memory is there several times, and runs take turns.
 */
public final class Operands implements AutoCloseable {
    /** Several times the largest caches that there are. */
    private static final double COLD_BYTES = 512 << 20;
    private static final long PAGE = 4096;

    private final Arena arena = Arena.ofShared();
    private final Map<String, Operand> operands = new LinkedHashMap<>();
    private final int sets;

    private record Operand(float[] values, DType dtype, List<MemorySegment> sets) {}

    private Operands(int sets) {
        this.sets = sets;
    }

    /** Makes the data of a task; the same each time. */
    public static Operands of(Task task) {
        Operands all = new Operands(task.cold() ? Math.max(2, (int) Math.ceil(COLD_BYTES / task.coldBytes())) : 1);
        SplittableRandom random = new SplittableRandom(29);
        switch (task) {
            case Task.Gemm gemm -> {
                DType dtype = gemm.format() == DType.BF16 ? DType.BF16 : DType.F32;
                all.add("a", dtype, (long) gemm.m() * gemm.k(), random, 1);
                all.add("w", dtype, (long) gemm.k() * gemm.n(), random, 1);
            }
            case Task.Int4 gemm -> {
                all.add("a", DType.F32, (long) gemm.m() * gemm.k(), random, 1);
                all.add("w", DType.F32, (long) gemm.k() * gemm.n(), random, 1);
            }
            case Task.Convolve conv -> {
                all.add("x", conv.format(), (long) conv.power(conv.size()) * conv.channels(), random, 1);
                all.add("w", conv.format(), (long) conv.columns() * conv.terms(), random, 1);
                for (String name : List.of("gamma", "beta", "mean")) {
                    all.add(name, DType.F32, conv.columns(), random, 1);
                }
                all.add("variance", DType.F32, conv.columns(), () -> Task.Convolve.LEAST_VARIANCE + random.nextDouble());
            }
            case Task.Attend attend -> {
                long row = (long) attend.heads() * attend.d();
                all.add("q", attend.format(), row * attend.q(), random, 1);
                all.add("k", attend.format(), row * attend.k(), random, 1);
                all.add("v", attend.format(), row * attend.k(), random, 1);
            }
            case Task.Rows rows -> {
                all.add("x", DType.F32, (long) rows.rows() * rows.n(), random, 1);
                all.add("gamma", DType.F32, rows.n(), random, 0.1);
                all.add("beta", DType.F32, rows.n(), random, 0.1);
            }
            case Task.MiniLm _, Task.Call _ -> { } // token numbers and one element are their own affair
        }
        return all;
    }

    private void add(String name, DType dtype, long elements, SplittableRandom random, double deviation) {
        add(name, dtype, elements, () -> random.nextGaussian() * deviation);
    }

    private void add(String name, DType dtype, long elements, DoubleSupplier random) {
        float[] values = new float[Math.toIntExact(elements)];
        for (int i = 0; i < values.length; i++) {
            float value = (float) random.getAsDouble();
            values[i] = dtype == DType.BF16 ? Bf16.round(value) : value;
        }
        MemorySegment memory = arena.allocate(elements * dtype.bytes(), PAGE);
        if (dtype == DType.BF16) {
            for (int i = 0; i < values.length; i++) {
                memory.setAtIndex(ValueLayout.JAVA_SHORT, i, (short) (Float.floatToRawIntBits(values[i]) >>> 16));
            }
        } else {
            MemorySegment.copy(values, 0, memory, ValueLayout.JAVA_FLOAT, 0, values.length);
        }
        operands.put(name, new Operand(values, dtype, new ArrayList<>(List.of(memory))));
    }

    private Operand operand(String name) {
        Operand operand = operands.get(name);
        if (operand == null) {
            throw new IllegalArgumentException("name: " + name + ", expected one of " + operands.keySet());
        }
        return operand;
    }

    /** How many sets of weights or keys there are: 1 unless the task is cold. */
    public int sets() {
        return sets;
    }

    /** The values, as FP32. */
    public float[] values(String name) {
        return operand(name).values;
    }

    /** The first set, in the task's type. */
    public MemorySegment memory(String name) {
        return operand(name).sets.getFirst();
    }

    /** One set of the same values, in memory of its own. */
    public MemorySegment memory(String name, int set) {
        List<MemorySegment> all = operand(name).sets;
        while (all.size() <= set) {
            MemorySegment copy = arena.allocate(all.getFirst().byteSize(), PAGE);
            all.add(copy.copyFrom(all.getFirst()));
        }
        return all.get(set);
    }

    /** The largest magnitude. */
    double largest(String name) {
        double largest = 0;
        for (float value : values(name)) {
            largest = Math.max(largest, Math.abs(value));
        }
        return largest;
    }

    /**
     * The largest Euclidean norm of {@code count} vectors, their elements and their beginnings as far apart as given.
     */
    double largestNorm(String name, int count, int length, int apart, int step) {
        float[] values = values(name);
        double[] squares = new double[count];
        if (step == 1) {
            for (int i = 0; i < count; i++) {
                for (int j = 0; j < length; j++) {
                    double value = values[i * apart + j];
                    squares[i] += value * value;
                }
            }
        } else {
            for (int j = 0; j < length; j++) { // along memory
                for (int i = 0; i < count; i++) {
                    double value = values[i * apart + j * step];
                    squares[i] += value * value;
                }
            }
        }
        double largest = 0;
        for (double square : squares) {
            largest = Math.max(largest, square);
        }
        return Math.sqrt(largest);
    }

    @Override
    public void close() {
        arena.close();
    }
}
