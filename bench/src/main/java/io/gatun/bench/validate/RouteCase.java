package io.gatun.bench.validate;

import io.gatun.DType;
import io.gatun.Route;
import io.gatun.Tensor;
import io.gatun.bench.reference.Expected;
import io.gatun.bench.reference.RouteReference;
import io.gatun.bench.reference.RouteReference.Choice;
import io.gatun.bench.reference.RouteReference.Kind;
import io.gatun.bench.reference.RouteReference.Rule;
import java.util.Arrays;
import java.util.StringJoiner;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Routing of tokens to experts: {@code route bf16 sigmoid t17 experts256 top8 groups=8x4 bias normalize scale=2.5
 * padded slack seed=1}. Logits are such that every choice is clear: see {@link RouteReference}.
 *
 * @param in type of the logits
 * @param rule what is done; groups=8x4 are 8 groups, of which 4 are chosen from
 * @param padded whether there are gaps between rows
 * @param slack whether the plan is for more tokens
 */
record RouteCase(DType in, int tokens, int experts, Rule rule, boolean bias, boolean padded, boolean slack,
        Values values, long seed) implements OperatorCase {
    /** Logits that are not clear are this rare, at most. */
    private static final int TRIES = 1000;

    static RouteCase parse(Words words) {
        int[] groups = words.sizes("groups");
        RouteCase route = new RouteCase(words.type(), words.count("t"), words.count("experts"),
                new Rule(words.oneOf(Kind.class, Kind.SOFTMAX), words.count("top"), groups == null ? 0 : groups[0],
                        groups == null ? 0 : groups[groups.length - 1], words.flag("normalize"),
                        words.real("scale", 1)),
                words.flag("bias"), words.flag("padded"), words.flag("slack"),
                words.oneOf(Values.class, Values.NORMAL), words.seed());
        words.end();
        Rule rule = route.rule;
        if (groups != null && (groups.length != 2 || rule.groups() < 1 || rule.topGroups() < 1
                || rule.topGroups() > rule.groups() || route.experts % rule.groups() != 0)) {
            throw words.wrong("groups are a divisor of the experts, and as many chosen at most");
        }
        int among = groups == null ? route.experts : route.experts / rule.groups() * rule.topGroups();
        if (rule.top() < 1 || rule.top() > among) {
            throw words.wrong("top is 1 to " + among);
        }
        return route;
    }

    @Override
    public String name() {
        StringJoiner name = new StringJoiner(" ").add("route").add(types()).add(Words.word(rule.kind()))
                .add("t" + tokens).add("experts" + experts).add("top" + rule.top());
        if (rule.groups() > 0) {
            name.add("groups=" + rule.groups() + "x" + rule.topGroups());
        }
        if (bias) {
            name.add("bias");
        }
        if (rule.normalize()) {
            name.add("normalize");
        }
        if (rule.scale() != 1) {
            name.add("scale=" + rule.scale());
        }
        if (padded) {
            name.add("padded");
        }
        if (slack) {
            name.add("slack");
        }
        return Rows.end(name, values, seed);
    }

    @Override
    public String operator() {
        return "route";
    }

    @Override
    public String types() {
        return Words.word(in);
    }

    @Override
    public DType dtype() {
        return in;
    }

    @Override
    public boolean fillsPlan() {
        return !slack;
    }

    @Override
    public boolean degenerate() {
        return tokens == 0;
    }

    @Override
    public Problem problem() {
        RandomGenerator random = random();
        float @Nullable [] added = bias ? Values.normal(random, DType.F32, experts, 0.1) : null;
        float[] x = new float[tokens * experts];
        int top = rule.top();
        int[] chosen = new int[tokens * top];
        Expected weights = Expected.of(tokens * top, tokens);
        for (int t = 0; t < tokens; t++) {
            float[] logits = logits(random, t);
            Choice choice = RouteReference.choose(rule, logits, added);
            for (int tries = 0; !choice.clear(); tries++) {
                if (tries == TRIES) {
                    throw new IllegalStateException(name() + ": no logits with a clear choice");
                }
                logits = logits(random, t);
                choice = RouteReference.choose(rule, logits, added);
            }
            System.arraycopy(logits, 0, x, t * experts, experts);
            System.arraycopy(choice.experts(), 0, chosen, t * top, top);
            System.arraycopy(choice.weights().value(), 0, weights.value(), t * top, top);
            System.arraycopy(choice.weights().bound(), 0, weights.bound(), t * top, top);
            System.arraycopy(choice.weights().naive(), 0, weights.naive(), t * top, top);
        }
        int[] offsets = new int[experts + 1];
        int[] rows = new int[tokens * top];
        int[] slots = new int[tokens * top];
        int row = 0;
        for (int e = 0; e < experts; e++) {
            offsets[e] = row;
            for (int i = 0; i < chosen.length; i++) {
                if (chosen[i] == e) {
                    rows[row] = i / top;
                    slots[i] = row++;
                }
            }
        }
        offsets[experts] = row;
        return trial -> run(trial, x, added, new Expected[] {
            exactly(chosen), weights, exactly(offsets), exactly(rows), exactly(slots)
        });
    }

    private float[] logits(RandomGenerator random, int token) {
        float[] x = Values.normal(random, DType.F32, experts, 1.5);
        int special = random.nextInt(experts);
        switch (values) {
            case ZEROS -> Arrays.fill(x, 0);
            case CONSTANT -> Arrays.fill(x, x[0]);
            case TIES -> {
                for (int e = 0; e < experts; e++) {
                    x[e] = (float) Math.rint(x[e]);
                }
            }
            case OFFSET -> {
                for (int e = 0; e < experts; e++) {
                    x[e] += rule.kind() == Kind.SOFTMAX ? 100 : 3;
                }
            }
            case NAN -> x[special] = Values.special(token) ? Float.NaN : x[special];
            case INF -> {
                if (token % 4 == 2) {
                    Arrays.fill(x, Float.NEGATIVE_INFINITY);
                } else {
                    x[special] = Values.special(token) ? Float.POSITIVE_INFINITY : Float.NEGATIVE_INFINITY;
                }
            }
            default -> {}
        }
        return Values.rounded(x, in);
    }

    private static Expected exactly(int[] numbers) {
        Expected expected = Expected.of(numbers.length, 0);
        for (int i = 0; i < numbers.length; i++) {
            expected.value()[i] = numbers[i];
            expected.naive()[i] = numbers[i];
        }
        return expected;
    }

    private void run(Trial trial, float[] x, float @Nullable [] added, Expected[] results) {
        long[] run = {tokens, experts};
        Operand source = trial.input("x", in, new long[] {tokens + (slack ? 3 : 0), experts},
                new long[] {experts + (padded ? 5 : 0), 1});
        source.fill(x, run);
        Operand biases = added == null ? null : trial.input("bias", DType.F32, added, experts);
        long top = rule.top();
        Operand[] outs = {
            dense(trial, "experts", DType.S32, results[0], tokens, top),
            dense(trial, "weights", DType.F32, results[1], tokens, top),
            dense(trial, "offsets", DType.S64, results[2], experts + 1),
            dense(trial, "rows", DType.S32, results[3], tokens * top),
            dense(trial, "slots", DType.S32, results[4], tokens, top)
        };
        Route route = rule.kind() == Kind.SOFTMAX ? Route.softmax(top) : Route.sigmoid(top);
        route = rule.groups() > 0 ? route.groups(rule.groups(), rule.topGroups()) : route;
        route = bias ? route.bias() : route;
        route = rule.normalize() ? route.normalize() : route;
        Route description = route.scale(rule.scale());
        Route.Plan plan = trial.open(() -> description.plan(trial.device(), source.spec()));
        Tensor logits = source.tensor(run);
        Tensor b = biases == null ? null : biases.tensor();
        Tensor[] o = Arrays.stream(outs).map(Operand::tensor).toArray(Tensor[]::new);
        trial.execute(plan, stream -> plan.run(stream, logits, b, o[0], o[1], o[2], o[3], o[4]));
    }

    private static Operand dense(Trial trial, String name, DType dtype, Expected expected, long... shape) {
        return trial.output(name, dtype, shape, Operand.rowMajor(shape), shape, expected);
    }
}
