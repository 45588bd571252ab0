package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.NotAvailableException;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Verdict;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class ValidationTest {
    private static final List<String> LINES = List.of(
            "gemm f32 f32->f32 m5 k33 n17 bias residual seed=3",
            "gemm bf16 bf16->bf16 m5 k33 n17 strided bias seed=3",
            "gemm int8 f32->f32 m5 k33 n17 bias gelu_erf residual inplace seed=3",
            "attention f32 b2 q9 k20 hq2 dk32 causal hnd lse seed=3",
            "attention bf16 packed q20 k30 hq2 hk1 dk32 window=5,0 qlen=3,9 klen=7,22 seed=3",
            "attention f16 b2 q9 k20 hq2 dk32 causal kv=s8 paged=8 globals=2 documents slopes sinklogits seed=3",
            "attention f32 b2 q20 k20 hq4 hk2 dk16 blocks=8x8 blockmasks order bias softcap=9.0 perhead lse seed=3",
            "sparse f16 mean b2 q9 k20 hq4 hk2 dk16 count4 given causal seed=3",
            "layernorm f32->f32 r5 n33 residual sum seed=3",
            "rmsnorm bf16->bf16 r5 n33 strided seed=3",
            "softmax f32->f32 r5 n33 seed=3",
            "activation gelu_tanh f32->f32 r5 n33 bias seed=3");

    /** What a broken kernel may do to an output. */
    private enum Damage {
        ONE_ELEMENT,
        EVERY_ELEMENT,
        NOT_WRITTEN,
        NAN,
        BEYOND_THE_END,
        BEFORE_THE_START;

        void tamper(Operand output, long[] run) {
            long last = Arrays.stream(run).reduce(1, (a, b) -> a * b) - 1;
            output.forEach(run, (index, element) -> {
                float value = (float) output.get(element);
                switch (this) {
                    case ONE_ELEMENT -> output.set(element, index == last / 2 ? value + 1 : value);
                    case EVERY_ELEMENT -> output.set(element, value * 1.02f);
                    case NAN -> output.set(element, index == last ? Float.NaN : value);
                    case NOT_WRITTEN -> {
                        if (index == 0) {
                            output.poison(element);
                        }
                    }
                    case BEYOND_THE_END -> {
                        if (index == last) {
                            output.set(element + 1, 0);
                        }
                    }
                    case BEFORE_THE_START -> {
                        if (index == 0) {
                            output.set(element - 1, 0);
                        }
                    }
                }
            });
        }
    }

    static Stream<Arguments> damages() {
        return LINES.stream().flatMap(line -> Stream.of(Damage.values()).map(damage -> Arguments.of(line, damage)));
    }

    private static List<Outcome> run(String device, Trial.Tamper tamper, String... lines) {
        List<Outcome> outcomes = new ArrayList<>();
        try (Validation validation = Validation.open(device, 0, tamper)) {
            validation.run(Stream.of(lines).map(Case::parse).toList(), outcomes::add);
        }
        return outcomes;
    }

    private static List<Outcome> available(List<Outcome> outcomes) {
        return outcomes.stream().filter(outcome -> outcome.verdict() != Verdict.NOT_AVAILABLE).toList();
    }

    @Test
    void goodKernelsPass() {
        for (Outcome outcome : available(run("cpu", Trial.Tamper.NONE, LINES.toArray(String[]::new)))) {
            assertEquals(Verdict.PASS, outcome.verdict(), outcome.toString());
            assertTrue(outcome.ratio() <= 1 && outcome.error() <= outcome.tolerance(), outcome.toString());
        }
    }

    @ParameterizedTest
    @MethodSource("damages")
    void damageIsFound(String line, Damage damage) {
        Outcome outcome = available(run("cpu:scalar", damage::tamper, line)).getFirst();
        assertEquals(Verdict.FAIL, outcome.verdict(), outcome.toString());
        assertFalse(outcome.detail().isEmpty());
    }

    @Test
    void everyLevelIsRunOrSaidToBeMissing() {
        List<Outcome> outcomes = run("cpu", Trial.Tamper.NONE, LINES.getFirst());
        List<String> devices = outcomes.stream().map(Outcome::device).toList();
        assertTrue(devices.contains("cpu:scalar"), devices.toString());
        assertTrue(devices.contains("cpu:avx2"), devices.toString());
        assertFalse(devices.contains("cpu"), devices.toString());
        for (Outcome outcome : outcomes) {
            if (outcome.verdict() == Verdict.NOT_AVAILABLE) {
                assertFalse(outcome.detail().isEmpty());
            } else {
                assertTrue(outcome.kernel().startsWith(outcome.device().replace(':', '.') + "."), outcome.toString());
            }
        }
    }

    @Test
    void aLevelIsOneDevice() {
        try (Validation validation = Validation.open("cpu:scalar", 1)) {
            assertEquals(List.of("cpu:scalar"), validation.subjects().stream().map(Subject::name).toList());
            assertEquals(1, validation.subjects().getFirst().device().info().threads());
            assertEquals(List.of(), validation.missing());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"cpu:none", "none", "none:1", ""})
    void whatIsNotThere(String device) {
        assertThrows(NotAvailableException.class, () -> Validation.open(device, 0));
    }

    @ParameterizedTest
    @ValueSource(strings = {"cpu:avx2", "cpu:amx", "simt:sm_80", "cuda:0", "cuda"})
    void anotherKernelIsFound(String device) {
        String level = device.replaceFirst("[^:]*:?", "");
        String backend = device.replaceFirst(":.*", "");
        String rule = Subject.kernelPrefix(device);
        assertEquals(level.matches("\\d*") ? backend + "." : backend + "." + level + ".", rule);
        assertFalse("cpu.scalar.gemm.f32".startsWith(rule));
    }

    /** A rectified number is zero half of the time: then nothing tells right from wrong. */
    @Test
    void aTestOfNothingIsMistrusted() {
        String[] lines = IntStream.range(0, 20)
                .mapToObj(seed -> "activation relu f32->f32 r1 n1 seed=" + seed)
                .toArray(String[]::new);
        Set<Verdict> verdicts = run("cpu:scalar", Trial.Tamper.NONE, lines).stream()
                .map(Outcome::verdict)
                .collect(Collectors.toSet());
        assertEquals(Set.of(Verdict.PASS, Verdict.MISTRUSTED), verdicts);
    }

    /** One key, which the mask of its block may or may not hide. */
    @Test
    void whatChanceHidesIsMistrusted() {
        String[] lines = IntStream.range(0, 20)
                .mapToObj(seed -> "attention f32 q1 k1 hq1 dk16 blocks=1x1 blockmasks seed=" + seed)
                .toArray(String[]::new);
        Set<Verdict> verdicts = run("cpu:scalar", Trial.Tamper.NONE, lines).stream()
                .map(Outcome::verdict)
                .collect(Collectors.toSet());
        assertEquals(Set.of(Verdict.PASS, Verdict.MISTRUSTED), verdicts);
    }

    @Test
    void nothingToDoPasses() {
        Outcome outcome = run("cpu:scalar", Trial.Tamper.NONE, "gemm f32 f32->f32 m0 max4 k8 n8").getFirst();
        assertEquals(Verdict.PASS, outcome.verdict(), outcome.toString());
    }

    @Test
    void declinedIsUnsupported() {
        Trial.Tamper decline = (_, _) -> {
            throw new UnsupportedOperationException("not here");
        };
        Outcome outcome = run("cpu:scalar", decline, LINES.getFirst()).getFirst();
        assertEquals(Verdict.UNSUPPORTED, outcome.verdict());
        assertEquals("not here", outcome.detail());
    }

    @Test
    void anExceptionFails() {
        Trial.Tamper busy = (_, _) -> {
            throw new IllegalStateException("busy");
        };
        Outcome outcome = run("cpu:scalar", busy, LINES.getFirst()).getFirst();
        assertEquals(Verdict.FAIL, outcome.verdict());
        assertTrue(outcome.detail().contains("busy"));
    }
}
