package io.gatun.bench.report;

import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/** Reports made by hand, for tests: nothing in them was measured. */
final class SampleReports {
    /** Text that a library might return, and that must stay text wherever it is shown. */
    static final String HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
            + " \"'`${1} {{script}} & <!-- ]]> \u2028\u0000\u001b[31m \ud800 end";

    private static final List<String> OPERATORS = List.of("gemm int8 f32->f32", "gemm bf16 bf16->bf16",
            "attention f32", "attention bf16", "layernorm f32->f32", "softmax f32->f32");

    private SampleReports() {}

    static Report.Environment environment(String command) {
        return new Report.Environment("2026-03-04T05:06:07Z", 41.25, "Example CPU 3000 (8 cores)",
                List.of("sse4.2", "avx2", "fma"), 8, 32L << 30, "Linux 6.1 amd64", "OpenJDK 64-Bit Server VM 25",
                "0.1.0+0123456789ab", 1, "quick", "", "1/1", 1, 0, 30, command);
    }

    static Report report(boolean complete, Report.Environment environment, List<Report.BackendEntry> backends,
            List<Report.DeviceEntry> devices, List<Report.Support> support, List<Outcome> outcomes,
            Report.Comparison comparison) {
        Map<Verdict, Integer> counts = new EnumMap<>(Verdict.class);
        outcomes.forEach(outcome -> counts.merge(outcome.verdict(), 1, Integer::sum));
        Map<String, Integer> summary = new LinkedHashMap<>();
        counts.forEach((verdict, count) -> summary.put(verdict.toString(), count));
        return new Report(Report.SCHEMA, complete, environment, backends, devices, summary, support, outcomes,
                comparison);
    }

    /** What is left of a run that ended before its first outcome. */
    static Report empty() {
        return report(false, environment("./gatun validate"), List.of(), List.of(), List.of(), List.of(), null);
    }

    static Outcome outcome(String name, String check, String types, String device, Verdict verdict, String detail,
            double ratio, Timing time) {
        String[] words = name.split(" ");
        String operator = words[check.equals("value") ? 0 : 1];
        double tolerance = ratio == 0 ? 0 : 1e-5;
        return new Outcome(name, check, operator, types, device, verdict, detail,
                verdict == Verdict.UNSUPPORTED ? "" : device.replace(':', '.') + "." + operator + ".tile", ratio,
                ratio * tolerance, tolerance, time);
    }

    /** Every verdict, every check, hostile text, contradictions and a baseline. */
    static Report rich() {
        Timing compute = new Timing(21, 3.5, 1.25, 1.2, 1.4, 1.75, 214.7, 5.1, 0.71, "compute");
        Timing memory = new Timing(51, 0.5, 0.25, 0.24, 0.26, null, 4.2, 16.8, 0.84, "memory");
        Timing few = new Timing(2, 9, 0.001, 0.001, 0.001, null, 9999, 9999, null, null);
        Timing bare = new Timing(5, 9, 8, 7.5, 8.5, null, 0, 0, null, null);
        List<Outcome> outcomes = List.of(
                outcome("gemm int8 f32->f32 m33 k129 n65", "value", "int8 f32->f32", "cpu:avx2", Verdict.PASS, "",
                        0.25, few),
                outcome("gemm int8 f32->f32 m33 k129 n65", "value", "int8 f32->f32", "cpu:scalar", Verdict.FAIL,
                        "out[3, 4] is 1.5, expected 1.25 within 1e-05", 25000, null),
                outcome("gemm bf16 bf16->bf16 m7 k3 n5 seed=7", "value", "bf16 bf16->bf16", "cpu:avx2", Verdict.PASS,
                        "", 0, null),
                outcome("softmax f32->f32 r5 c33", "value", "f32->f32", "cpu:scalar", Verdict.FAIL,
                        "out[0, 0] is NaN, expected 0.2 within 1e-7", Double.NaN, null),
                outcome("softmax bf16->f32 r5 c33", "value", "bf16->f32", "cpu:avx2", Verdict.UNSUPPORTED,
                        "softmax of BF16 is not served", 0, null),
                outcome("gemm f32 f32->f32 m0 k8 n8", "value", "f32 f32->f32", "cpu:avx2", Verdict.MISTRUSTED,
                        "no value tells right from wrong", 0, null),
                outcome("concurrent gemm f32 f32->f32 m8 k8 n8", "concurrent", "f32 f32->f32", "cpu:avx2",
                        Verdict.CRASHED, HOSTILE, 0, null),
                outcome("leak attention f32 b1 q2 k3 hq1 dk8", "leak", "f32", "cpu:scalar", Verdict.TIMED_OUT,
                        "no answer within 30 s", 0, null),
                outcome("refuse gemm int8 f32->f32 m3 k4 n5 nanw", "refuse", "int8 f32->f32", "cpu:avx2",
                        Verdict.NOT_AVAILABLE, "given up after 3 crashes of gemm", 0, null),
                outcome("time gemm int8 f32->f32 m512 k512 n512", "time", "int8 f32->f32", "cpu:avx2", Verdict.PASS, "",
                        0.5, compute),
                outcome("time softmax f32->f32 r512 c512", "time", "f32->f32", "cpu:avx2", Verdict.PASS, "", 0.125,
                        memory),
                outcome("time softmax f32->f32 r9 max18 c512", "time", "f32->f32", "cpu:scalar", Verdict.PASS, "",
                        0.125, bare),
                Outcome.notAvailable("cpu:vnni", "the processor has no AVX-512 VNNI"));
        List<Report.BackendEntry> backends = List.of(
                new Report.BackendEntry("cpu", "0.1.0+0123456789ab", 1, "/opt/gatun/libgatun_cpu.so", "5e".repeat(32),
                        true, ""),
                new Report.BackendEntry("acme", "", 0, "", "", false, "no library " + HOSTILE));
        Map<String, Double> limits = new LinkedHashMap<>();
        limits.put("memory", 2.0e10);
        limits.put("f32", 1.5e11);
        limits.put("bf16", 1.48e11);
        limits.put("s8", 3.0e11);
        List<Report.DeviceEntry> devices = List.of(
                new Report.DeviceEntry("cpu:avx2", "cpu", "AVX2 " + HOSTILE, true, "", 8, true, 32L << 30, limits),
                new Report.DeviceEntry("cpu:scalar", "cpu", "plain x86-64", true, "", 8, true, 32L << 30, Map.of()),
                new Report.DeviceEntry("cpu:vnni", "cpu", "", false, "the processor has no AVX-512 VNNI", 0, true, 0,
                        Map.of()));
        List<Report.Support> support = List.of(
                new Report.Support("cpu:avx2", "gemm", "s8", true, 3, 2, 0, ""),
                new Report.Support("cpu:avx2", "softmax", "bf16", true, 0, 0, 1, "claimed, but 1 of 1 cases declined"),
                new Report.Support("cpu:scalar", "gemm", "s8", null, 1, 0, 0, ""));
        Report.Comparison comparison = new Report.Comparison("2026-03-03T05:06:07Z", 0.1, List.of(
                new Report.Compared("time gemm int8 f32->f32 m512 k512 n512", "cpu:avx2", 0.8, 1.25, "slower"),
                new Report.Compared("time softmax f32->f32 r512 c512", "cpu:avx2", 0.5, 0.25, "faster"),
                new Report.Compared("time softmax f32->f32 r9 max18 c512", "cpu:scalar", 8.1, 8, "same")));
        return report(true, environment("./gatun validate --quick --backend /opt/acme/libgatun_acme.so"), backends,
                devices, support, outcomes, comparison);
    }

    /** As many outcomes as a large run has, with values that look like those of one. */
    static Report large(int size) {
        RandomGenerator random = new SplittableRandom(1);
        List<String> names = List.of("cpu:scalar", "cpu:avx2", "cpu:avx512", "cpu:vnni");
        List<Outcome> outcomes = new ArrayList<>();
        List<Report.Compared> compared = new ArrayList<>();
        for (int i = 0; i < size; i++) {
            String[] operator = OPERATORS.get(random.nextInt(OPERATORS.size())).split(" ", 2);
            String device = names.get(i % names.size());
            boolean timed = random.nextInt(10) == 0;
            String name = (timed ? "time " : "") + operator[0] + " " + operator[1] + " m" + random.nextInt(600) + " k"
                    + random.nextInt(5000) + " n" + random.nextInt(5000)
                    + " strided bias gelu_erf residual inplace seed=" + i;
            int dice = random.nextInt(1000);
            Verdict verdict = dice < 4 ? Verdict.FAIL
                    : dice < 6 ? Verdict.CRASHED
                    : dice < 8 ? Verdict.TIMED_OUT
                    : dice < 30 ? Verdict.UNSUPPORTED
                    : dice < 40 ? Verdict.MISTRUSTED : Verdict.PASS;
            String detail = switch (verdict) {
                case PASS -> "";
                case FAIL -> "out[" + i + "] is 1.25, expected 1.5 within 1e-05, and 17 more of 4096";
                case UNSUPPORTED -> operator[0] + ": this combination of types is not served";
                default -> "exit code 134 (SIGABRT): terminate called after case " + i;
            };
            double ratio = verdict == Verdict.FAIL ? Math.exp(2 * random.nextDouble())
                    : verdict == Verdict.PASS ? Math.exp(-1 - 2 * random.nextExponential() * random.nextDouble()) : 0;
            Timing time = verdict == Verdict.PASS ? timing(random, operator[0]) : null;
            outcomes.add(outcome(name, timed ? "time" : "value", operator[1], device, verdict, detail, ratio, time));
            if (timed && time != null) {
                double change = Math.exp(0.1 * random.nextGaussian());
                String kind = change > 1.1 ? "faster" : change < 0.9 ? "slower" : "same";
                compared.add(new Report.Compared(name, device, time.warmMs() * change, time.warmMs(), kind));
            }
        }
        List<Report.DeviceEntry> devices = names.stream()
                .map(name -> new Report.DeviceEntry(name, "cpu", "level " + name, true, "", 8, true, 32L << 30,
                        Map.of("f32", 4.1e11, "bf16", 4.0e11, "s8", 9.2e11, "memory", 3.3e10)))
                .toList();
        return report(true, environment("./gatun validate"), List.of(), devices, List.of(), outcomes,
                new Report.Comparison("2026-03-03T05:06:07Z", 0.1, compared));
    }

    private static Timing timing(RandomGenerator random, String operator) {
        double intensity = operator.equals("gemm") ? 2 * Math.exp(4 * random.nextDouble())
                : operator.equals("attention") ? 4 * Math.exp(3 * random.nextDouble())
                : 0.3 * Math.exp(random.nextDouble());
        double roof = Math.min(410, 33 * intensity);
        double part = 0.35 + 0.6 * random.nextDouble();
        double ms = Math.exp(4 * random.nextDouble() - 2);
        return new Timing(21, 2 * ms, ms, 0.95 * ms, 1.08 * ms, 1.4 * ms, part * roof, part * roof / intensity, part,
                roof < 410 ? "memory" : "compute");
    }
}
