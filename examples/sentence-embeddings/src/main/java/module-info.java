/** An example: sentence embeddings with all-MiniLM-L6-v2 on Gatun's kernels. */
module io.gatun.examples.embeddings {
    requires ai.djl.tokenizers;
    requires com.google.protobuf;
    requires info.picocli;
    requires io.gatun;
    requires org.tribuo.util.onnx;
    requires static org.jspecify;

    opens io.gatun.examples.embeddings to info.picocli;
}
