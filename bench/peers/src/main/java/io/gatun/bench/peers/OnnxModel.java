package io.gatun.bench.peers;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;

/**
 * Writes ONNX models of one node, in the encoding of protocol buffers: a field is its number and wire type, then a
 * number or a length and that many bytes. Field numbers are those of onnx.proto.
 */
final class OnnxModel {
    static final int FLOAT = 1;
    static final int UINT8 = 2;
    static final int INT8 = 3;
    static final int INT32 = 6;

    private static final int IR_VERSION = 9;
    private static final int OPSET = 20;

    private final Message node = new Message();
    private final Message graph = new Message();

    private OnnxModel() {}

    /** A node of the standard's operators, or of ONNX Runtime's own in {@code com.microsoft}. */
    static OnnxModel of(String operator, String domain, String... inputs) {
        OnnxModel model = new OnnxModel();
        for (String input : inputs) {
            model.node.text(1, input);
        }
        model.node.text(4, operator);
        if (!domain.isEmpty()) {
            model.node.text(7, domain);
        }
        return model;
    }

    OnnxModel attribute(String name, long value) {
        node.message(5, new Message().text(1, name).number(3, value).number(20, 2));
        return this;
    }

    OnnxModel attribute(String name, float value) {
        node.message(5, new Message().text(1, name).float32(2, value).number(20, 1));
        return this;
    }

    OnnxModel attribute(String name, String value) {
        node.message(5, new Message().text(1, name).text(4, value).number(20, 3));
        return this;
    }

    /** An input of each run. */
    OnnxModel input(String name, int type, long... shape) {
        graph.message(11, value(name, type, shape));
        return this;
    }

    /** An input that never changes, little-endian. */
    OnnxModel constant(String name, int type, byte[] bytes, long... shape) {
        Message tensor = new Message();
        for (long extent : shape) {
            tensor.number(1, extent);
        }
        graph.message(5, tensor.number(2, type).text(8, name).bytes(9, bytes));
        return this;
    }

    /** An output, of a type and as many dimensions as given, -1 for any extent. */
    OnnxModel output(String name, int type, long... shape) {
        node.text(2, name);
        graph.message(12, value(name, type, shape));
        return this;
    }

    byte[] bytes() {
        Message all = new Message()
                .number(1, IR_VERSION)
                .message(7, new Message().message(1, node).text(2, "bench").message(graph))
                .message(8, new Message().text(1, "").number(2, OPSET))
                .message(8, new Message().text(1, "com.microsoft").number(2, 1));
        return all.out.toByteArray();
    }

    private static Message value(String name, int type, long... shape) {
        Message dimensions = new Message();
        for (long extent : shape) {
            dimensions.message(1, extent < 0 ? new Message().text(2, "any") : new Message().number(1, extent));
        }
        Message tensor = new Message().number(1, type).message(2, dimensions);
        return new Message().text(1, name).message(2, new Message().message(1, tensor));
    }

    private static final class Message {
        private static final int VARINT = 0;
        private static final int BYTES = 2;
        private static final int FIXED32 = 5;

        private final ByteArrayOutputStream out = new ByteArrayOutputStream();

        private void varint(long value) {
            long rest = value;
            while ((rest & ~0x7fL) != 0) {
                out.write((int) (rest & 0x7f | 0x80));
                rest >>>= 7;
            }
            out.write((int) rest);
        }

        Message number(int field, long value) {
            varint((long) field << 3 | VARINT);
            varint(value);
            return this;
        }

        Message float32(int field, float value) {
            varint((long) field << 3 | FIXED32);
            int bits = Float.floatToRawIntBits(value);
            for (int shift = 0; shift < Integer.SIZE; shift += Byte.SIZE) {
                out.write(bits >>> shift);
            }
            return this;
        }

        Message bytes(int field, byte[] value) {
            varint((long) field << 3 | BYTES);
            varint(value.length);
            out.writeBytes(value);
            return this;
        }

        Message text(int field, String value) {
            return bytes(field, value.getBytes(StandardCharsets.UTF_8));
        }

        Message message(int field, Message value) {
            return bytes(field, value.out.toByteArray());
        }

        /** Fields of another message of the same kind. */
        Message message(Message rest) {
            out.writeBytes(rest.out.toByteArray());
            return this;
        }
    }
}
