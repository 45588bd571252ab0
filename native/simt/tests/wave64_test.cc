// The model with warps of 64 threads: what crosses the middle of a warp.
#include "faults.h"

#include "simt/simt.h"

#include <gtest/gtest.h>

namespace gatun::simt_test {
namespace {

constexpr int kCount = 128;

TEST(Wave64, FaultsAreFoundOnEverySchedule) {
  float* out = static_cast<float*>(simt::allocate(kCount * 4));
  float* in = static_cast<float*>(simt::allocate(kCount * 4));
  for (int c = 0; c < kCaseCount; ++c) {
    const Case& test = kCases[c];
    for (uint64_t seed = 1; seed <= 24; ++seed) {
      for (int i = 0; i < kCount; ++i) in[i] = static_cast<float>(i);
      const Args args = {out, in, kCount, nullptr};
      const simt::Launch launch = {reinterpret_cast<const void*>(test.kernel),
                                   [](const void* function, const void* a) {
                                     reinterpret_cast<Kernel>(const_cast<void*>(function))(*static_cast<const Args*>(a));
                                   },
                                   &args,
                                   sizeof args,
                                   {test.blocks, 1, 1},
                                   test.threads,
                                   test.shared_bytes};
      simt::set_seed(seed);
      char message[1000] = "";
      const bool went_well = simt::launch(simt::kCdnaDevices[0], launch, message, sizeof message);
      if (test.report == nullptr) {
        ASSERT_TRUE(went_well) << test.name << ": " << message;
        for (int i = 0; i < kCount; ++i) ASSERT_EQ(out[i], static_cast<float>(i) + 1.0f) << test.name << ", " << i;
        continue;
      }
      ASSERT_FALSE(went_well) << test.name << ", seed " << seed;
      ASSERT_TRUE(says(message, test.report)) << test.name << ", seed " << seed << ": " << message;
    }
  }
  simt::release(in);
  simt::release(out);
}

}  // namespace
}  // namespace gatun::simt_test
