package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_rope_desc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.StringJoiner;
import org.jspecify.annotations.Nullable;

/**
 * Rotary position embedding of queries and keys (Su et al. 2021, RoFormer, section 3.2.2), with the append of keys and
 * values to a cache, in one pass. Of each head the first {@code rotary} elements are rotated, pair by pair, by the
 * angles of the token's position, {@code (a, b)} to {@code (a cos - b sin, a sin + b cos)}; the others are copied.
 * Immutable.
 */
public final class Rope {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final DType[] CACHES = {DType.F32, DType.BF16, DType.F16, DType.S8};

    private final boolean interleaved;
    private final long rotary;

    private Rope(boolean interleaved, long rotary) {
        if (rotary < 0 || rotary % 2 != 0) {
            throw new IllegalArgumentException("rotary: " + rotary + ", expected an even number, 0 or more");
        }
        this.interleaved = interleaved;
        this.rotary = rotary;
    }

    /**
     * Describes rotation of the pairs {@code (x[i], x[i + rotary / 2])}.
     *
     * @param rotary the elements of a head that are rotated, even, 0 to the head size
     * @return the description
     * @throws IllegalArgumentException if {@code rotary} is negative or odd
     */
    public static Rope halves(long rotary) {
        return new Rope(false, rotary);
    }

    /**
     * Describes rotation of the pairs {@code (x[2 i], x[2 i + 1])}.
     *
     * @param rotary the elements of a head that are rotated, even, 0 to the head size
     * @return the description
     * @throws IllegalArgumentException if {@code rotary} is negative or odd
     */
    public static Rope interleaved(long rotary) {
        return new Rope(true, rotary);
    }

    /**
     * Makes a plan. All specs have unit stride in the head size. Tokens are the most that a run may have; the caches
     * are what each run has.
     *
     * @param device where it will run
     * @param maxPosition the positions that the table has, 1 or more
     * @param q F32, BF16 or F16 {@code [tokens, heads_q, dk]}, or null where no queries are rotated
     * @param qOut F32, BF16 or F16, the shape of {@code q}; null exactly where {@code q} is
     * @param k F32, BF16 or F16 {@code [tokens, heads_k, dk]}, or null where no keys are rotated and stored; {@code q}
     *     or {@code k} is there
     * @param kCache F32, BF16, F16 or S8 {@code [pages, page size, heads_k, dk]}: pages, or sequences and their longest
     *     length; null exactly where {@code k} is. S8 has a scale of {@code amax / 127} for each token and head
     * @param v of the type of {@code k}, {@code [tokens, heads_k, dv]}, or null where no values are stored
     * @param vCache of the type, pages and page size of {@code kCache}, {@code [pages, page size, heads_k, dv]}; null
     *     exactly where {@code v} is
     * @return the plan
     * @throws IllegalArgumentException if a spec or a number is none of these
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(
            Device device,
            long maxPosition,
            @Nullable TensorSpec q,
            @Nullable TensorSpec qOut,
            @Nullable TensorSpec k,
            @Nullable TensorSpec kCache,
            @Nullable TensorSpec v,
            @Nullable TensorSpec vCache) {
        Arguments.atLeast("maxPosition", maxPosition, 1);
        together("q", q, "qOut", qOut);
        together("k", k, "kCache", kCache);
        together("v", v, "vCache", vCache);
        if (q == null && k == null) {
            throw new IllegalArgumentException("q: null, expected a spec of q or of k, of which one is rotated");
        }
        TensorSpec first = q == null ? k : q;
        String whose = q == null ? "k" : "q";
        if (q != null && qOut != null) {
            tokens("q", q, FLOATS);
            tokens("qOut", qOut, FLOATS);
            Arguments.sameShape("qOut", qOut, "q", q);
        }
        if (k != null && kCache != null) {
            tokens("k", k, FLOATS);
            Arguments.size("k", k, 0, first.size(0), "the tokens of " + whose);
            Arguments.size("k", k, 2, first.size(2), "the head size of " + whose);
            cache("kCache", kCache, "k", k, CACHES);
        }
        if (v != null && vCache != null) {
            tokens("v", v, k == null ? FLOATS : new DType[] {k.dtype()});
            Arguments.size("v", v, 0, first.size(0), "the tokens of " + whose);
            cache("vCache", vCache, "v", v, kCache == null ? CACHES : new DType[] {kCache.dtype()});
            if (k != null && kCache != null) {
                Arguments.size("v", v, 1, k.size(1), "the heads of k");
                Arguments.size("vCache", vCache, 0, kCache.size(0), "the pages of kCache");
                Arguments.size("vCache", vCache, 1, kCache.size(1), "the page size of kCache");
            }
        }
        if (rotary > first.size(2)) {
            throw new IllegalArgumentException(
                    "rotary: " + rotary + ", expected at most " + first.size(2) + ", the head size");
        }
        return new Plan(device, this, maxPosition, first.size(0), q, qOut, k, kCache, v, vCache);
    }

    private static void together(String name, @Nullable TensorSpec spec, String name2, @Nullable TensorSpec other) {
        if ((spec == null) != (other == null)) {
            throw new IllegalArgumentException(spec == null
                    ? name2 + ": " + other + ", expected null, as " + name + " is"
                    : name2 + ": null, expected a spec, as " + name + " has one");
        }
    }

    private static void tokens(String name, TensorSpec spec, DType[] types) {
        Arguments.rank(name, spec, 3, "[tokens, heads, head size]");
        Arguments.type(name, spec, types);
        Arguments.unitStride(name, spec);
        for (int d = 1; d < 3; d++) {
            if (spec.size(d) == 0) {
                throw Arguments.wrong(name, spec, "1 or more in dimension " + d);
            }
        }
    }

    private static void cache(String name, TensorSpec cache, String of, TensorSpec spec, DType[] types) {
        Arguments.rank(name, cache, 4, "[pages, page size, heads, head size]");
        Arguments.type(name, cache, types);
        Arguments.unitStride(name, cache);
        Arguments.size(name, cache, 2, spec.size(1), "the heads of " + of);
        Arguments.size(name, cache, 3, spec.size(2), "the head size of " + of);
        if (cache.size(1) == 0) {
            throw Arguments.wrong(name, cache, "a page size of 1 or more in dimension 1");
        }
    }

    /**
     * Fills in the table of a run: for each position p, {@code cos(p * base^(-2i / rotary))} for i below
     * {@code rotary / 2}, then as many sines (RoFormer, equation 15). Computed in double precision, rounded once.
     *
     * @param table F32 {@code [positions, rotary]}, in memory that Java can write to
     * @param base finite and greater than 0, such as 10000
     * @throws IllegalArgumentException if the table or the base is none of these
     * @throws IllegalStateException if the memory of the table is closed
     */
    public static void fillTable(Tensor table, double base) {
        if (!(base > 0 && base <= Double.MAX_VALUE)) {
            throw new IllegalArgumentException("base: " + base + ", expected a finite number greater than 0");
        }
        int pairs = pairs(table);
        double[] frequencies = new double[pairs];
        for (int i = 0; i < pairs; i++) {
            frequencies[i] = Math.pow(base, -2.0 * i / (2.0 * pairs));
        }
        fill(table, frequencies);
    }

    /**
     * Fills in the table of a run from the angles of position 1, as methods to extend the length of a context give
     * them: {@code cos(p * frequencies[i])}, then the sines. Computed in double precision, rounded once.
     *
     * @param table F32 {@code [positions, rotary]}, in memory that Java can write to
     * @param frequencies radians from one position to the next, {@code rotary / 2} of them, each finite
     * @throws IllegalArgumentException if the table or the frequencies are none of these
     * @throws IllegalStateException if the memory of the table is closed
     */
    public static void fillTable(Tensor table, double[] frequencies) {
        int pairs = pairs(table);
        if (frequencies.length != pairs) {
            throw new IllegalArgumentException(
                    "frequencies: " + frequencies.length + " of them, expected " + pairs + " for " + table.spec);
        }
        for (int i = 0; i < pairs; i++) {
            if (!Double.isFinite(frequencies[i])) {
                throw new IllegalArgumentException(
                        "frequencies[" + i + "]: " + frequencies[i] + ", expected a finite number");
            }
        }
        fill(table, frequencies);
    }

    private static int pairs(Tensor table) {
        TensorSpec spec = table.spec;
        Arguments.rank("table", spec, 2, "[positions, rotary]");
        Arguments.type("table", spec, DType.F32);
        if (spec.size(1) % 2 != 0 || spec.size(1) / 2 > Integer.MAX_VALUE - 8) {
            throw Arguments.wrong("table", spec, "an even number in dimension 1");
        }
        Arguments.onHost("table", table);
        Arguments.writable("table", table.memory);
        return (int) (spec.size(1) / 2);
    }

    private static void fill(Tensor table, double[] frequencies) {
        TensorSpec spec = table.spec;
        long step = spec.stride(1) * Float.BYTES;
        for (long p = 0; p < spec.size(0); p++) {
            long cosine = p * spec.stride(0) * Float.BYTES;
            long sine = cosine + frequencies.length * step;
            for (double frequency : frequencies) {
                double angle = p * frequency;
                table.memory.set(ValueLayout.JAVA_FLOAT, cosine, (float) Math.cos(angle));
                table.memory.set(ValueLayout.JAVA_FLOAT, sine, (float) Math.sin(angle));
                cosine += step;
                sine += step;
            }
        }
    }

    /** A rotary embedding made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec positions;
        private final TensorSpec table;
        private final @Nullable TensorSpec q;
        private final @Nullable TensorSpec qOut;
        private final @Nullable TensorSpec k;
        private final @Nullable TensorSpec kCache;
        private final @Nullable TensorSpec v;
        private final @Nullable TensorSpec vCache;
        private final @Nullable TensorSpec kScales;
        private final @Nullable TensorSpec vScales;

        private Plan(
                Device device,
                Rope rope,
                long maxPosition,
                long tokens,
                @Nullable TensorSpec q,
                @Nullable TensorSpec qOut,
                @Nullable TensorSpec k,
                @Nullable TensorSpec kCache,
                @Nullable TensorSpec v,
                @Nullable TensorSpec vCache) {
            // What these refuse leaves no plan behind.
            this.positions = Arguments.dense("positions", DType.S64, tokens);
            this.table = Arguments.dense("maxPosition", DType.F32, maxPosition, rope.rotary);
            this.kScales = scales("kScales", kCache);
            this.vScales = scales("vScales", vCache);
            super(
                    device,
                    precision(q, qOut, k, kCache, vCache),
                    arena -> {
                        MemorySegment desc = gtn_rope_desc.allocate(arena);
                        gtn_rope_desc.size(desc, (int) gtn_rope_desc.sizeof());
                        gtn_rope_desc.style(
                                desc,
                                rope.interleaved ? gatun_h.GTN_ROPE_INTERLEAVED() : gatun_h.GTN_ROPE_HALVES());
                        gtn_rope_desc.rotary(desc, rope.rotary);
                        gtn_rope_desc.max_position(desc, maxPosition);
                        if (q != null && qOut != null) {
                            gtn_rope_desc.has_q(desc, 1);
                            q.write(gtn_rope_desc.q(desc));
                            qOut.write(gtn_rope_desc.q_out(desc));
                        }
                        if (k != null && kCache != null) {
                            gtn_rope_desc.has_k(desc, 1);
                            k.write(gtn_rope_desc.k(desc));
                            kCache.write(gtn_rope_desc.k_cache(desc));
                        }
                        if (v != null && vCache != null) {
                            gtn_rope_desc.has_v(desc, 1);
                            v.write(gtn_rope_desc.v(desc));
                            vCache.write(gtn_rope_desc.v_cache(desc));
                        }
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_rope_plan(device.handle, desc, plan, message));
            this.q = q;
            this.qOut = qOut;
            this.k = k;
            this.kCache = kCache;
            this.v = v;
            this.vCache = vCache;
        }

        private static String precision(
                @Nullable TensorSpec q,
                @Nullable TensorSpec qOut,
                @Nullable TensorSpec k,
                @Nullable TensorSpec kCache,
                @Nullable TensorSpec vCache) {
            StringJoiner types = new StringJoiner(", ");
            if (q != null && qOut != null) {
                types.add("q " + q.dtype()).add("qOut " + qOut.dtype());
            }
            if (k != null && kCache != null) {
                types.add("k " + k.dtype()).add("kCache " + kCache.dtype());
            }
            if (vCache != null) {
                types.add("vCache " + vCache.dtype());
            }
            return types.toString();
        }

        private static @Nullable TensorSpec scales(String name, @Nullable TensorSpec cache) {
            return cache == null || cache.dtype() != DType.S8
                    ? null
                    : Arguments.dense(name, DType.F32, cache.size(0), cache.size(1), cache.size(2));
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call tokens may be fewer
         * than the plan's. A tensor is null exactly where the plan has none of it. A position or slot out of range is
         * an {@link IllegalArgumentException}, too, and leaves outputs untouched.
         *
         * @param stream a stream of the plan's device
         * @param positions S64 {@code [tokens]}, each 0 to {@code maxPosition - 1}
         * @param table F32 {@code [maxPosition, rotary]}, dense: cosines and sines, as {@link #fillTable(Tensor,
         *     double)} makes them
         * @param slots S64 {@code [tokens]}: the row {@code page * page size + offset} of the caches that a token's key
         *     and value go to, or -1 for nowhere; null when token t goes to row t. Two tokens of one slot leave one of
         *     them there, in parts of either
         * @param q the queries
         * @param qOut the rotated queries; it may be {@code q} where element type and strides are the same
         * @param k the keys
         * @param kCache where the rotated keys go; rows that no token goes to are not touched
         * @param v the values
         * @param vCache where the values go
         * @param kScales for a cache of S8: where the scales of the rows go, F32 {@code [pages, page size, heads_k]},
         *     dense. A row of zeros has scale 0, a row that is not finite has scale NaN
         * @param vScales the same for the values
         */
        public void run(
                Stream stream,
                Tensor positions,
                Tensor table,
                @Nullable Tensor slots,
                @Nullable Tensor q,
                @Nullable Tensor qOut,
                @Nullable Tensor k,
                @Nullable Tensor kCache,
                @Nullable Tensor v,
                @Nullable Tensor vCache,
                @Nullable Tensor kScales,
                @Nullable Tensor vScales) {
            check(stream);
            Arguments.input(device, "positions", positions, this.positions, 1);
            Arguments.input(device, "table", table, this.table, 0);
            long tokens = positions.spec.size(0);
            MemorySegment slotMemory = MemorySegment.NULL;
            if (slots != null) {
                boolean stores = this.k != null || this.v != null;
                slotMemory = Arguments.optional(device, "slots", slots, stores ? this.positions : null, 1);
                Arguments.size("slots", slots.spec, 0, tokens, "the tokens of positions");
            }
            MemorySegment qMemory = tokens("q", q, this.q, tokens);
            MemorySegment qOutMemory = tokens("qOut", qOut, this.qOut, tokens);
            MemorySegment kMemory = tokens("k", k, this.k, tokens);
            MemorySegment kCacheMemory = Arguments.optional(device, "kCache", kCache, this.kCache, 0);
            MemorySegment vMemory = tokens("v", v, this.v, tokens);
            MemorySegment vCacheMemory = Arguments.optional(device, "vCache", vCache, this.vCache, 0);
            MemorySegment kScaleMemory = Arguments.optional(device, "kScales", kScales, this.kScales, 0);
            MemorySegment vScaleMemory = Arguments.optional(device, "vScales", vScales, this.vScales, 0);
            Arguments.writable("qOut", qOutMemory);
            Arguments.writable("kCache", kCacheMemory);
            Arguments.writable("vCache", vCacheMemory);
            Arguments.writable("kScales", kScaleMemory);
            Arguments.writable("vScales", vScaleMemory);
            int status = gatun_h.gtn_rope_run(
                    handle,
                    stream.handle,
                    tokens,
                    positions.memory,
                    table.memory,
                    slotMemory,
                    qMemory,
                    kMemory,
                    vMemory,
                    qOutMemory,
                    kCacheMemory,
                    vCacheMemory,
                    kScaleMemory,
                    vScaleMemory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }

        private MemorySegment tokens(
                String name, @Nullable Tensor tensor, @Nullable TensorSpec planned, long tokens) {
            MemorySegment memory = Arguments.optional(device, name, tensor, planned, 1);
            if (tensor != null) {
                Arguments.size(name, tensor.spec, 0, tokens, "the tokens of positions");
            }
            return memory;
        }
    }
}
