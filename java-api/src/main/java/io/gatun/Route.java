package io.gatun;

import io.gatun.bindings.c.gatun_h;
import io.gatun.bindings.c.gtn_route_desc;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * Routes tokens to the experts of a mixture: which experts a token goes to, with what weights, and the order that
 * brings the tokens of an expert together. Scores are the softmax of a token's logits over all experts (Fedus et al.
 * 2021, Switch Transformer; Jiang et al. 2024, Mixtral, which normalizes) or the sigmoid of each (DeepSeek-AI 2024,
 * DeepSeek-V3, section 2.1.2). The experts with the highest score, or score and bias, are chosen, the lower of two
 * equals first; the bias takes part in the choice alone. The weights are the scores of the chosen. Immutable.
 *
 * <p>A token with a NaN among its logits, or for a softmax +infinity, gets the first experts with weights of NaN;
 * logits of -infinity alone give scores of 0. {@link Mix} sums what the experts give.
 */
public final class Route {
    private final int kind;
    private final long top;
    private final long groups;
    private final long topGroups;
    private final boolean bias;
    private final boolean normalize;
    private final float scale;

    private Route(int kind, long top, long groups, long topGroups, boolean bias, boolean normalize, float scale) {
        this.kind = kind;
        this.top = top;
        this.groups = groups;
        this.topGroups = topGroups;
        this.bias = bias;
        this.normalize = normalize;
        this.scale = scale;
    }

    /**
     * Describes a choice by the softmax of the logits.
     *
     * @param top experts of a token, 1 or more
     * @return the description
     * @throws IllegalArgumentException if {@code top} is less than 1
     */
    public static Route softmax(long top) {
        return of(gatun_h.GTN_ROUTE_SOFTMAX(), top);
    }

    /**
     * Describes a choice by the sigmoid of each logit.
     *
     * @param top experts of a token, 1 or more
     * @return the description
     * @throws IllegalArgumentException if {@code top} is less than 1
     */
    public static Route sigmoid(long top) {
        return of(gatun_h.GTN_ROUTE_SIGMOID(), top);
    }

    private static Route of(int kind, long top) {
        Arguments.atLeast("top", top, 1);
        return new Route(kind, top, 0, 0, false, false, 1);
    }

    /**
     * Chooses from the best groups of experts alone. A group is a run of as many neighbours; it is worth its highest
     * score and bias (softmax) or the sum of its two highest (sigmoid).
     *
     * @param groups how many groups the experts are in, a divisor of their number
     * @param topGroups how many of them are chosen from, 1 to {@code groups}
     * @return a description with groups
     * @throws IllegalArgumentException if {@code topGroups} is none of these
     */
    public Route groups(long groups, long topGroups) {
        Arguments.atLeast("groups", groups, 1);
        if (topGroups < 1 || topGroups > groups) {
            throw new IllegalArgumentException("topGroups: " + topGroups + ", expected 1 to " + groups);
        }
        return new Route(kind, top, groups, topGroups, bias, normalize, scale);
    }

    /**
     * Adds a bias to each expert's score where experts are chosen, and nowhere else.
     *
     * @return a description with a bias
     */
    public Route bias() {
        return new Route(kind, top, groups, topGroups, true, normalize, scale);
    }

    /**
     * Divides a token's weights by their sum; a sum of 0 leaves 0.
     *
     * @return a description with weights that sum to 1
     */
    public Route normalize() {
        return new Route(kind, top, groups, topGroups, bias, true, scale);
    }

    /**
     * Multiplies the weights, after they were normalized.
     *
     * @param scale a finite number
     * @return a description with a scale
     * @throws IllegalArgumentException if {@code scale} is not finite
     */
    public Route scale(float scale) {
        Arguments.finite("scale", scale);
        return new Route(kind, top, groups, topGroups, bias, normalize, scale);
    }

    /**
     * Makes a plan.
     *
     * @param device where it will run
     * @param x F32, BF16 or F16 {@code [tokens, experts]}, unit stride in experts, of which there are 1 to 65536; the
     *     tokens are the most that a run may have
     * @return the plan
     * @throws IllegalArgumentException if the spec is none of these, or has fewer experts than are to be chosen
     * @throws IllegalStateException if the device is closed
     * @throws UnsupportedOperationException if the device does not serve this
     */
    public Plan plan(Device device, TensorSpec x) {
        Arguments.rank("x", x, 2, "[tokens, experts]");
        Arguments.type("x", x, DType.F32, DType.BF16, DType.F16);
        Arguments.unitStride("x", x);
        long experts = x.size(1);
        if (experts < 1 || experts > 65536) {
            throw Arguments.wrong("x", x, "1 to 65536 experts in dimension 1");
        }
        if (groups > 0 && experts % groups != 0) {
            throw new IllegalArgumentException("groups: " + groups + ", expected a divisor of " + experts
                    + ", the experts of x");
        }
        long among = groups > 0 ? experts / groups * topGroups : experts;
        if (top > among) {
            throw new IllegalArgumentException("top: " + top + ", expected at most " + among
                    + ", the experts that are chosen from");
        }
        return new Plan(device, this, x);
    }

    /** A routing made ready for a device. */
    public static final class Plan extends io.gatun.Plan {
        private final TensorSpec x;
        private final @Nullable TensorSpec bias;
        private final TensorSpec choices;
        private final TensorSpec weights;
        private final TensorSpec offsets;
        private final TensorSpec rows;

        private Plan(Device device, Route route, TensorSpec x) {
            // What these refuse leaves no plan behind.
            this.choices = Arguments.dense("x", DType.S32, x.size(0), route.top);
            this.weights = Arguments.dense("x", DType.F32, x.size(0), route.top);
            this.rows = Arguments.dense("x", DType.S32, x.size(0) * route.top);
            super(
                    device,
                    "x " + x.dtype(),
                    arena -> {
                        MemorySegment desc = gtn_route_desc.allocate(arena);
                        gtn_route_desc.size(desc, (int) gtn_route_desc.sizeof());
                        gtn_route_desc.kind(desc, route.kind);
                        x.write(gtn_route_desc.x(desc));
                        gtn_route_desc.top(desc, route.top);
                        gtn_route_desc.groups(desc, route.groups);
                        gtn_route_desc.top_groups(desc, route.topGroups);
                        gtn_route_desc.has_bias(desc, route.bias ? 1 : 0);
                        gtn_route_desc.normalize(desc, route.normalize ? 1 : 0);
                        gtn_route_desc.scale(desc, route.scale);
                        return desc;
                    },
                    (desc, plan, message) -> gatun_h.gtn_route_plan(device.handle, desc, plan, message));
            this.x = x;
            this.bias = route.bias ? TensorSpec.of(DType.F32, x.size(1)) : null;
            this.offsets = TensorSpec.of(DType.S64, x.size(1) + 1);
        }

        /**
         * Runs the plan: see {@link io.gatun.Plan} for what is checked and thrown. In this call tokens may be fewer
         * than the plan's. Tokens times {@code top} are less than 2<sup>31</sup>. A bias that is not finite is an
         * {@link IllegalArgumentException}, too, and leaves outputs untouched. Outputs have no gaps.
         *
         * @param stream a stream of the plan's device
         * @param x the logits
         * @param bias F32 {@code [experts]}, finite, where the plan has one, else null
         * @param experts S32 {@code [tokens, top]}: the chosen, the highest first
         * @param weights F32 {@code [tokens, top]}
         * @param offsets S64 {@code [experts + 1]}: where the rows of an expert start among all tokens' choices, sorted
         *     by expert and then by token
         * @param rows S32 {@code [tokens * top]}: the token of each of these rows
         * @param slots S32 {@code [tokens, top]}: the row of each token and choice
         */
        public void run(
                Stream stream,
                Tensor x,
                @Nullable Tensor bias,
                Tensor experts,
                Tensor weights,
                Tensor offsets,
                Tensor rows,
                Tensor slots) {
            check(stream);
            Arguments.input(device, "x", x, this.x, 1);
            MemorySegment biasMemory = Arguments.optional(device, "bias", bias, this.bias, 0);
            Arguments.output(device, "experts", experts, choices, 1);
            Arguments.output(device, "weights", weights, this.weights, 1);
            Arguments.output(device, "offsets", offsets, this.offsets, 0);
            Arguments.output(device, "rows", rows, this.rows, 1);
            Arguments.output(device, "slots", slots, choices, 1);
            long tokens = x.spec.size(0);
            Arguments.rows("experts", experts, tokens);
            Arguments.rows("weights", weights, tokens);
            Arguments.size("rows", rows.spec, 0, tokens * choices.size(1), "the choices of all tokens");
            Arguments.rows("slots", slots, tokens);
            int status = gatun_h.gtn_route_run(
                    handle,
                    stream.handle,
                    tokens,
                    x.memory,
                    biasMemory,
                    experts.memory,
                    weights.memory,
                    offsets.memory,
                    rows.memory,
                    slots.memory);
            Reference.reachabilityFence(this);
            Reference.reachabilityFence(stream);
            if (status != 0) {
                throw failure(status, stream, null);
            }
        }
    }
}
