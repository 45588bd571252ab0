#include "cpu/levels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>

#include "core/message.h"
#include "cpu/built_levels.h"

namespace gatun::cpu {

#define GATUN_DECLARE_LEVEL(level, vectors, tiles)                                                              \
  namespace level {                                                                                             \
  extern const GemmKernels gemm_kernels;                                                                        \
  extern const ConvKernels conv_kernels;                                                                        \
  extern const LimitKernels limit_kernels;                                                                      \
  }                                                                                                             \
  namespace tiles {                                                                                             \
  extern const AttentionKernels attention_kernels;                                                              \
  }                                                                                                             \
  namespace vectors {                                                                                           \
  extern const NormKernels norm_kernels;                                                                        \
  extern const SoftmaxKernels softmax_kernels;                                                                  \
  extern const ActivationKernels activation_kernels;                                                            \
  extern const MergeKernels merge_kernels;                                                                      \
  extern const RopeKernels rope_kernels;                                                                        \
  extern const SelectKernels select_kernels;                                                                    \
  extern const RouteKernels route_kernels;                                                                      \
  extern const MixKernels mix_kernels;                                                                          \
  extern const GluKernels glu_kernels;                                                                          \
  extern const PoolingKernels pooling_kernels;                                                                  \
  extern const FakeQuantizeKernels fake_quantize_kernels;                                                       \
  }                                                                                                             \
  static const Kernels level##_kernels = {                                                                      \
      &level::gemm_kernels,      &tiles::attention_kernels,    &vectors::norm_kernels,                          \
      &vectors::softmax_kernels, &vectors::activation_kernels, &vectors::merge_kernels,                         \
      &vectors::rope_kernels,    &vectors::select_kernels,     &vectors::route_kernels,                         \
      &vectors::mix_kernels,     &vectors::glu_kernels,        &level::conv_kernels,                            \
      &vectors::pooling_kernels, &vectors::fake_quantize_kernels, &level::limit_kernels};

GATUN_BUILT_LEVELS(GATUN_DECLARE_LEVEL)

namespace {

// Null for a level that this build leaves out.
const Kernels* kernels_of(const char* name) {
#define GATUN_IS_IT(level, vectors, tiles) \
  if (std::strcmp(name, #level) == 0) return &level##_kernels;
  GATUN_BUILT_LEVELS(GATUN_IS_IT)
#undef GATUN_IS_IT
  return nullptr;
}

#if defined(__x86_64__)
// __builtin_cpu_supports asks CPUID and, for every state beyond SSE, whether the operating system saves it (XGETBV).
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_bf16() { return has_vnni() && __builtin_cpu_supports("avx512bf16"); }

#if defined(GATUN_AMX_MODEL)

bool has_amx() { return has_avx2(); }
constexpr const char* kAmxNeeds = "a model of AMX, and AVX2";

#else

// Linux lets a process use tiles that asks for them (arch_prctl, since 5.16), its threads to come included.
constexpr int kSupportedStates = 0x1021, kRequestPermission = 0x1023, kTileData = 18;

bool has_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kNeeded = kBf16 | kTile | kInt8;  // of EDX
  unsigned a = 0, b = 0, c = 0, d = 0;
  uint64_t states = 0;
  return has_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kNeeded) == kNeeded &&
         syscall(SYS_arch_prctl, kSupportedStates, &states) == 0 && (states >> kTileData & 1) != 0;
}
constexpr const char* kAmxNeeds = "AMX-TILE, AMX-INT8 and AMX-BF16";

#endif

const Level kLevels[] = {
    {"scalar", kernels_of("scalar"), true, "x86-64"},
    {"avx2", kernels_of("avx2"), has_avx2(), "AVX2, FMA, F16C, BMI1 and BMI2"},
    {"avx512", kernels_of("avx512"), has_avx512(), "AVX-512 F, BW, DQ, VL and CD"},
    {"vnni", kernels_of("vnni"), has_vnni(), "AVX-512 VNNI"},
    {"bf16", kernels_of("bf16"), has_bf16(), "AVX-512 VNNI and BF16"},
    {"amx", kernels_of("amx"), has_amx(), kAmxNeeds},
};
#elif defined(__aarch64__)
// What Linux says that programs may use: bits of AT_HWCAP and of AT_HWCAP2, whose names are newer than some headers.
constexpr int kAsimd = 1, kAtomics = 8, kAsimdDp = 20, kSve = 22;
constexpr int kI8mm = 13, kBf16 = 14;

bool has(unsigned long word, int bit) { return (getauxval(word) >> bit & 1) != 0; }

bool has_neon() { return has(AT_HWCAP, kAsimd); }

// The atomics of ARMv8.1 too, which the compiler may use in a level of 8.2.
bool has_dotprod() { return has_neon() && has(AT_HWCAP, kAtomics) && has(AT_HWCAP, kAsimdDp); }

bool has_i8mm() { return has_dotprod() && has(AT_HWCAP2, kI8mm) && has(AT_HWCAP2, kBf16); }

const Level kLevels[] = {
    {"scalar", kernels_of("scalar"), true, "AArch64"},
    {"neon", kernels_of("neon"), has_neon(), "Advanced SIMD"},
    {"dotprod", kernels_of("dotprod"), has_dotprod(), "LSE atomics and dot product"},
    {"i8mm", kernels_of("i8mm"), has_i8mm(), "dot product, I8MM and BF16"},
    // The next has its place here and no kernels yet: they keep vectors in arrays, and those of SVE have no size that the
    // compiler knows.
    {"sve", nullptr, has(AT_HWCAP, kSve), "SVE"},
};
#else
const Level kLevels[] = {{"scalar", kernels_of("scalar"), true, "any processor"}};
#endif

constexpr int kLevelCount = sizeof kLevels / sizeof kLevels[0];

}  // namespace

const Level* levels() { return kLevels; }

int level_count() { return kLevelCount; }

const char* why_unavailable(const Level& level) {
  if (level.kernels == nullptr) return "this build of Gatun has no kernels of this level";
  if (!level.supported) return "this processor or operating system lacks it";
  return nullptr;
}

const char* refusal(const Level& level) {
#if defined(__x86_64__) && !defined(GATUN_AMX_MODEL)
  if (std::strcmp(level.name, "amx") == 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) {
    return "the operating system refuses this process the tiles of AMX; a thread's signal stack may be too small for them";
  }
#else
  (void)level;
#endif
  return nullptr;
}

const Level* find_level(const char* name) {
  for (const Level& level : kLevels) {
    if (std::strcmp(level.name, name) == 0) return &level;
  }
  return nullptr;
}

const Level* default_level(gtn_message* message) {
  const char* forced = std::getenv("GATUN_CPU_ISA");
  if (forced != nullptr && *forced != '\0') {
    const Level* level = find_level(forced);
    if (level == nullptr) {
      say(message, "GATUN_CPU_ISA is '%s', which is no level of this architecture", forced);
      return nullptr;
    }
    if (const char* why = why_unavailable(*level)) {
      say(message, "GATUN_CPU_ISA is '%s' (%s): %s", forced, level->needs, why);
      return nullptr;
    }
    return level;
  }
  const Level* best = &kLevels[0];
  for (const Level& level : kLevels) {
    if (why_unavailable(level) == nullptr) best = &level;
  }
  return best;
}

}  // namespace gatun::cpu
