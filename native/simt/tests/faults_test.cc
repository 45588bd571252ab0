// The model finds faults that were planted, on each of many schedules, and has nothing to say of kernels that are
// right.
#include "faults.h"

#include "simt/simt.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace gatun::simt_test {
namespace {

using simt::allocate, simt::kDevices, simt::Launch, simt::release, simt::set_remove, simt::set_seed, simt::set_threads;

constexpr int kCount = 6 * 128;

class Memory {
 public:
  explicit Memory(int64_t bytes) : p_(allocate(bytes)) {}
  ~Memory() { release(p_); }
  Memory(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(p_);
  }

 private:
  void* p_;
};

struct Outcome {
  std::string message;  // empty: the launch went well
  std::vector<float> out;
};

Outcome run(Kernel kernel, int blocks, int threads, int shared_bytes, uint64_t seed, int64_t n = kCount) {
  const Memory out(kCount * 4), in(kCount * 4), counter(4);
  for (int i = 0; i < kCount; ++i) in.as<float>()[i] = static_cast<float>(i);
  *counter.as<uint32_t>() = 0;
  const Args args = {out.as<float>(), in.as<float>(), n, counter.as<uint32_t>()};
  Launch launch = {reinterpret_cast<const void*>(kernel),
                   [](const void* function, const void* a) {
                     reinterpret_cast<Kernel>(const_cast<void*>(function))(*static_cast<const Args*>(a));
                   },
                   &args,
                   sizeof args,
                   {blocks, 1, 1},
                   threads,
                   shared_bytes};
  set_seed(seed);
  char message[1000] = "";
  Outcome outcome;
  if (!simt::launch(kDevices[0], launch, message, sizeof message)) outcome.message = message;
  outcome.out.assign(out.as<float>(), out.as<float>() + kCount);
  return outcome;
}

class Faults : public testing::TestWithParam<int> {};

TEST_P(Faults, OnEverySchedule) {
  const Case& c = kCases[GetParam()];
  for (int threads = 1; threads <= 2; ++threads) {
    set_threads(threads);
    for (uint64_t seed = 1; seed <= 24; ++seed) {
      const Outcome outcome = run(c.kernel, c.blocks, c.threads, c.shared_bytes, seed);
      if (c.report != nullptr) {
        ASSERT_TRUE(says(outcome.message, c.report)) << c.name << ", seed " << seed << ": " << outcome.message;
        continue;
      }
      ASSERT_EQ(outcome.message, "") << c.name << ", seed " << seed;
      for (int i = 0; c.checked && i < c.blocks * c.threads; ++i) {
        ASSERT_EQ(outcome.out[static_cast<size_t>(i)], static_cast<float>(i) + 1.0f)
            << c.name << ", seed " << seed << ", " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Planted, Faults, testing::Range(0, kCaseCount), [](const auto& instance) {
  std::string name = kCases[instance.param].name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Reports, NameBlockThreadsAndLines) {
  set_threads(1);
  const Case& c = kCases[4];
  ASSERT_STREQ(c.name, "one buffer, one barrier");
  const std::string message = run(c.kernel, 1, c.threads, c.shared_bytes, 3).message;
  EXPECT_NE(message.find("block (0, 0, 0)"), std::string::npos) << message;
  EXPECT_NE(message.find("one_buffer"), std::string::npos) << message;
  EXPECT_NE(message.find("thread "), std::string::npos) << message;
  EXPECT_NE(message.find("after faults.cc:"), std::string::npos) << message;
}

TEST(Sites, ABarrierThatIsRemovedIsMissed) {
  const std::string line = std::to_string(kRemovableLine) + ":15:faults.cc",
                    other = std::to_string(kRemovableLine + 1) + ":15:faults.cc";
  set_remove(other.c_str());
  EXPECT_EQ(run(kRemovable, 1, 128, 512, 1).message, "");
  set_remove(line.c_str());
  const std::string message = run(kRemovable, 1, 128, 512, 1).message;
  set_remove(nullptr);
  EXPECT_TRUE(says(message, "race in shared memory|uninitialised")) << message;
  EXPECT_EQ(run(kRemovable, 1, 128, 512, 1).message, "");
}

TEST(Launches, LimitsAreThoseOfTheDevice) {
  EXPECT_NE(run(kRemovable, 1, 100, 512, 1).message.find("whole warps"), std::string::npos);
  EXPECT_NE(run(kRemovable, 1, 1056, 512, 1).message.find("at most 1024"), std::string::npos);
  EXPECT_NE(run(kRemovable, 1, 128, (163 << 10) + 1, 1).message.find("shared memory"), std::string::npos);
  EXPECT_NE(run(kRemovable, 0, 128, 512, 1).message.find("grid"), std::string::npos);
}

TEST(Schedules, DifferBySeedAndRepeat) {
  set_threads(1);
  const auto tickets = [](uint64_t seed) {
    auto out = run(kTickets, 1, 128, 0, seed).out;
    out.resize(128);  // beyond it nothing is written, and NaN equals nothing
    return out;
  };
  EXPECT_EQ(tickets(1), tickets(1));
  EXPECT_NE(tickets(1), tickets(2));
}

TEST(Schedules, AResultThatDependsOnThemIsReported) {
  simt::set_schedules(4);
  const std::string tickets = run(kTickets, 1, 128, 0, 1).message, removable = run(kRemovable, 1, 128, 512, 1).message;
  simt::set_schedules(1);
  EXPECT_NE(tickets.find("seeds 1 and "), std::string::npos) << tickets;
  EXPECT_EQ(removable, "");
}

// A warp reads in[t] and in[2 t] and writes every stride-th word of shared memory.
TEST(Counters, OfKnownRequests) {
  set_threads(1);
  const void* function = reinterpret_cast<const void*>(kCounted);
  const struct {
    int64_t stride, passes;
  } cases[] = {{1, 1}, {2, 2}, {4, 4}, {32, 32}, {33, 1}};
  for (const auto& c : cases) {
    const simt::Counters before = simt::counters(function);
    simt::count(true);
    ASSERT_EQ(run(kCounted, 1, 32, 32 * 33 * 4, 1, c.stride).message, "");
    simt::count(false);
    const simt::Counters after = simt::counters(function);
    EXPECT_EQ(after.shared_requests - before.shared_requests, 1);
    EXPECT_EQ(after.shared_passes - before.shared_passes, c.passes) << c.stride;
    EXPECT_EQ(after.shared_ideal - before.shared_ideal, 1);
    EXPECT_EQ(after.global_requests - before.global_requests, 2);
    EXPECT_EQ(after.global_sectors - before.global_sectors, 4 + 8);
    EXPECT_EQ(after.global_ideal - before.global_ideal, 4 + 4);
  }
}

TEST(DeviceMemory, IsExactAndIsReused) {
  for (int round = 0; round < 1000; ++round) {
    const Memory a(1 + round * 37), b(4096), c(0);
    ASSERT_NE(a.as<char>(), nullptr);
    ASSERT_NE(c.as<char>(), nullptr);
    EXPECT_EQ(static_cast<unsigned char>(a.as<char>()[round]), 0xff);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.as<char>()) % 256, 0u);
    b.as<char>()[4095] = 1;
  }
  EXPECT_EQ(allocate(-1), nullptr);
  EXPECT_EQ(allocate(INT64_MAX), nullptr);
  release(nullptr);
}

}  // namespace
}  // namespace gatun::simt_test
