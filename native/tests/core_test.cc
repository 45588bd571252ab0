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
  EXPECT_EQ(25, lines) << layouts;
  const auto expect = [&](const std::string& line) { EXPECT_NE(std::string::npos, ("\n" + layouts).find("\n" + line)) << layouts; };
  expect("gtn_message 1024: size 0 4, text 4 1020\n");
  expect("gtn_device_options 8: size 0 4, threads 4 4\n");
  expect("gtn_attention_desc " + std::to_string(sizeof(gtn_attention_desc)) + ": size 0 4, scale 4 4, q 8 112, ");
  expect("gtn_attention_pattern 40: size 0 4, masks 4 4, window_left 8 8, window_right 16 8, dilation 24 8, sinks 32 8\n");
  expect("gtn_activation_desc " + std::to_string(sizeof(gtn_activation_desc)) + ": ");
}

TEST(Backends, AreListedWithWhyTheyCannotBeUsed) {
  Message message;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("wrongabi", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "ABI version 9999")) << message.text;
  EXPECT_EQ(9999u, listed("libgatun_wrongabi.so").abi_version);
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("short", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "bytes")) << message.text;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("allocs", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "lacks 'host_memory_free'")) << message.text;
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("frees", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "lacks 'host_memory_alloc'")) << message.text;
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
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_device_open("ascend", nullptr, &device, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "'ascend' is not available: CANN not found")) << message.text;
  EXPECT_EQ(0u, device);
}

TEST(Backends, ASecondLibraryOfOneNameIsRefused) {
  Message message;
  ASSERT_EQ(GTN_OK, load("fake", &message)) << message.text;
  ASSERT_EQ(GTN_OK, load("fake", &message)) << "the same path again does nothing";
  EXPECT_EQ(GTN_NOT_AVAILABLE, load("twin", &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "already provides")) << message.text;
}

TEST(Backends, ALibraryTakesThePlaceOfOneThatWasListedAsMissing) {
  cpu_devices();
  const auto count = [] {
    int32_t backends = 0;
    EXPECT_EQ(GTN_OK, gtn_backend_count(&backends, nullptr));
    return backends;
  };
  gtn_backend_info info = {};
  info.size = sizeof info;
  int32_t index = 0;
  const int32_t before = count();
  while (index < before && gtn_backend_query(index, &info, nullptr) == GTN_OK && std::strcmp(info.name, "rocm_rdna") != 0) ++index;
  ASSERT_LT(index, before);
  Message message;
  if (*info.path != '\0') {
    // This build has that backend: nothing takes its place.
    EXPECT_EQ(GTN_NOT_AVAILABLE, load("elsewhere", &message));
    EXPECT_EQ(before + 1, count());
    return;
  }
  EXPECT_EQ(GTN_NOT_AVAILABLE, info.status);
  ASSERT_EQ(GTN_OK, load("elsewhere", &message)) << message.text;
  EXPECT_EQ(before, count());
  ASSERT_EQ(GTN_OK, gtn_backend_query(index, &info, nullptr));
  EXPECT_EQ(GTN_OK, info.status);
  EXPECT_STREQ("rocm_rdna", info.name);
  EXPECT_STREQ("", info.reason);
  gtn_device device = 0;
  ASSERT_EQ(GTN_OK, gtn_device_open("rocm_rdna", nullptr, &device, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_device_close(device, nullptr));
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
    for (int32_t op = GTN_OP_GEMM; op <= GTN_OP_FAKE_QUANTIZE; ++op) {
      for (int32_t dtype = GTN_F32; dtype <= GTN_BF16_2OF4; ++dtype) {
        int32_t claimed = 77;
        ASSERT_EQ(GTN_OK, gtn_device_supports(cpu.device, op, dtype, &claimed, &message)) << message.text;
        const bool half = op == GTN_OP_ATTENTION || op == GTN_OP_MERGE || op == GTN_OP_ROPE ||
                          op == GTN_OP_SELECT || op == GTN_OP_ROUTE || op == GTN_OP_MIX || op == GTN_OP_GLU ||
                          op == GTN_OP_GEMM || op == GTN_OP_POOLING;
        const bool weights = dtype == GTN_S8 || dtype == GTN_U8 || dtype >= GTN_U4;
        const bool served = dtype == GTN_F32 || dtype == GTN_BF16 || (weights && op == GTN_OP_GEMM) ||
                            (dtype == GTN_F16 && half);
        EXPECT_EQ(served ? 1 : 0, claimed) << name << " operator " << op << " dtype " << dtype;
      }
    }
    int32_t claimed = 77;
    for (int32_t bad : {-1, 0, GTN_OP_FAKE_QUANTIZE + 1, INT32_MAX}) {
      EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_device_supports(cpu.device, bad, GTN_F32, &claimed, &message));
      EXPECT_EQ(message.text, std::strstr(message.text, ("op: is " + std::to_string(bad)).c_str())) << message.text;
    }
    for (int32_t bad : {-1, 0, 12, INT32_MIN}) {
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
  const std::vector<std::string> available = cpu_devices();
  gtn_device device = 0;
  Message message;
  ASSERT_EQ(0, setenv("GATUN_CPU_ISA", "scalar", 1));
  EXPECT_EQ(GTN_OK, gtn_device_open("cpu", nullptr, &device, &message)) << message.text;
  gtn_device_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_device_describe(device, &info, nullptr));
  EXPECT_STREQ("cpu:scalar", info.name);
  EXPECT_EQ(GTN_OK, gtn_device_close(device, nullptr));
  for (const char* bad : {"avx9", "amx", "sve"}) {  // the latter two are levels, which most processors lack
    if (std::count(available.begin(), available.end(), std::string("cpu:") + bad) > 0) continue;
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

TEST_F(Core, PinnedMemoryIsDeclinedWithoutASlot) {
  void* memory = this;
  Message message;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_host_memory_alloc(device, 100, 64, &memory, &message));
  EXPECT_NE(nullptr, std::strstr(message.text, "no memory of the host")) << message.text;
  EXPECT_EQ(this, memory);
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_free(device, this, &message));
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
  gtn_weights_desc desc = {sizeof desc, GTN_F32, tensor(GTN_F32, {1, 1}), 0, 0, 0};
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
// those that the contract allows. The thread and address sanitizers watch. A thread that closed the plan and is then kept
// from making the next leaves the others without one for as long, so they count runs that worked, not attempts.
TEST_F(Core, ClosesRaceWithRuns) {
  constexpr int kThreads = 4, kRuns = 10000;
  std::atomic<gtn_plan> shared{new_plan()};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      gtn_stream own = 0;
      ASSERT_EQ(GTN_OK, gtn_stream_create(device, &own, nullptr));
      alignas(64) float x[16] = {}, out[16] = {};
      std::mt19937_64 random(static_cast<uint64_t>(t));
      for (int ran = 0; ran < kRuns;) {
        if (random() % 8 == 0) {
          gtn_status status = gtn_plan_close(shared, nullptr);
          if (status == GTN_OK) {
            shared = new_plan();
          } else {
            ASSERT_TRUE(status == GTN_BUSY || status == GTN_STALE_HANDLE) << status;
          }
        } else {
          gtn_status status = gtn_softmax_run(shared, own, 1, x, out);
          ASSERT_TRUE(status == GTN_OK || status == GTN_STALE_HANDLE) << status;
          ran += status == GTN_OK;
        }
      }
      ASSERT_EQ(GTN_OK, gtn_stream_close(own, nullptr));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GTN_OK, gtn_plan_close(shared, nullptr));
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

// ---- Attention, merges and rotary embeddings

// A description with its patterns, of which `desc` points to the first.
struct Attending {
  gtn_attention_desc desc = {};
  gtn_attention_pattern patterns[4];

  Attending() {
    desc.size = sizeof desc;
    desc.scale = 1;
    desc.q = desc.out = tensor(GTN_F32, {2, 3, 4, 8});
    desc.k = desc.v = tensor(GTN_F32, {2, 5, 2, 8});
    desc.pattern_count = 1;
    for (gtn_attention_pattern& pattern : patterns) pattern = {sizeof pattern, 0, -1, -1, 1, 0};
  }
};

// Every part at once: a pattern for each head, pages of INT8, and all arrays.
Attending everything() {
  Attending a;
  gtn_attention_desc& desc = a.desc;
  desc.q.dtype = GTN_F16;
  desc.out = tensor(GTN_F32, {2, 3, 4, 6});
  desc.k = tensor(GTN_S8, {7, 16, 2, 8});
  desc.v = tensor(GTN_S8, {7, 16, 2, 6});
  desc.pattern_count = 4;
  a.patterns[0].masks = GTN_MASK_PREFIX | GTN_MASK_GLOBALS;
  a.patterns[1].masks = GTN_MASK_DOCUMENTS;
  a.patterns[3].masks = GTN_MASK_TREE | GTN_MASK_BLOCKS;
  desc.softcap = 20;
  desc.self_bias = -1;
  desc.has_sink_logits = desc.has_slopes = desc.has_bias = desc.paged = desc.has_block_bias = 1;
  desc.bias = tensor(GTN_F16, {2, 4, 3, 40});
  desc.bias.strides[1] = 0;
  desc.max_len_k = 40;
  desc.max_globals = 2;
  desc.max_tree = 3;
  desc.document_heads = 2;
  desc.document_layers = 2;
  desc.block_q = 2;
  desc.block_k = 16;
  desc.block_heads = 4;
  desc.max_blocks = 9;
  desc.max_block_masks = 3;
  desc.order_heads = 1;
  return a;
}

class Planning : public Core {
 protected:
  gtn_status plan_of(Attending& a) {
    a.desc.patterns = a.desc.patterns == nullptr ? a.patterns : a.desc.patterns;
    return gtn_attention_plan(device, &a.desc, &made, &message);
  }

  // That the last call failed, with a message that starts so.
  void expect_refused(gtn_status status, const std::string& start) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, status) << start;
    EXPECT_EQ(start, std::string(message.text).substr(0, start.size())) << message.text;
  }
  void expect_run_refused(gtn_status status, const std::string& start) {
    EXPECT_EQ(GTN_OK, gtn_stream_message(stream, &message));
    expect_refused(status, start);
  }

  void TearDown() override {
    if (made != 0) { EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr)); }
    Core::TearDown();
  }

  gtn_plan made = 0;
  Message message;
};

TEST_F(Planning, OfAttentionAreChecked) {
  struct Wrong {
    const char* named;
    void (*change)(Attending&);
  };
  const Wrong plain[] = {
      {"desc.scale: is inf, expected a finite number", [](Attending& a) { a.desc.scale = INFINITY; }},
      {"desc.paged: is 2", [](Attending& a) { a.desc.paged = 2; }},
      {"desc.q.dtype: is S8, expected F32, BF16 or F16", [](Attending& a) { a.desc.q.dtype = GTN_S8; }},
      {"desc.k.dtype: is U8, expected F32, BF16, F16 or S8", [](Attending& a) { a.desc.k.dtype = GTN_U8; }},
      {"desc.v.dtype: is F32, expected BF16", [](Attending& a) { a.desc.k.dtype = GTN_BF16; }},
      {"desc.out.dtype: is BF16, expected F32", [](Attending& a) { a.desc.out.dtype = GTN_BF16; }},
      {"desc.k.rank", [](Attending& a) { a.desc.k = tensor(GTN_F32, {5, 2, 8}); }},
      {"desc.k.shape[0]: is 3, expected q's 2", [](Attending& a) { a.desc.k.shape[0] = 3; }},
      {"desc.v.shape[1]: is 4, expected k's 5", [](Attending& a) { a.desc.v.shape[1] = 4; }},
      {"desc.v.shape[2]", [](Attending& a) { a.desc.v.shape[2] = 1; }},
      {"desc.k.shape[3]", [](Attending& a) { a.desc.k.shape[3] = 7; }},
      {"desc.out.shape[3]", [](Attending& a) { a.desc.v.shape[3] = 7; }},
      {"desc.k.shape[2]", [](Attending& a) { a.desc.k.shape[2] = a.desc.v.shape[2] = 3; }},
      {"desc.k.shape[2]", [](Attending& a) { a.desc.k.shape[2] = a.desc.v.shape[2] = 0; }},
      {"desc.pattern_count: is 0, expected 1 or 4", [](Attending& a) { a.desc.pattern_count = 0; }},
      {"desc.pattern_count: is 2, expected 1 or 4", [](Attending& a) { a.desc.pattern_count = 2; }},
      {"desc.pattern_count: is -1", [](Attending& a) { a.desc.pattern_count = -1; }},
      {"desc.patterns[0].size: is 8", [](Attending& a) { a.patterns[0].size = 8; }},
      {"desc.patterns[0].window_left: is -2", [](Attending& a) { a.patterns[0].window_left = -2; }},
      {"desc.patterns[0].window_right", [](Attending& a) { a.patterns[0].window_right = INT64_MIN; }},
  };
  const Wrong full[] = {
      {"desc.k.rank: is 3, expected 4 to 4", [](Attending& a) { a.desc.k = a.desc.v = tensor(GTN_S8, {7, 2, 8}); }},
      {"desc.v.shape[0]: is 6, expected k's 7", [](Attending& a) { a.desc.v.shape[0] = 6; }},
      {"desc.k.shape[1]: is 0, expected a page size", [](Attending& a) { a.desc.k.shape[1] = a.desc.v.shape[1] = 0; }},
      {"desc.max_len_k: is -1", [](Attending& a) { a.desc.max_len_k = -1; }},
      {"desc.max_len_k: makes block_table exceed",
       [](Attending& a) {
         a.desc.max_len_k = INT64_MAX;
         a.desc.k.shape[1] = a.desc.v.shape[1] = 1;
       }},
      {"desc.patterns[2].size: is 48, expected 40", [](Attending& a) { a.patterns[2].size = 48; a.patterns[3] = {}; }},
      {"desc.patterns[2].masks: is 32, expected a sum of GTN_MASK_*, at most 31",
       [](Attending& a) { a.patterns[2].masks = 32; }},
      {"desc.patterns[3].dilation: is 0, expected 1 or more", [](Attending& a) { a.patterns[3].dilation = 0; }},
      {"desc.patterns[1].sinks: is -1", [](Attending& a) { a.patterns[1].sinks = -1; }},
      {"desc.softcap: is -1", [](Attending& a) { a.desc.softcap = -1; }},
      {"desc.softcap: is inf", [](Attending& a) { a.desc.softcap = INFINITY; }},
      {"desc.softcap: is nan", [](Attending& a) { a.desc.softcap = NAN; }},
      {"desc.self_bias", [](Attending& a) { a.desc.self_bias = -INFINITY; }},
      {"desc.has_sink_logits: is 2, expected 0 or 1", [](Attending& a) { a.desc.has_sink_logits = 2; }},
      {"desc.has_slopes", [](Attending& a) { a.desc.has_slopes = -1; }},
      {"desc.has_bias", [](Attending& a) { a.desc.has_bias = 7; }},
      {"desc.has_block_bias", [](Attending& a) { a.desc.has_block_bias = 2; }},
      {"desc.bias.dtype: is BF16, expected F32 or F16", [](Attending& a) { a.desc.bias.dtype = GTN_BF16; }},
      {"desc.bias.rank", [](Attending& a) { a.desc.bias.rank = 3; }},
      {"desc.bias.shape[0]: is 3, expected at most 2", [](Attending& a) { a.desc.bias.shape[0] = 3; }},
      {"desc.bias.shape[1]: is 1, expected q's heads, 4", [](Attending& a) { a.desc.bias.shape[1] = 1; }},
      {"desc.bias.shape[2]: is 4, expected at most 3", [](Attending& a) { a.desc.bias.shape[2] = 4; }},
      {"desc.bias.shape[3]: is 41, expected at most 40", [](Attending& a) { a.desc.bias.shape[3] = 41; }},
      {"desc.max_globals: is 0, expected 1 or more", [](Attending& a) { a.desc.max_globals = 0; }},
      {"desc.max_globals: makes globals exceed", [](Attending& a) { a.desc.max_globals = INT64_MAX / 8 + 1; }},
      {"desc.max_tree: is 0", [](Attending& a) { a.desc.max_tree = 0; }},
      {"desc.max_tree: makes tree exceed", [](Attending& a) { a.desc.max_tree = int64_t{1} << 32; }},
      {"desc.document_heads: is 3, expected 1, 2 (heads of k) or 4 (heads of q)",
       [](Attending& a) { a.desc.document_heads = 3; }},
      {"desc.document_layers: is 0", [](Attending& a) { a.desc.document_layers = 0; }},
      {"desc.document_layers: makes q_documents exceed", [](Attending& a) { a.desc.document_layers = INT64_MAX; }},
      {"desc.block_q: is 0", [](Attending& a) { a.desc.block_q = 0; }},
      {"desc.block_k: is -1", [](Attending& a) { a.desc.block_k = -1; }},
      {"desc.block_heads: is 0", [](Attending& a) { a.desc.block_heads = 0; }},
      {"desc.max_blocks: is -1", [](Attending& a) { a.desc.max_blocks = -1; }},
      {"desc.max_blocks: makes block_columns exceed", [](Attending& a) { a.desc.max_blocks = INT64_MAX / 4 + 1; }},
      {"desc.max_block_masks: is -1", [](Attending& a) { a.desc.max_block_masks = -1; }},
      {"desc.max_block_masks: makes block_masks exceed", [](Attending& a) { a.desc.block_k = int64_t{1} << 62; }},
      {"desc.order_heads: is -1", [](Attending& a) { a.desc.order_heads = -1; }},
      {"desc.order_heads: is 3", [](Attending& a) { a.desc.order_heads = 3; }},
  };
  const auto check = [&](const Attending& good, const Wrong& wrong) {
    Attending a = good;
    wrong.change(a);
    expect_refused(plan_of(a), wrong.named);
    EXPECT_EQ(0u, made);
  };
  for (const Wrong& wrong : plain) check(Attending(), wrong);
  for (const Wrong& wrong : full) check(everything(), wrong);
  Attending without;
  expect_refused(gtn_attention_plan(device, &without.desc, &made, &message), "desc.patterns: is null");
}

// What goes with a mask that no pattern has does not matter.
TEST_F(Planning, OfAttentionLookAtNothingThatIsNotUsed) {
  Attending a;
  a.desc.max_len_k = a.desc.max_globals = a.desc.max_tree = a.desc.document_heads = a.desc.document_layers = -1;
  a.desc.block_q = a.desc.block_k = a.desc.block_heads = a.desc.max_blocks = a.desc.max_block_masks = -1;
  a.desc.max_sequences = -1;
  EXPECT_EQ(GTN_OK, plan_of(a)) << message.text;
}

TEST_F(Planning, GetCompletePatterns) {
  Attending a = everything();
  a.patterns[2].window_left = 5;
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  gtn_plan_info info = {};
  info.size = sizeof info;
  ASSERT_EQ(GTN_OK, gtn_plan_query(made, &info, nullptr));
  EXPECT_EQ(4, info.blocks);
  EXPECT_EQ(31.0, info.flops);
  EXPECT_EQ(2.0, info.bytes);
  info.size = offsetof(gtn_plan_info, blocks);
  info.blocks = 77;
  ASSERT_EQ(GTN_OK, gtn_plan_query(made, &info, nullptr));
  EXPECT_EQ(77, info.blocks) << "beyond an older caller's structure";
  ASSERT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  made = 0;

  // Those of a newer caller lie further apart.
  struct {
    gtn_attention_pattern pattern;
    int64_t later;
  } grown[4];
  for (int i = 0; i < 4; ++i) grown[i] = {a.patterns[i], 0}, grown[i].pattern.size = sizeof grown[i];
  a.desc.patterns = &grown[0].pattern;
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  ASSERT_EQ(GTN_OK, gtn_plan_query(made, &info, nullptr));
  EXPECT_EQ(31.0, info.flops);
  ASSERT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  made = 0;
  grown[3].later = 1;
  EXPECT_EQ(GTN_UNSUPPORTED, plan_of(a));
  EXPECT_EQ(message.text, std::strstr(message.text, "desc.patterns[3]: uses a field")) << message.text;
}

// The arguments of a run with all of its memory, each array in a place of its own.
struct Call {
  static constexpr int kArrays = 18, kPlaces = kArrays + 7;
  static constexpr int64_t kPlace = 2048;  // more than any array has here
  static constexpr const char* kNames[kPlaces] = {
      "q_index", "k_index", "q", "k", "v", "out", "lse", "k_scales", "v_scales", "block_table", "sink_logits", "slopes",
      "bias", "prefixes", "globals", "q_documents", "k_documents", "tree", "block_offsets", "block_columns",
      "block_mask_index", "block_masks", "block_bias", "q_order", "k_order"};

  int64_t sequences = 2, len_q = 3, len_k = 40;
  std::vector<char> memory = std::vector<char>(kPlace * (kPlaces + 1));
  char* at[kPlaces];

  Call() {
    for (int i = 0; i < kPlaces; ++i) at[i] = place(i);
    at[0] = nullptr;
  }
  char* place(int i) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (64 - start % 64) + i * kPlace;
  }
  gtn_status operator()(gtn_plan plan, gtn_stream stream) const {
    return gtn_attention_run_with(plan, stream, sequences, len_q, len_k, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7],
                                  at[8], at[9], at[10], at[11], at[12], at[13], at[14], at[15], at[16], at[17], at[18], at[19],
                                  at[20], at[21], at[22], at[23], at[24]);
  }
};

TEST_F(Planning, RunsOfAttentionAreChecked) {
  Attending a = everything();
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  Call good;
  ASSERT_EQ(GTN_OK, good(made, stream));
  for (int i = 1; i < Call::kPlaces; ++i) {
    const std::string name = Call::kNames[i];
    if (name != "lse") {
      Call run;
      run.at[i] = nullptr;
      expect_run_refused(run(made, stream), name + ": is null, expected memory");
    }
    if (name != "k" && name != "v" && name != "tree" && name != "block_masks") {  // whose elements are bytes
      Call run;
      ++run.at[i];
      expect_run_refused(run(made, stream), name + ": is ");
    }
    for (int output : {5, 6}) {
      if (i == output) continue;
      // The output starts before the end of this array, in the row of the last sequence where each has one.
      Call run;
      run.at[output] = run.at[i];
      const bool both = i == 5 || i == 6;
      expect_run_refused(run(made, stream), both ? "out: overlaps lse" : Call::kNames[output] + (": overlaps " + name));
    }
  }
  Call run;
  run.sequences = 3;
  expect_run_refused(run(made, stream), "sequences: is 3, expected 0 to 2");
  run = Call();
  run.len_k = 41;
  expect_run_refused(run(made, stream), "len_k: is 41, expected 0 to 40");
  run = Call();
  run.sequences = 0;
  for (int i = 1; i < Call::kPlaces; ++i) run.at[i] = i == 1 ? run.at[i] : nullptr;
  EXPECT_EQ(GTN_OK, run(made, stream)) << "no sequences, no memory";
}

// Each array covers as much as its shape says, for the sequences of the run.
TEST_F(Planning, RunsOfAttentionKnowHowLargeArraysAre) {
  Attending a = everything();
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  const int64_t bytes[] = {
      7 * 16 * 2 * 4, 7 * 16 * 2 * 4, 2 * 3 * 4, 4 * 4, 4 * 4, (1 * 4 * 3 * 40 - 4 * 3 * 40 + 3 * 40) * 2, 2 * 8, 2 * 2 * 4,
      2 * 2 * 2 * 3 * 4, 2 * 2 * 2 * 40 * 4, 2 * 3 * 3, (2 * 4 * 2 + 1) * 8, 9 * 4, 9 * 4, 3 * 2 * 16, 9 * 4, 2 * 3 * 4,
      2 * 40 * 4,
  };
  const int64_t bias = (4 * 3 * 40 + 3 * 40) * 2;  // heads share one
  for (int i = 0; i < Call::kArrays; ++i) {
    const int64_t size = std::string(Call::kNames[7 + i]) == "bias" ? bias : bytes[i];
    Call run;
    run.at[6] = run.at[7 + i] + (size + 3) / 4 * 4;
    EXPECT_EQ(GTN_OK, run(made, stream)) << Call::kNames[7 + i] << " and what is behind it";
    run.at[6] = run.at[7 + i] + (size - 1) / 4 * 4;
    expect_run_refused(run(made, stream), std::string("lse: overlaps ") + Call::kNames[7 + i]);
  }
}

TEST_F(Planning, RunsOfAttentionHaveNoMoreArraysThanPlanned) {
  Attending a;
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  Call none;
  none.len_k = 5;
  for (int i = 7; i < Call::kPlaces; ++i) none.at[i] = nullptr;
  none.at[1] = nullptr;
  ASSERT_EQ(GTN_OK, none(made, stream));
  for (int i = 7; i < Call::kPlaces; ++i) {
    Call run = none;
    run.at[i] = run.place(i);
    expect_run_refused(run(made, stream), std::string(Call::kNames[i]) + ": is not null, expected null");
  }
  const auto& at = none.at;
  EXPECT_EQ(GTN_OK, gtn_attention_run(made, stream, 2, 3, 5, nullptr, nullptr, at[2], at[3], at[4], at[5], nullptr));
  ASSERT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  made = 0;
  a = everything();
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  const Call full;
  expect_run_refused(gtn_attention_run(made, stream, 2, 3, 40, nullptr, full.at[1], at[2], at[3], at[4], at[5], nullptr),
                     "k_scales: is null");
}

// Lengths that all sequences have are seen here; those in arrays are the backend's.
TEST_F(Planning, RunsOfAttentionStayWithinBiasAndTree) {
  Attending a;
  a.patterns[0].masks = GTN_MASK_TREE;
  a.desc.max_tree = 2;
  a.desc.has_bias = 1;
  a.desc.bias = tensor(GTN_F32, {1, 4, 1, 3});
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  Call good;
  for (int i = 7; i < Call::kPlaces; ++i) {
    const std::string name = Call::kNames[i];
    if (name != "bias" && name != "tree") good.at[i] = nullptr;
  }
  good.at[1] = nullptr;
  good.sequences = good.len_q = 1;
  good.len_k = 3;
  EXPECT_EQ(GTN_OK, good(made, stream));
  Call run = good;
  run.sequences = 2;
  expect_run_refused(run(made, stream), "sequences: is 2, expected at most 1, the most that bias takes");
  run = good;
  run.len_q = 3;
  expect_run_refused(run(made, stream), "len_q: is 3, expected at most 2, the most that the tree takes");
  run.len_q = 2;
  expect_run_refused(run(made, stream), "len_q: is 2, expected at most 1, the most that bias takes");
  run = good;
  run.len_k = 4;
  expect_run_refused(run(made, stream), "len_k: is 4, expected at most 3, the most that bias takes");
  run.len_q = 3;
  run.at[0] = run.place(0);
  run.at[1] = run.place(1);
  EXPECT_EQ(GTN_OK, run(made, stream));
}

// Packed queries over pages: offsets of the one, lengths of the other.
TEST_F(Planning, RunsOfPackedQueriesOverPages) {
  Attending a;
  a.desc.q = a.desc.out = tensor(GTN_F32, {6, 4, 8});
  a.desc.k = a.desc.v = tensor(GTN_F32, {3, 4, 2, 8});
  a.desc.paged = 1;
  a.desc.max_sequences = 2;
  a.desc.max_len_k = 9;
  ASSERT_EQ(GTN_OK, plan_of(a)) << message.text;
  Call good;
  for (int i = 7; i < Call::kPlaces; ++i) {
    if (Call::kNames[i] != std::string("block_table")) good.at[i] = nullptr;
  }
  good.at[0] = good.place(0);
  good.len_q = 6;
  good.len_k = 9;
  EXPECT_EQ(GTN_OK, good(made, stream));
  Call run = good;
  run.at[0] = nullptr;
  expect_run_refused(run(made, stream), "q_index: is null");
  run = good;
  run.at[6] = run.at[0] + 16;
  expect_run_refused(run(made, stream), "lse: overlaps q_index");
  run = good;
  run.at[6] = run.at[1] + 16;
  EXPECT_EQ(GTN_OK, run(made, stream)) << "two lengths";
  run.at[6] = run.at[9] + 2 * 3 * 4 - 4;
  expect_run_refused(run(made, stream), "lse: overlaps block_table");
}

// Index arrays and log-sum-exps of so many sequences have more bytes than 63 bits count.
TEST(Attention, SizesOfTheLargestCountsDoNotOverflow) {
  OpenDevice on("cpu:scalar");
  alignas(64) float memory[256] = {};
  Attending a;
  a.desc.q = a.desc.k = a.desc.v = a.desc.out = tensor(GTN_F32, {4, 1, 4});
  a.desc.max_sequences = INT64_MAX;
  a.desc.patterns = a.patterns;
  Message message;
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_attention_plan(on.device, &a.desc, &plan, &message)) << message.text;
  for (int64_t sequences : {INT64_MAX, INT64_MAX - 1, INT64_MAX / 8 + 1}) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_attention_run(plan, on.stream, sequences, 4, 4, memory, memory + 8, memory + 32,
                                                      memory + 48, memory + 64, memory + 128, nullptr));
    EXPECT_EQ("out: overlaps q_index", on.message().substr(0, 21));
  }
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
}

gtn_merge_desc merging() {
  return {sizeof(gtn_merge_desc), 1, tensor(GTN_BF16, {3, 2, 4, 2, 8}), tensor(GTN_F32, {3, 2, 2, 4}),
          tensor(GTN_BF16, {2, 4, 2, 8}), tensor(GTN_F32, {2, 2, 4})};
}

gtn_gemm_desc grouping() {
  return {sizeof(gtn_gemm_desc), GTN_F32, tensor(GTN_F32, {5, 3}), tensor(GTN_F32, {7, 4}), GTN_ACT_NONE, 1, 0, 1, 2, 0, 0, 0, 0};
}

gtn_gemm_desc adapting() {
  return {sizeof(gtn_gemm_desc), GTN_F32, tensor(GTN_F32, {5, 3}), tensor(GTN_F32, {5, 4}), GTN_ACT_NONE, 0, 0, 0, 0, 2,
          GTN_BF16, 0.5f, 0};
}

TEST_F(Planning, OfProductsAreChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_gemm_desc&);
  };
  const Wrong grouped[] = {
      {"desc.groups: is -1, expected 0 or more", [](gtn_gemm_desc& d) { d.groups = -1; }},
      {"desc.groups: makes group_offsets exceed", [](gtn_gemm_desc& d) { d.groups = INT64_MAX; }},
      {"desc.groups: makes group_offsets exceed", [](gtn_gemm_desc& d) { d.groups = INT64_MAX / 8; }},
      {"desc.groups: makes bias exceed", [](gtn_gemm_desc& d) { d.groups = INT64_MAX / 16 + 1; }},
      {"desc.out.shape[0]: makes row_index exceed",
       [](gtn_gemm_desc& d) {
         d.out = tensor(GTN_BF16, {INT64_MAX / 4 + 1, 1});
       }},
      {"desc.has_row_index: is 2", [](gtn_gemm_desc& d) { d.has_row_index = 2; }},
      {"desc.out.shape[0]: is 7, expected a's 5", [](gtn_gemm_desc& d) { d.has_row_index = 0; }},
      {"desc.rank: is 2, expected 0 with groups", [](gtn_gemm_desc& d) { d.rank = 2; }},
      {"desc.rank: is 2, expected 0 with row_index", [](gtn_gemm_desc& d) { d.rank = 2, d.groups = 0; }},
      {"desc.lora_dtype: is 1, expected 0", [](gtn_gemm_desc& d) { d.lora_dtype = GTN_F32; }},
      {"desc.lora_scale: is 0.5, expected 0", [](gtn_gemm_desc& d) { d.lora_scale = 0.5f; }},
      {"desc.lora_scale: is nan, expected 0", [](gtn_gemm_desc& d) { d.lora_scale = NAN; }},
  };
  for (const Wrong& wrong : grouped) {
    gtn_gemm_desc desc = grouping();
    wrong.change(desc);
    expect_refused(gtn_gemm_plan(device, &desc, &made, &message), wrong.named);
  }
  const Wrong adapted[] = {
      {"desc.rank: is -1, expected 0 to 1024", [](gtn_gemm_desc& d) { d.rank = -1; }},
      {"desc.rank: is 1025, expected 0 to 1024", [](gtn_gemm_desc& d) { d.rank = 1025; }},
      {"desc.rank: makes lora_a exceed",
       [](gtn_gemm_desc& d) {
         d.a = tensor(GTN_F32, {0, INT64_MAX / 8});
         d.out.shape[0] = 0;
         d.rank = 8;
       }},
      {"desc.rank: makes lora_b exceed",
       [](gtn_gemm_desc& d) {
         d.a.shape[0] = 0;
         d.out = tensor(GTN_F32, {0, INT64_MAX / 8});
         d.rank = 8;
       }},
      {"desc.lora_dtype: is S8 (4), expected F32, BF16 or F16", [](gtn_gemm_desc& d) { d.lora_dtype = GTN_S8; }},
      {"desc.lora_dtype: is no dtype (0), expected", [](gtn_gemm_desc& d) { d.lora_dtype = 0; }},
      {"desc.lora_scale: is inf, expected a finite number", [](gtn_gemm_desc& d) { d.lora_scale = INFINITY; }},
  };
  for (const Wrong& wrong : adapted) {
    gtn_gemm_desc desc = adapting();
    wrong.change(desc);
    expect_refused(gtn_gemm_plan(device, &desc, &made, &message), wrong.named);
  }
}

// Weights, a plan and memory for runs on the CPU, since the backend of the other tests packs no weights.
struct Multiplying {
  explicit Multiplying(const gtn_gemm_desc& desc) {
    const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
    const gtn_weights_desc source = {sizeof source, desc.format,
                                     desc.groups > 0 ? tensor(GTN_F32, {desc.groups, k, n}) : tensor(GTN_F32, {k, n}),
                                     0, 0, 0};
    static const float ones[64] = {1, 1, 1};
    EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &source, ones, &weights, &message)) << message.text;
    EXPECT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text;
  }
  ~Multiplying() {
    EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
    EXPECT_EQ(GTN_OK, gtn_weights_close(weights, nullptr));
  }

  void expect_refused(gtn_status status, const std::string& start) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, status) << start;
    EXPECT_EQ(start, on.message().substr(0, start.size())) << on.message();
  }

  const OpenDevice on{"cpu"};
  gtn_plan plan = 0;
  gtn_weights weights = 0;
  Message message;
};

TEST(Products, RunsOfGroupsAreChecked) {
  Multiplying m(grouping());
  alignas(64) static float a[15], bias[8], block[7 + 28];
  float* const out = block + 7;
  alignas(64) static int64_t offsets[3] = {0, 3, 7};
  alignas(64) static int32_t index[7] = {4, 3, 2, 1, 0, 1, 2};
  const auto run = [&](int64_t rows, int64_t rows_a, const void* x, const void* b, void* to, const void* ends,
                       const void* which) {
    return gtn_gemm_run_with(m.plan, m.on.stream, m.weights, rows, rows_a, x, b, nullptr, to, ends, which, nullptr, nullptr);
  };
  EXPECT_EQ(GTN_OK, run(7, 5, a, bias, out, offsets, index)) << m.on.message();
  EXPECT_EQ(GTN_OK, run(0, 0, nullptr, nullptr, nullptr, offsets, nullptr)) << m.on.message();
  m.expect_refused(run(8, 5, a, bias, out, offsets, index), "rows: is 8, expected 0 to 7");
  m.expect_refused(run(7, 6, a, bias, out, offsets, index), "rows_a: is 6, expected 0 to 5");
  m.expect_refused(run(7, -1, a, bias, out, offsets, index), "rows_a: is -1");
  m.expect_refused(run(7, 0, nullptr, bias, out, offsets, index), "row_index[0] is 4, expected 0 to rows_a - 1 = -1");
  m.expect_refused(run(7, 5, nullptr, bias, out, offsets, index), "a: is null");
  m.expect_refused(run(7, 5, a, nullptr, out, offsets, index), "bias: is null");
  m.expect_refused(run(7, 5, a, bias, out, nullptr, index), "group_offsets: is null");
  m.expect_refused(run(0, 5, a, bias, out, nullptr, index), "group_offsets: is null");
  m.expect_refused(run(7, 5, a, bias, out, reinterpret_cast<char*>(offsets) + 4, index), "group_offsets: is ");
  m.expect_refused(run(7, 5, a, bias, out, offsets, nullptr), "row_index: is null");
  m.expect_refused(run(7, 5, a, bias, out, offsets, reinterpret_cast<char*>(index) + 2), "row_index: is ");
  m.expect_refused(run(7, 5, out + 27, bias, out, offsets, index), "out: overlaps a (");
  m.expect_refused(run(7, 5, a, out + 27, out, offsets, index), "out: overlaps bias");
  m.expect_refused(run(7, 5, a, out - 7, out, offsets, index), "out: overlaps bias");  // the last of row 1
  m.expect_refused(run(7, 5, a, bias, out, out + 27, index), "out: overlaps group_offsets");
  m.expect_refused(run(7, 5, a, bias, out, offsets, out + 27), "out: overlaps row_index");
  m.expect_refused(gtn_gemm_run_with(m.plan, m.on.stream, m.weights, 7, 5, a, bias, nullptr, out, offsets, index, a, nullptr),
                   "lora_a: is not null");
  m.expect_refused(gtn_gemm_run_with(m.plan, m.on.stream, m.weights, 7, 5, a, bias, nullptr, out, offsets, index, nullptr, a),
                   "lora_b: is not null");
  m.expect_refused(gtn_gemm_run(m.plan, m.on.stream, m.weights, 7, a, bias, nullptr, out), "group_offsets: is null");
}

gtn_gemm_desc of_quantized_rows() {
  gtn_gemm_desc desc = {};
  desc.size = sizeof desc;
  desc.format = GTN_S8;
  desc.a = tensor(GTN_U8, {5, 3});
  desc.out = tensor(GTN_F32, {7, 4});
  desc.has_row_index = 1;
  return desc;
}

TEST_F(Planning, OfQuantizedRowsAreChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_gemm_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.a.dtype: is U8, expected F32, BF16 or F16", [](gtn_gemm_desc& d) { d.format = GTN_F32; }},
      {"desc.a.dtype: is S8, expected F32, BF16, F16 or U8", [](gtn_gemm_desc& d) { d.a.dtype = GTN_S8; }},
      {"desc.a.shape[0]: makes scales exceed", [](gtn_gemm_desc& d) { d.a = tensor(GTN_U8, {INT64_MAX / 4 + 1, 1}); }},
      {"desc.rank: is 2, expected 0 with a of U8", [](gtn_gemm_desc& d) { d.rank = 2, d.has_row_index = 0, d.out.shape[0] = 5; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_gemm_desc desc = of_quantized_rows();
    wrong.change(desc);
    expect_refused(gtn_gemm_plan(device, &desc, &made, &message), wrong.named);
  }
  OpenDevice cpu("cpu");
  gtn_norm_desc norm = {sizeof norm, GTN_NORM_RMS, tensor(GTN_F32, {4, 6}), tensor(GTN_S8, {4, 6}), 1e-5f, 0, 0, 0};
  expect_refused(gtn_norm_plan(cpu.device, &norm, &made, &message), "desc.out.dtype: is S8, expected F32, BF16 or U8");
  norm.x = tensor(GTN_BF16, {INT64_MAX / 4 + 1, 1});
  norm.out = tensor(GTN_U8, {INT64_MAX / 4 + 1, 1});
  expect_refused(gtn_norm_plan(cpu.device, &norm, &made, &message), "desc.x.shape[0]: makes scales exceed");
}

TEST(Products, RunsOfQuantizedRowsAreChecked) {
  Multiplying m(of_quantized_rows());
  alignas(64) static unsigned char a[15];
  alignas(64) static float block[7 + 28];
  float* const out = block + 7;
  alignas(64) static float scales[5];
  alignas(64) static int32_t zeros[5], index[7];
  const auto run = [&](int64_t rows, int64_t rows_a, const void* x, const void* s, const void* z) {
    return gtn_gemm_run_quantized(m.plan, m.on.stream, m.weights, rows, rows_a, x, s, z, nullptr, nullptr, out, nullptr, index);
  };
  EXPECT_EQ(GTN_OK, run(7, 5, a, scales, zeros)) << m.on.message();
  EXPECT_EQ(GTN_OK, run(0, 0, nullptr, nullptr, nullptr)) << m.on.message();
  m.expect_refused(run(7, 5, a, nullptr, zeros), "scales: is null");
  m.expect_refused(run(7, 5, a, scales, nullptr), "zero_points: is null");
  m.expect_refused(run(7, 5, a, reinterpret_cast<char*>(scales) + 2, zeros), "scales: is ");
  m.expect_refused(run(7, 5, a, scales, reinterpret_cast<char*>(zeros) + 2), "zero_points: is ");
  m.expect_refused(run(7, 5, a, out - 4, zeros), "out: overlaps scales");
  m.expect_refused(run(7, 5, a, scales, out + 27), "out: overlaps zero_points");
  m.expect_refused(run(7, 5, out, scales, zeros), "out: overlaps a (");
  m.expect_refused(gtn_gemm_run_with(m.plan, m.on.stream, m.weights, 7, 5, a, nullptr, nullptr, out, nullptr, index, nullptr,
                                     nullptr),
                   "scales: is null");
  gtn_gemm_desc floats = of_quantized_rows();
  floats.a.dtype = GTN_F32;
  Multiplying other(floats);
  alignas(64) static float x[15];
  other.expect_refused(gtn_gemm_run_quantized(other.plan, other.on.stream, other.weights, 7, 5, x, scales, zeros, nullptr,
                                              nullptr, out, nullptr, index),
                       "scales: is not null");
}

TEST(Norms, RunsOfQuantizedRowsAreChecked) {
  const OpenDevice on("cpu");
  Message message;
  gtn_norm_desc desc = {sizeof desc, GTN_NORM_RMS, tensor(GTN_F32, {4, 6}), tensor(GTN_U8, {4, 6}), 1e-5f, 0, 0, 0};
  gtn_plan plan = 0;
  ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
  alignas(64) static float x[24], gamma[6], scales[4];
  alignas(64) static unsigned char out[24];
  alignas(64) static int32_t zeros[4];
  const auto run = [&](const void* from, void* to, void* s, void* z) {
    return gtn_norm_run_quantized(plan, on.stream, 4, from, nullptr, gamma, nullptr, to, s, z, nullptr);
  };
  const auto expect = [&](gtn_status status, const std::string& start) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, status) << start;
    EXPECT_EQ(start, on.message().substr(0, start.size())) << on.message();
  };
  EXPECT_EQ(GTN_OK, run(x, out, scales, zeros)) << on.message();
  expect(run(x, out, nullptr, zeros), "scales: is null");
  expect(run(x, out, scales, nullptr), "zero_points: is null");
  expect(run(x, out, reinterpret_cast<char*>(scales) + 1, zeros), "scales: is ");
  expect(run(x, out, scales, reinterpret_cast<char*>(zeros) + 2), "zero_points: is ");
  expect(run(x, x, scales, zeros), "out: overlaps x");
  expect(run(x, out, x + 20, zeros), "scales: overlaps x");
  expect(run(x, out, scales, gamma + 3), "zero_points: overlaps gamma");
  expect(run(x, out, out + 4, zeros), "scales: overlaps out");
  expect(run(x, out, scales, scales), "scales: overlaps zero_points");
  expect(gtn_norm_run(plan, on.stream, 4, x, nullptr, gamma, nullptr, out, nullptr), "scales: is null");
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
  desc.out.dtype = GTN_F32;
  ASSERT_EQ(GTN_OK, gtn_norm_plan(on.device, &desc, &plan, &message)) << message.text;
  expect(run(x, x, scales, nullptr), "scales: is not null");
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
}

TEST(Products, RunsOfLowRankAreChecked) {
  Multiplying m(adapting());
  alignas(64) static float a[15], out[20];
  alignas(64) static uint16_t down[6], up[8];
  const auto run = [&](int64_t rows_a, const void* ends, const void* which, const void* lora_a, const void* lora_b) {
    return gtn_gemm_run_with(m.plan, m.on.stream, m.weights, 5, rows_a, a, nullptr, nullptr, out, ends, which, lora_a, lora_b);
  };
  EXPECT_EQ(GTN_OK, run(5, nullptr, nullptr, down, up)) << m.on.message();
  m.expect_refused(run(4, nullptr, nullptr, down, up), "rows_a: is 4, expected the 5 of rows");
  m.expect_refused(run(5, a, nullptr, down, up), "group_offsets: is not null");
  m.expect_refused(run(5, nullptr, a, down, up), "row_index: is not null");
  m.expect_refused(run(5, nullptr, nullptr, nullptr, up), "lora_a: is null");
  m.expect_refused(run(5, nullptr, nullptr, down, nullptr), "lora_b: is null");
  m.expect_refused(run(5, nullptr, nullptr, reinterpret_cast<char*>(down) + 1, up), "lora_a: is ");
  m.expect_refused(run(5, nullptr, nullptr, out + 19, up), "out: overlaps lora_a");
  m.expect_refused(run(5, nullptr, nullptr, down, out), "out: overlaps lora_b");
  m.expect_refused(gtn_gemm_run(m.plan, m.on.stream, m.weights, 5, a, nullptr, nullptr, out), "lora_a: is null");
  // One group is not the same as none.
  const gtn_weights_desc source = {sizeof source, GTN_F32, tensor(GTN_F32, {1, 3, 4}), 0, 0, 0};
  static const float ones[12] = {};
  gtn_weights one_group = 0;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_weights_pack(m.on.device, &source, ones, &one_group, &message)) << message.text;
  m.expect_refused(gtn_gemm_run_with(m.plan, m.on.stream, one_group, 5, 5, a, nullptr, nullptr, out, nullptr, nullptr,
                                     down, up),
                   "weights: are F32 [1, 3, 4], expected the plan's F32 [3, 4]");
  EXPECT_EQ(GTN_OK, gtn_weights_close(one_group, nullptr));
}

TEST(Products, PackedGroupsAreChecked) {
  const OpenDevice on("cpu");
  static const float ones[64] = {};
  gtn_weights weights = 77;
  Message message;
  gtn_weights_desc desc = {sizeof desc, GTN_F32, tensor(GTN_F32, {0, 3, 4}), 0, 0, 0};
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, ones, &weights, &message));
  EXPECT_STREQ("desc.source.shape[0]: is 0, expected 1 or more", message.text);
  desc.source = tensor(GTN_F32, {1, 2, 3, 4});
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, ones, &weights, &message));
  EXPECT_STREQ("desc.source.rank: is 4, expected 2 to 3", message.text);
  desc.source = tensor(GTN_F32, {2, 3, 4});
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_weights_pack(on.device, &desc, nullptr, &weights, &message));
  desc.source.strides[0] = 0;  // two groups of the same
  EXPECT_EQ(77u, weights);
  EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, ones, &weights, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, nullptr));
  desc.source = tensor(GTN_F32, {int64_t{1} << 40, 0, int64_t{1} << 20});
  EXPECT_EQ(GTN_OUT_OF_MEMORY, gtn_weights_pack(on.device, &desc, nullptr, &weights, &message)) << message.text;
  desc.source = tensor(GTN_F32, {5, 0, int64_t{1} << 40});
  ASSERT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, nullptr, &weights, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, nullptr));
  // More groups or rows by number than this backend has room for.
  gtn_gemm_desc many = grouping();
  many.groups = (int64_t{1} << 40) + 1;
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_gemm_plan(on.device, &many, &plan, &message)) << message.text;
  many = grouping();
  many.out = tensor(GTN_F32, {(int64_t{1} << 40) + 1, 4});
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_gemm_plan(on.device, &many, &plan, &message)) << message.text;
}

TEST_F(Planning, OfMergesAreChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_merge_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.has_sink_logits", [](gtn_merge_desc& d) { d.has_sink_logits = 2; }},
      {"desc.x.rank", [](gtn_merge_desc& d) { d.x.rank = 4; }},
      {"desc.x.dtype: is S8", [](gtn_merge_desc& d) { d.x.dtype = GTN_S8; }},
      {"desc.x.strides[4]", [](gtn_merge_desc& d) { d.x.strides[4] = 2; }},
      {"desc.x.shape[3]: is 0", [](gtn_merge_desc& d) { d.x.shape[3] = 0; }},
      {"desc.x.shape[4]: is 0", [](gtn_merge_desc& d) { d.x.shape[4] = 0; }},
      {"desc.x_lse.dtype: is BF16, expected F32", [](gtn_merge_desc& d) { d.x_lse.dtype = GTN_BF16; }},
      {"desc.x_lse.shape[0]: is 2, expected x's 3", [](gtn_merge_desc& d) { d.x_lse.shape[0] = 2; }},
      {"desc.x_lse.shape[2]", [](gtn_merge_desc& d) { std::swap(d.x_lse.shape[2], d.x_lse.shape[3]); }},
      {"desc.out.shape[0]", [](gtn_merge_desc& d) { d.out.shape[0] = 1; }},
      {"desc.out.shape[3]: is 7, expected x's 8", [](gtn_merge_desc& d) { d.out.shape[3] = 7; }},
      {"desc.out.strides[1]: is 0", [](gtn_merge_desc& d) { d.out.strides[1] = 0; }},
      {"desc.lse.rank", [](gtn_merge_desc& d) { d.lse.rank = 2; }},
      {"desc.lse.shape[1]: is 1, expected x's 2", [](gtn_merge_desc& d) { d.lse.shape[1] = 1; }},
      {"desc.lse.strides[0]: is 0", [](gtn_merge_desc& d) { d.lse.strides[0] = 0; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_merge_desc desc = merging();
    wrong.change(desc);
    expect_refused(gtn_merge_plan(device, &desc, &made, &message), wrong.named);
  }
}

TEST_F(Planning, RunsOfMergesAreChecked) {
  const gtn_merge_desc desc = merging();
  ASSERT_EQ(GTN_OK, gtn_merge_plan(device, &desc, &made, &message)) << message.text;
  alignas(64) static uint16_t x[3 * 128 + 64], out[128];
  alignas(64) static float x_lse[3 * 16 + 8], lse[16], sink[64];  // as large as what is laid over them
  const auto run = [&](int64_t parts, const void* in, const void* in_lse, const void* s, void* to, void* to_lse) {
    return gtn_merge_run(made, stream, parts, 2, 4, in, in_lse, s, to, to_lse);
  };
  EXPECT_EQ(GTN_OK, run(3, x, x_lse, sink, out, lse));
  EXPECT_EQ(GTN_OK, run(3, x, x_lse, sink, out, nullptr));
  EXPECT_EQ(GTN_OK, run(0, nullptr, nullptr, sink, out, lse)) << "no parts, no memory";
  EXPECT_EQ(GTN_OK, run(3, x, x_lse, sink, x, x_lse)) << "the first part";
  EXPECT_EQ(GTN_OK, run(2, x, x_lse, sink, x + 256, x_lse + 32)) << "a part that is not in use";
  expect_run_refused(run(3, x, x_lse, sink, x + 128, lse), "out: overlaps x (");
  expect_run_refused(run(3, x, x_lse, sink, out, x_lse + 16), "lse: overlaps x_lse");
  expect_run_refused(run(3, x, x_lse, sink, x_lse, lse), "out: overlaps x_lse");
  expect_run_refused(run(3, x, x_lse, sink, out, x), "lse: overlaps x");
  expect_run_refused(run(3, x, x_lse, sink, sink, lse), "out: overlaps sink_logits");
  expect_run_refused(run(3, x, x_lse, sink, out, sink), "lse: overlaps sink_logits");
  expect_run_refused(run(3, x, x_lse, sink, out, out), "out: overlaps lse");
  expect_run_refused(run(4, x, x_lse, sink, out, lse), "parts: is 4, expected 0 to 3");
  expect_run_refused(run(3, nullptr, x_lse, sink, out, lse), "x: is null");
  expect_run_refused(run(3, x, nullptr, sink, out, lse), "x_lse: is null");
  expect_run_refused(run(3, x, x_lse, nullptr, out, lse), "sink_logits: is null");
  expect_run_refused(run(3, x, x_lse, sink, nullptr, lse), "out: is null");
  expect_run_refused(run(3, x, x_lse, sink, reinterpret_cast<char*>(out) + 1, lse), "out: is ");
  expect_run_refused(gtn_merge_run(made, stream, 3, 3, 4, x, x_lse, sink, out, lse), "batch: is 3");
  expect_run_refused(gtn_merge_run(made, stream, 3, 2, -1, x, x_lse, sink, out, lse), "length: is -1");
  expect_run_refused(gtn_rope_run(made, stream, 1, x, x, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                  nullptr),
                     "plan: is for merge, expected rope");
  // What a smaller run does not use may hold another tensor.
  EXPECT_EQ(GTN_OK, gtn_merge_run(made, stream, 3, 1, 4, x, x_lse, sink, x + 2 * 128 + 64, lse));
}

// Parts side by side in every row: the first of them is still one that nothing else shares memory with. Parts that are
// all the same memory are not.
TEST_F(Planning, MergesInPlaceOfTheFirstPart) {
  gtn_merge_desc desc = merging();
  desc.has_sink_logits = 0;
  alignas(64) static uint16_t x[3 * 128];
  alignas(64) static float x_lse[3 * 16];
  const int64_t side_by_side[] = {16, 4 * 48, 48, 8, 1}, same[] = {0, 64, 16, 8, 1};
  for (const int64_t* strides : {side_by_side, same}) {
    std::copy_n(strides, 5, desc.x.strides);
    std::copy_n(strides + 1, 4, desc.out.strides);
    ASSERT_EQ(GTN_OK, gtn_merge_plan(device, &desc, &made, &message)) << message.text;
    EXPECT_EQ(GTN_OK, gtn_merge_run(made, stream, 1, 2, 4, x, x_lse, nullptr, x, nullptr));
    const gtn_status status = gtn_merge_run(made, stream, 3, 2, 4, x, x_lse, nullptr, x, nullptr);
    if (strides == side_by_side) {
      EXPECT_EQ(GTN_OK, status);
    } else {
      expect_run_refused(status, "out: overlaps x");
    }
    EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
    made = 0;
  }
}

gtn_select_desc selecting(int32_t kind) {
  gtn_select_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = kind;
  desc.q = tensor(GTN_BF16, {2, 6, 4, 8});
  desc.k = tensor(GTN_BF16, {2, 5, 2, 8});
  desc.heads = 4;
  desc.block_q = desc.block_k = kind == GTN_SELECT_RETRIEVAL ? 1 : 2;
  desc.count = 3;
  if (kind == GTN_SELECT_BLOCKS) {
    desc.pool = GTN_POOL_MEAN;
    desc.scale = 1;
  } else {
    desc.buckets = 4;
    desc.layers = 2;
    desc.seed = 9;
  }
  return desc;
}

TEST_F(Planning, OfSelectionsAreChecked) {
  struct Wrong {
    int32_t kind;
    const char* named;
    void (*change)(gtn_select_desc&);
  };
  const int32_t blocks = GTN_SELECT_BLOCKS, lsh = GTN_SELECT_LSH, retrieval = GTN_SELECT_RETRIEVAL;
  const Wrong wrongs[] = {
      {blocks, "desc.kind: is 4", [](gtn_select_desc& d) { d.kind = 4; }},
      {blocks, "desc.kind: is 0", [](gtn_select_desc& d) { d.kind = 0; }},
      {blocks, "desc.q.dtype: is S8", [](gtn_select_desc& d) { d.q.dtype = GTN_S8; }},
      {blocks, "desc.q.rank: is 2", [](gtn_select_desc& d) { d.q.rank = 2; }},
      {blocks, "desc.q.strides[3]: is 2", [](gtn_select_desc& d) { d.q.strides[3] = 2; }},
      {blocks, "desc.k.dtype: is F32, expected BF16", [](gtn_select_desc& d) { d.k.dtype = GTN_F32; }},
      {blocks, "desc.k.rank: is 3", [](gtn_select_desc& d) { d.k = tensor(GTN_BF16, {5, 2, 8}); }},
      {blocks, "desc.k.shape[0]: is 1, expected q's 2", [](gtn_select_desc& d) { d.k.shape[0] = 1; }},
      {blocks, "desc.k.shape[3]: is 7, expected q's 8", [](gtn_select_desc& d) { d.k.shape[3] = 7; }},
      {blocks, "desc.k.shape[2]: is 3 heads", [](gtn_select_desc& d) { d.k.shape[2] = 3; }},
      {blocks, "desc.k.shape[2]: is 0 heads", [](gtn_select_desc& d) { d.k.shape[2] = 0; }},
      {blocks, "desc.q.shape[3]: is 0", [](gtn_select_desc& d) { d.q.shape[3] = d.k.shape[3] = 0; }},
      {blocks, "desc.heads: is 1, expected 4 (heads of q) or those of k", [](gtn_select_desc& d) { d.heads = 1; }},
      {lsh, "desc.heads: is 2, expected 4 (heads of q)", [](gtn_select_desc& d) { d.heads = 2; }},
      {blocks, "desc.block_q: is 0", [](gtn_select_desc& d) { d.block_q = 0; }},
      {blocks, "desc.block_k: is -1", [](gtn_select_desc& d) { d.block_k = -1; }},
      {retrieval, "desc.block_q: is 2, expected 1", [](gtn_select_desc& d) { d.block_q = 2; }},
      {retrieval, "desc.block_k: is 2, expected 1", [](gtn_select_desc& d) { d.block_k = 2; }},
      {blocks, "desc.count: is 0", [](gtn_select_desc& d) { d.count = 0; }},
      {blocks, "desc.count: makes block_columns exceed", [](gtn_select_desc& d) { d.count = INT64_MAX / 8; }},
      {blocks, "desc.first: is -1", [](gtn_select_desc& d) { d.first = -1; }},
      {blocks, "desc.local: is 2 beside first of 2, expected together at most 3",
       [](gtn_select_desc& d) { d.first = d.local = 2; }},
      {blocks, "desc.local: is 9223372036854775807", [](gtn_select_desc& d) { d.first = d.local = INT64_MAX; }},
      {lsh, "desc.first: is 1, expected 0", [](gtn_select_desc& d) { d.first = 1; }},
      {lsh, "desc.local: is 1, expected 0", [](gtn_select_desc& d) { d.local = 1; }},
      {blocks, "desc.causal: is 2", [](gtn_select_desc& d) { d.causal = 2; }},
      {blocks, "desc.pool: is 3", [](gtn_select_desc& d) { d.pool = 3; }},
      {lsh, "desc.pool: is 1, expected 0", [](gtn_select_desc& d) { d.pool = GTN_POOL_MEAN; }},
      {blocks, "desc.scale: is inf", [](gtn_select_desc& d) { d.scale = INFINITY; }},
      {retrieval, "desc.scale: is 1, expected 0", [](gtn_select_desc& d) { d.scale = 0.5f; }},
      {blocks, "desc.buckets: is 2, expected 0", [](gtn_select_desc& d) { d.buckets = 2; }},
      {lsh, "desc.buckets: is 3, expected an even number", [](gtn_select_desc& d) { d.buckets = 3; }},
      {lsh, "desc.buckets: is 65538", [](gtn_select_desc& d) { d.buckets = 65538; }},
      {retrieval, "desc.buckets: is 6, expected a power of two", [](gtn_select_desc& d) { d.buckets = 6; }},
      {retrieval, "desc.buckets: is 1,", [](gtn_select_desc& d) { d.buckets = 1; }},
      {retrieval, "desc.buckets: is 131072", [](gtn_select_desc& d) { d.buckets = 131072; }},
      {blocks, "desc.layers: is 1, expected 0", [](gtn_select_desc& d) { d.layers = 1; }},
      {lsh, "desc.layers: is 65, expected 1 to 64", [](gtn_select_desc& d) { d.layers = 65; }},
      {lsh, "desc.layers: is 0, expected 1 to 64", [](gtn_select_desc& d) { d.layers = 0; }},
      {retrieval, "desc.layers: is 1, expected 2 to 1024", [](gtn_select_desc& d) { d.layers = 1; }},
      {blocks, "desc.seed: is 1, expected 0", [](gtn_select_desc& d) { d.seed = 1; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_select_desc desc = selecting(wrong.kind);
    wrong.change(desc);
    expect_refused(gtn_select_plan(device, &desc, &made, &message), wrong.named);
  }
  gtn_select_desc packed = selecting(blocks);
  packed.q = tensor(GTN_BF16, {6, 4, 8});
  packed.k = tensor(GTN_BF16, {5, 2, 8});
  packed.max_sequences = -1;
  expect_refused(gtn_select_plan(device, &packed, &made, &message), "desc.max_sequences: is -1");
}

TEST_F(Planning, RunsOfSelectionsAreChecked) {
  const gtn_select_desc desc = selecting(GTN_SELECT_LSH);
  ASSERT_EQ(GTN_OK, gtn_select_plan(device, &desc, &made, &message)) << message.text;
  // More than two sequences of 6 and 5, 4 heads, 2 layers and 3 lists of 3 take, so that one may be laid over another.
  alignas(64) static uint16_t q[512], k[512];
  alignas(64) static int64_t offsets[128], lengths[128];
  alignas(64) static int32_t columns[256], q_order[256], k_order[256], q_labels[256], k_labels[256], bias[256];
  // The arguments from q_index on.
  const auto run = [&](std::initializer_list<std::pair<int, const void*>> changes, int64_t sequences = 2) {
    const void* at[] = {nullptr, lengths, q, k, offsets, columns, nullptr, q_order, k_order, q_labels, k_labels};
    for (const auto& [i, other] : changes) at[i] = other;
    const auto out = [&](int i) { return const_cast<void*>(at[i]); };
    return gtn_select_run(made, stream, sequences, 6, 5, at[0], at[1], at[2], at[3], out(4), out(5), out(6), out(7), out(8),
                          out(9), out(10));
  };
  EXPECT_EQ(GTN_OK, run({}));
  EXPECT_EQ(GTN_OK, run({{0, lengths}}));
  expect_run_refused(run({}, 3), "sequences: is 3, expected 0 to 2");
  expect_run_refused(run({}, -1), "sequences: is -1");
  expect_run_refused(gtn_select_run(made, stream, 2, 7, 5, nullptr, nullptr, q, k, offsets, columns, nullptr, q_order, k_order,
                                    q_labels, k_labels),
                     "len_q: is 7");
  expect_run_refused(gtn_select_run(made, stream, 2, 6, 6, nullptr, nullptr, q, k, offsets, columns, nullptr, q_order, k_order,
                                    q_labels, k_labels),
                     "len_k: is 6");
  const char* const names[] = {"q_index", "k_index", "q", "k", "block_offsets", "block_columns", "block_bias", "q_order",
                               "k_order", "q_documents", "k_documents"};
  const void* const all[] = {lengths, lengths, q, k, offsets, columns, bias, q_order, k_order, q_labels, k_labels};
  for (int i = 2; i < 11; ++i) {
    if (i == 6) continue;
    expect_run_refused(run({{i, nullptr}}), std::string(names[i]) + ": is null, expected memory");
    expect_run_refused(run({{i, static_cast<const char*>(all[i]) + 1}}), std::string(names[i]) + ": is ");
  }
  expect_run_refused(run({{6, bias}}), "block_bias: is not null");
  // Every output over every input, and over every output before it.
  for (int i = 4; i < 11; ++i) {
    if (i == 6) continue;
    for (int other = 1; other < i; ++other) {
      if (other == 6) continue;
      expect_run_refused(run({{i, all[other]}}), std::string(names[i]) + ": overlaps " + names[other]);
    }
  }
  // Without sequences there is one offset to write, and nothing else.
  EXPECT_EQ(GTN_OK, run({{2, nullptr}, {3, nullptr}, {5, nullptr}, {7, nullptr}, {8, nullptr}, {9, nullptr}, {10, nullptr}}, 0));
  expect_run_refused(run({{4, nullptr}}, 0), "block_offsets: is null");
  expect_run_refused(gtn_merge_run(made, stream, 1, 1, 1, q, q, nullptr, k, nullptr), "plan: is for select, expected merge");
}

gtn_rope_desc rotating() {
  return {sizeof(gtn_rope_desc), GTN_ROPE_HALVES, 6, 32, 1, 1, 1, 0, tensor(GTN_F32, {5, 4, 8}), tensor(GTN_F32, {5, 4, 8}),
          tensor(GTN_BF16, {5, 2, 8}), tensor(GTN_BF16, {5, 2, 4}), tensor(GTN_S8, {3, 4, 2, 8}), tensor(GTN_S8, {3, 4, 2, 4})};
}

TEST_F(Planning, OfRotaryEmbeddingsAreChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_rope_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.style: is 3", [](gtn_rope_desc& d) { d.style = 3; }},
      {"desc.rotary: is 5, expected an even number, 0 to 8", [](gtn_rope_desc& d) { d.rotary = 5; }},
      {"desc.rotary: is 10", [](gtn_rope_desc& d) { d.rotary = 10; }},
      {"desc.rotary: is -2", [](gtn_rope_desc& d) { d.rotary = -2; }},
      {"desc.max_position: is 0", [](gtn_rope_desc& d) { d.max_position = 0; }},
      {"desc.max_position: makes table exceed", [](gtn_rope_desc& d) { d.max_position = INT64_MAX / 8; }},
      {"desc.has_q: is 2", [](gtn_rope_desc& d) { d.has_q = 2; }},
      {"desc.has_q: is 0, expected 1", [](gtn_rope_desc& d) { d.has_q = d.has_k = 0; }},
      {"desc.has_v", [](gtn_rope_desc& d) { d.has_v = -1; }},
      {"desc.q.dtype", [](gtn_rope_desc& d) { d.q.dtype = GTN_S8; }},
      {"desc.q.shape[1]: is 0", [](gtn_rope_desc& d) { d.q.shape[1] = d.q_out.shape[1] = 0; }},
      {"desc.q_out.shape[1]", [](gtn_rope_desc& d) { d.q_out.shape[1] = 3; }},
      {"desc.q_out.strides[0]", [](gtn_rope_desc& d) { d.q_out.strides[0] = 0; }},
      {"desc.k.shape[0]: is 4, expected q's 5", [](gtn_rope_desc& d) { d.k.shape[0] = 4; }},
      {"desc.k.shape[2]: is 6, expected q's 8", [](gtn_rope_desc& d) { d.k.shape[2] = 6; }},
      {"desc.v.shape[0]", [](gtn_rope_desc& d) { d.v.shape[0] = 4; }},
      {"desc.v.shape[1]", [](gtn_rope_desc& d) { d.v.shape[1] = 1; }},
      {"desc.v.dtype: is F16, expected BF16", [](gtn_rope_desc& d) { d.v.dtype = GTN_F16; }},
      {"desc.k_cache.shape[2]: is 1, expected k's 2", [](gtn_rope_desc& d) { d.k_cache.shape[2] = 1; }},
      {"desc.k_cache.shape[3]", [](gtn_rope_desc& d) { d.k_cache.shape[3] = 7; }},
      {"desc.k_cache.shape[1]: is 0", [](gtn_rope_desc& d) { d.k_cache.shape[1] = d.v_cache.shape[1] = 0; }},
      {"desc.k_cache.strides[0]", [](gtn_rope_desc& d) { d.k_cache.strides[0] = 0; }},
      {"desc.v_cache.dtype: is F32, expected S8", [](gtn_rope_desc& d) { d.v_cache.dtype = GTN_F32; }},
      {"desc.v_cache.shape[0]: is 2, expected k_cache's 3", [](gtn_rope_desc& d) { d.v_cache.shape[0] = 2; }},
      {"desc.v_cache.shape[1]", [](gtn_rope_desc& d) { d.v_cache.shape[1] = 3; }},
      {"desc.v_cache.shape[3]: is 3, expected v's 4", [](gtn_rope_desc& d) { d.v_cache.shape[3] = 3; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_rope_desc desc = rotating();
    wrong.change(desc);
    expect_refused(gtn_rope_plan(device, &desc, &made, &message), wrong.named);
  }
}

TEST_F(Planning, RunsOfRotaryEmbeddingsAreChecked) {
  const gtn_rope_desc desc = rotating();
  ASSERT_EQ(GTN_OK, gtn_rope_plan(device, &desc, &made, &message)) << message.text;
  // In the order of the parameters; q_out and what follows are outputs.
  static const char* const names[] = {"positions", "table", "slots", "q", "k", "v",
                                      "q_out", "k_cache", "v_cache", "k_scales", "v_scales"};
  constexpr int kPlaces = 11, kSlots = 2, kOutputs = 6;
  alignas(64) static char memory[kPlaces][1024];
  char* at[kPlaces];
  int64_t tokens = 5;
  const auto reset = [&] {
    for (int i = 0; i < kPlaces; ++i) at[i] = memory[i];
  };
  const auto run = [&] {
    return gtn_rope_run(made, stream, tokens, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9], at[10]);
  };
  reset();
  EXPECT_EQ(GTN_OK, run());
  at[6] = at[3];
  EXPECT_EQ(GTN_OK, run()) << "q in place";
  for (int i = 0; i < kPlaces; ++i) {
    const std::string name = names[i];
    reset();
    at[i] = nullptr;
    if (i == kSlots) {
      EXPECT_EQ(GTN_OK, run());
    } else {
      expect_run_refused(run(), name + ": is null, expected memory");
    }
    if (name != "k_cache" && name != "v_cache") {  // whose elements are bytes
      reset();
      ++at[i];
      expect_run_refused(run(), name + ": is ");
    }
    for (int output = kOutputs; output < kPlaces; ++output) {
      if (output == i || (name == "q" && output == kOutputs)) continue;
      reset();
      at[output] = at[i];
      expect_run_refused(run(), output > i ? names[output] + (": overlaps " + name) : name + ": overlaps " + names[output]);
    }
  }
  reset();
  at[6] = at[3] + 4;
  expect_run_refused(run(), "q_out: overlaps q");
  at[6] = at[3];
  at[4] = at[3];
  expect_run_refused(run(), "q_out: overlaps k");
  tokens = 6;
  expect_run_refused(run(), "tokens: is 6, expected 0 to 5");
}

gtn_route_desc routing() {
  return {sizeof(gtn_route_desc), GTN_ROUTE_SIGMOID, tensor(GTN_F16, {5, 12}), 3, 4, 2, 1, 1, 2.5f, 0};
}

TEST_F(Planning, OfRoutingIsChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_route_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.kind: is 0", [](gtn_route_desc& d) { d.kind = 0; }},
      {"desc.kind: is 3", [](gtn_route_desc& d) { d.kind = 3; }},
      {"desc.x.dtype: is S8", [](gtn_route_desc& d) { d.x.dtype = GTN_S8; }},
      {"desc.x.rank", [](gtn_route_desc& d) { d.x.rank = 3; }},
      {"desc.x.strides[1]", [](gtn_route_desc& d) { d.x.strides[1] = 2; }},
      {"desc.x.shape[1]: is 0, expected 1 to 65536", [](gtn_route_desc& d) { d.x.shape[1] = 0; }},
      {"desc.x.shape[1]: is 65537", [](gtn_route_desc& d) { d.x.shape[1] = 65537; }},
      {"desc.top: is 0, expected 1 to 12", [](gtn_route_desc& d) { d.top = 0; }},
      {"desc.top: is 13", [](gtn_route_desc& d) { d.top = 13; }},
      {"desc.top: is 7, expected at most 6, the experts of 2 groups", [](gtn_route_desc& d) { d.top = 7; }},
      {"desc.groups: is -1", [](gtn_route_desc& d) { d.groups = -1; }},
      {"desc.groups: is 5, expected a divisor of the 12 experts", [](gtn_route_desc& d) { d.groups = 5; }},
      {"desc.groups: is 24, expected 0 to 12", [](gtn_route_desc& d) { d.groups = 24; }},
      {"desc.top_groups: is 0, expected 1 to 4", [](gtn_route_desc& d) { d.top_groups = 0; }},
      {"desc.top_groups: is 5", [](gtn_route_desc& d) { d.top_groups = 5; }},
      {"desc.top_groups: is 2, expected 0 to 0", [](gtn_route_desc& d) { d.groups = 0; }},
      {"desc.has_bias: is 2", [](gtn_route_desc& d) { d.has_bias = 2; }},
      {"desc.normalize: is -1", [](gtn_route_desc& d) { d.normalize = -1; }},
      {"desc.scale: is inf", [](gtn_route_desc& d) { d.scale = INFINITY; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_route_desc desc = routing();
    wrong.change(desc);
    expect_refused(gtn_route_plan(device, &desc, &made, &message), wrong.named);
  }
}

TEST_F(Planning, RunsOfRoutingAreChecked) {
  const gtn_route_desc desc = routing();
  ASSERT_EQ(GTN_OK, gtn_route_plan(device, &desc, &made, &message)) << message.text;
  // In the order of the parameters; experts and what follows are outputs.
  static const char* const names[] = {"x", "bias", "experts", "weights", "offsets", "rows", "slots"};
  constexpr int kPlaces = 7, kOutputs = 2;
  alignas(64) static char memory[kPlaces][256];
  char* at[kPlaces];
  int64_t tokens = 5;
  const auto reset = [&] {
    for (int i = 0; i < kPlaces; ++i) at[i] = memory[i];
  };
  const auto run = [&] { return gtn_route_run(made, stream, tokens, at[0], at[1], at[2], at[3], at[4], at[5], at[6]); };
  reset();
  EXPECT_EQ(GTN_OK, run());
  for (int i = 0; i < kPlaces; ++i) {
    const std::string name = names[i];
    reset();
    at[i] = nullptr;
    expect_run_refused(run(), name + ": is null, expected memory");
    reset();
    ++at[i];
    expect_run_refused(run(), name + ": is ");
    for (int output = kOutputs; output < kPlaces; ++output) {
      if (output == i) continue;
      reset();
      at[output] = at[i];
      expect_run_refused(run(), output > i ? names[output] + (": overlaps " + name) : name + ": overlaps " + names[output]);
    }
  }
  reset();
  tokens = 6;
  expect_run_refused(run(), "tokens: is 6, expected 0 to 5");
  tokens = 0;
  at[0] = at[2] = at[3] = at[5] = at[6] = nullptr;
  EXPECT_EQ(GTN_OK, run()) << "without tokens there are offsets alone";
  at[4] = nullptr;
  expect_run_refused(run(), "offsets: is null");
}

TEST_F(Planning, RoutingOfMoreRowsThanHaveNumbers) {
  gtn_route_desc desc = routing();
  desc.has_bias = 0;
  desc.x = tensor(GTN_BF16, {int64_t{1} << 40, 12});
  ASSERT_EQ(GTN_OK, gtn_route_plan(device, &desc, &made, &message)) << message.text;
  alignas(64) static float x[8];
  for (int64_t tokens : {int64_t{715827883}, int64_t{1} << 40}) {
    expect_run_refused(gtn_route_run(made, stream, tokens, x, nullptr, x, x, x, x, x),
                       "tokens: is " + std::to_string(tokens) + ", expected at most 715827882");
  }
}

gtn_conv_desc convolving() {
  gtn_conv_desc desc = {};
  desc.size = sizeof desc;
  desc.format = GTN_F32;
  desc.x = tensor(GTN_F32, {2, 6, 5, 7});
  desc.out = tensor(GTN_BF16, {2, 4, 3, 3});
  for (int d = 0; d < 2; ++d) desc.kernel[d] = 3, desc.stride[d] = 1 + d, desc.dilation[d] = 1;
  desc.groups = 2;
  return desc;
}

TEST(Plans, ConvolutionsRefuseWhatIsWrong) {
  const struct {
    const char* named;
    void (*change)(gtn_conv_desc&);
  } all[] = {
      {"desc.format: is S8", [](gtn_conv_desc& d) { d.format = GTN_S8; }},
      {"desc.x.rank: is 2", [](gtn_conv_desc& d) { d.x.rank = 2; }},
      {"desc.x.dtype: is F16", [](gtn_conv_desc& d) { d.x.dtype = GTN_F16; }},
      {"desc.out.rank: is 3, expected 4 to 4", [](gtn_conv_desc& d) { d.out.rank = 3; }},
      {"desc.out.shape[0]: is 3, expected x's 2", [](gtn_conv_desc& d) { d.out.shape[0] = 3; }},
      {"desc.out.strides[1]: is 0", [](gtn_conv_desc& d) { d.out.strides[1] = 0; }},
      {"desc.x.shape[1]: is 0", [](gtn_conv_desc& d) { d.x.shape[1] = 0; }},
      {"desc.groups: is 3, expected a divisor of the 4 channels of out", [](gtn_conv_desc& d) { d.groups = 3; }},
      {"desc.groups: is 4, expected a divisor of the 6 channels of x", [](gtn_conv_desc& d) { d.groups = 4; }},
      {"desc.groups: is 0", [](gtn_conv_desc& d) { d.groups = 0; }},
      {"desc.kernel[1]: is 0, expected 1 or more", [](gtn_conv_desc& d) { d.kernel[1] = 0; }},
      {"desc.kernel[2]: is 1, expected 0 beyond", [](gtn_conv_desc& d) { d.kernel[2] = 1; }},
      {"desc.stride[0]: is 0", [](gtn_conv_desc& d) { d.stride[0] = 0; }},
      {"desc.dilation[0]: is -1", [](gtn_conv_desc& d) { d.dilation[0] = -1; }},
      {"desc.pad_before[1]: is -1", [](gtn_conv_desc& d) { d.pad_before[1] = -1; }},
      {"desc.pad_after[0]: is -2", [](gtn_conv_desc& d) { d.pad_after[0] = -2; }},
      {"dimension 0 exceed 2^63", [](gtn_conv_desc& d) { d.pad_after[0] = INT64_MAX; }},
      {"dimension 1 exceed 2^63", [](gtn_conv_desc& d) { d.dilation[1] = INT64_MAX; }},
      {"desc.out.shape[3]: is 4, expected 3", [](gtn_conv_desc& d) { d.out = tensor(GTN_BF16, {2, 4, 3, 4}); }},
      {"activation: is 5", [](gtn_conv_desc& d) { d.activation = 5; }},
      {"desc.has_bias: is 2", [](gtn_conv_desc& d) { d.has_bias = 2; }},
      {"desc.has_residual: is -1", [](gtn_conv_desc& d) { d.has_residual = -1; }},
      {"desc.residual_first: is 1, expected 0", [](gtn_conv_desc& d) { d.residual_first = 1; }},
  };
  OpenDevice on("cpu");
  for (const auto& wrong : all) {
    gtn_conv_desc desc = convolving();
    wrong.change(desc);
    Message message;
    gtn_plan made = 0;
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_conv_plan(on.device, &desc, &made, &message)) << wrong.named;
    EXPECT_NE(nullptr, std::strstr(message.text, wrong.named)) << wrong.named << ": " << message.text;
  }
}

gtn_pooling_desc pooling() {
  gtn_pooling_desc desc = {};
  desc.size = sizeof desc;
  desc.kind = GTN_POOLING_AVERAGE;
  desc.x = tensor(GTN_F16, {2, 4, 5, 7});
  desc.out = tensor(GTN_BF16, {2, 4, 3, 3});
  for (int d = 0; d < 2; ++d) desc.kernel[d] = 3, desc.stride[d] = 1 + d, desc.dilation[d] = 1;
  desc.count_padding = 1;
  return desc;
}

TEST(Plans, PoolingRefusesWhatIsWrong) {
  const struct {
    const char* named;
    void (*change)(gtn_pooling_desc&);
  } all[] = {
      {"desc.size: is 8", [](gtn_pooling_desc& d) { d.size = 8; }},
      {"desc.kind: is 3, expected GTN_POOLING_MAX or GTN_POOLING_AVERAGE", [](gtn_pooling_desc& d) { d.kind = 3; }},
      {"desc.x.rank: is 2", [](gtn_pooling_desc& d) { d.x.rank = 2; }},
      {"desc.x.dtype: is S8, expected F32, BF16 or F16", [](gtn_pooling_desc& d) { d.x.dtype = GTN_S8; }},
      {"desc.out.dtype: is S8, expected F32, BF16 or F16", [](gtn_pooling_desc& d) { d.out.dtype = GTN_S8; }},
      {"desc.out.rank: is 3, expected 4 to 4", [](gtn_pooling_desc& d) { d.out.rank = 3; }},
      {"desc.out.shape[0]: is 3, expected x's 2", [](gtn_pooling_desc& d) { d.out.shape[0] = 3; }},
      {"desc.out.shape[1]: is 5, expected x's 4", [](gtn_pooling_desc& d) { d.out.shape[1] = 5, d.out.strides[0] = 45; }},
      {"desc.out.strides[1]: is 0", [](gtn_pooling_desc& d) { d.out.strides[1] = 0; }},
      {"desc.x.shape[1]: is 0", [](gtn_pooling_desc& d) { d.x.shape[1] = d.out.shape[1] = 0; }},
      {"desc.kernel[1]: is 0, expected 1 or more", [](gtn_pooling_desc& d) { d.kernel[1] = 0; }},
      {"desc.kernel[2]: is 1, expected 0 beyond", [](gtn_pooling_desc& d) { d.kernel[2] = 1; }},
      {"desc.stride[0]: is 0", [](gtn_pooling_desc& d) { d.stride[0] = 0; }},
      {"desc.dilation[0]: is -1", [](gtn_pooling_desc& d) { d.dilation[0] = -1; }},
      {"desc.pad_before[1]: is -1", [](gtn_pooling_desc& d) { d.pad_before[1] = -1; }},
      {"desc.pad_after[0]: is -2", [](gtn_pooling_desc& d) { d.pad_after[0] = -2; }},
      {"dimension 0 exceed 2^63", [](gtn_pooling_desc& d) { d.pad_after[0] = INT64_MAX; }},
      {"dimension 1 exceed 2^63", [](gtn_pooling_desc& d) { d.dilation[1] = INT64_MAX; }},
      {"desc.kernel: makes a window exceed 2^63 bytes",
       [](gtn_pooling_desc& d) { d.kernel[0] = d.kernel[1] = int64_t{1} << 31; }},
      {"desc.out.shape[3]: is 4, expected 3", [](gtn_pooling_desc& d) { d.out = tensor(GTN_BF16, {2, 4, 3, 4}); }},
      {"desc.count_padding: is 2", [](gtn_pooling_desc& d) { d.count_padding = 2; }},
      {"desc.count_padding: is 1, expected 0 with GTN_POOLING_MAX", [](gtn_pooling_desc& d) { d.kind = GTN_POOLING_MAX; }},
  };
  OpenDevice on("cpu");
  Message message;
  gtn_plan made = 0;
  for (const auto& wrong : all) {
    gtn_pooling_desc desc = pooling();
    wrong.change(desc);
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_pooling_plan(on.device, &desc, &made, &message)) << wrong.named;
    EXPECT_NE(nullptr, std::strstr(message.text, wrong.named)) << wrong.named << ": " << message.text;
  }
  gtn_pooling_desc far = pooling();
  far.kernel[0] = 1, far.stride[0] = INT64_MAX, far.out = tensor(GTN_BF16, {2, 4, 1, 3});
  EXPECT_EQ(GTN_UNSUPPORTED, gtn_pooling_plan(on.device, &far, &made, &message)) << message.text;

  const gtn_pooling_desc right = pooling();
  ASSERT_EQ(GTN_OK, gtn_pooling_plan(on.device, &right, &made, &message)) << message.text;
  std::vector<uint16_t> x(2 * 4 * 35 + 72), out(72);
  const auto refused = [&](int64_t batch, const void* from, void* to, const char* text) {
    EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_pooling_run(made, on.stream, batch, from, to)) << text;
    EXPECT_NE(std::string::npos, on.message().find(text)) << on.message();
  };
  refused(3, x.data(), out.data(), "batch: is 3, expected 0 to 2");
  refused(-1, x.data(), out.data(), "batch: is -1");
  refused(2, nullptr, out.data(), "x: is null");
  refused(2, x.data(), nullptr, "out: is null");
  refused(2, reinterpret_cast<char*>(x.data()) + 1, out.data(), "x: is ");
  refused(2, x.data(), x.data() + 279, "out");
  EXPECT_EQ(GTN_OK, gtn_pooling_run(made, on.stream, 2, x.data(), x.data() + 280)) << on.message();
  EXPECT_EQ(GTN_OK, gtn_pooling_run(made, on.stream, 0, nullptr, nullptr)) << on.message();
  EXPECT_EQ(GTN_OK, gtn_plan_close(made, &message));
}

gtn_mix_desc mixing() {
  return {sizeof(gtn_mix_desc), GTN_GATE_SIGMOID, tensor(GTN_BF16, {3, 4, 2, 8}), tensor(GTN_F32, {4, 3, 2}),
          tensor(GTN_F16, {4, 2, 8}), 1, 0};
}

TEST_F(Planning, OfGatedSumsIsChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_mix_desc&);
  };
  const Wrong wrongs[] = {
      {"desc.gate: is 3", [](gtn_mix_desc& d) { d.gate = 3; }},
      {"desc.gate: is -1", [](gtn_mix_desc& d) { d.gate = -1; }},
      {"desc.has_residual", [](gtn_mix_desc& d) { d.has_residual = 2; }},
      {"desc.has_row_index", [](gtn_mix_desc& d) { d.has_row_index = 2; }},
      {"desc.x.rank: is 4, expected 3 to 3", [](gtn_mix_desc& d) { d.has_row_index = 1; }},
      {"desc.x.rank: is 3, expected 4 to 4", [](gtn_mix_desc& d) { d.x = d.out; }},
      {"desc.x.dtype: is S8", [](gtn_mix_desc& d) { d.x.dtype = GTN_S8; }},
      {"desc.x.strides[3]", [](gtn_mix_desc& d) { d.x.strides[3] = 2; }},
      {"desc.gates.dtype: is F16, expected F32", [](gtn_mix_desc& d) { d.gates.dtype = GTN_F16; }},
      {"desc.gates.rank", [](gtn_mix_desc& d) { d.gates.rank = 2; }},
      {"desc.gates.shape[0]: is 5, expected out's 4", [](gtn_mix_desc& d) { d.gates.shape[0] = 5; }},
      {"desc.gates.shape[2]: is 1, expected out's 2", [](gtn_mix_desc& d) { d.gates.shape[2] = 1; }},
      {"desc.x.shape[0]: is 2, expected the parts of gates, 3", [](gtn_mix_desc& d) { d.x.shape[0] = 2; }},
      {"desc.x.shape[1]: is 3, expected out's 4", [](gtn_mix_desc& d) { d.x.shape[1] = 3; }},
      {"desc.x.shape[2]: is 1, expected out's 2", [](gtn_mix_desc& d) { d.x.shape[2] = 1; }},
      {"desc.x.shape[3]: is 7, expected out's 8", [](gtn_mix_desc& d) { d.x.shape[3] = 7; }},
      {"desc.out.dtype: is S32", [](gtn_mix_desc& d) { d.out.dtype = GTN_S32; }},
      {"desc.out.strides[0]: is 0", [](gtn_mix_desc& d) { d.out.strides[0] = 0; }},
      {"desc.out.shape[1]: is 0", [](gtn_mix_desc& d) { d.out.shape[1] = 0; }},
      {"desc.out.shape[2]: is 0", [](gtn_mix_desc& d) { d.out.shape[2] = 0; }},
  };
  for (const Wrong& wrong : wrongs) {
    gtn_mix_desc desc = mixing();
    wrong.change(desc);
    expect_refused(gtn_mix_plan(device, &desc, &made, &message), wrong.named);
  }
}

TEST_F(Planning, RunsOfGatedSumsAreChecked) {
  alignas(64) static char x[1024], gates[512], index[256], residual[256], out[256];
  gtn_mix_desc desc = mixing();
  ASSERT_EQ(GTN_OK, gtn_mix_plan(device, &desc, &made, &message)) << message.text;
  const auto run = [&](int64_t tokens, int64_t rows, const void* in, const void* g, const void* rows_of, const void* added,
                       void* to) { return gtn_mix_run(made, stream, tokens, rows, in, g, rows_of, added, to); };
  EXPECT_EQ(GTN_OK, run(4, 0, x, gates, nullptr, residual, out));
  EXPECT_EQ(GTN_OK, run(4, 0, x, gates, nullptr, out, out)) << "in place";
  EXPECT_EQ(GTN_OK, run(0, 0, nullptr, nullptr, nullptr, nullptr, nullptr)) << "no tokens, no memory";
  expect_run_refused(run(5, 0, x, gates, nullptr, residual, out), "tokens: is 5, expected 0 to 4");
  expect_run_refused(run(4, 1, x, gates, nullptr, residual, out), "rows_x: is 1, expected 0 to 0");
  expect_run_refused(run(4, 0, nullptr, gates, nullptr, residual, out), "x: is null");
  expect_run_refused(run(4, 0, x + 1, gates, nullptr, residual, out), "x: is ");
  expect_run_refused(run(4, 0, x, nullptr, nullptr, residual, out), "gates: is null");
  expect_run_refused(run(4, 0, x, gates + 2, nullptr, residual, out), "gates: is ");
  expect_run_refused(run(4, 0, x, gates, index, residual, out), "row_index: is not null");
  expect_run_refused(run(4, 0, x, gates, nullptr, nullptr, out), "residual: is null");
  expect_run_refused(run(4, 0, x, gates, nullptr, residual, nullptr), "out: is null");
  expect_run_refused(run(4, 0, x, gates, nullptr, residual, out + 1), "out: is ");
  expect_run_refused(run(4, 0, x, gates, nullptr, residual, x + 256), "out: overlaps x");
  expect_run_refused(run(4, 0, x, gates, nullptr, residual, gates), "out: overlaps gates");
  expect_run_refused(run(4, 0, x, gates, nullptr, out + 2, out), "out: overlaps residual");
  EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  // The parts of a token beside its output: rows of 64 elements of 16, of which the last 16 are not x's.
  desc.has_residual = 0;
  desc.x.strides[0] = 16;
  desc.x.strides[1] = desc.out.strides[0] = 64;
  ASSERT_EQ(GTN_OK, gtn_mix_plan(device, &desc, &made, &message)) << message.text;
  EXPECT_EQ(GTN_OK, run(4, 0, x, gates, nullptr, nullptr, x + 2 * 48)) << "columns";
  expect_run_refused(run(4, 0, x, gates, nullptr, nullptr, x + 2 * 47), "out: overlaps x");
  expect_run_refused(run(4, 0, x, gates, nullptr, residual, out), "residual: is not null");
  EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  // Rows by number.
  desc = mixing();
  desc.has_row_index = 1;
  desc.x = tensor(GTN_F32, {6, 2, 8});
  ASSERT_EQ(GTN_OK, gtn_mix_plan(device, &desc, &made, &message)) << message.text;
  EXPECT_EQ(GTN_OK, run(4, 6, x, gates, index, residual, out));
  EXPECT_EQ(GTN_OK, run(4, 0, nullptr, gates, index, residual, out)) << "no rows, no memory";
  expect_run_refused(run(4, 7, x, gates, index, residual, out), "rows_x: is 7, expected 0 to 6");
  expect_run_refused(run(4, 6, x, gates, nullptr, residual, out), "row_index: is null");
  expect_run_refused(run(4, 6, x, gates, index + 2, residual, out), "row_index: is ");
  expect_run_refused(run(4, 6, x, gates, index, residual, index), "out: overlaps row_index");
  expect_run_refused(run(4, 6, x, gates, index, residual, x + 5 * 64), "out: overlaps x");
  EXPECT_EQ(GTN_OK, run(4, 5, x, gates, index, residual, x + 5 * 64)) << "a row that is not in use";
}

TEST_F(Planning, OfGatedActivationsIsChecked) {
  struct Wrong {
    const char* named;
    void (*change)(gtn_glu_desc&);
  };
  const Wrong wrongs[] = {
      {"activation: is 5", [](gtn_glu_desc& d) { d.activation = 5; }},
      {"desc.gate.dtype: is S8, expected F32, BF16 or F16", [](gtn_glu_desc& d) { d.gate.dtype = GTN_S8; }},
      {"desc.gate.rank", [](gtn_glu_desc& d) { d.gate.rank = 3; }},
      {"desc.gate.strides[1]", [](gtn_glu_desc& d) { d.gate.strides[1] = 2; }},
      {"desc.x.dtype: is F32, expected F16", [](gtn_glu_desc& d) { d.x.dtype = GTN_F32; }},
      {"desc.x.shape[1]: is 7, expected gate's 8", [](gtn_glu_desc& d) { d.x.shape[1] = 7; }},
      {"desc.out.shape[0]: is 5, expected gate's 4", [](gtn_glu_desc& d) { d.out.shape[0] = 5; }},
      {"desc.out.dtype: is S32", [](gtn_glu_desc& d) { d.out.dtype = GTN_S32; }},
      {"desc.out.strides[0]: is 7", [](gtn_glu_desc& d) { d.out.strides[0] = 7; }},
  };
  const gtn_glu_desc right = {sizeof right, GTN_ACT_SILU, tensor(GTN_F16, {4, 8}, 16), tensor(GTN_F16, {4, 8}, 16),
                              tensor(GTN_F16, {4, 8}, 16)};
  for (const Wrong& wrong : wrongs) {
    gtn_glu_desc desc = right;
    wrong.change(desc);
    expect_refused(gtn_glu_plan(device, &desc, &made, &message), wrong.named);
  }
  ASSERT_EQ(GTN_OK, gtn_glu_plan(device, &right, &made, &message)) << message.text;
  alignas(64) static char both[256], other[256];
  const auto run = [&](int64_t rows, const void* gate, const void* x, void* out) {
    return gtn_glu_run(made, stream, rows, gate, x, out);
  };
  EXPECT_EQ(GTN_OK, run(4, both, both + 16, other));
  EXPECT_EQ(GTN_OK, run(4, both, both + 16, both)) << "in place of the gate";
  EXPECT_EQ(GTN_OK, run(4, both, both + 16, both + 16)) << "in place of x";
  EXPECT_EQ(GTN_OK, run(4, both, both, other + 16)) << "one factor twice";
  EXPECT_EQ(GTN_OK, run(0, nullptr, nullptr, nullptr)) << "no rows, no memory";
  expect_run_refused(run(5, both, both + 16, other), "rows: is 5, expected 0 to 4");
  expect_run_refused(run(4, nullptr, both + 16, other), "gate: is null");
  expect_run_refused(run(4, both, nullptr, other), "x: is null");
  expect_run_refused(run(4, both, both + 16, nullptr), "out: is null");
  expect_run_refused(run(4, both + 1, both + 16, other), "gate: is ");
  expect_run_refused(run(4, both, both + 17, other), "x: is ");
  expect_run_refused(run(4, both, both + 16, other + 1), "out: is ");
  expect_run_refused(run(4, both, other, both + 2), "out: overlaps gate");
  expect_run_refused(run(4, other, both, both + 14), "out: overlaps x");
  EXPECT_EQ(GTN_OK, gtn_plan_close(made, nullptr));
  // Elements of the same size that are of another type.
  gtn_glu_desc desc = right;
  desc.out.dtype = GTN_BF16;
  ASSERT_EQ(GTN_OK, gtn_glu_plan(device, &desc, &made, &message)) << message.text;
  expect_run_refused(run(4, both, both + 16, both), "out: overlaps gate");
}

// Keys and values that share their pages, and a cache with fewer rows than there are tokens.
TEST_F(Planning, RotaryEmbeddingsOfInterleavedCaches) {
  gtn_rope_desc desc = rotating();
  desc.has_q = 0;
  desc.k.dtype = desc.v.dtype = GTN_F32;
  desc.v = desc.k;
  desc.k_cache = tensor(GTN_F32, {2, 2, 2, 8});
  desc.k_cache.strides[0] = 2 * 2 * 2 * 8;
  desc.v_cache = desc.k_cache;
  ASSERT_EQ(GTN_OK, gtn_rope_plan(device, &desc, &made, &message)) << message.text;
  alignas(64) static float k[5 * 16], v[5 * 16], table[32 * 6], pages[2 * 64];
  alignas(64) static int64_t positions[5], slots[5];
  const auto run = [&](int64_t tokens, const void* places, void* k_cache, void* v_cache) {
    return gtn_rope_run(made, stream, tokens, positions, table, places, nullptr, k, v, nullptr, k_cache, v_cache, nullptr,
                        nullptr);
  };
  EXPECT_EQ(GTN_OK, run(5, slots, pages, pages + 32));
  EXPECT_EQ(GTN_OK, run(5, slots, pages + 32, pages));
  expect_run_refused(run(5, slots, pages, pages + 31), "v_cache: overlaps k_cache");
  EXPECT_EQ(GTN_OK, run(4, nullptr, pages, pages + 32));
  expect_run_refused(run(5, nullptr, pages, pages + 32),
                     "tokens: is 5, expected at most 4, the most that a cache without slots takes");
  expect_run_refused(gtn_rope_run(made, stream, 1, positions, table, slots, k, k, v, nullptr, pages, pages + 32, nullptr,
                                  nullptr),
                     "q: is not null");
}

// Queries alone go to no cache.
TEST_F(Planning, RotaryEmbeddingsOfQueriesAlone) {
  gtn_rope_desc desc = rotating();
  desc.has_k = desc.has_v = 0;
  std::memset(&desc.k, 0xee, 4 * sizeof desc.k);  // not looked at
  ASSERT_EQ(GTN_OK, gtn_rope_plan(device, &desc, &made, &message)) << message.text;
  alignas(64) static float q[5 * 32], table[32 * 6];
  alignas(64) static int64_t positions[5];
  const auto run = [&](const void* slots, void* k_cache) {
    return gtn_rope_run(made, stream, 5, positions, table, slots, q, nullptr, nullptr, q, k_cache, nullptr, nullptr, nullptr);
  };
  EXPECT_EQ(GTN_OK, run(nullptr, nullptr));
  expect_run_refused(run(positions, nullptr), "slots: is not null");
  expect_run_refused(run(nullptr, table), "k_cache: is not null");
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
  const gtn_weights_desc none = {sizeof none, GTN_F32, tensor(GTN_F32, {0, int64_t{1} << 40}), 0, 0, 0};
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

TEST(Memory, OfTheHostIsFreedOnceAndAsSuch) {
  OpenDevice cpu("cpu");
  Message message;
  void *host = nullptr, *memory = nullptr;
  ASSERT_EQ(GTN_OK, gtn_host_memory_alloc(cpu.device, 5000, 4096, &host, &message)) << message.text;
  ASSERT_EQ(GTN_OK, gtn_memory_alloc(cpu.device, 5000, 64, &memory, &message)) << message.text;
  EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(host) % 4096);
  std::memset(host, 7, 5000);
  EXPECT_EQ(GTN_OK, gtn_memory_copy(cpu.stream, memory, host, 5000, GTN_HOST_TO_DEVICE, &message));
  EXPECT_EQ(0, std::memcmp(memory, host, 5000));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_memory_free(cpu.device, host, &message)) << "it is not of gtn_memory_alloc";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_free(cpu.device, memory, &message));
  EXPECT_EQ(GTN_OK, gtn_memory_free(cpu.device, memory, &message)) << message.text;
  EXPECT_EQ(GTN_BUSY, gtn_device_close(cpu.device, &message)) << "its memory is open";
  EXPECT_EQ(GTN_OK, gtn_host_memory_free(cpu.device, host, &message)) << message.text;
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_free(cpu.device, host, &message)) << "freed twice";
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_alloc(cpu.device, 0, 64, &host, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_alloc(cpu.device, 8, 48, &host, &message));
  EXPECT_EQ(GTN_INVALID_ARGUMENT, gtn_host_memory_alloc(cpu.device, 8, 64, nullptr, &message));
  EXPECT_EQ(GTN_OUT_OF_MEMORY, gtn_host_memory_alloc(cpu.device, INT64_MAX / 2, 64, &host, &message));
}

}  // namespace
}  // namespace gatun::test
