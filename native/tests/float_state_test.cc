// Loading the libraries leaves a thread's floating-point environment as it was. A library linked with -ffast-math would set
// flush-to-zero in a constructor, for the whole application. So this program is linked with no library of Gatun's and opens
// them itself.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

struct FloatState {
#if defined(__x86_64__)
  uint32_t mxcsr = _mm_getcsr() & ~0x3fu;  // control and masks; the lower six bits tell what has happened
  uint16_t x87 = [] {
    uint16_t word;
    asm volatile("fnstcw %0" : "=m"(word));
    return word;
  }();
#elif defined(__aarch64__)
  uint64_t fpcr = control();  // modes alone: what has happened is in another register

  static uint64_t control() {
    uint64_t word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void set_control(uint64_t word) { asm volatile("msr fpcr, %0" : : "r"(word)); }
#endif

  bool operator==(const FloatState&) const = default;
};

// Whether half the smallest normal float is the denormal that it should be, and comes back when doubled.
bool denormals_work() {
  volatile float smallest = std::numeric_limits<float>::min(), half = 0.5f;
  volatile float denormal = smallest * half;
  return denormal > 0.0f && denormal < smallest && denormal / half == smallest;
}

class Libraries : public ::testing::TestWithParam<const char*> {};

TEST_P(Libraries, LeaveTheFloatingPointStateAlone) {
  const FloatState before;
  ASSERT_TRUE(denormals_work());
  void* library = dlopen(GetParam(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(nullptr, library) << dlerror();
  EXPECT_TRUE(before == FloatState());
  EXPECT_TRUE(denormals_work());
  std::thread([&] {
    EXPECT_TRUE(before == FloatState()) << "in a thread that was started afterwards";
    EXPECT_TRUE(denormals_work());
  }).join();
}

INSTANTIATE_TEST_SUITE_P(All, Libraries,
                         ::testing::Values(GATUN_TEST_LIBRARIES "/libgatun.so", GATUN_TEST_LIBRARIES "/libgatun_cpu.so"));

// The state is one that a constructor of -ffast-math would change: without this, the test above could not fail.
TEST(FloatState, ShowsFlushToZero) {
#if defined(__x86_64__)
  const FloatState before;
  const uint32_t csr = _mm_getcsr();
  _mm_setcsr(csr | 0x8040);
  EXPECT_FALSE(before == FloatState());
  EXPECT_FALSE(denormals_work());
  _mm_setcsr(csr);
#elif defined(__aarch64__)
  const FloatState before;
  FloatState::set_control(before.fpcr | uint64_t{1} << 24);
  EXPECT_FALSE(before == FloatState());
  EXPECT_FALSE(denormals_work());
  FloatState::set_control(before.fpcr);
#endif
  EXPECT_TRUE(denormals_work());
}

}  // namespace
