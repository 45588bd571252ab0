package io.gatun.bench.compare;

import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import org.jspecify.annotations.Nullable;

/**
 * One line of the files: Gatun beside one peer, or alone where no peer has the operator.
 *
 * @param name the operator, such as {@code gemm.int8}
 * @param shape such as {@code 4096x4096x4096}, which is MxNxK
 * @param dtype the type of the elements; INT8 says whether the quantization of activations is in the times
 * @param threads of a run, alike for both
 * @param cold whether weights or keys come from memory
 * @param oursMs the median time of Gatun's run, in milliseconds
 * @param peer the other's name and version
 * @param peerMs the median time of its run
 * @param speedup how many times as long the peer took: the median over neighbours in time
 * @param fractionOfLimit the part of the limit that Gatun reached
 * @param peerFraction the part that the peer reached
 * @param limit what bounds both
 */
@JsonPropertyOrder({
    "name", "shape", "dtype", "threads", "cold", "oursMs", "peer", "peerMs", "speedup", "fractionOfLimit",
    "peerFraction", "limit"
})
public record Row(
        String name,
        String shape,
        String dtype,
        int threads,
        boolean cold,
        double oursMs,
        @Nullable String peer,
        @Nullable Double peerMs,
        @Nullable Double speedup,
        @Nullable Double fractionOfLimit,
        @Nullable Double peerFraction,
        String limit) {}
