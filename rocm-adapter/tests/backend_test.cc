// The ROCm backend over the stand-in for its runtime (fake/): devices and refusals, attention, limits, a softmax from the
// host's memory and back, and the same with each call of the runtime failing in turn: no step that failed says that it went
// well, nothing stays behind, and the next try works. GATUN_ROCM_LIBRARY is the backend.
#include <gatun/backend.h>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <future>
#include <string>
#include <vector>

namespace {

const gtn_backend& backend() {
  static const gtn_backend* const table = [] {
    void* library = dlopen(std::getenv("GATUN_ROCM_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) ADD_FAILURE() << dlerror();
    return reinterpret_cast<const gtn_backend* (*)()>(dlsym(library, "gtn_backend_entry"))();
  }();
  return *table;
}

struct Fake {
  void (*fail)(const char*, int64_t, int);
  int64_t (*calls)(const char*);
  int64_t (*live)();
};
const Fake& fake() {
  static const Fake fake = [] {
    void* library = dlopen("libamdhip64.so.7", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) ADD_FAILURE() << dlerror();
    return Fake{reinterpret_cast<void (*)(const char*, int64_t, int)>(dlsym(library, "fake_hip_fail")),
                reinterpret_cast<int64_t (*)(const char*)>(dlsym(library, "fake_hip_calls")),
                reinterpret_cast<int64_t (*)()>(dlsym(library, "fake_hip_live"))};
  }();
  return fake;
}

gtn_message empty() {
  gtn_message message = {};
  message.size = sizeof message;
  return message;
}

// ---- What there is.

gtn_status count(std::string* said) {
  int32_t devices = 0;
  gtn_message message = empty();
  const gtn_status status = backend().device_count(&devices, &message);
  *said = message.text;
  return status;
}

TEST(Runtime, IsMissing) {
  for (const char* name : {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so", "/opt/rocm/lib/libamdhip64.so",
                           "libamdhip64.so.5"}) {
    if (dlopen(name, RTLD_NOW) != nullptr) GTEST_SKIP() << "there is a ROCm runtime here: " << name;
  }
  std::string said;
  EXPECT_EQ(count(&said), GTN_NOT_AVAILABLE);
  EXPECT_NE(said.find("no ROCm runtime"), std::string::npos) << said;
}

TEST(Runtime, FindsNoDevice) {
  std::string said;
  EXPECT_EQ(count(&said), GTN_NOT_AVAILABLE);
  EXPECT_EQ(said, "the ROCm runtime (HIP 6.3) finds no GPU");
}

TEST(Runtime, IsTooOld) {
  std::string said;
  EXPECT_EQ(count(&said), GTN_NOT_AVAILABLE);
  EXPECT_EQ(said, "the ROCm runtime is too old: have HIP 5.4, need 6.0 or later");
}

TEST(Runtime, HasAnUnknownDevice) {
  gtn_device_info info = {};
  ASSERT_EQ(backend().device_info(0, &info, nullptr), GTN_OK);
  EXPECT_EQ(info.status, GTN_NOT_AVAILABLE);
  EXPECT_NE(std::string(info.reason).find("gfx908: there is code for gfx"), std::string::npos) << info.reason;
  void* device = nullptr;
  gtn_message message = empty();
  EXPECT_EQ(backend().device_open("0", nullptr, &device, &message), GTN_NOT_AVAILABLE);
  EXPECT_EQ(backend().device_open("", nullptr, &device, &message), GTN_NOT_AVAILABLE);
  EXPECT_NE(std::string(message.text).find("gfx908: there is code for gfx"), std::string::npos) << message.text;
}

// Of two devices the first has the library's waves, and the second has the other's.
TEST(Backend, NamesItsDevices) {
  int32_t devices = 0;
  ASSERT_EQ(backend().device_count(&devices, nullptr), GTN_OK);
  ASSERT_EQ(devices, 2);
  gtn_device_info info = {};
  ASSERT_EQ(backend().device_info(0, &info, nullptr), GTN_OK);
  EXPECT_EQ(info.status, GTN_OK) << info.reason;
  EXPECT_EQ(info.name, std::string(backend().name) + ":0");
  ASSERT_EQ(backend().device_info(1, &info, nullptr), GTN_OK);
  EXPECT_EQ(info.status, GTN_NOT_AVAILABLE);
  EXPECT_NE(std::string(info.reason).find("it is a device of the backend rocm"), std::string::npos) << info.reason;
}

// ---- A softmax.

constexpr int64_t kRows = 5, kColumns = 100, kBytes = kRows * kColumns * 4;

struct Outcome {
  gtn_status status = GTN_OK;  // of the first step that failed
  std::string message;
  std::vector<float> out = std::vector<float>(kRows * kColumns);
};

// From opening the device to closing it. What was made is destroyed whatever comes. The run may be in a thread of its own.
Outcome softmax(const std::vector<float>& x, const char* selector = "0", std::launch thread = std::launch::deferred) {
  Outcome outcome;
  gtn_message message = empty();
  const auto ok = [&](gtn_status status) {
    if (status != GTN_OK && outcome.status == GTN_OK) outcome.status = status, outcome.message = message.text;
    return outcome.status == GTN_OK;
  };
  gtn_softmax_desc desc = {};
  desc.size = sizeof desc;
  desc.scale = 1.0f;
  desc.x.size = sizeof desc.x;
  desc.x.dtype = GTN_F32;
  desc.x.rank = 2;
  desc.x.shape[0] = kRows, desc.x.shape[1] = kColumns;
  desc.x.strides[0] = kColumns, desc.x.strides[1] = 1;
  desc.out = desc.x;
  const gtn_backend& b = backend();
  void *device = nullptr, *stream = nullptr, *from = nullptr, *to = nullptr, *pinned = nullptr, *plan = nullptr;
  void *start = nullptr, *end = nullptr;
  gtn_plan_info info = {};
  if (ok(b.device_open(selector, nullptr, &device, &message)) && ok(b.stream_create(device, &stream, &message)) &&
      ok(b.memory_alloc(device, kBytes, 256, &from, &message)) && ok(b.memory_alloc(device, kBytes, 4096, &to, &message)) &&
      ok(b.host_memory_alloc(device, kBytes, 2 << 20, &pinned, &message)) &&
      ok(b.plan_create(device, GTN_OP_SOFTMAX, &desc, &plan, &info, &message)) &&
      ok(b.event_create(device, &start, &message)) && ok(b.event_create(device, &end, &message)) &&
      ok(b.memory_copy(stream, from, std::memcpy(pinned, x.data(), kBytes), kBytes, GTN_HOST_TO_DEVICE, &message)) &&
      ok(b.event_record(start, stream, &message))) {
    // A copy on the device, which is only started, and the run after it.
    gtn_softmax_args args = {};
    args.rows = kRows, args.x = to, args.out = to;
    int32_t done = 0;
    double milliseconds = -1;
    const auto run = [&] { return b.run(plan, stream, &args, &message); };
    if (ok(b.memory_copy(stream, to, from, kBytes, GTN_DEVICE_TO_DEVICE, &message)) && ok(std::async(thread, run).get()) &&
        ok(b.event_record(end, stream, &message))) {
      while (done == 0 && ok(b.event_query(end, &done, &message))) continue;
      if (ok(b.event_synchronize(end, &message)) && ok(b.event_elapsed(start, end, &milliseconds, &message)) &&
          ok(b.memory_copy(stream, outcome.out.data(), to, kBytes, GTN_DEVICE_TO_HOST, &message))) {
        ok(b.stream_synchronize(stream, &message));
        EXPECT_GE(milliseconds, 0);
      }
    }
  }
  if (end != nullptr) b.event_destroy(end);
  if (start != nullptr) b.event_destroy(start);
  if (plan != nullptr) b.plan_destroy(plan);
  if (pinned != nullptr) b.host_memory_free(device, pinned, kBytes);
  if (to != nullptr) b.memory_free(device, to, kBytes);
  if (from != nullptr) b.memory_free(device, from, kBytes);
  if (stream != nullptr) b.stream_destroy(stream);
  if (device != nullptr) b.device_close(device);
  return outcome;
}

std::vector<float> input() {
  std::vector<float> x(kRows * kColumns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)) * 3.0f;
  return x;
}

void check(const std::vector<float>& x, const std::vector<float>& out) {
  for (int64_t r = 0; r < kRows; ++r) {
    double sum = 0;
    for (int64_t c = 0; c < kColumns; ++c) sum += std::exp(static_cast<double>(x[static_cast<size_t>(r * kColumns + c)]));
    for (int64_t c = 0; c < kColumns; ++c) {
      const auto i = static_cast<size_t>(r * kColumns + c);
      ASSERT_NEAR(static_cast<double>(out[i]), std::exp(static_cast<double>(x[i])) / sum, 1e-7) << r << ", " << c;
    }
  }
}

TEST(Backend, RunsAKernelOfItsCodeObjects) {
  const std::vector<float> x = input();
  const Outcome outcome = softmax(x);
  ASSERT_EQ(outcome.status, GTN_OK) << outcome.message;
  check(x, outcome.out);
  EXPECT_EQ(fake().live(), 0);
}

// ---- Attention, whose kernels have arguments of more than a kilobyte, and the loops of limits.

// A causal prefill of one head in FP32: row i is the mean of the first i + 1 values where all keys are alike.
TEST(Backend, RunsAttention) {
  constexpr int64_t kLength = 40, kHead = 16, kElements = kLength * kHead;
  const gtn_backend& b = backend();
  void *device = nullptr, *stream = nullptr, *memory = nullptr, *plan = nullptr;
  gtn_message message = empty();
  ASSERT_EQ(b.device_open("0", nullptr, &device, &message), GTN_OK) << message.text;
  int32_t claimed = 0;
  EXPECT_EQ(b.supports(device, GTN_OP_ATTENTION, GTN_BF16, &claimed, nullptr), GTN_OK);
  EXPECT_EQ(claimed, 1);
  gtn_attention_pattern causal = {};
  causal.size = sizeof causal;
  causal.window_left = -1, causal.dilation = 1;
  gtn_attention_desc desc = {};
  desc.size = sizeof desc;
  desc.scale = 0.25f;
  desc.patterns = &causal;
  desc.pattern_count = 1;
  desc.q.size = sizeof desc.q;
  desc.q.rank = 4;
  desc.q.shape[0] = 1, desc.q.shape[1] = kLength, desc.q.shape[2] = 1, desc.q.shape[3] = kHead;
  desc.q.strides[0] = kElements, desc.q.strides[1] = kHead, desc.q.strides[2] = kHead, desc.q.strides[3] = 1;
  for (const int32_t dtype : {GTN_F32, GTN_BF16}) {
    desc.q.dtype = dtype;
    desc.k = desc.v = desc.out = desc.q;
    desc.out.dtype = GTN_F32;
    // 1 in both types for queries and keys, and small whole numbers for values.
    std::vector<float> numbers(kElements);
    std::vector<char> q(kElements * 4), v(kElements * 4);
    const size_t bytes = dtype == GTN_F32 ? 4 : 2;
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<float>(i % 23);
      const float one = 1.0f;
      std::memcpy(&q[i * bytes], reinterpret_cast<const char*>(&one) + 4 - bytes, bytes);
      std::memcpy(&v[i * bytes], reinterpret_cast<const char*>(&numbers[i]) + 4 - bytes, bytes);
    }
    gtn_plan_info info = {};
    ASSERT_EQ(b.stream_create(device, &stream, &message), GTN_OK) << message.text;
    ASSERT_EQ(b.memory_alloc(device, 4 * kElements * 4, 256, &memory, &message), GTN_OK) << message.text;
    ASSERT_EQ(b.plan_create(device, GTN_OP_ATTENTION, &desc, &plan, &info, &message), GTN_OK) << message.text;
    char* const at = static_cast<char*>(memory);
    gtn_attention_args args = {};
    args.sequences = 1, args.len_q = kLength, args.len_k = kLength;
    args.q = at, args.k = at, args.v = at + kElements * 4, args.out = at + 2 * kElements * 4;
    std::vector<float> out(kElements);
    ASSERT_EQ(b.memory_copy(stream, at, q.data(), kElements * 4, GTN_HOST_TO_DEVICE, &message), GTN_OK);
    ASSERT_EQ(b.memory_copy(stream, at + kElements * 4, v.data(), kElements * 4, GTN_HOST_TO_DEVICE, &message), GTN_OK);
    ASSERT_EQ(b.run(plan, stream, &args, &message), GTN_OK) << message.text;
    ASSERT_EQ(b.memory_copy(stream, out.data(), args.out, kElements * 4, GTN_DEVICE_TO_HOST, &message), GTN_OK) << message.text;
    for (int64_t column = 0; column < kHead; ++column) {
      double sum = 0;
      for (int64_t row = 0; row < kLength; ++row) {
        const auto i = static_cast<size_t>(row * kHead + column);
        sum += static_cast<double>(numbers[i]);
        ASSERT_NEAR(static_cast<double>(out[i]), sum / static_cast<double>(row + 1), 1e-5) << info.kernel << ": " << row;
      }
    }
    b.plan_destroy(plan);
    b.memory_free(device, memory, 4 * kElements * 4);
    b.stream_destroy(stream);
  }
  b.device_close(device);
  EXPECT_EQ(fake().live(), 0);
}

// What they say here is the model's time, and nothing of a device.
TEST(Backend, MeasuresLimits) {
  void* device = nullptr;
  gtn_message message = empty();
  ASSERT_EQ(backend().device_open("0", nullptr, &device, &message), GTN_OK) << message.text;
  for (const int32_t limit : {GTN_LIMIT_F32, GTN_LIMIT_BF16, GTN_LIMIT_S8, GTN_LIMIT_EXP, GTN_LIMIT_CACHE, GTN_LIMIT_COPY}) {
    double per_second = 0;
    EXPECT_EQ(backend().measure(device, limit, &per_second, &message), GTN_OK) << limit << ": " << message.text;
    EXPECT_GT(per_second, 0) << limit;
  }
  backend().device_close(device);
  EXPECT_EQ(fake().live(), 0);
}

// Of three devices the first has the other library's waves.
TEST(Devices, AnyIsTheFirstThatCanBeUsed) {
  void* device = nullptr;
  gtn_message message = empty();
  ASSERT_EQ(backend().device_open("", nullptr, &device, &message), GTN_OK) << message.text;
  gtn_device_info info = {};
  ASSERT_EQ(backend().device_describe(device, &info, nullptr), GTN_OK);
  EXPECT_EQ(info.name, std::string(backend().name) + ":1");
  backend().device_close(device);
  EXPECT_EQ(backend().device_open("0", nullptr, &device, &message), GTN_NOT_AVAILABLE);
}

// A thread begins with device 0 as its current one. The stand-in takes a launch where that is the stream's and the code's.
TEST(Devices, RunInAThreadOfTheirOwn) {
  const std::vector<float> x = input();
  for (const char* selector : {"1", "2", "1"}) {
    const Outcome outcome = softmax(x, selector, std::launch::async);
    ASSERT_EQ(outcome.status, GTN_OK) << selector << ": " << outcome.message;
    check(x, outcome.out);
  }
  EXPECT_EQ(fake().live(), 0);
}

// Functions that may fail without anything to say: what they give back is gone or stays, and nobody could do anything about it.
TEST(Backend, SaysWhichCallFailedAndLeavesNothing) {
  const std::vector<float> x = input();
  const struct {
    const char* function;
    int error;
    gtn_status status;
  } cases[] = {
      {"hipGetDeviceCount", 3, GTN_NOT_AVAILABLE},
      {"hipGetDeviceCount", 100, GTN_NOT_AVAILABLE},
      {"hipGetDevicePropertiesR0600", 101, GTN_NOT_AVAILABLE},
      {"hipSetDevice", 101, GTN_NOT_AVAILABLE},
      {"hipMalloc", 2, GTN_OUT_OF_MEMORY},
      {"hipMalloc", 999, GTN_DEVICE_LOST},
      {"hipHostMalloc", 2, GTN_OUT_OF_MEMORY},
      {"hipHostMalloc", 999, GTN_DEVICE_LOST},
      {"hipStreamCreateWithFlags", 2, GTN_OUT_OF_MEMORY},
      {"hipStreamSynchronize", 719, GTN_DEVICE_LOST},
      {"hipMemcpyAsync", 1, GTN_INTERNAL},
      {"hipEventCreateWithFlags", 2, GTN_OUT_OF_MEMORY},
      {"hipEventRecord", 400, GTN_INTERNAL},
      {"hipEventSynchronize", 700, GTN_DEVICE_LOST},
      {"hipEventQuery", 719, GTN_DEVICE_LOST},
      {"hipEventElapsedTime", 400, GTN_INTERNAL},
      {"hipModuleLaunchKernel", 9, GTN_INTERNAL},
      {"hipModuleLaunchKernel", 719, GTN_DEVICE_LOST},
  };
  ASSERT_EQ(softmax(x).status, GTN_OK);
  for (const auto& c : cases) {
    fake().fail(c.function, 0, 0);
    ASSERT_EQ(softmax(x).status, GTN_OK);
    const int64_t calls = fake().calls(c.function);
    ASSERT_GT(calls, 0) << c.function;
    int64_t told = 0;
    for (int64_t n = 1; n <= calls; ++n) {
      fake().fail(c.function, n, c.error);
      const Outcome outcome = softmax(x);
      fake().fail(c.function, 0, 0);
      if (outcome.status != GTN_OK) {
        EXPECT_EQ(outcome.status, c.status) << c.function << " " << n << ": " << outcome.message;
        EXPECT_NE(outcome.message, "");
        ++told;
      } else {
        check(x, outcome.out);
      }
      EXPECT_EQ(fake().live(), 0) << c.function << " " << n;
      const Outcome after = softmax(x);
      ASSERT_EQ(after.status, GTN_OK) << c.function << " " << n << ": " << after.message;
      check(x, after.out);
    }
    EXPECT_GT(told, 0) << c.function;
  }
}

// Code is loaded once for each device and kernel, by the first plan: a failure there must not be remembered as a success.
TEST(Code, IsLoadedAgainAfterAFailure) {
  const std::vector<float> x = input();
  const struct {
    const char* function;
    int error;
    gtn_status status;
  } cases[] = {{"hipModuleLoadData", 2, GTN_OUT_OF_MEMORY},
               {"hipModuleLoadData", 209, GTN_NOT_AVAILABLE},
               {"hipModuleGetFunction", 500, GTN_INTERNAL}};
  for (const auto& c : cases) {
    fake().fail(c.function, 1, c.error);
    const Outcome outcome = softmax(x);
    fake().fail(c.function, 0, 0);
    EXPECT_EQ(outcome.status, c.status) << c.function << ": " << outcome.message;
    EXPECT_NE(outcome.message.find(c.function), std::string::npos) << outcome.message;
    EXPECT_EQ(fake().live(), 0);
  }
  const Outcome after = softmax(x);
  ASSERT_EQ(after.status, GTN_OK) << after.message;
  check(x, after.out);
}

}  // namespace
