package io.gatun.bench.memory;

import io.gatun.MemoryDomain;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;

/** Programs of known layer shapes, as far as they ask for memory. The same seed gives the same trace. */
public enum Workload {
    /** A decoder (16 layers of 2048, 8 heads of keys of 64, BF16) that serves 64 requests at a time, with a paged cache. */
    DECODER {
        @Override
        void generate(Tape tape, SplittableRandom random) {
            int layers = 16;
            long hidden = 2048;
            long inner = 8192;
            long page = 2 * 16 * 8 * 64 * BF16; // keys and values of 16 tokens
            for (int layer = 0; layer < layers; layer++) {
                tape.take(MemoryDomain.WEIGHTS, hidden * (hidden + 1024 + hidden) * BF16, 0);
                tape.take(MemoryDomain.WEIGHTS, 3 * hidden * inner * BF16, 0);
            }
            List<Sequence> live = new ArrayList<>();
            int started = 0;
            while (started < 160 || !live.isEmpty()) {
                long rows = live.size();
                while (live.size() < 64 && started < 160) {
                    Sequence sequence = new Sequence(tape.request());
                    sequence.left = 16 + random.nextInt(240);
                    int prompt = 32 + random.nextInt(992);
                    sequence.grow(tape, layers, page, prompt);
                    rows += prompt;
                    live.add(sequence);
                    started++;
                    if (rows > 2048) {
                        break; // the others' prompts wait for the next step
                    }
                }
                step(tape, layers, rows, hidden, inner);
                for (Sequence sequence : List.copyOf(live)) {
                    sequence.grow(tape, layers, page, 1);
                    if (--sequence.left == 0) {
                        sequence.pages.forEach(tape::give);
                        tape.end(sequence.request);
                        live.remove(sequence);
                    }
                }
            }
        }

        private void step(Tape tape, int layers, long rows, long hidden, long inner) {
            int step = tape.request();
            int x = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * BF16, step);
            for (int layer = 0; layer < layers; layer++) {
                int normed = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * BF16, step);
                int qkv = tape.take(MemoryDomain.ACTIVATIONS, rows * (hidden + 1024) * BF16, step);
                tape.give(normed);
                int attended = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * BF16, step);
                tape.give(qkv);
                int sum = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * BF16, step);
                tape.give(attended);
                tape.give(x);
                int gates = tape.take(MemoryDomain.ACTIVATIONS, rows * 2 * inner * BF16, step);
                int mixed = tape.take(MemoryDomain.ACTIVATIONS, rows * inner * BF16, step);
                tape.give(gates);
                x = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * BF16, step);
                tape.give(mixed);
                tape.give(sum);
            }
            tape.give(x);
            tape.end(step);
        }
    },

    /** Training of a decoder (12 layers of 768, 8 sequences of 512, FP32) for 12 steps with Adam. */
    TRAINING {
        @Override
        void generate(Tape tape, SplittableRandom random) {
            int layers = 12;
            long hidden = 768;
            long[] weights = {3 * hidden * hidden, hidden * hidden, 4 * hidden * hidden, 4 * hidden * hidden, hidden, hidden};
            for (int layer = 0; layer < layers; layer++) {
                for (long elements : weights) {
                    tape.take(MemoryDomain.WEIGHTS, elements * F32, 0);
                    tape.take(MemoryDomain.OPTIMIZER, elements * F32, 0);
                    tape.take(MemoryDomain.OPTIMIZER, elements * F32, 0);
                }
            }
            for (int i = 0; i < 12; i++) {
                int step = tape.request();
                long rows = 8L * (384 + 8 * random.nextInt(17)); // sequences are cut to the longest
                Deque<int[]> saved = new ArrayDeque<>();
                for (int layer = 0; layer < layers; layer++) {
                    int workspace = tape.take(MemoryDomain.WORKSPACE, rows * 12 * F32, step);
                    int[] kept = new int[6];
                    long[] widths = {hidden, 3 * hidden, hidden, hidden, 4 * hidden, 4 * hidden};
                    for (int k = 0; k < kept.length; k++) {
                        kept[k] = tape.take(MemoryDomain.ACTIVATIONS, rows * widths[k] * F32, step);
                    }
                    tape.give(workspace);
                    saved.push(kept);
                }
                List<Integer> gradients = new ArrayList<>();
                int flowing = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * F32, step);
                while (!saved.isEmpty()) {
                    int[] kept = saved.pop();
                    int inner = tape.take(MemoryDomain.ACTIVATIONS, rows * 4 * hidden * F32, step);
                    for (long elements : weights) {
                        gradients.add(tape.take(MemoryDomain.GRADIENTS, elements * F32, step));
                    }
                    for (int tensor : kept) {
                        tape.give(tensor);
                    }
                    tape.give(inner);
                    int next = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * F32, step);
                    tape.give(flowing);
                    flowing = next;
                }
                tape.give(flowing);
                gradients.forEach(tape::give);
                tape.end(step);
            }
        }
    },

    /** MiniLM (6 layers of 384, FP32) that serves texts of 2 to 512 tokens, eight at a time. */
    MINILM {
        @Override
        void generate(Tape tape, SplittableRandom random) {
            long hidden = 384;
            tape.take(MemoryDomain.WEIGHTS, 30522 * hidden * F32, 0);
            for (int layer = 0; layer < 6; layer++) {
                tape.take(MemoryDomain.WEIGHTS, 4 * hidden * hidden * F32, 0);
                tape.take(MemoryDomain.WEIGHTS, 8 * hidden * hidden * F32, 0);
            }
            List<Text> live = new ArrayList<>();
            for (int started = 0; started < 3000 || !live.isEmpty(); ) {
                while (live.size() < 8 && started < 3000) {
                    Text text = new Text(tape.request(), 2 + (long) (510 * Math.pow(random.nextDouble(), 3)));
                    text.x = tape.take(MemoryDomain.ACTIVATIONS, text.rows * hidden * F32, text.request);
                    live.add(text);
                    started++;
                }
                Text text = live.get(random.nextInt(live.size()));
                if (text.advance(tape, hidden)) {
                    live.remove(text);
                }
            }
        }
    };

    private static final long BF16 = 2;
    private static final long F32 = 4;

    abstract void generate(Tape tape, SplittableRandom random);

    /**
     * Makes a trace.
     *
     * @param seed of what is random in it
     * @return the trace
     */
    public Trace trace(long seed) {
        Tape tape = new Tape();
        generate(tape, new SplittableRandom(seed));
        return new Trace(tape.events);
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** A trace in the making. */
    private static final class Tape {
        final List<Trace.Event> events = new ArrayList<>();
        private int tensors;
        private int requests;

        int request() {
            return ++requests;
        }

        int take(MemoryDomain domain, long bytes, int request) {
            events.add(new Trace.Take(tensors, domain, bytes, 64, request));
            return tensors++;
        }

        void give(int tensor) {
            events.add(new Trace.Give(tensor));
        }

        void end(int request) {
            events.add(new Trace.End(request));
        }
    }

    /** A request of the decoder. */
    private static final class Sequence {
        final int request;
        final List<Integer> pages = new ArrayList<>();
        int left;
        private int length;

        Sequence(int request) {
            this.request = request;
        }

        void grow(Tape tape, int layers, long page, int tokens) {
            int before = Math.ceilDiv(length, 16);
            length += tokens;
            for (int i = before; i < Math.ceilDiv(length, 16); i++) {
                for (int layer = 0; layer < layers; layer++) {
                    pages.add(tape.take(MemoryDomain.KV_CACHE, page, request));
                }
            }
        }
    }

    /** A request of MiniLM, a part of a layer at a time. */
    private static final class Text {
        final int request;
        final long rows;
        int x;
        private int at;
        private int qkv;
        private int attended;
        private int sum;
        private int inner;

        Text(int request, long rows) {
            this.request = request;
            this.rows = rows;
        }

        /** Does the next part, and says whether it was the last. */
        boolean advance(Tape tape, long hidden) {
            switch (at++ % 4) {
                case 0 -> qkv = tape.take(MemoryDomain.ACTIVATIONS, rows * 3 * hidden * F32, request);
                case 1 -> {
                    attended = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * F32, request);
                    tape.give(qkv);
                }
                case 2 -> {
                    sum = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * F32, request);
                    tape.give(attended);
                    tape.give(x);
                    inner = tape.take(MemoryDomain.ACTIVATIONS, rows * 4 * hidden * F32, request);
                }
                default -> {
                    x = tape.take(MemoryDomain.ACTIVATIONS, rows * hidden * F32, request);
                    tape.give(inner);
                    tape.give(sum);
                }
            }
            if (at < 24) {
                return false;
            }
            tape.give(x);
            tape.end(request);
            return true;
        }
    }
}
