// Ceilings that devices measure: how fast they are is this machine's affair, but no processor does more in a cycle than its
// units can, which shows whether the compiler has left out the work.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "device_test.h"

namespace gatun::test {
namespace {

// Operations and bytes per second that every machine exceeds, and every emulator.
#if defined(GATUN_TEST_EMULATED)
constexpr double kLeast = 1e5;
#else
constexpr double kLeast = 1e7;
#endif

double measure(const OpenDevice& device, int32_t limit) {
  Message message;
  double per_second = 0;
  EXPECT_EQ(GTN_OK, gtn_device_measure(device.device, limit, &per_second, &message)) << message.text;
  return per_second;
}

// Cycles per second now: a chain of multiplications, of three cycles each on every x86-64 processor of interest.
double clock_rate() {
  double best = 0;
#if defined(__x86_64__)
  constexpr int kSteps = 100000;
  for (int window = 0; window < 100; ++window) {
    const auto start = std::chrono::steady_clock::now();
    uint64_t x = 3;
    for (int i = 0; i < kSteps; ++i) asm volatile("imul %0, %0" : "+r"(x));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 3.0 * kSteps / seconds);
  }
#else
  best = 8e9;  // more than anything reaches
#endif
  return best;
}

// Loops whose work the compiler found a way to leave out do more in a cycle than the units can.
TEST(Limits, AreWithinWhatOneThreadCanDo) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice device(name, 1);
    const bool arm = name == "cpu:neon" || name == "cpu:dotprod" || name == "cpu:i8mm";
    const bool sums_two = name == "cpu:bf16" || name == "cpu:i8mm";
    const bool sums_four = name == "cpu:vnni" || name == "cpu:bf16" || name == "cpu:dotprod" || name == "cpu:i8mm";
    const double lanes = name == "cpu:scalar" || arm ? 4 : name == "cpu:avx2" ? 8 : 16;
    const double products = name == "cpu:scalar" ? 1 : sums_four ? 4 * lanes : 2 * lanes;
    const double units = arm ? 4 : 2;
    // A product of two tiles is 16 by 16 by 64 bytes, and takes 16 cycles.
    const double tiles = name == "cpu:amx" ? 2.0 * 16 * 16 * 64 / 16 : 0;
    // Operations in a cycle: two units of vectors, four on Arm, and the scalar level's multiplications and additions apart;
    // up to four for integers. A quarter more, for a clock that changes.
    const struct {
      int32_t limit;
      double most;
    } expected[] = {{GTN_LIMIT_F32, 1.25 * 2 * units * lanes},
                    {GTN_LIMIT_BF16, 1.25 * (tiles > 0 ? tiles / 2 : (sums_two ? 4 : 2) * units * lanes)},
                    {GTN_LIMIT_S8, 1.25 * (tiles > 0 ? tiles : 8 * products)}};
    for (const auto& [limit, most] : expected) {
      const double before = clock_rate();
      const double measured = measure(device, limit);
      const double clock = std::max(before, clock_rate());
      std::printf("%s limit %d: %.3g per second, %.2f in a cycle\n", name.c_str(), limit, measured, measured / clock);
      EXPECT_GT(measured, kLeast) << name << " limit " << limit;
      EXPECT_LT(measured, most * clock) << name << " limit " << limit;
    }
    for (int32_t limit : {GTN_LIMIT_MEMORY, GTN_LIMIT_COPY, GTN_LIMIT_CACHE}) {
      const double rate = measure(device, limit);
      std::printf("%s limit %d: %.3g bytes per second\n", name.c_str(), limit, rate);
      EXPECT_GT(rate, kLeast) << name << " limit " << limit;
      EXPECT_LT(rate, 500e9) << name << " limit " << limit << ": more than memory or a shared cache gives one thread";
    }
    // An argument's reduction, a polynomial of degree 3 and the product with a power of two are eight operations at the
    // least, and the units do them. Where there is no table of such powers the degree is 6, and there are a dozen.
    const double before = clock_rate();
    const double exponentials = measure(device, GTN_LIMIT_EXP);
    std::printf("%s: %.3g exponentials per second\n", name.c_str(), exponentials);
    EXPECT_GT(exponentials, kLeast / 10) << name;
    EXPECT_LT(exponentials, 1.25 * lanes * units / (lanes < 16 ? 12 : 8) * std::max(before, clock_rate())) << name;
  }
}

TEST(Limits, ArgumentsAreChecked) {
  OpenDevice cpu("cpu", 1);
  Message message;
  double per_second = 77;
  for (int32_t bad : {-1, 0, 8, INT32_MAX}) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_measure(cpu.device, bad, &per_second, &message));
    EXPECT_EQ(message.text, std::strstr(message.text, ("limit: is " + std::to_string(bad)).c_str())) << message.text;
  }
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_measure(cpu.device, GTN_LIMIT_F32, nullptr, &message));
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_device_measure(cpu.device + 1, GTN_LIMIT_F32, &per_second, &message));
  EXPECT_EQ(77, per_second);
}

}  // namespace
}  // namespace gatun::test
