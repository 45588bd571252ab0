package io.gatun;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** What the control groups (version 2) of this process allow it: {@code memory.max} of its group and of those above. */
final class ContainerMemory {
    private static final Path GROUPS = Path.of("/proc/self/cgroup");
    private static final Path ROOT = Path.of("/sys/fs/cgroup");

    private ContainerMemory() {}

    /** Returns the most bytes that the process may have at this moment, {@link Long#MAX_VALUE} for no limit. */
    static long limit() {
        return limit(GROUPS, ROOT);
    }

    static long limit(Path groups, Path root) {
        long least = Long.MAX_VALUE;
        try {
            for (String line : Files.readAllLines(groups)) {
                if (!line.startsWith("0::/")) {
                    continue;
                }
                Path group = root.resolve(line.substring("0::/".length())).normalize();
                for (; group != null && group.startsWith(root); group = group.getParent()) {
                    least = Math.min(least, read(group.resolve("memory.max")));
                }
            }
        } catch (IOException e) {
            return Long.MAX_VALUE; // not a Linux, or without groups
        }
        return least;
    }

    private static long read(Path file) {
        try {
            String text = Files.readString(file).strip();
            return text.equals("max") ? Long.MAX_VALUE : Long.parseLong(text);
        } catch (IOException | NumberFormatException e) {
            return Long.MAX_VALUE; // the root group has none
        }
    }
}
