// The vector functions with a mutation each, once per level: inside namespace gatun::cpu::GATUN_LEVEL, after `hn` is known.
namespace mutated {

#define GATUN_FUNCTION(name, other)                                          \
  template <int kSite, typename... T>                                        \
  HWY_INLINE auto name(T... t) {                                             \
    if (::gatun::mutation::active<kSite>()) return other(t...);              \
    return hn::name(t...);                                                   \
  }

static constexpr auto first = [](auto a, auto...) __attribute__((always_inline)) { return a; };
static constexpr auto second = [](auto, auto b, auto...) __attribute__((always_inline)) { return b; };
static constexpr auto swapped = [](auto m, auto a, auto b) __attribute__((always_inline)) { return hn::IfThenElse(m, b, a); };
static constexpr auto swapped_by_sign = [](auto m, auto a, auto b) __attribute__((always_inline)) {
  return hn::IfNegativeThenElse(m, b, a);
};
static constexpr auto one_lane_more = [](auto d, auto count) __attribute__((always_inline)) { return hn::FirstN(d, count + 1); };
static constexpr auto not_all = [](auto d, auto mask) __attribute__((always_inline)) { return !hn::AllTrue(d, mask); };

GATUN_FUNCTION(Add, hn::Sub)
GATUN_FUNCTION(Sub, hn::Add)
GATUN_FUNCTION(Mul, hn::Add)
GATUN_FUNCTION(Div, hn::Mul)
GATUN_FUNCTION(Min, hn::Max)
GATUN_FUNCTION(Max, hn::Min)
GATUN_FUNCTION(MulAdd, hn::NegMulAdd)
GATUN_FUNCTION(MulSub, hn::MulAdd)
GATUN_FUNCTION(NegMulAdd, hn::MulAdd)
GATUN_FUNCTION(And, hn::Or)
GATUN_FUNCTION(Or, hn::And)
GATUN_FUNCTION(Lt, hn::Le)
GATUN_FUNCTION(Le, hn::Lt)
GATUN_FUNCTION(Gt, hn::Ge)
GATUN_FUNCTION(Ge, hn::Gt)
GATUN_FUNCTION(Eq, hn::Ne)

// Where equal operands give the same either way.
template <int kSite, typename V>
HWY_INLINE auto LtReversed(V a, V b) {
  return ::gatun::mutation::active<kSite>() ? hn::Gt(a, b) : hn::Lt(a, b);
}
template <int kSite, typename V>
HWY_INLINE auto GtReversed(V a, V b) {
  return ::gatun::mutation::active<kSite>() ? hn::Lt(a, b) : hn::Gt(a, b);
}

GATUN_FUNCTION(Neg, first)
GATUN_FUNCTION(Abs, first)
GATUN_FUNCTION(CopySign, first)
GATUN_FUNCTION(IfThenElse, swapped)
GATUN_FUNCTION(IfNegativeThenElse, swapped_by_sign)
GATUN_FUNCTION(FirstN, one_lane_more)
GATUN_FUNCTION(AllTrue, not_all)
GATUN_FUNCTION(SumOfLanes, second)
GATUN_FUNCTION(MinOfLanes, hn::MaxOfLanes)
GATUN_FUNCTION(MaxOfLanes, hn::MinOfLanes)
#if HWY_TARGET != HWY_SCALAR
GATUN_FUNCTION(InterleaveLower, hn::InterleaveUpper)
GATUN_FUNCTION(InterleaveUpper, hn::InterleaveLower)
#endif

#undef GATUN_FUNCTION

}  // namespace mutated
