// The core: handles and their closing, argument checks, and backends that can and cannot be used. Most tests run on the fake
// backend of tests/backends/fake.c, whose runs wait to be let go.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <thread>

#include "core/version.h"
#include "device_test.h"

namespace gatun::test {
namespace {

std::string library(const std::string& name) { return GATUN_TEST_LIBRARIES "/test/libgatun_" + name + ".so"; }

gtn_status load(const std::string& name, Message* message) { return gtn_backend_load(library(name).c_str(), 0, message); }

// The listed backend of a library, or one with an empty name.
gtn_backend_info listed(const std::string& path_end) {
  int32_t count = 0;
  EXPECT_EQ(GTN_OK, gtn_backend_count(&count, nullptr));
  for (int32_t i = 0; i < count; ++i) {
    gtn_backend_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(GTN_OK, gtn_backend_query(i, &info, nullptr));
    std::string path = info.path;
    if (path.size() >= path_end.size() && path.compare(path.size() - path_end.size(), path_end.size(), path_end) == 0) return info;
  }
  return {};
}

// A device of the fake backend with a stream and a softmax plan.
class Core : public ::testing::Test {
 protected:
  void SetUp() override {
    Message message;
    ASSERT_EQ(GTN_OK, load("fake", &message)) << message.text;
    ASSERT_EQ(GTN_OK, gtn_device_open("fake", nullptr, &device, &message)) << message.text;
    ASSERT_EQ(GTN_OK, gtn_stream_create(device, &stream, &message)) << message.text;
    plan = new_plan();
  }
  void TearDown() override {
    if (plan != 0) { EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr)); }
    if (stream != 0) { EXPECT_EQ(GTN_OK, gtn_stream_close(stream, nullptr)); }
    Message message;
    EXPECT_EQ(GTN_OK, gtn_device_close(device, &message)) << message.text;
  }

  gtn_plan new_plan() {
    gtn_softmax_desc desc = {sizeof desc, 1.0f, tensor(GTN_F32, {4, 4}), tensor(GTN_F32, {4, 4})};
    gtn_plan made = 0;
    Message message;
    EXPECT_EQ(GTN_OK, gtn_softmax_plan(device, &desc, &made, &message)) << message.text;
    return made;
  }

  // Runs the plan in a thread of its own, and returns when the run is inside.
  std::thread run_inside() {
    order = 1;
    inside = 0;
    std::thread runner([this] { EXPECT_EQ(GTN_OK, gtn_softmax_run(plan, stream, 1, order_memory(), inside_memory())); });
    while (inside == 0) std::this_thread::yield();
    return runner;
  }
  void let_go() { order = 0; }
  void* order_memory() { return &order; }
  void* inside_memory() { return &before_inside; }

  gtn_device device = 0;
  gtn_stream stream = 0;
  gtn_plan plan = 0;
  // A row of four floats each, as far as the core is concerned.
  alignas(64) std::atomic<int32_t> order{0};
  alignas(64) std::atomic<int32_t> before_inside{0};
  std::atomic<int32_t> inside{0};
};

TEST(Library, VersionsAreThoseOfTheHeader) {
  EXPECT_EQ(uint32_t{GTN_ABI_VERSION}, gtn_abi_version());
  EXPECT_STREQ(GATUN_VERSION, gtn_version());
  cpu_devices();
  EXPECT_STREQ(GATUN_VERSION, listed("libgatun_cpu.so").version) << "a backend built from other sources";
  const size_t plus = std::string(GATUN_VERSION).find('+');
  ASSERT_NE(std::string::npos, plus);
  EXPECT_EQ(12u, std::strspn(&GATUN_VERSION[plus + 1], "0123456789abcdef")) << GATUN_VERSION;
  EXPECT_EQ(plus + 13, std::strlen(GATUN_VERSION));
}

TEST(Library, LayoutsAreThoseOfThisCompiler) {
  const std::string layouts = gtn_layouts();
  const auto lines = std::count(layouts.begin(), layouts.end(), '\n');
  EXPECT_EQ(13, lines) << layouts;
  const auto expect = [&](const std::string& line) { EXPECT_NE(std::string::npos, ("\n" + layouts).find("\n" + line)) << layouts; };
  expect("gtn_message 1024: size 0 4, text 4 1020\n");
  expect("gtn_device_options 8: size 0 4, threads 4 4\n");
  expect("gtn_attention_desc " + std::to_string(sizeof(gtn_attention_desc)) + ": size 0 4, scale 4 4, q 8 112, ");
  expect("gtn_activation_desc " + std::to_string(sizeof(gtn_activation_desc)) + ": ");
}

TEST(Backends, AreListedWithWhyTheyCannotBeUsed) {
  Message message;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("wrongabi", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "ABI version 9999")) << message.text;
  EXPECT_EQ(9999u, listed("libgatun_wrongabi.so").abi_version);
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("short", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "bytes")) << message.text;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("nodriver", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "libfake.so.1 was not found")) << message.text;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("absent", &message));
  EXPECT_EQ(GTN_NOT_AVAILABLE, listed("libgatun_absent.so").status);

  const std::string text = ::testing::TempDir() + "libgatun_text.so";
  std::ofstream(text) << "this is no library";
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_backend_load(text.c_str(), 0, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "cannot be opened")) << message.text;
  std::remove(text.c_str());

  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_backend_load(nullptr, 0, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_backend_load("", 0, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_backend_load("x", 2, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "trusted: is 2")) << message.text;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_backend_discover("/nowhere/at/all", &message));

  // None of this keeps the others from working.
  OpenDevice cpu("cpu");
  EXPECT_NE(0u, cpu.device);
  EXPECT_EQ(GTN_OK, listed("libgatun_cpu.so").status);
  gtn_device device = 0;
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("nodriver", nullptr, &device, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "libfake.so.1")) << message.text;
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("cuda", nullptr, &device, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "not installed")) << message.text;
  EXPECT_EQ(0u, device);
}

TEST(Backends, ASecondLibraryOfOneNameIsRefused) {
  Message message;
  ASSERT_EQ(GTN_OK, load("fake", &message)) << message.text;
  ASSERT_EQ(GTN_OK, load("fake", &message)) << "the same path again does nothing";
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("twin", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "already provides")) << message.text;
}

TEST(Backends, ATableOfTheFirstReleaseIsComplete) {
  Message message;
  ASSERT_EQ(GTN_OK, load("first", &message)) << message.text;
  gtn_device device = 0;
  ASSERT_EQ(GTN_OK, gtn_device_open("first", nullptr, &device, &message)) << message.text;
  int32_t claimed = 77;
  EXPECT_EQ(GTN_OK, gtn_device_supports(device, GTN_OP_GEMM, GTN_F32, &claimed, &message)) << message.text;
  EXPECT_EQ(-1, claimed) << "it makes no claims";
  double per_second = 77;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_device_measure(device, GTN_LIMIT_F32, &per_second, &message));
  EXPECT_STREQ("the first backend measures no limits", message.text);
  EXPECT_EQ(77, per_second);
  EXPECT_EQ(GTN_OK, gtn_device_close(device, nullptr));
}

TEST(Devices, SayWhatTheyServe) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice cpu(name);
    Message message;
    for (int32_t op = GTN_OP_GEMM; op <= GTN_OP_ACTIVATION; ++op) {
      for (int32_t dtype = GTN_F32; dtype <= GTN_S64; ++dtype) {
        int32_t claimed = 77;
        ASSERT_EQ(GTN_OK, gtn_device_supports(cpu.device, op, dtype, &claimed, &message)) << message.text;
        const bool served = dtype == GTN_F32 || dtype == GTN_BF16 || (dtype == GTN_S8 && op == GTN_OP_GEMM);
        EXPECT_EQ(served ? 1 : 0, claimed) << name << " operator " << op << " dtype " << dtype;
      }
    }
    int32_t claimed = 77;
    for (int32_t bad : {-1, 0, 6, INT32_MAX}) {
      EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_supports(cpu.device, bad, GTN_F32, &claimed, &message));
      EXPECT_EQ(message.text, std::strstr(message.text, ("op: is " + std::to_string(bad)).c_str())) << message.text;
    }
    for (int32_t bad : {-1, 0, 8, INT32_MIN}) {
      EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_supports(cpu.device, GTN_OP_GEMM, bad, &claimed, &message));
      EXPECT_EQ(message.text, std::strstr(message.text, ("dtype: is " + std::to_string(bad)).c_str())) << message.text;
    }
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_supports(cpu.device, GTN_OP_GEMM, GTN_F32, nullptr, &message));
    EXPECT_EQ(GTN_STALE_HANDLE, gtn_device_supports(cpu.device + 1, GTN_OP_GEMM, GTN_F32, &claimed, &message));
    EXPECT_EQ(77, claimed);
  }
}

TEST(Devices, NamesAreChecked) {
  gtn_device device = 77;
  Message message;
  cpu_devices();
  for (const char* name : {"", ":", "cpu:", ":avx2"}) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_open(name, nullptr, &device, &message)) << name;
  }
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("cpu:avx9", nullptr, &device, &message));
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("tpu", nullptr, &device, &message));
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("cp", nullptr, &device, &message)) << "a prefix is another name";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_open(nullptr, nullptr, &device, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_open("cpu", nullptr, nullptr, &message));
  gtn_device_options options = {sizeof options, -1};
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_open("cpu", &options, &device, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "threads")) << message.text;
  options.size = 3;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_open("cpu", &options, &device, &message));
  EXPECT_EQ(77u, device) << "an error leaves outputs untouched";
}

TEST(Devices, EveryLevelAnswersToItsName) {
  for (const std::string& name : cpu_devices()) {
    OpenDevice opened(name, 1);
    gtn_device_info info = {};
    info.size = sizeof info;
    ASSERT_EQ(GTN_OK, gtn_device_describe(opened.device, &info, nullptr));
    EXPECT_EQ(name, info.name);
    EXPECT_EQ(1, info.threads);
    gtn_softmax_desc desc = {sizeof desc, 1.0f, tensor(GTN_F32, {1, 8}), tensor(GTN_F32, {1, 8})};
    gtn_plan plan = 0;
    Message message;
    ASSERT_EQ(GTN_OK, gtn_softmax_plan(opened.device, &desc, &plan, &message)) << message.text;
    gtn_plan_info planned = {};
    planned.size = sizeof planned;
    ASSERT_EQ(GTN_OK, gtn_plan_query(plan, &planned, nullptr));
    EXPECT_EQ(0u, std::string(planned.kernel).find("cpu." + name.substr(4) + ".softmax")) << planned.kernel;
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
  }
}

TEST(Devices, TheVariableChoosesTheDefaultLevel) {
  cpu_devices();
  gtn_device device = 0;
  Message message;
  ASSERT_EQ(0, setenv("GATUN_CPU_ISA", "scalar", 1));
  EXPECT_EQ(GTN_OK, gtn_device_open("cpu", nullptr, &device, &message)) << message.text;
  gtn_device_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_device_describe(device, &info, nullptr));
  EXPECT_STREQ("cpu:scalar", info.name);
  EXPECT_EQ(GTN_OK, gtn_device_close(device, nullptr));
  for (const char* bad : {"avx9", "amx"}) {  // amx: known, and not yet in this build
    ASSERT_EQ(0, setenv("GATUN_CPU_ISA", bad, 1));
    EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("cpu", nullptr, &device, &message));
    EXPECT_NE(nullptr, std::strstr(message.text, "GATUN_CPU_ISA")) << message.text;
  }
  unsetenv("GATUN_CPU_ISA");
}

TEST_F(Core, HandlesOfClosedObjectsAreStale) {
  gtn_plan closed = new_plan();
  EXPECT_EQ(GTN_OK, gtn_plan_close(closed, nullptr));
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_plan_close(closed, nullptr));
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_softmax_run(closed, stream, 1, order_memory(), inside_memory()));
  gtn_plan reused = new_plan();
  EXPECT_NE(closed, reused) << "a slot's next object has another handle";
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_softmax_run(closed, stream, 1, order_memory(), inside_memory()));
  EXPECT_EQ(GTN_OK, gtn_softmax_run(reused, stream, 1, order_memory(), inside_memory()));
  EXPECT_EQ(GTN_OK, gtn_plan_close(reused, nullptr));
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_plan_query(reused, &info, nullptr));
}

TEST_F(Core, HandlesOfAnotherKindOrFromNowhereAreStale) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> handles = {0, 1, ~uint64_t{0}, stream, device, uint64_t{1} << 63, plan ^ 1, plan + (uint64_t{1} << 32),
                                   plan + (uint64_t{1} << 33), plan + (uint64_t{4} << 32)};
  for (int i = 0; i < 100000; ++i) handles.push_back(random());
  for (uint64_t handle : handles) {
    ASSERT_EQ(GTN_STALE_HANDLE, gtn_softmax_run(handle, stream, 1, order_memory(), inside_memory())) << handle;
    ASSERT_EQ(GTN_STALE_HANDLE, gtn_plan_close(handle, nullptr)) << handle;
    if (handle != stream) {
      ASSERT_EQ(GTN_STALE_HANDLE, gtn_softmax_run(plan, handle, 1, order_memory(), inside_memory())) << handle;
      ASSERT_EQ(GTN_STALE_HANDLE, gtn_stream_close(handle, nullptr)) << handle;
    }
    ASSERT_EQ(GTN_STALE_HANDLE, gtn_event_close(handle, nullptr));
    ASSERT_EQ(GTN_STALE_HANDLE, gtn_weights_close(handle, nullptr));
    if (handle != device) { ASSERT_EQ(GTN_STALE_HANDLE, gtn_device_close(handle, nullptr)); }
  }
  EXPECT_EQ(GTN_OK, gtn_softmax_run(plan, stream, 1, order_memory(), inside_memory()));
}

TEST_F(Core, ClosingDuringARunIsRefusedAndClosesNothing) {
  std::thread runner = run_inside();
  Message message;
  EXPECT_EQ(GTN_BUSY, gtn_plan_close(plan, &message));
  EXPECT_EQ(GTN_BUSY, gtn_stream_close(stream, &message));
  EXPECT_EQ(GTN_BUSY, gtn_device_close(device, &message));
  EXPECT_EQ(GTN_BUSY, gtn_softmax_run(plan, stream, 1, order_memory(), inside_memory())) << "a second thread on the stream";
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, nullptr)) << "a plan may be asked during a run";
  gtn_plan other = new_plan();
  EXPECT_EQ(GTN_OK, gtn_plan_close(other, nullptr)) << "another plan is not affected";
  let_go();
  runner.join();
  EXPECT_EQ(GTN_OK, gtn_softmax_run(plan, stream, 1, order_memory(), inside_memory()));
}

TEST_F(Core, DevicesStayOpenWhileAnythingOfThemIs) {
  Message message;
  EXPECT_EQ(GTN_BUSY, gtn_device_close(device, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "1 streams, 0 events, 1 plans")) << message.text;
  void* memory = nullptr;
  EXPECT_EQ(GTN_OK, gtn_memory_alloc(device, 100, 64, &memory, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
  EXPECT_EQ(GTN_OK, gtn_stream_close(stream, nullptr));
  plan = stream = 0;
  EXPECT_EQ(GTN_BUSY, gtn_device_close(device, &message)) << "its memory is open";
  EXPECT_EQ(GTN_OK, gtn_memory_free(device, memory, &message)) << message.text;
}

TEST_F(Core, MemoryIsFreedOnceAndByItsDevice) {
  std::mt19937_64 random(2);
  std::vector<void*> blocks;
  Message message;
  for (int i = 0; i < 3000; ++i) {
    if (blocks.empty() || random() % 3 != 0) {
      void* memory = nullptr;
      const int64_t alignment = int64_t{64} << (random() % 4);
      ASSERT_EQ(GTN_OK, gtn_memory_alloc(device, 1 + static_cast<int64_t>(random() % 1000), alignment, &memory, &message));
      ASSERT_EQ(0u, reinterpret_cast<uintptr_t>(memory) % static_cast<uintptr_t>(alignment));
      blocks.push_back(memory);
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      ASSERT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_free(device, static_cast<char*>(blocks.back()) + 1, &message));
      ASSERT_EQ(GTN_OK, gtn_memory_free(device, blocks.back(), &message)) << message.text;
      ASSERT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_free(device, blocks.back(), &message)) << "freed twice";
      blocks.pop_back();
    }
  }
  for (void* block : blocks) EXPECT_EQ(GTN_OK, gtn_memory_free(device, block, nullptr));
  void* memory = this;
  for (int64_t alignment : {int64_t{0}, int64_t{-64}, int64_t{32}, int64_t{65}, int64_t{4} << 20}) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_alloc(device, 8, alignment, &memory, &message)) << alignment;
  }
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_alloc(device, 0, 64, &memory, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_free(device, nullptr, &message));
  EXPECT_EQ(this, memory);
}

TEST_F(Core, AFailedRunLeavesItsMessageInTheStream) {
  order = 2;
  EXPECT_EQ(GTN_DEVICE_LOST, gtn_softmax_run(plan, stream, 1, order_memory(), inside_memory()));
  Message message;
  EXPECT_EQ(GTN_OK, gtn_stream_message(stream, &message));
  EXPECT_STREQ("fake fails as it was told", message.text);
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_norm_run(plan, stream, 1, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr));
  EXPECT_EQ(GTN_OK, gtn_stream_message(stream, &message));
  EXPECT_STREQ("plan: is for softmax, expected norm", message.text);
  struct {
    uint32_t size;
    char text[10];
  } small = {4 + sizeof small.text, "123456789"};
  EXPECT_EQ(GTN_OK, gtn_stream_message(stream, reinterpret_cast<gtn_message*>(&small)));
  EXPECT_STREQ("plan: is ", small.text) << "cut to what the caller has room for";
}

TEST_F(Core, PlansAreOfOneDevice) {
  gtn_device other = 0;
  ASSERT_EQ(GTN_OK, gtn_device_open("fake", nullptr, &other, nullptr));
  gtn_stream elsewhere = 0;
  ASSERT_EQ(GTN_OK, gtn_stream_create(other, &elsewhere, nullptr));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_run(plan, elsewhere, 1, order_memory(), inside_memory()));
  EXPECT_EQ(GTN_OK, gtn_stream_close(elsewhere, nullptr));
  EXPECT_EQ(GTN_OK, gtn_device_close(other, nullptr));
}

TEST_F(Core, WhatABackendLacksIsUnsupported) {
  Message message;
  gtn_event event = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_event_create(device, &event, &message));
  float weight = 1;
  gtn_weights_desc desc = {sizeof desc, GTN_F32, tensor(GTN_F32, {1, 1})};
  gtn_weights packed = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_weights_pack(device, &desc, &weight, &packed, &message));
  gtn_activation_desc activation = {};
  activation.size = sizeof activation;
  activation.x = activation.out = tensor(GTN_F32, {1, 1});
  gtn_plan made = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_activation_plan(device, &activation, &made, &message));
  EXPECT_STREQ("fake has no operator 5", message.text);
}

// A backend writes its message as if there were room for all of it.
TEST_F(Core, ABackendsMessageIsCutToTheCallersSize) {
  gtn_message message;
  std::memset(&message, 'x', sizeof message);
  message.size = offsetof(gtn_message, text) + 8;
  const gtn_activation_desc desc = {sizeof desc, GTN_ACT_RELU, tensor(GTN_F32, {4, 4}), tensor(GTN_F32, {4, 4}), 0, 0};
  gtn_plan made = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_activation_plan(device, &desc, &made, &message));
  EXPECT_STREQ("fake ha", message.text);
  EXPECT_EQ('x', message.text[8]) << "beyond the caller's message";
}

// Threads make, run and close plans of the same slots while others close what they should not; every answer must be one of
// those that the contract allows. The thread and address sanitizers watch.
TEST_F(Core, ClosesRaceWithRuns) {
  constexpr int kThreads = 4, kRounds = 20000;
  std::atomic<gtn_plan> shared{new_plan()};
  std::atomic<int> ran{0}, stale{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      gtn_stream own = 0;
      ASSERT_EQ(GTN_OK, gtn_stream_create(device, &own, nullptr));
      alignas(64) float x[16] = {}, out[16] = {};
      std::mt19937_64 random(static_cast<uint64_t>(t));
      for (int i = 0; i < kRounds; ++i) {
        if (random() % 8 == 0) {
          gtn_status status = gtn_plan_close(shared, nullptr);
          if (status == GTN_OK) {
            shared = new_plan();
          } else {
            ASSERT_TRUE(status == GTN_BUSY || status == GTN_STALE_HANDLE) << status;
            refused += status == GTN_BUSY;
          }
        } else {
          gtn_status status = gtn_softmax_run(shared, own, 1, x, out);
          ASSERT_TRUE(status == GTN_OK || status == GTN_STALE_HANDLE) << status;
          ran += status == GTN_OK;
          stale += status == GTN_STALE_HANDLE;
        }
      }
      ASSERT_EQ(GTN_OK, gtn_stream_close(own, nullptr));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GTN_OK, gtn_plan_close(shared, nullptr));
  EXPECT_GT(ran, kRounds / 2);
}

// ---- Checks of descriptions and runs

TEST_F(Core, DescriptionsAreChecked) {
  const gtn_softmax_desc good = {sizeof good, 1.0f, tensor(GTN_F32, {4, 8}), tensor(GTN_F32, {4, 8})};
  struct Wrong {
    const char* named;  // what the message must name
    void (*change)(gtn_softmax_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.size", [](gtn_softmax_desc& d) { d.size = 8; }},
      {"desc.scale", [](gtn_softmax_desc& d) { d.scale = NAN; }},
      {"desc.x.size", [](gtn_softmax_desc& d) { d.x.size = 0; }},
      {"desc.x.dtype", [](gtn_softmax_desc& d) { d.x.dtype = 0; }},
      {"desc.x.dtype", [](gtn_softmax_desc& d) { d.x.dtype = 99; }},
      {"desc.x.dtype", [](gtn_softmax_desc& d) { d.x.dtype = -3; }},
      {"desc.x.dtype", [](gtn_softmax_desc& d) { d.x.dtype = GTN_S8; }},
      {"desc.x.rank", [](gtn_softmax_desc& d) { d.x.rank = 0; }},
      {"desc.x.rank", [](gtn_softmax_desc& d) { d.x.rank = 7; }},
      {"desc.x.shape[0]", [](gtn_softmax_desc& d) { d.x.shape[0] = -1; }},
      {"desc.x.strides[0]", [](gtn_softmax_desc& d) { d.x.strides[0] = -8; }},
      {"desc.x.strides[1]", [](gtn_softmax_desc& d) { d.x.strides[1] = 2; }},
      {"desc.x: dimension", [](gtn_softmax_desc& d) { d.x.strides[0] = INT64_MAX; }},
      {"desc.x: dimension", [](gtn_softmax_desc& d) { d.x.shape[0] = INT64_MAX / 2; }},
      {"desc.x: dimension", [](gtn_softmax_desc& d) { d.x.shape[0] = INT64_MAX; d.x.strides[0] = 1; }},
      {"desc.out.shape[1]", [](gtn_softmax_desc& d) { d.out.shape[1] = 7; }},
      {"desc.out.strides[0]", [](gtn_softmax_desc& d) { d.out.strides[0] = 7; }},
      {"desc.out.strides[0]", [](gtn_softmax_desc& d) { d.out.strides[0] = 0; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_softmax_desc desc = good;
    wrong.change(desc);
    gtn_plan made = 77;
    Message message;
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_plan(device, &desc, &made, &message)) << wrong.named;
    EXPECT_EQ(message.text, std::strstr(message.text, wrong.named)) << message.text << " should name " << wrong.named;
    EXPECT_EQ(77u, made);
  }
  gtn_plan made = 0;
  Message message;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_plan(device, nullptr, &made, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_plan(device, &good, nullptr, &message));
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_softmax_plan(device + 1, &good, &made, &message));
}

TEST_F(Core, StructuresOfANewerCallerAreReadAsFarAsTheyAreKnown) {
  struct {
    gtn_softmax_desc desc;
    int64_t later;
  } grown = {{sizeof grown, 1.0f, tensor(GTN_F32, {4, 8}), tensor(GTN_F32, {4, 8})}, 0};
  gtn_plan made = 0;
  Message message;
  EXPECT_EQ(GTN_OK, gtn_softmax_plan(device, &grown.desc, &made, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  grown.later = 1;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_softmax_plan(device, &grown.desc, &made, &message));
}

TEST_F(Core, RunArgumentsAreChecked) {
  alignas(64) float memory[64] = {};
  const auto run = [&](int64_t rows, const void* x, void* out) { return gtn_softmax_run(plan, stream, rows, x, out); };
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(-1, memory, memory + 32));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(5, memory, memory + 32));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(1, nullptr, memory + 32));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(1, memory, nullptr));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(1, reinterpret_cast<char*>(memory) + 1, memory + 32));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(1, memory, reinterpret_cast<char*>(memory) + 34));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(2, memory, memory + 4)) << "out starts inside x";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, run(2, memory + 4, memory));
  EXPECT_EQ(GTN_OK, run(1, memory, memory + 4)) << "the rows in use do not overlap";
  EXPECT_EQ(GTN_OK, run(2, memory, memory)) << "in place";
  EXPECT_EQ(GTN_OK, run(0, nullptr, nullptr)) << "no rows, no memory";
  for (float value : memory) EXPECT_EQ(0.0f, value);
}

TEST_F(Core, ColumnsOfOneMatrixDoNotOverlap) {
  gtn_softmax_desc desc = {sizeof desc, 1.0f, tensor(GTN_F32, {4, 4}, 8), tensor(GTN_F32, {4, 4}, 8)};
  gtn_plan columns = 0;
  ASSERT_EQ(GTN_OK, gtn_softmax_plan(device, &desc, &columns, nullptr));
  alignas(64) float matrix[40] = {};
  EXPECT_EQ(GTN_OK, gtn_softmax_run(columns, stream, 4, matrix, matrix + 4));
  EXPECT_EQ(GTN_OK, gtn_softmax_run(columns, stream, 4, matrix + 4, matrix));
  EXPECT_EQ(GTN_OK, gtn_softmax_run(columns, stream, 4, matrix + 4, matrix + 8)) << "the next row's first columns";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_run(columns, stream, 4, matrix, matrix + 3));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_run(columns, stream, 4, matrix, matrix + 5));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_softmax_run(columns, stream, 4, matrix + 5, matrix));
  EXPECT_EQ(GTN_OK, gtn_plan_close(columns, nullptr));
}

TEST(Attention, DescriptionsAreChecked) {
  OpenDevice cpu("cpu");
  gtn_attention_desc good = {};
  good.size = sizeof good;
  good.scale = 1;
  good.q = good.out = tensor(GTN_F32, {2, 3, 4, 8});
  good.k = good.v = tensor(GTN_F32, {2, 5, 2, 8});
  good.window_left = good.window_right = -1;
  struct Wrong {
    const char* named;
    void (*change)(gtn_attention_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.scale", [](gtn_attention_desc& d) { d.scale = INFINITY; }},
      {"desc.k.rank", [](gtn_attention_desc& d) { d.k = tensor(GTN_F32, {5, 2, 8}); }},
      {"desc.k.dtype", [](gtn_attention_desc& d) { d.k.dtype = GTN_BF16; }},
      {"desc.k.shape[0]", [](gtn_attention_desc& d) { d.k.shape[0] = 3; }},
      {"desc.v.shape[1]", [](gtn_attention_desc& d) { d.v.shape[1] = 4; }},
      {"desc.v.shape[2]", [](gtn_attention_desc& d) { d.v.shape[2] = 1; }},
      {"desc.k.shape[3]", [](gtn_attention_desc& d) { d.k.shape[3] = 7; }},
      {"desc.out.shape[3]", [](gtn_attention_desc& d) { d.v.shape[3] = 7; }},
      {"desc.k.shape[2]", [](gtn_attention_desc& d) { d.k.shape[2] = d.v.shape[2] = 3; }},
      {"desc.k.shape[2]", [](gtn_attention_desc& d) { d.k.shape[2] = d.v.shape[2] = 0; }},
      {"desc.window_left", [](gtn_attention_desc& d) { d.window_left = -2; }},
      {"desc.window_right", [](gtn_attention_desc& d) { d.window_right = INT64_MIN; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_attention_desc desc = good;
    wrong.change(desc);
    gtn_plan plan = 0;
    Message message;
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_attention_plan(cpu.device, &desc, &plan, &message)) << wrong.named;
    EXPECT_EQ(message.text, std::strstr(message.text, wrong.named)) << message.text << " should name " << wrong.named;
  }
}

// Index arrays and log-sum-exps of so many sequences have more bytes than 63 bits count.
TEST(Attention, SizesOfTheLargestCountsDoNotOverflow) {
  OpenDevice on("cpu:scalar");
  alignas(64) float memory[256] = {};
  const gtn_tensor_desc t = tensor(GTN_F32, {4, 1, 4});
  const gtn_attention_desc desc = {sizeof desc, 1.0f, t, t, t, t, -1, -1, INT64_MAX};
  Message message;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &desc, &plan, &message)) << message.text;
  for (int64_t sequences : {INT64_MAX, INT64_MAX - 1, INT64_MAX / 8 + 1}) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_attention_run(plan, on.stream, sequences, 4, 4, memory, memory + 8, memory + 32,
                                                      memory + 48, memory + 64, memory + 128, nullptr));
    EXPECT_EQ("out: overlaps q_index", on.message().substr(0, 21));
  }
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
}

// Of shapes that no memory has: refused, or there is nothing in them to do.
TEST(Plans, OfTheLargestShapesNeitherOverflowNorTakeLong) {
  OpenDevice on("cpu:scalar", 1024);
  Message message;
  const gtn_tensor_desc row = tensor(GTN_BF16, {1, int64_t{1} << 56});
  const gtn_softmax_desc softmax = {sizeof softmax, 1.0f, row, row};
  const gtn_norm_desc norm = {sizeof norm, GTN_NORM_RMS, row, row, 0.0f, 0, 0, 0};
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_softmax_plan(on.device, &softmax, &plan, &message)) << message.text;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_norm_plan(on.device, &norm, &plan, &message)) << message.text;
  const gtn_weights_desc none = {sizeof none, GTN_F32, tensor(GTN_F32, {0, int64_t{1} << 40})};
  gtn_weights weights = 0;
  ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &none, nullptr, &weights, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, nullptr));
}

TEST(Events, TellWhatTheStreamHasReached) {
  OpenDevice cpu("cpu");
  gtn_event start = 0, end = 0;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_event_create(cpu.device, &start, &message)) << message.text;
  ASSERT_EQ(GTN_OK, gtn_event_create(cpu.device, &end, &message)) << message.text;
  double milliseconds = -1;
  int32_t done = -1;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_event_elapsed(start, end, &milliseconds, &message)) << "never recorded";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_event_query(start, &done, &message));
  EXPECT_EQ(GTN_OK, gtn_event_record(start, cpu.stream, &message));
  EXPECT_EQ(GTN_OK, gtn_event_record(end, cpu.stream, &message));
  EXPECT_EQ(GTN_OK, gtn_event_synchronize(end, &message));
  EXPECT_EQ(GTN_OK, gtn_event_query(end, &done, &message));
  EXPECT_EQ(1, done);
  EXPECT_EQ(GTN_OK, gtn_event_elapsed(start, end, &milliseconds, &message));
  EXPECT_GE(milliseconds, 0);
  EXPECT_EQ(GTN_BUSY, gtn_device_close(cpu.device, &message));
  EXPECT_EQ(GTN_OK, gtn_event_close(start, nullptr));
  EXPECT_EQ(GTN_OK, gtn_event_close(end, nullptr));
  EXPECT_EQ(GTN_STALE_HANDLE, gtn_event_record(end, cpu.stream, nullptr));
}

TEST(Memory, CopiesInStreamOrder) {
  OpenDevice cpu("cpu");
  void* memory = nullptr;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_memory_alloc(cpu.device, int64_t{5} << 20, 4096, &memory, &message)) << message.text;
  std::vector<unsigned char> from(5 << 20, 42), to(5 << 20, 0);
  const int64_t bytes = static_cast<int64_t>(from.size());
  EXPECT_EQ(GTN_OK, gtn_memory_copy(cpu.stream, memory, from.data(), bytes, GTN_HOST_TO_DEVICE, &message));
  EXPECT_EQ(GTN_OK, gtn_memory_copy(cpu.stream, to.data(), memory, bytes, GTN_DEVICE_TO_HOST, &message));
  EXPECT_EQ(from, to);
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_copy(cpu.stream, memory, static_cast<char*>(memory) + 1, 2, GTN_DEVICE_TO_DEVICE, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_copy(cpu.stream, memory, from.data(), -1, GTN_HOST_TO_DEVICE, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_copy(cpu.stream, memory, from.data(), 1, 0, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_copy(cpu.stream, nullptr, from.data(), 1, GTN_HOST_TO_DEVICE, &message));
  EXPECT_EQ(GTN_OK, gtn_memory_copy(cpu.stream, nullptr, nullptr, 0, GTN_HOST_TO_DEVICE, &message));
  EXPECT_EQ(GTN_OK, gtn_memory_free(cpu.device, memory, nullptr));
  EXPECT_EQ(GTN_OUT_OF_MEMORY, gtn_memory_alloc(cpu.device, INT64_MAX / 2, 64, &memory, &message));
}

}  // namespace
}  // namespace gatun::test
