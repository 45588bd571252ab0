package io.gatun.bench.report;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Everything that a validation run found out: what its JSON file holds, and what the other forms are made from.
 *
 * @param schema the version of this form
 * @param complete whether the run came to its end; a report that is not complete holds what there was until then
 * @param environment where and how it ran
 * @param backends the libraries that ran, or could not
 * @param devices the devices that were asked for
 * @param summary how many outcomes have each verdict
 * @param support what each device claims to serve, beside what it served
 * @param outcomes what every case gave on every device
 * @param comparison how the times compare with an earlier report, or null
 */
public record Report(int schema, boolean complete, Environment environment, List<BackendEntry> backends,
        List<DeviceEntry> devices, Map<String, Integer> summary, List<Support> support, List<Outcome> outcomes,
        @Nullable Comparison comparison) {
    /** The version of this form that is written. */
    public static final int SCHEMA = 1;

    /**
     * Where and how a run took place.
     *
     * @param started when, as ISO 8601 in UTC
     * @param seconds how long it took
     * @param cpu the processor's own name
     * @param isa the instruction sets that the processor and the operating system offer, as far as kernels care
     * @param processors how many the process may use
     * @param memoryBytes of the machine
     * @param os the operating system and its version
     * @param jvm the Java virtual machine and its version
     * @param gatun release and source hash of the native library
     * @param abi the version of the C interface
     * @param catalogue {@code quick}, {@code default}, {@code exhaustive} or {@code case}
     * @param filter the pattern that chose among its cases, or empty
     * @param shard which part of its cases, as {@code 1/1}
     * @param seed of shapes and values
     * @param threads that were asked for, 0 for the usual number
     * @param timeoutSeconds after which a case without an answer is ended
     * @param command what repeats the run
     */
    public record Environment(String started, double seconds, String cpu, List<String> isa, int processors,
            long memoryBytes, String os, String jvm, String gatun, int abi, String catalogue, String filter,
            String shard, long seed, int threads, double timeoutSeconds, String command) {}

    /**
     * A backend library.
     *
     * @param path the file, or empty
     * @param sha256 of the file, in hex, or empty
     */
    public record BackendEntry(String name, String version, int abiVersion, String path, String sha256,
            boolean available, String reason) {}

    /**
     * A device.
     *
     * @param limits measured ceilings by name, {@code f32}, {@code bf16}, {@code s8} in operations per second and
     *     {@code memory} in bytes per second; those that the device cannot tell are not there
     */
    public record DeviceEntry(String name, String backend, String description, boolean available, String reason,
            int threads, boolean hostMemory, long memoryBytes, Map<String, Double> limits) {}

    /**
     * What a device claims to serve, beside what it did.
     *
     * @param dtype of the weights for gemm, of the first operand for the others
     * @param claimed true or false, or null where the backend makes no claims
     * @param ran cases that the device did not decline
     * @param passed those of them that passed
     * @param declined cases that it declined
     * @param contradiction how claim and deeds contradict each other, or empty
     */
    public record Support(String device, String operator, String dtype, @Nullable Boolean claimed, int ran, int passed,
            int declined, String contradiction) {}

    /**
     * How times compare with an earlier report.
     *
     * @param started when the earlier run started
     * @param threshold by which part a case must be slower to count as such
     * @param entries the cases that both reports timed on the same device
     */
    public record Comparison(String started, double threshold, List<Compared> entries) {}

    /**
     * One case's time then and now.
     *
     * @param beforeMs the median warm run of the earlier report
     * @param afterMs the median warm run of this one
     * @param verdict {@code same}, {@code faster}, {@code slower}, or {@code noise}: further apart than the threshold,
     *     but not than the runs among themselves
     */
    public record Compared(String name, String device, double beforeMs, double afterMs, String verdict) {}

    /** Whether something passed and nothing failed, crashed, timed out, contradicts its claims or became slower. */
    public boolean good() {
        return count(Verdict.PASS) > 0
                && count(Verdict.FAIL) == 0
                && count(Verdict.CRASHED) == 0
                && count(Verdict.TIMED_OUT) == 0
                && support.stream().allMatch(entry -> entry.contradiction().isEmpty())
                && (comparison == null
                        || comparison.entries().stream().noneMatch(entry -> entry.verdict().equals("slower")));
    }

    /** How many outcomes have a verdict. */
    public int count(Verdict verdict) {
        return summary.getOrDefault(verdict.toString(), 0);
    }
}
