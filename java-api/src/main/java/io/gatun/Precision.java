package io.gatun;

import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.StringJoiner;

/**
 * Which types a model computes in, said once: a type for each {@link Operator}, others for single layers by name, and INT8
 * for the products of single layers. Specs, multiplications and packed weights that
 * are made from it follow it, and {@link PlanInfo#precision} tells what came of it. Immutable.
 *
 * <pre>{@code
 * Precision precision = Precision.mixed()
 *         .with(Operator.GEMM, "head", DType.F32)
 *         .calibrated("ffn.up", calibration.percentile(99.9));
 * Gemm up = precision.gemm("ffn.up");                          // of S8
 * TensorSpec x = precision.spec(Operator.NORM, rows, features); // of F32
 * TensorSpec logits = precision.spec(Operator.GEMM, "head", rows, words); // of F32, where others are BF16
 * }</pre>
 */
public final class Precision {
    private record Layer(Operator operator, String name) {}

    private final Map<Operator, DType> operators;
    private final Map<Layer, DType> layers;
    private final Map<String, Calibration.Range> ranges; // of the layers whose products are INT8

    private Precision(
            Map<Operator, DType> operators, Map<Layer, DType> layers, Map<String, Calibration.Range> ranges) {
        this.operators = operators;
        this.layers = layers;
        this.ranges = ranges;
    }

    /**
     * Computes in BF16 where matrices are multiplied, which are {@link Operator#GEMM}, {@link Operator#CONV} and
     * {@link Operator#ATTENTION}, whose sums are FP32 all the same, and in FP32 elsewhere, as in norms and softmax.
     *
     * @return the policy
     */
    public static Precision mixed() {
        return full()
                .with(Operator.GEMM, DType.BF16)
                .with(Operator.CONV, DType.BF16)
                .with(Operator.ATTENTION, DType.BF16);
    }

    /**
     * Computes in FP32 everywhere.
     *
     * @return the policy
     */
    public static Precision full() {
        Map<Operator, DType> operators = new EnumMap<>(Operator.class);
        for (Operator operator : Operator.values()) {
            operators.put(operator, DType.F32);
        }
        return new Precision(operators, Map.of(), Map.of());
    }

    /**
     * Sets the type of an operator, for all layers that have none of their own.
     *
     * @param operator the operator
     * @param dtype F32, BF16 or F16, in place of an earlier one
     * @return a policy with it
     * @throws IllegalArgumentException if it is another type
     */
    public Precision with(Operator operator, DType dtype) {
        Objects.requireNonNull(operator, "operator");
        checkType(dtype);
        Map<Operator, DType> changed = new EnumMap<>(operators);
        changed.put(operator, dtype);
        return new Precision(changed, layers, ranges);
    }

    /**
     * Sets the type of an operator in one layer. A calibration of the layer, if any, no longer counts.
     *
     * @param operator the operator
     * @param layer the layer's name
     * @param dtype F32, BF16 or F16, in place of an earlier one
     * @return a policy with it
     * @throws IllegalArgumentException if it is another type
     */
    public Precision with(Operator operator, String layer, DType dtype) {
        Objects.requireNonNull(operator, "operator");
        Objects.requireNonNull(layer, "layer");
        checkType(dtype);
        Map<Layer, DType> changed = new LinkedHashMap<>(layers);
        changed.put(new Layer(operator, layer), dtype);
        Map<String, Calibration.Range> left = new LinkedHashMap<>(ranges);
        if (operator == Operator.GEMM) {
            left.remove(layer);
        }
        return new Precision(operators, changed, left);
    }

    /**
     * Multiplies in INT8 in one layer, whatever was said of it before. The range is only kept, for rows that are quantized to it
     * ahead of the product:
     *
     * <pre>{@code
     * precision.range("ffn.up").unsigned(8).quantizeRows(x, rows, scales, zeroPoints); // rows: U8
     * precision.gemm("ffn.up").plan(device, rows.spec(), out.spec())
     *         .runQuantized(stream, weights, rows, scales, zeroPoints, ...);
     * }</pre>
     *
     * A plan for rows of floating point never sees it, and quantizes each row to a range of its own.
     *
     * @param layer the layer's name
     * @param range that of the values that it multiplies
     * @return a policy with it
     */
    public Precision calibrated(String layer, Calibration.Range range) {
        Objects.requireNonNull(layer, "layer");
        Objects.requireNonNull(range, "range");
        Map<String, Calibration.Range> changed = new LinkedHashMap<>(ranges);
        changed.put(layer, range);
        return new Precision(operators, layers, changed);
    }

    private static void checkType(DType dtype) {
        if (dtype != DType.F32 && dtype != DType.BF16 && dtype != DType.F16) {
            throw new IllegalArgumentException("dtype: " + dtype + ", expected F32, BF16 or F16; S8 where calibrated");
        }
    }

    /**
     * Returns the type of an operator.
     *
     * @param operator the operator
     * @return F32, BF16 or F16
     */
    public DType dtype(Operator operator) {
        return operators.get(Objects.requireNonNull(operator, "operator"));
    }

    /**
     * Returns the type of an operator in a layer, which is that of its tensors.
     *
     * @param operator the operator
     * @param layer the layer's name
     * @return F32, BF16 or F16: the layer's own, or else the operator's
     */
    public DType dtype(Operator operator, String layer) {
        Objects.requireNonNull(layer, "layer");
        DType own = layers.get(new Layer(operator, layer));
        return own == null ? dtype(operator) : own;
    }

    /**
     * Returns the format of a layer's weights, for {@link PackedWeights#pack} and {@link Gemm#of(DType)}.
     *
     * @param layer the layer's name
     * @return S8 where it is calibrated, else the type of {@link Operator#GEMM} in it
     */
    public DType weights(String layer) {
        return ranges.containsKey(Objects.requireNonNull(layer, "layer")) ? DType.S8 : dtype(Operator.GEMM, layer);
    }

    /**
     * Returns the range that a layer was calibrated to: see {@link #calibrated}.
     *
     * @param layer the layer's name
     * @return the range
     * @throws IllegalArgumentException if the layer is not calibrated
     */
    public Calibration.Range range(String layer) {
        Calibration.Range range = ranges.get(Objects.requireNonNull(layer, "layer"));
        if (range == null) {
            throw new IllegalArgumentException("layer: " + layer + ", expected a calibrated one of " + ranges.keySet());
        }
        return range;
    }

    /**
     * Describes the multiplication of a layer.
     *
     * @param layer the layer's name
     * @return a plain multiplication by weights of its format
     */
    public Gemm gemm(String layer) {
        return Gemm.of(weights(layer));
    }

    /**
     * Describes a dense tensor of an operator.
     *
     * @param operator the operator that reads or writes it
     * @param shape its sizes
     * @return the spec, of the operator's type
     * @throws IllegalArgumentException as {@link TensorSpec#of} does
     */
    public TensorSpec spec(Operator operator, long... shape) {
        return TensorSpec.of(dtype(operator), shape);
    }

    /**
     * Describes a dense tensor of an operator in a layer.
     *
     * @param operator the operator that reads or writes it
     * @param layer the layer's name
     * @param shape its sizes
     * @return the spec, of the layer's own type or else the operator's
     * @throws IllegalArgumentException as {@link TensorSpec#of} does
     */
    public TensorSpec spec(Operator operator, String layer, long... shape) {
        return TensorSpec.of(dtype(operator, layer), shape);
    }

    /**
     * Returns all choices.
     *
     * @return such as {@code F32, GEMM BF16, ATTENTION BF16, CONV BF16, GEMM of head F32, GEMM of ffn.up S8 for -2.5 to 4.0}
     */
    @Override
    public String toString() {
        StringJoiner text = new StringJoiner(", ").add("F32");
        operators.forEach((operator, dtype) -> {
            if (dtype != DType.F32) {
                text.add(operator + " " + dtype);
            }
        });
        layers.forEach((layer, dtype) -> text.add(layer.operator + " of " + layer.name + " " + dtype));
        ranges.forEach((layer, range) -> text.add("GEMM of " + layer + " S8 for " + range.lo() + " to " + range.hi()));
        return text.toString();
    }
}
