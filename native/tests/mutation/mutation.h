// What an instrumented source calls at each site of a mutation. A site does what was written there, or, when GATUN_MUTANT in
// the environment is its number, what the mutation makes of it. In a constant expression nothing is ever mutated.
#pragma once

#include <concepts>
#include <type_traits>

namespace gatun::mutation {

extern int chosen;              // the site that is mutated; 0: none
extern unsigned char* reached;  // an entry for each site: 1 once it was evaluated

// The numbers of all sites that there is code for end up in a section of the library: what the compiler evaluated, did not
// instantiate or found out of reach is none.
template <int kSite>
inline __attribute__((always_inline)) bool active_now() {
  asm volatile(".pushsection .gatun.sites, \"\", @progbits\n.long %c0\n.popsection" : : "i"(kSite));
  reached[kSite] = 1;
  return chosen == kSite;
}

template <int kSite>
constexpr __attribute__((always_inline)) bool active() {
  if (std::is_constant_evaluated()) return false;
  return active_now<kSite>();
}

// Integers become one more, other numbers a 16th larger, and 0.0 becomes 1.0.
template <int kSite, typename T>
constexpr __attribute__((always_inline)) T more(T value) {
  if (!active<kSite>()) return value;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(value + 1);
  } else {
    return value == 0 ? T{1} : value + value / 16;
  }
}

// Where one more is as good.
template <int kSite, typename T>
constexpr __attribute__((always_inline)) T less(T value) {
  return active<kSite>() ? static_cast<T>(value - 1) : value;
}

template <int kSite, typename T>
struct Left {
  T value;
};

// a + b is written a + Plus<7>() + b: the tag takes the left operand, which then meets the right one. So precedence and
// types stay as they were. Where the mutated operation does not exist, as for a sum of pointers, the result is one more.
#define GATUN_OPERATOR(Name, op, mutated)                                                 \
  template <int kSite>                                                                    \
  struct Name {};                                                                         \
  template <int kSite, typename T>                                                        \
  struct Name##Left : Left<kSite, T> {};                                                  \
  template <typename A, int kSite>                                                        \
  constexpr __attribute__((always_inline)) auto operator op(A a, Name<kSite>) {           \
    return Name##Left<kSite, A>{{a}};                                                     \
  }                                                                                       \
  template <typename A, int kSite, typename B>                                            \
  constexpr __attribute__((always_inline)) auto operator op(Name##Left<kSite, A> a, B b) { \
    using Result = decltype(a.value op b);                                                \
    if (!active<kSite>()) return static_cast<Result>(a.value op b);                       \
    if constexpr (requires {                                                              \
                    { a.value mutated b } -> std::same_as<Result>;                        \
                  }) {                                                                    \
      return static_cast<Result>(a.value mutated b);                                      \
    } else {                                                                              \
      return static_cast<Result>((a.value op b) + 1);                                     \
    }                                                                                     \
  }

GATUN_OPERATOR(Plus, +, -)
GATUN_OPERATOR(Minus, -, +)
GATUN_OPERATOR(Times, *, +)
GATUN_OPERATOR(Over, /, *)
GATUN_OPERATOR(Modulo, %, +)
GATUN_OPERATOR(Less, <, <=)
GATUN_OPERATOR(LessEqual, <=, <)
GATUN_OPERATOR(Greater, >, >=)
GATUN_OPERATOR(GreaterEqual, >=, >)
GATUN_OPERATOR(LessReversed, <, >)
GATUN_OPERATOR(LessEqualReversed, <=, >=)
GATUN_OPERATOR(GreaterReversed, >, <)
GATUN_OPERATOR(GreaterEqualReversed, >=, <=)
GATUN_OPERATOR(Equal, ==, !=)
GATUN_OPERATOR(NotEqual, !=, ==)

// a += b is written a += PlusAssign<7>() += b, where the tag takes the right operand first.
#define GATUN_ASSIGNMENT(Name, op, mutated)                                                  \
  template <int kSite, typename T>                                                           \
  struct Name##Right {                                                                       \
    T value;                                                                                 \
  };                                                                                         \
  template <int kSite>                                                                       \
  struct Name {                                                                              \
    template <typename B>                                                                    \
    constexpr __attribute__((always_inline)) auto operator op(B b) const {                   \
      return Name##Right<kSite, B>{b};                                                       \
    }                                                                                        \
  };                                                                                         \
  template <typename A, int kSite, typename B>                                               \
  constexpr __attribute__((always_inline)) A& operator op(A& a, Name##Right<kSite, B> b) {   \
    if (active<kSite>()) return a mutated b.value;                                           \
    return a op b.value;                                                                     \
  }

GATUN_ASSIGNMENT(PlusAssign, +=, -=)
GATUN_ASSIGNMENT(MinusAssign, -=, +=)
GATUN_ASSIGNMENT(TimesAssign, *=, +=)
GATUN_ASSIGNMENT(OverAssign, /=, *=)

#undef GATUN_OPERATOR
#undef GATUN_ASSIGNMENT

}  // namespace gatun::mutation
