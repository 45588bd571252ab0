// The twin finds faults that were planted, on each of many schedules, and has nothing to say of kernels that are right.
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

using Kernel = void(uint8_t*, uint8_t*, uint8_t*);
extern "C" {
Kernel twin_flags, twin_queues, twin_sync_all, twin_undeclared;
}

namespace gatun::twin {
namespace {

struct Outcome {
  Result result;
  std::vector<float> out;
};

Outcome run(Kernel* kernel, uint32_t blocks, int32_t fault, const Options& options) {
  std::vector<float> in(256), out(256, -1.0f);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  void* args[] = {in.data(), out.data(), &fault};
  const Range memory[] = {{in.data(), in.size() * 4}, {out.data(), out.size() * 4}, {&fault, sizeof fault}};
  Outcome outcome;
  outcome.result = launch(reinterpret_cast<const void*>(kernel), blocks, args, 3, memory, options);
  outcome.out = out;
  return outcome;
}

// What a fault of a kernel is told as: a part of the message, one for each order in which it may come to light.
struct Fault {
  int32_t number;
  std::vector<std::string> messages;
};

void expect(Kernel* kernel, uint32_t blocks, const std::vector<Fault>& faults) {
  for (const Fault& fault : faults) {
    for (uint64_t seed = 0; seed < 16; ++seed) {
      const std::string error = run(kernel, blocks, fault.number, {seed}).result.error;
      const bool told = std::any_of(fault.messages.begin(), fault.messages.end(),
                                    [&](const std::string& m) { return error.find(m) != std::string::npos; });
      EXPECT_TRUE(told) << "fault " << fault.number << ", seed " << seed << ": " << error;
      EXPECT_NE(error.find("faults.cpp:"), std::string::npos) << error;
    }
  }
}

// Every removed site is told of on every schedule, but for those that other synchronisation makes superfluous.
void expect_sites_matter(Kernel* kernel, uint32_t blocks, size_t sites) {
  const Outcome whole = run(kernel, blocks, 0, {});
  ASSERT_EQ(whole.result.error, "");
  EXPECT_EQ(whole.result.sites.size(), sites);
  for (const Site& site : whole.result.sites) {
    for (Removal removal : {Removal::Deleted, Removal::Weakened}) {
      for (uint64_t seed = 0; seed < 8; ++seed) {
        EXPECT_NE(run(kernel, blocks, 0, {seed, &site, removal}).result.error, "")
            << site.call << " at line " << site.line << (removal == Removal::Deleted ? " deleted" : " weakened") << ", seed "
            << seed;
      }
    }
  }
}

TEST(Twin, Flags) {
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const Outcome o = run(twin_flags, 1, 0, {seed});
    EXPECT_EQ(o.result.error, "");
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(o.out[i], 2.0f * static_cast<float>(i));
  }
  expect(twin_flags, 1,
         {{1, {"InitBuffer: 196097 bytes, where 196096 of the 196608 of UB are left"}},
          {2, {"not a multiple of 32 bytes"}},
          {3, {"of a tensor of 256 bytes in UB"}},
          {4, {"of a global tensor of 32 elements"}},
          {5, {"event id 8"}},
          {6, {"is set already", "is left set at the end"}},
          {7, {"nothing orders the two", "which nothing has defined"}},
          {8, {"deadlock: WaitFlag waits for event"}},
          {9, {"not a multiple of 32"}},
          {10, {"which nothing has defined"}},
          {11, {"overlap in part"}},
          {12, {"0 repeats"}},
          {13, {"a mask of 65 lanes"}},
          {14, {"needs a rounding mode"}},
          {15, {"whole repeats of 256 bytes"}},
          {16, {"Muls reads bytes 256 to 512 of UB that Add (V, faults.cpp"}},
          {17, {"GetValue reads"}},
          {18, {"SetValue writes", "SetValue (S, faults.cpp"}},
          {19, {"of a global tensor of 0 elements"}},
          {20, {"DataCopy writes GM that DataCopy (MTE3"}},
          {21, {"vector cores have no event M_FIX"}},
          {22, {"needs a kernel of a MIX type"}},
          {23, {"needs a kernel of a MIX type"}},
          {24, {"nothing orders the two"}},
          {25, {"the vector unit reaches UB alone"}}});
  expect_sites_matter(twin_flags, 1, 5);
}

TEST(Twin, Queues) {
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const Outcome o = run(twin_queues, 1, 0, {seed});
    EXPECT_EQ(o.result.error, "");
    for (size_t i = 0; i < 128; ++i) EXPECT_EQ(o.out[i], 2.0f * static_cast<float>(i));
  }
  expect(twin_queues, 1,
         {{1, {"InitBuffer was not called"}},
          {2, {"came neither from AllocEventID nor from FetchEventID"}},
          {3, {"all 2 buffers of the queue are in use"}},
          {4, {"the queue is empty"}},
          {5, {"the queue's depth is 1"}},
          {6, {"EnQue has handed it over"}},
          {7, {"not of this queue"}},
          {8, {"given back with FreeTensor"}},
          {9, {"DataCopy reads bytes"}},
          {10, {"was dequeued and not freed"}},
          {11, {"not one that DeQue gave"}},
          {12, {"nothing orders the two"}},
          {13, {"was dequeued and not freed"}}});
}

TEST(Twin, SyncAll) {
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const Outcome o = run(twin_sync_all, 2, 0, {seed});
    EXPECT_EQ(o.result.error, "");
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(o.out[128 + i], 4.0f * static_cast<float>(i) + 128.0f);
  }
  expect(twin_sync_all, 2,
         {{1, {"nothing orders the two"}}, {2, {"deadlock: SyncAll waits for flag 11", "nothing orders the two"}}});
}

TEST(Twin, DeclaresItsCores) {
  EXPECT_NE(run(twin_undeclared, 1, 0, {}).result.error.find("KERNEL_TASK_TYPE_DEFAULT must come before"), std::string::npos);
}

TEST(Twin, StaysInsideOfItsRanges) {
  std::vector<float> in(256), out(256);
  int32_t fault = 0;
  void* args[] = {in.data(), out.data(), &fault};
  const Range memory[] = {{in.data(), 252}, {out.data(), 1024}};
  const Result r = launch(reinterpret_cast<const void*>(twin_flags), 1, args, 3, memory);
  EXPECT_NE(r.error.find("outside of every buffer"), std::string::npos) << r.error;
}

}  // namespace
}  // namespace gatun::twin
