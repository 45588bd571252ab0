package io.gatun.bench.peers;

import io.gatun.bench.compare.Bench;
import io.gatun.bench.compare.Bench.Offer;
import io.gatun.bench.compare.CallFromC;
import io.gatun.bench.compare.Ours;
import java.io.PrintWriter;
import java.util.List;

/** {@code ./gatun bench --peers}. */
public final class Main {
    private Main() {}

    /** Runs the comparison and ends the process with its exit code. */
    public static void main(String[] args) {
        PrintWriter out = new PrintWriter(System.out, true);
        PrintWriter err = new PrintWriter(System.err, true);
        List<Offer> peers = List.of(
                new Offer("MKL", Mkl::new),
                new Offer("oneDNN", OneDnn::new),
                new Offer("OpenBLAS", OpenBlas::new),
                new Offer("libtorch", Torch::new),
                new Offer("ONNX Runtime", OnnxRuntime::new),
                new Offer("the same call from C", () -> new CallFromC("cpu")));
        System.exit(Bench.run(
                List.of(Ours::new, MiniLmEncoder.Ours::new), peers, out, err, args));
    }
}
