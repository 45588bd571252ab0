package io.gatun.bench.validate;

import java.util.Arrays;
import java.util.List;
import java.util.StringJoiner;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Where the windows of a convolution or a pooling lie in x, of one to three dimensions: {@code size=9x7 kernel=3x3
 * stride=2x1 dilation=1x2 before=1x1 after=0x1}.
 *
 * @param size of x
 * @param before what x is padded with at its start
 * @param after what x is padded with at its end
 */
record Windows(List<Integer> size, List<Integer> kernel, List<Integer> stride, List<Integer> dilation,
        List<Integer> before, List<Integer> after) {
    /** With {@code global}, the kernel is as large as x and not in the words. */
    static Windows parse(Words words, boolean global) {
        int[] size = words.sizes("size");
        int[] kernel = global ? size : words.sizes("kernel");
        if (size == null || kernel == null || size.length != kernel.length || size.length < 1 || size.length > 3) {
            throw words.wrong("'size' and 'kernel' with one to three numbers each, such as 9x7, are missing");
        }
        int rank = size.length;
        return new Windows(list(size), list(kernel), sizes(words, "stride", rank, 1), sizes(words, "dilation", rank, 1),
                sizes(words, "before", rank, 0), sizes(words, "after", rank, 0));
    }

    private static List<Integer> list(int[] sizes) {
        return Arrays.stream(sizes).boxed().toList();
    }

    private static List<Integer> sizes(Words words, String name, int rank, int fallback) {
        int[] given = words.sizes(name);
        if (given == null) {
            given = new int[rank];
            Arrays.fill(given, fallback);
        }
        if (given.length != rank) {
            throw words.wrong("'" + name + "' has " + rank + " numbers");
        }
        return list(given);
    }

    /** Adds the words that {@link #parse} takes. */
    void name(StringJoiner name, boolean global) {
        add(name, "size", size, -1);
        if (global) {
            name.add("global");
        } else {
            add(name, "kernel", kernel, -1);
        }
        add(name, "stride", stride, 1);
        add(name, "dilation", dilation, 1);
        add(name, "before", before, 0);
        add(name, "after", after, 0);
    }

    private static void add(StringJoiner name, String word, List<Integer> sizes, int usual) {
        Words.flag(name, sizes.stream().anyMatch(size -> size != usual),
                word + "=" + sizes.stream().map(String::valueOf).collect(Collectors.joining("x")));
    }

    /** The elements of x in a channel. */
    int volume() {
        return product(size);
    }

    /** The elements that a window sees in a channel. */
    int taps() {
        return product(kernel);
    }

    /** The windows. */
    int count() {
        return product(outSizes());
    }

    private static int product(List<Integer> sizes) {
        return sizes.stream().reduce(1, (a, b) -> a * b);
    }

    List<Integer> outSizes() {
        return IntStream.range(0, size.size()).map(this::outSize).boxed().toList();
    }

    private int outSize(int d) {
        int padded = size.get(d) + before.get(d) + after.get(d);
        int reach = dilation.get(d) * (kernel.get(d) - 1) + 1;
        return padded < reach ? 0 : (padded - reach) / stride.get(d) + 1;
    }

    /** Three dimensions, the first of which are {@code missing} where there are fewer. */
    static int[] three(List<Integer> sizes, int missing) {
        int[] three = {missing, missing, missing};
        for (int d = 0; d < sizes.size(); d++) {
            three[3 - sizes.size() + d] = sizes.get(d);
        }
        return three;
    }

    static long[] longs(List<Integer> sizes) {
        return sizes.stream().mapToLong(Integer::longValue).toArray();
    }

    /** The shape of a tensor, [first, second, sizes...]. */
    static long[] shape(long first, long second, List<Integer> sizes) {
        long[] shape = new long[2 + sizes.size()];
        shape[0] = first;
        shape[1] = second;
        for (int d = 0; d < sizes.size(); d++) {
            shape[2 + d] = sizes.get(d);
        }
        return shape;
    }

    /** The strides of [batch, channels, sizes...] with channels first in memory, or last. */
    static long[] strides(long[] shape, boolean channelsFirst) {
        if (channelsFirst) {
            return Operand.rowMajor(shape);
        }
        long[] strides = new long[shape.length];
        strides[1] = 1;
        long stride = Math.max(1, shape[1]);
        for (int d = shape.length - 1; d >= 2; d--) {
            strides[d] = stride;
            stride *= Math.max(1, shape[d]);
        }
        strides[0] = stride;
        return strides;
    }
}
