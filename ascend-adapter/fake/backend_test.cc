// The AscendCL backend over the stand-in of fake/ascendcl.cc: what it says where something is missing, that what it computes
// arrives, and that a call that fails, whichever it is, gives a status, leaks nothing and does no harm.
//
// A library is opened once in a process, so each test is a process of its own.
#include <dlfcn.h>
#include <gatun/gatun.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "backend/acl.h"
#include "fake/ascendcl.h"
#include "kernels/rope/tiling.h"

namespace {

// Runs what a test is made of in a child of its own; a child that fails has said why.
void alone(const std::function<void()>& body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(100);
    body();
    std::fflush(stdout);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

constexpr const char* kBackend = GATUN_TEST_LIBRARIES "/libgatun_ascend.so";
constexpr const char* kHome = GATUN_TEST_LIBRARIES "/ascend-fake";

void with_fake() {
  setenv("ASCEND_HOME_PATH", kHome, 1);
  setenv("GATUN_ASCEND_KERNELS", GATUN_TEST_LIBRARIES "/ascend-fake/kernels", 1);
}

// What the stand-in counts; the backend has opened it.
int64_t live() {
  void* library = dlopen((std::string(kHome) + "/lib64/libascendcl.so").c_str(), RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<fake_acl_live_function*>(dlsym(library, "fake_acl_live"))();
}

int64_t calls(const char* function) {
  void* library = dlopen((std::string(kHome) + "/lib64/libascendcl.so").c_str(), RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<fake_acl_calls_function*>(dlsym(library, "fake_acl_calls"))(function);
}

gtn_tensor_desc matrix(int64_t rows, int64_t n) {
  gtn_tensor_desc desc = {sizeof desc, GTN_F32, 2, 0, {rows, n}, {n, 1}};
  return desc;
}

struct Outcome {
  gtn_status status = GTN_OK;
  std::string message;
};

// Everything that a program does with a device, up to the first call that fails, and all of it given back.
class Program {
 public:
  explicit Program(int launches = 1) : launches_(launches) {}

  Outcome run() {
    Outcome outcome;
    steps(outcome);
    if (outcome.status != GTN_OK) outcome.message = message_.text;
    for (gtn_plan plan : plans_) closed(plan == 0 ? GTN_OK : gtn_plan_close(plan, &message_));
    closed(weights_ == 0 ? GTN_OK : gtn_weights_close(weights_, &message_));
    for (gtn_event event : events_) closed(event == 0 ? GTN_OK : gtn_event_close(event, &message_));
    closed(pinned_ == nullptr ? GTN_OK : gtn_host_memory_free(device_, pinned_, &message_));
    for (void* memory : memory_) closed(memory == nullptr ? GTN_OK : gtn_memory_free(device_, memory, &message_));
    closed(stream_ == 0 ? GTN_OK : gtn_stream_close(stream_, &message_));
    closed(device_ == 0 ? GTN_OK : gtn_device_close(device_, &message_));
    return outcome;
  }

 private:
  static constexpr int64_t kRows = 5, kN = 40, kColumns = 16;
  static constexpr int kPlans = 3;

  void closed(gtn_status status) { EXPECT_EQ(status, GTN_OK) << message_.text; }
  static double epsilon(int plan) { return plan * 0.5; }

#define STEP(call) \
  if ((outcome.status = call) != GTN_OK) return

  // Each launch normalises kRows rows, by the plans in turn, which differ in their epsilon.
  void steps(Outcome& outcome) {
    constexpr int64_t kElements = kRows * kN;
    const int64_t bytes = kElements * 4, out_bytes = bytes * launches_;
    std::vector<float> x(kElements), gamma(kN, 2.0f), out(static_cast<size_t>(kElements * launches_));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3.0f;
    STEP(gtn_device_open("ascend:1", nullptr, &device_, &message_));
    STEP(gtn_stream_create(device_, &stream_, &message_));
    STEP(gtn_memory_alloc(device_, bytes, 64, &memory_[0], &message_));
    STEP(gtn_memory_alloc(device_, kN * 4, 64, &memory_[1], &message_));
    STEP(gtn_memory_alloc(device_, out_bytes, 64, &memory_[2], &message_));
    STEP(gtn_memory_alloc(device_, out_bytes, 4096, &memory_[3], &message_));
    for (gtn_event& event : events_) STEP(gtn_event_create(device_, &event, &message_));
    STEP(gtn_host_memory_alloc(device_, bytes, 4096, &pinned_, &message_));
    std::memcpy(pinned_, x.data(), static_cast<size_t>(bytes));
    STEP(gtn_memory_copy(stream_, memory_[0], pinned_, bytes, GTN_HOST_TO_DEVICE, &message_));
    STEP(gtn_memory_copy(stream_, memory_[1], gamma.data(), kN * 4, GTN_HOST_TO_DEVICE, &message_));
    for (int i = 0; i < kPlans; ++i) {
      gtn_norm_desc desc = {};
      desc.size = sizeof desc;
      desc.kind = GTN_NORM_RMS;
      desc.x = desc.out = matrix(kRows, kN);
      desc.epsilon = static_cast<float>(epsilon(i));
      STEP(gtn_norm_plan(device_, &desc, &plans_[i], &message_));
    }
    STEP(gtn_event_record(events_[0], stream_, &message_));
    for (int i = 0; i < launches_; ++i) {
      float* to = static_cast<float*>(memory_[2]) + i * kElements;
      outcome.status = gtn_norm_run(plans_[i % kPlans], stream_, kRows, memory_[0], nullptr, memory_[1], nullptr, to, nullptr);
      if (outcome.status != GTN_OK) {
        gtn_stream_message(stream_, &message_);
        return;
      }
    }
    STEP(gtn_event_record(events_[1], stream_, &message_));
    STEP(gtn_event_synchronize(events_[1], &message_));
    int32_t done = 0;
    STEP(gtn_event_query(events_[1], &done, &message_));
    EXPECT_EQ(done, 1);
    double milliseconds = -1;
    STEP(gtn_event_elapsed(events_[0], events_[1], &milliseconds, &message_));
    EXPECT_GE(milliseconds, 0);
    STEP(gtn_memory_copy(stream_, memory_[3], memory_[2], out_bytes, GTN_DEVICE_TO_DEVICE, &message_));
    STEP(gtn_memory_copy(stream_, out.data(), memory_[3], out_bytes, GTN_DEVICE_TO_HOST, &message_));
    STEP(gtn_stream_synchronize(stream_, &message_));
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t element = i % kElements, row = element / kN;
      double squares = 0;
      for (size_t j = row * kN; j < (row + 1) * kN; ++j) squares += static_cast<double>(x[j]) * x[j];
      const double wanted = 2 * x[element] / std::sqrt(squares / kN + epsilon(static_cast<int>(i / kElements) % kPlans));
      ASSERT_NEAR(out[i], wanted, 1e-5) << "launch " << i / kElements << ", element " << element;
    }
    product(outcome);
  }

  // A product of S8, whose rows are quantized first: whole numbers from 0 to 255 times -1, 0 and 1, which both are exact.
  void product(Outcome& outcome) {
    std::vector<float> a(kRows * kN), b(kN * kColumns), out(kRows * kColumns);
    for (size_t i = 0; i < a.size(); ++i) a[i] = i % kN == 0 ? 0.0f : i % kN == 1 ? 255.0f : static_cast<float>(i * 37 % 256);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 7 % 3) - 1.0f;
    gtn_weights_desc weights = {};
    weights.size = sizeof weights;
    weights.format = GTN_S8;
    weights.source = matrix(kN, kColumns);
    STEP(gtn_weights_pack(device_, &weights, b.data(), &weights_, &message_));
    gtn_gemm_desc desc = {};
    desc.size = sizeof desc;
    desc.format = GTN_S8;
    desc.a = matrix(kRows, kN);
    desc.out = matrix(kRows, kColumns);
    STEP(gtn_gemm_plan(device_, &desc, &plans_[kPlans], &message_));
    const int64_t a_bytes = kRows * kN * 4, out_bytes = kRows * kColumns * 4;
    STEP(gtn_memory_alloc(device_, a_bytes, 64, &memory_[4], &message_));
    STEP(gtn_memory_alloc(device_, out_bytes, 64, &memory_[5], &message_));
    STEP(gtn_memory_copy(stream_, memory_[4], a.data(), a_bytes, GTN_HOST_TO_DEVICE, &message_));
    outcome.status = gtn_gemm_run(plans_[kPlans], stream_, weights_, kRows, memory_[4], nullptr, nullptr, memory_[5]);
    if (outcome.status != GTN_OK) {
      gtn_stream_message(stream_, &message_);
      return;
    }
    STEP(gtn_memory_copy(stream_, out.data(), memory_[5], out_bytes, GTN_DEVICE_TO_HOST, &message_));
    STEP(gtn_stream_synchronize(stream_, &message_));
    for (size_t i = 0; i < out.size(); ++i) {
      float wanted = 0;
      for (size_t l = 0; l < kN; ++l) wanted += a[i / kColumns * kN + l] * b[l * kColumns + i % kColumns];
      ASSERT_NEAR(out[i], wanted, 0.01) << "product, element " << i;
    }
  }
#undef STEP

  const int launches_;
  gtn_message message_ = {sizeof message_, ""};
  gtn_device device_ = 0;
  gtn_stream stream_ = 0;
  gtn_plan plans_[kPlans + 1] = {};  // the last is the product's
  gtn_weights weights_ = 0;
  gtn_event events_[2] = {};
  void *memory_[6] = {}, *pinned_ = nullptr;
};

std::string refusal(const char* variable = nullptr, const char* value = nullptr) {
  if (variable != nullptr) setenv(variable, value, 1);
  gtn_message message = {sizeof message, ""};
  EXPECT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_NOT_AVAILABLE);
  return message.text;
}

void expect_program(int launches = 1) {
  const int64_t before = live();
  const Outcome outcome = Program(launches).run();
  EXPECT_EQ(outcome.status, GTN_OK) << outcome.message;
  EXPECT_EQ(live(), before);
}

TEST(AscendBackend, SaysWhatIsMissing) {
  alone([] {
    unsetenv("ASCEND_HOME_PATH");
    unsetenv("ASCEND_TOOLKIT_HOME");
    EXPECT_NE(refusal().find("CANN not found: "), std::string::npos);
  });
  alone([] {
    with_fake();
    EXPECT_NE(refusal("GATUN_FAKE_ACL_DEVICES", "0").find("no device"), std::string::npos);
  });
  alone([] {
    with_fake();
    EXPECT_NE(refusal("GATUN_FAKE_ACL_FAIL", "aclInit:1:500000").find("aclInit: error 500000"), std::string::npos);
  });
}

TEST(AscendBackend, TakesKernelsOfItsOwnSocAlone) {
  alone([] {
    with_fake();
    setenv("GATUN_FAKE_ACL_SOC", "Ascend310P3", 1);
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    gtn_device device = 0;
    EXPECT_EQ(gtn_device_open("ascend:0", nullptr, &device, &message), GTN_NOT_AVAILABLE);
    EXPECT_NE(std::string(message.text).find("no kernels for Ascend310P3"), std::string::npos) << message.text;
    EXPECT_NE(std::string(message.text).find("Ascend910B"), std::string::npos) << message.text;
    EXPECT_EQ(live(), 0);
  });
  alone([] {
    with_fake();
    setenv("GATUN_FAKE_ACL_FAIL", "aclrtBinaryLoadFromFile:1:107000", 1);
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    gtn_device device = 0;
    EXPECT_EQ(gtn_device_open("ascend:0", nullptr, &device, &message), GTN_NOT_AVAILABLE);
    EXPECT_NE(std::string(message.text).find("built for another SoC"), std::string::npos) << message.text;
  });
}

TEST(AscendBackend, RunsAProgram) {
  alone([] {
    with_fake();
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    expect_program();
  });
}

TEST(AscendBackend, AsksOnlyTheDeviceThatItOpens) {
  alone([] {
    with_fake();
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    const int64_t before = calls("aclrtGetMemInfo");
    for (const char* name : {"ascend:1", "ascend:0", "ascend"}) {
      gtn_device device = 0;
      ASSERT_EQ(gtn_device_open(name, nullptr, &device, &message), GTN_OK) << message.text;
      EXPECT_EQ(gtn_device_close(device, &message), GTN_OK);
    }
    EXPECT_EQ(calls("aclrtGetMemInfo") - before, 3);
    for (const char* name : {"ascend:2", "ascend:01", "ascend:x"}) {
      gtn_device device = 0;
      EXPECT_EQ(gtn_device_open(name, nullptr, &device, &message), GTN_NOT_AVAILABLE) << name;
    }
    EXPECT_EQ(calls("aclrtGetMemInfo") - before, 3);
  });
}

// The longest head that a plan takes, of the kind that fills the UB most, and one more.
TEST(AscendBackend, RotatesTheLongestHead) {
  alone([] {
    with_fake();
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    gtn_device device = 0;
    gtn_stream stream = 0;
    ASSERT_EQ(gtn_device_open("ascend", nullptr, &device, &message), GTN_OK) << message.text;
    ASSERT_EQ(gtn_stream_create(device, &stream, &message), GTN_OK) << message.text;
    gtn_rope_desc desc = {};
    desc.size = sizeof desc;
    desc.style = GTN_ROPE_INTERLEAVED;
    desc.rotary = 2, desc.max_position = 1, desc.has_q = 1;
    gtn_plan plan = 0;
    const auto head_of = [&](int64_t n) {
      desc.q = desc.q_out = {sizeof desc.q, GTN_F32, 3, 0, {1, 1, n}, {n, n, 1}};
      return gtn_rope_plan(device, &desc, &plan, &message);
    };
    constexpr int64_t kN = gatun::ascend::kRopeMaxHead, kBytes = kN * 4;
    EXPECT_EQ(head_of(kN + 1), GTN_UNSUPPORTED) << message.text;
    ASSERT_EQ(head_of(kN), GTN_OK) << message.text;
    std::vector<float> x(kN), out(kN);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const float table[] = {0.0f, 1.0f};  // a quarter of a turn
    const int64_t position = 0;
    const void* const from[] = {x.data(), table, &position};
    const int64_t bytes[] = {kBytes, sizeof table, sizeof position, kBytes};
    void* memory[4] = {};
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(gtn_memory_alloc(device, bytes[i], 64, &memory[i], &message), GTN_OK) << message.text;
      if (i == 3) break;
      ASSERT_EQ(gtn_memory_copy(stream, memory[i], from[i], bytes[i], GTN_HOST_TO_DEVICE, &message), GTN_OK) << message.text;
    }
    ASSERT_EQ(gtn_rope_run(plan, stream, 1, memory[2], memory[1], nullptr, memory[0], nullptr, nullptr, memory[3], nullptr,
                           nullptr, nullptr, nullptr),
              GTN_OK);
    ASSERT_EQ(gtn_memory_copy(stream, out.data(), memory[3], kBytes, GTN_DEVICE_TO_HOST, &message), GTN_OK) << message.text;
    x[0] = -2, x[1] = 1;
    EXPECT_EQ(out, x);
  });
}

// More launches under way than the ring has places for their tilings: each still has its own epsilon.
TEST(AscendBackend, LaunchesDoNotOvertakeTheirTilings) {
  alone([] {
    with_fake();
    setenv("GATUN_FAKE_ACL_SLOW", "200", 1);
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    expect_program(301);
    // Each time that a half of the ring is taken again, and then for the program's own events.
    EXPECT_GE(calls("aclrtSynchronizeEvent"), 6);
  });
}

// What a code means, wherever it comes from; see acl.h.
struct Code {
  int code;
  gtn_status status;
};
constexpr Code kCodes[] = {
    {107000, GTN_INTERNAL}, {207001, GTN_OUT_OF_MEMORY}, {507035, GTN_DEVICE_LOST}, {507027, GTN_INTERNAL}};

TEST(AscendBackend, SurvivesEveryFailure) {
  const char* const functions[] = {
#define NAME(result, name, parameters) #name,
      GATUN_ACL_FUNCTIONS(NAME)
#undef NAME
  };
  alone([&] {
    with_fake();
    gtn_message message = {sizeof message, ""};
    ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
    ASSERT_EQ(gtn_backend_load(GATUN_TEST_LIBRARIES "/libgatun_cpu.so", 1, &message), GTN_OK) << message.text;
    expect_program();
    int injected = 0;
    for (const std::string function : functions) {
      const int64_t before = calls(function.c_str());
      expect_program();
      const int64_t count = calls(function.c_str()) - before;
      for (const Code& code : kCodes) {
        for (int64_t n = 1; n <= count; ++n) {
          const std::string wish = function + ":" + std::to_string(n) + ":" + std::to_string(code.code);
          SCOPED_TRACE(wish);
          setenv("GATUN_FAKE_ACL_FAIL", wish.c_str(), 1);
          const int64_t live_before = live();
          const int64_t calls_before = calls(function.c_str());
          const Outcome outcome = Program().run();
          unsetenv("GATUN_FAKE_ACL_FAIL");
          // Memory that happens to be aligned is not asked for again.
          if (calls(function.c_str()) - calls_before < n) continue;
          ++injected;
          // What gives things back cannot report a failure, and leaves behind what it could not give back.
          if (function == "aclrtSetDevice" && outcome.status == GTN_OK) continue;
          const bool gives_back =
              function == "aclrtFree" || function == "aclrtFreeHost" || function.starts_with("aclrtDestroy");
          if (gives_back) {
            EXPECT_EQ(outcome.status, GTN_OK) << outcome.message;
            continue;
          }
          // Nothing gives back a list of arguments but its launch.
          const bool leaves_list = function == "aclrtKernelArgsAppend" || function == "aclrtKernelArgsFinalize" ||
                                   function == "aclrtLaunchKernelWithConfig";
          EXPECT_EQ(live(), live_before + (leaves_list ? 1 : 0));
          if (outcome.status == GTN_OK) {
            // It was in a call that gives back, of what it had to wait for.
            EXPECT_TRUE(function.starts_with("aclrtSynchronize"));
            continue;
          }
          EXPECT_EQ(outcome.status, code.status) << outcome.message;
          const bool out_of_memory = function.starts_with("aclrtMalloc") && code.status == GTN_OUT_OF_MEMORY;
          const bool named = outcome.message.find(function + ": error " + std::to_string(code.code)) != std::string::npos;
          EXPECT_TRUE(named || (out_of_memory && outcome.message.find(" bytes to ") != std::string::npos))
              << outcome.message;
        }
      }
    }
    EXPECT_GT(injected, 100);
    gtn_device cpu = 0;
    EXPECT_EQ(gtn_device_open("cpu", nullptr, &cpu, &message), GTN_OK) << message.text;
    EXPECT_EQ(gtn_device_close(cpu, &message), GTN_OK);
    const Outcome outcome = Program().run();
    EXPECT_EQ(outcome.status, GTN_OK) << outcome.message;
  });
}

// What is done once in a process: the binary is loaded and its entries are looked up.
TEST(AscendBackend, SurvivesFailuresOfFirstUse) {
  for (const std::string function : {"aclrtBinaryLoadFromFile", "aclrtBinaryGetFunction"}) {
    for (const Code& code : kCodes) {
      alone([&] {
        with_fake();
        gtn_message message = {sizeof message, ""};
        ASSERT_EQ(gtn_backend_load(kBackend, 1, &message), GTN_OK) << message.text;
        setenv("GATUN_FAKE_ACL_FAIL", (function + ":1:" + std::to_string(code.code)).c_str(), 1);
        const Outcome outcome = Program().run();
        const bool other_soc = function == "aclrtBinaryLoadFromFile" && code.status == GTN_INTERNAL;
        EXPECT_EQ(outcome.status, other_soc ? GTN_NOT_AVAILABLE : code.status) << outcome.message;
        EXPECT_NE(outcome.message.find(function + ": error " + std::to_string(code.code)), std::string::npos)
            << outcome.message;
        EXPECT_EQ(live(), 0);
        unsetenv("GATUN_FAKE_ACL_FAIL");
        expect_program();
      });
    }
  }
}

}  // namespace
