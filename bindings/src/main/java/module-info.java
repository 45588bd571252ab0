/**
 * The C interface of Gatun as Java sees it, and the loading of the native libraries. This is the only module that calls
 * restricted methods: it is the one to name in {@code --enable-native-access}.
 */
@SuppressWarnings("module") // io.gatun is compiled later
module io.gatun.bindings {
    requires static org.jspecify;

    exports io.gatun.bindings;
    exports io.gatun.bindings.c to io.gatun;
    exports io.gatun.bindings.memory to io.gatun;

    uses io.gatun.bindings.NativeLibrary;
}
