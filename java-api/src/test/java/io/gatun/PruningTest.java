package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class PruningTest {
    private final Arena arena = Arena.ofConfined();
    private final Random random = new Random(3);

    @AfterEach
    void close() {
        arena.close();
    }

    /** With equal magnitudes among them. */
    private Tensor weights(DType dtype, long... shape) {
        Tensor tensor = Tensor.allocate(arena, dtype, shape);
        float[] values = new float[(int) tensor.spec().elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = (random.nextInt(41) - 20) * 0.25f;
        }
        return tensor.copyFrom(values);
    }

    private Tensor copy(Tensor of) {
        return Tensor.allocate(arena, of.dtype(), of.spec().shape()).copyFrom(of.toFloatArray());
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 0.1, 0.5, 0.777, 1})
    void magnitudeKeepsTheLargest(double sparsity) {
        Tensor w = weights(DType.BF16, 13, 7).transpose(0, 1);
        float[] before = w.toFloatArray();
        List<Integer> order = new ArrayList<>();
        for (int i = 0; i < before.length; i++) {
            order.add(i);
        }
        order.sort(Comparator.comparingDouble(i -> -Math.abs(before[i]))); // stable: the first of equals first
        int pruned = (int) Math.floor(sparsity * before.length);
        Tensor mask = Tensor.allocate(arena, DType.U8, 7, 13);
        Pruning.magnitude(sparsity).mask(w, mask);
        Tensor masked = copy(w);
        Pruning.apply(mask, masked);
        Pruning.magnitude(sparsity).prune(w);
        float[] after = w.toFloatArray();
        for (int rank = 0; rank < before.length; rank++) {
            int i = order.get(rank);
            boolean kept = rank < before.length - pruned;
            assertEquals(kept ? before[i] : 0, after[i], "element " + i);
            assertEquals(kept ? 1 : 0, mask.toFloatArray()[i]);
            assertEquals(after[i], masked.toFloatArray()[i]);
        }
    }

    @ParameterizedTest
    @CsvSource({"2, 4, 0", "2, 4, 1", "1, 3, 0", "4, 8, 1", "0, 4, 0", "4, 4, 1", "1, 1, 0"})
    void nOfMKeepsTheLargestOfEach(int n, int m, int dim) {
        Tensor w = weights(DType.F32, 2, 11, 6).slice(0, 1, 2).reshape(11, 6);
        float[] before = w.toFloatArray();
        Pruning.nOfM(n, m, dim).prune(w);
        int size = dim == 0 ? 11 : 6;
        for (int line = 0; line < (dim == 0 ? 6 : 11); line++) {
            for (int first = 0; first < size; first += m) {
                List<Integer> run = new ArrayList<>();
                for (int p = first; p < Math.min(first + m, size); p++) {
                    run.add(dim == 0 ? p * 6 + line : line * 6 + p);
                }
                List<Integer> order = new ArrayList<>(run);
                order.sort(Comparator.comparingDouble(i -> -Math.abs(before[i])));
                for (int i : run) {
                    float expected = order.indexOf(i) < n ? before[i] : 0;
                    assertEquals(expected, w.getFloat(i / 6, i % 6), "element " + i);
                }
            }
        }
    }

    @Test
    void maskOfHalf() {
        Tensor w = weights(DType.F32, 64, 32);
        Tensor mask = Tensor.allocate(arena, DType.U8, 64, 32);
        Pruning.nOfM(2, 4, 0).mask(w, mask);
        double kept = 0;
        for (float one : mask.toFloatArray()) {
            kept += one;
        }
        assertEquals(64 * 32 / 2, kept);
        assertTrue(Pruning.nOfM(2, 4, 0).toString().contains("2 of 4"));
    }

    @Test
    void emptyTensors() {
        Tensor none = weights(DType.F32, 0, 5);
        Pruning.magnitude(0.5).prune(none);
        Pruning.nOfM(2, 4, 0).prune(none);
    }

    @Test
    void wrongArguments() {
        Expect.illegalArgument("sparsity: 1.5", () -> Pruning.magnitude(1.5));
        Expect.illegalArgument("sparsity: NaN", () -> Pruning.magnitude(Double.NaN));
        Expect.illegalArgument("n: 5", () -> Pruning.nOfM(5, 4, 0));
        Expect.illegalArgument("m: 0", () -> Pruning.nOfM(0, 0, 0));
        Expect.illegalArgument("dim: -1", () -> Pruning.nOfM(2, 4, -1));
        Tensor w = weights(DType.F32, 4, 4);
        Pruning half = Pruning.nOfM(2, 4, 0);
        Expect.illegalArgument("a dimension 2", () -> Pruning.nOfM(2, 4, 2).prune(w));
        Expect.illegalArgument("mask: U8[4, 5]", () -> half.mask(w, Tensor.allocate(arena, DType.U8, 4, 5)));
        Expect.illegalArgument("mask: F32[4, 4]", () -> Pruning.apply(w, w));
        Expect.illegalArgument("weights: S8", () -> half.prune(Tensor.allocate(arena, DType.S8, 4, 4)));
        Tensor fixed = Tensor.of(w.memory().asReadOnly(), w.spec());
        Expect.illegalArgument("weights: read-only", () -> half.prune(fixed));
        Tensor repeated = Tensor.of(w.memory(), w.spec().withStrides(0, 1));
        Tensor overlapping = Tensor.of(w.memory(), w.spec().withStrides(3, 1));
        Tensor mask = Tensor.allocate(arena, DType.U8, 4, 4);
        for (Tensor shared : new Tensor[] {repeated, overlapping}) {
            Expect.illegalArgument("weights (strides [", () -> half.prune(shared));
            Expect.illegalArgument("weights (strides [", () -> Pruning.apply(mask, shared));
            half.mask(shared, mask); // only read
        }
        Tensor one = Tensor.of(mask.memory(), mask.spec().withStrides(4, 0));
        Expect.illegalArgument("mask (strides [4, 0])", () -> half.mask(w, one));
        w.setFloat(Float.NaN, 1, 2);
        Expect.illegalArgument("weights: element 6 is NaN", () -> half.prune(w));
    }
}
