// The same for the functions on one vector or four of math.h, after namespace wide.
namespace mutated_wide {

#define GATUN_FUNCTION(name, other)                                                 \
  template <int kSite, typename... T>                                               \
  HWY_INLINE auto name(const T&... t) {                                             \
    if (::gatun::mutation::active<kSite>()) return decltype(wide::name(t...))(other(t...)); \
    return wide::name(t...);                                                        \
  }

GATUN_FUNCTION(add, wide::sub)
GATUN_FUNCTION(sub, wide::add)
GATUN_FUNCTION(mul, wide::add)
GATUN_FUNCTION(div, wide::mul)
GATUN_FUNCTION(mul_add, wide::neg_mul_add)
GATUN_FUNCTION(neg_mul_add, wide::mul_add)
GATUN_FUNCTION(neg, mutated::first)
GATUN_FUNCTION(abs, mutated::first)
GATUN_FUNCTION(at_least, wide::at_most)
GATUN_FUNCTION(at_most, wide::at_least)

#undef GATUN_FUNCTION

}  // namespace mutated_wide
