package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.validate.Catalogue.Extent;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CatalogueTest {
    private static List<String> names(List<Case> cases) {
        return cases.stream().map(Case::name).toList();
    }

    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4, 5, -77, Long.MAX_VALUE})
    void everyNameIsItsCase(long seed) {
        List<Case> cases = Catalogue.cases(Extent.DEFAULT, seed);
        for (Case test : cases) {
            assertEquals(test, Case.parse(test.name()));
            assertEquals(test.name(), Case.parse(test.name()).name());
        }
        assertEquals(cases.size(), new HashSet<>(names(cases)).size(), "names are distinct");
        assertTrue(names(cases).containsAll(names(Catalogue.cases(Extent.QUICK, seed))));
    }

    @Test
    void everyOperatorIsThere() {
        List<Case> cases = Catalogue.cases(Extent.QUICK, 1);
        Set<String> operators = cases.stream().map(Case::operator).collect(Collectors.toSet());
        assertEquals(
                Set.of(
                        "gemm", "conv", "pooling", "attention", "merge", "rope", "select", "sparse", "route", "mix", "layernorm",
                        "rmsnorm", "softmax", "activation", "glu", "fake_quantize", "device"),
                operators);
    }

    @Test
    void everyCheckIsThere() {
        Set<String> checks = Catalogue.cases(Extent.QUICK, 1).stream().map(Case::check).collect(Collectors.toSet());
        assertEquals(Set.of("value", "concurrent", "leak", "refuse", "time"), checks);
    }

    @Test
    void whatIsTimedComesLast() {
        List<String> checks = Catalogue.cases(Extent.DEFAULT, 1).stream().map(Case::check).toList();
        List<String> last = checks.subList(checks.indexOf("time"), checks.size());
        assertTrue(last.stream().allMatch(check -> check.equals("time")), last.toString());
    }

    @Test
    void theLargestExtentHoldsTheOthers() {
        Set<String> all = new HashSet<>(names(Catalogue.cases(Extent.EXHAUSTIVE, 3)));
        assertTrue(all.containsAll(names(Catalogue.cases(Extent.DEFAULT, 3))));
        assertTrue(all.size() > 10 * Catalogue.cases(Extent.DEFAULT, 3).size(), all.size() + " cases");
    }

    @Test
    void theSeedDealsShapesAndNothingElseDoes() {
        assertEquals(names(Catalogue.cases(Extent.QUICK, 9)), names(Catalogue.cases(Extent.QUICK, 9)));
        assertNotEquals(
                names(Catalogue.cases(Extent.QUICK, 9)),
                names(Catalogue.cases(Extent.QUICK, 10)).stream()
                        .map(name -> name.replace("seed=10", "seed=9"))
                        .toList());
    }

    @Test
    void bracesMultiplyAndBracketsDeal() {
        List<Case> cases = Catalogue.expand(
                """
                # a comment
                softmax f32->f32 r{1|2|3|4} n{5|6} [|scale=2] # another
                """,
                4);
        assertEquals(8, cases.size());
        assertEquals(4, names(cases).stream().filter(name -> name.contains("scale=2.0")).count());
        assertEquals("softmax f32->f32 r1 n5 seed=4", names(cases).getFirst().replace(" scale=2.0", ""));
        assertEquals(
                List.of("softmax f32->f32 r9 n1 seed=4", "softmax f32->f32 r10 n1 seed=4",
                        "softmax f32->f32 r11 n1 seed=4"),
                names(Catalogue.expand("softmax f32->f32 r{9..11} n1", 4)));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "convolution f32->f32",
                "gemm f32->f32 m1 k1 n1",
                "gemm f32 m1 k1 n1",
                "gemm f32 f32->f32 m1 k1",
                "gemm f32 f32->f32 m1 k1 n1 gelu",
                "gemm f32 f32->f32 m1 k1 n1 inplace",
                "gemm f32 f32->f32 m99999999999999999999 k1 n1",
                "gemm u4 f32->f32 m1 k1 n1 group=16",
                "gemm f32 2of4 f32->f32 m1 k1 n1",
                "gemm bf16 2of4 f32->f32 m1 k1 n1 nan",
                "fake_quantize f32->f32 r1 n1",
                "fake_quantize int8 f32->bf16 r1 n1 inplace",
                "gemm f32 f32->f32 m1 k1 n1 symmetric",
                "refuse gemm u4 row_out_of_range",
                "attention s8 q1 k1 hq1 dk1",
                "attention f32 q1 k1 hq1 dk1 kv=u8",
                "attention f32 q1 k1 hq1 dk1 out=bf16",
                "attention f32 q1 k1 hq1 dk1 bias=none",
                "attention f32 q1 k1 hq1 dk1 blocks",
                "attention f32 q1 k1 hq1 dk1 blocks=4",
                "attention f32 q1 k1 hq1 dk1 blocks=4x0",
                "attention f32 q1 k1 hq1 dk1 blockmasks",
                "attention f32 q1 k1 hq4 hk2 dk1 documents=3x1",
                "attention f32 q1 k1 hq1 dk1 dilation=0",
                "attention f32 q1 k1 hq1 dk1 sinks=x",
                "attention f32 q1 k1 hq1 dk1 window=x,0",
                "attention f32 q1 k1 hq1 dk1 paged=16 qkv",
                "attention random=x",
                "attention random=1 causal",
                "softmax f16->f16 r1 n1",
                "attention f32 q1 k1 hq3 hk2 dk1",
                "attention f32 b2 q1 k1 hq1 dk1 klen=1",
                "attention f32 q1 k1 hq1 dk1 klen=x",
                "attention f32 q1 k1 hq1 dk1 window=3",
                "attention f32 q1 k1 hq1 dk1 packed",
                "merge f32->f32 b1 q1 hq1 dv1",
                "merge f32->bf16 parts1 q1 hq1 dv1 inplace",
                "merge f32->s8 parts1 q1 hq1 dv1",
                "merge f32->f32 parts1 q1 hq0 dv1",
                "rope f32->f32 t1 hq1 dk4 rotary=3",
                "rope f32->f32 t1 hq1 dk4 rotary=6",
                "rope f32->f32 t1 hq1 dk4 parts=v",
                "rope f32->f32 t1 hq1 dk4 kv=u8",
                "rope f32->f32 t1 hq1 dk4 cache=4",
                "rope f32->f32 t5 hq1 dk4 cache=1x4 inorder",
                "sparse f32 q1 k1 hq1 dk4",
                "sparse f32 q1 k1 hq1 dk4 dv0 count1",
                "sparse f32 lsh q1 k1 hq1 dk4 count1 given",
                "sparse f32 lsh q1 k1 hq1 dk4 count1 first1",
                "sparse f32 lsh q1 k1 hq1 dk4 count1 ragged",
                "sparse f32 mean q1 k1 hq1 dk4 count1 window=3",
                "sparse f32 nsa q1 k1 hq1 dk4 count1",
                "sparse f32 nsa q1 k1 hq1 dk4 count1 window=3 bk6",
                "sparse f32 nsa q1 k1 hq1 dk4 count1 window=3 packed",
                "sparse f32 nsa q1 k1 hq1 dk4 count1 window=3 sinklogits",
                "route f32 t1 experts4 top5",
                "route f32 t1 experts4 top0",
                "route f32 t1 experts4 top1 groups=3x1",
                "route f32 t1 experts4 top3 groups=2x1",
                "route s8 t1 experts4 top1",
                "mix f32->f32 t1 h1 n4",
                "mix f32->f32 parts1 t1 h0 n4",
                "mix f32->f32 parts1 t1 h1 n4 inplace",
                "mix f32->s8 parts1 t1 h1 n4",
                "glu silu f32->u8 r1 n4",
                "glu silu f32->f32 r1 n4 halves inplace",
                "glu silu f32->bf16 r1 n4 inplace",
                "layernorm u8->f32 r1 n4",
                "layernorm f32->u8 r1 n4 inplace",
                "gemm f32 u8->f32 m1 k1 n1",
                "gemm int8 f32->u8 m1 k1 n1",
                "gemm int8 u8->f32 m1 k1 n1 lora=2",
                "softmax f32->f32 r1 n1 seed=x",
                "layernorm f32->f32 r1 n1 eps=tiny",
                "refuse softmax f32",
                "refuse softmax f32 long_length",
                "refuse gemm f32 nan_weight"
            })
    void wrongLinesSayWhy(String line) {
        IllegalArgumentException e = assertThrows(IllegalArgumentException.class, () -> Case.parse(line));
        String message = String.valueOf(e.getMessage());
        assertTrue(message.startsWith("case '" + line + "': "), message);
    }

    @Test
    void degenerateCases() {
        assertTrue(OperatorCase.parse("gemm f32 f32->f32 m0 k1 n1").degenerate());
        assertTrue(OperatorCase.parse("attention f32 q2 k0 hq1 dk1").degenerate());
        assertTrue(OperatorCase.parse("attention f32 b1 q2 k3 hq1 dk1 qlen=0").degenerate());
        assertFalse(OperatorCase.parse("attention f32 q2 k1 hq1 dk1 causal").degenerate());
        assertTrue(OperatorCase.parse("merge f32->f32 parts0 q2 hq1 dv3").degenerate());
        assertFalse(OperatorCase.parse("merge f32->f32 parts1 q2 hq1 dv3").degenerate());
        assertTrue(OperatorCase.parse("rope f32->f32 t2 hq1 dk4 parts=kv cache=0x4").degenerate());
        assertFalse(OperatorCase.parse("rope f32->f32 t2 hq1 dk4 cache=0x4").degenerate());
        assertTrue(OperatorCase.parse("sparse f32 lsh q2 k0 hq1 dk4 count1").degenerate());
        assertFalse(OperatorCase.parse("sparse f32 lsh q2 k1 hq1 dk4 count1 zeros").degenerate());
        assertTrue(OperatorCase.parse("route f32 t0 experts3 top1").degenerate());
        assertFalse(OperatorCase.parse("route f32 t1 experts3 top1 zeros").degenerate());
        assertTrue(OperatorCase.parse("mix f32->f32 parts2 t2 h1 n1 rows=0").degenerate());
        assertFalse(OperatorCase.parse("mix f32->f32 parts0 t2 h1 n1 residual").degenerate());
        assertFalse(OperatorCase.parse("layernorm f32->f32 r2 n1").degenerate());
        assertTrue(OperatorCase.parse("glu silu f32->f32 r0 n1").degenerate());
        assertFalse(OperatorCase.parse("glu silu f32->f32 r1 n1 halves").degenerate());
    }
}
