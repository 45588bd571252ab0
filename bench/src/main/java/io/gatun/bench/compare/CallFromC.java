package io.gatun.bench.compare;

import io.gatun.Gatun;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.Optional;

/**
 * The smallest call, made from C in a loop: what a call from Java is compared with. The loop is in a library that the
 * native build makes for this, which the system property {@code gatun.bench.calls} names.
 */
public final class CallFromC implements Peer {
    private final MethodHandle run;
    private final MethodHandle result;

    /**
     * Loads the library and plans the operator.
     *
     * @param device such as {@code cpu}
     */
    @SuppressWarnings("restricted")
    public CallFromC(String device) {
        String file = System.getProperty("gatun.bench.calls");
        if (file == null) {
            throw new IllegalStateException("the system property gatun.bench.calls names no library");
        }
        Gatun.backends(); // loads the core and the backends, which the library then shares
        SymbolLookup symbols = SymbolLookup.libraryLookup(Path.of(file), Arena.global());
        MethodHandle open = function(symbols, "gatun_calls_open",
                FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.ADDRESS));
        run = function(symbols, "gatun_calls_run",
                FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_LONG));
        result = function(symbols, "gatun_calls_result", FunctionDescriptor.of(ValueLayout.JAVA_FLOAT));
        try (Arena arena = Arena.ofConfined()) {
            check((int) open.invokeExact(arena.allocateFrom(device)));
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    @SuppressWarnings("restricted")
    private static MethodHandle function(SymbolLookup symbols, String name, FunctionDescriptor descriptor) {
        return Linker.nativeLinker().downcallHandle(symbols.findOrThrow(name), descriptor);
    }

    private static void check(int status) {
        if (status != 0) {
            throw new IllegalStateException("the call from C gives the status " + status);
        }
    }

    private static RuntimeException unchecked(Throwable e) {
        if (e instanceof Error error) {
            throw error;
        }
        return e instanceof RuntimeException runtime ? runtime : new IllegalStateException(e);
    }

    /** Makes so many calls. */
    public void run(long calls) {
        try {
            check((int) run.invokeExact(calls));
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    @Override
    public String name() {
        return "C";
    }

    @Override
    public Optional<Call> prepare(Task task, Operands operands, int threads) {
        return task instanceof Task.Call ? Optional.of(new Loop()) : Optional.empty();
    }

    private final class Loop implements Call {
        @Override
        public void run(int set) {
            CallFromC.this.run(1);
        }

        @Override
        public void run(int first, int runs, int sets) {
            CallFromC.this.run((long) runs);
        }

        @Override
        public float[] result() {
            try {
                return new float[] {(float) result.invokeExact()};
            } catch (Throwable e) {
                throw unchecked(e);
            }
        }

        @Override
        public void close() {}
    }
}
