package io.gatun.examples.embeddings;

import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * The weights of an ONNX model by the names they had where the model was trained, such as
 * {@code encoder.layer.0.attention.self.query.weight}.
 *
 * <p>An exporter keeps the names of biases and norms, but transposes the weights of linear layers to [in, out] and
 * numbers them ({@code onnx::MatMul_787}). Each is found through the graph: the sum of its product with
 * {@code <layer>.bias} tells that it is {@code <layer>.weight}.
 */
final class OnnxWeights {
    private final Map<String, TensorProto> tensors;

    private OnnxWeights(Map<String, TensorProto> tensors) {
        this.tensors = tensors;
    }

    /**
     * Reads a model; the caller closes the stream.
     *
     * @throws IOException when the stream fails or holds no ONNX model
     */
    static OnnxWeights read(InputStream model) throws IOException {
        GraphProto graph = ModelProto.parseFrom(model).getGraph();
        Map<String, TensorProto> tensors = new HashMap<>();
        for (TensorProto tensor : graph.getInitializerList()) {
            tensors.put(tensor.getName(), tensor);
        }
        Map<String, String> weightOfProduct = new HashMap<>();
        for (NodeProto node : graph.getNodeList()) {
            if (node.getOpType().equals("MatMul") && tensors.containsKey(node.getInput(1))) {
                weightOfProduct.put(node.getOutput(0), node.getInput(1));
            } else if (node.getOpType().equals("Add") && node.getInput(0).endsWith(".bias")) {
                String weight = weightOfProduct.get(node.getInput(1));
                if (weight != null) {
                    tensors.put(node.getInput(0).replaceFirst("bias$", "weight"), tensors.get(weight));
                }
            }
        }
        return new OnnxWeights(tensors);
    }

    /**
     * The elements of a tensor in row-major order.
     *
     * @param shape the shape it must have
     * @throws IllegalArgumentException when there is no FP32 tensor of that name and shape
     */
    float[] floats(String name, int... shape) {
        TensorProto tensor = tensors.get(name);
        if (tensor == null) {
            throw new IllegalArgumentException("the model has no tensor " + name);
        }
        int elements = 1;
        boolean same = tensor.getDimsCount() == shape.length;
        for (int d = 0; same && d < shape.length; d++) {
            same = tensor.getDims(d) == shape[d];
            elements *= shape[d];
        }
        if (!same || tensor.getRawData().size() != Float.BYTES * elements) {
            throw new IllegalArgumentException(
                    name + " has the shape " + tensor.getDimsList() + ", not " + Arrays.toString(shape));
        }
        float[] values = new float[elements];
        tensor.getRawData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }
}
