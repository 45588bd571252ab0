package io.gatun.bench.compare;

import io.gatun.DType;
import io.gatun.bench.compare.Task.Attend;
import io.gatun.bench.compare.Task.Convolve;
import java.util.ArrayList;
import java.util.List;

/** The shapes that are compared. */
final class Catalogue {
    private static final DType[] FORMATS = {DType.S8, DType.BF16, DType.F32};

    private Catalogue() {}

    static List<Task> full() {
        List<Task> tasks = new ArrayList<>();
        for (DType format : FORMATS) {
            tasks.add(new Task.Gemm(format, 4096, 4096, 4096, false));
            tasks.add(new Task.Gemm(format, 1024, 1024, 1024, false));
            for (int rows : new int[] {32, 1}) {
                tasks.add(new Task.Gemm(format, rows, 4096, 4096, false));
                tasks.add(new Task.Gemm(format, rows, 4096, 4096, true));
            }
        }
        for (int rows : new int[] {32, 1}) {
            tasks.add(new Task.Int4(rows, 4096, 4096, true));
        }
        for (DType format : new DType[] {DType.BF16, DType.F32}) {
            convolutions(tasks, format);
        }
        for (DType format : new DType[] {DType.BF16, DType.F32}) {
            for (int length : new int[] {1024, 4096}) {
                for (int d : new int[] {64, 128}) {
                    tasks.add(new Attend(Attend.Kind.CAUSAL, format, 16, length, length, d, 0));
                }
            }
            tasks.add(new Attend(Attend.Kind.WINDOW, format, 16, 16384, 16384, 64, 1024));
            tasks.add(new Attend(Attend.Kind.DECODE, format, 16, 1, 4096, 128, 0));
        }
        rows(tasks);
        for (DType format : FORMATS) {
            tasks.add(new Task.MiniLm(format, 32, 128));
            tasks.add(new Task.MiniLm(format, 1, 128));
        }
        tasks.add(new Task.Call());
        return tasks;
    }

    /**
     * Every name, at shapes that take milliseconds; rows keep theirs, since in caches a copy is no limit. FP32 alone
     * runs cold products: the others have more sets of weights to pack for each peer.
     */
    static List<Task> quick() {
        List<Task> tasks = new ArrayList<>();
        for (DType format : FORMATS) {
            tasks.add(new Task.Gemm(format, 512, 512, 512, false));
        }
        tasks.add(new Task.Gemm(DType.F32, 1, 4096, 4096, true));
        tasks.add(new Task.Int4(1, 1024, 1024, false));
        for (DType format : new DType[] {DType.BF16, DType.F32}) {
            tasks.add(new Convolve(format, 2, 64, 64, 28, 3, 1, 1));
            tasks.add(new Convolve(format, 2, 64, 256, 28, 1, 1, 1));
            tasks.add(new Convolve(format, 2, 3, 64, 112, 7, 2, 1));
            tasks.add(new Convolve(format, 2, 128, 128, 28, 3, 1, 128));
            tasks.add(new Convolve(format, 3, 16, 16, 16, 3, 1, 1));
        }
        for (DType format : new DType[] {DType.BF16, DType.F32}) {
            tasks.add(new Attend(Attend.Kind.CAUSAL, format, 4, 512, 512, 64, 0));
            tasks.add(new Attend(Attend.Kind.WINDOW, format, 4, 1024, 1024, 64, 128));
            tasks.add(new Attend(Attend.Kind.DECODE, format, 16, 1, 4096, 128, 0));
        }
        rows(tasks);
        for (DType format : FORMATS) {
            tasks.add(new Task.MiniLm(format, 1, 128));
        }
        tasks.add(new Task.Call());
        return tasks;
    }

    /** Layers of ResNet-50 and of MobileNet, and one of a network on volumes. */
    private static void convolutions(List<Task> tasks, DType format) {
        tasks.add(new Convolve(format, 2, 64, 64, 56, 3, 1, 1));
        tasks.add(new Convolve(format, 2, 256, 256, 14, 3, 1, 1));
        tasks.add(new Convolve(format, 2, 256, 64, 56, 1, 1, 1));
        tasks.add(new Convolve(format, 2, 64, 256, 56, 1, 1, 1));
        tasks.add(new Convolve(format, 2, 3, 64, 224, 7, 2, 1));
        tasks.add(new Convolve(format, 2, 128, 128, 56, 3, 1, 128));
        tasks.add(new Convolve(format, 3, 32, 32, 32, 3, 1, 1));
    }

    private static void rows(List<Task> tasks) {
        for (Task.Rows.Kind kind : Task.Rows.Kind.values()) {
            tasks.add(new Task.Rows(kind, 4096, 4096));
        }
    }
}
