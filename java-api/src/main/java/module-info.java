/**
 * AI kernels on memory that Java owns: attention, matrix multiplication, normalisation and fused operators.
 *
 * <p>The native code is reached through {@code io.gatun.bindings}, the module to name in
 * {@code --enable-native-access}.
 */
module io.gatun {
    requires static org.jspecify;
    requires jdk.jfr;
    requires io.gatun.bindings;

    exports io.gatun;
}
