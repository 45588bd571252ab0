#include "device_test.h"

#include <cstdio>

namespace gatun::test {
namespace {

void discover() {
  static const bool done = [] {
    Message message;
#if defined(GATUN_TEST_EMULATED)
    // There may be no child process to open it first: the system cannot run what the emulator does.
    gtn_backend_load(GATUN_TEST_LIBRARIES "/libgatun_cpu.so", 1, &message);
#endif
    if (gtn_backend_discover(GATUN_TEST_LIBRARIES, &message) != GTN_OK) {
      std::fprintf(stderr, "no backends: %s\n", message.text);
      std::abort();
    }
    return true;
  }();
  (void)done;
}

}  // namespace

std::vector<std::string> cpu_devices() {
  discover();
  // GATUN_TEST_DEVICES=cpu:avx512,cpu:vnni leaves the others out: under an emulator, each level is slow.
  const char* only = std::getenv("GATUN_TEST_DEVICES");
  std::vector<std::string> names;
  int32_t backends = 0;
  gtn_backend_count(&backends, nullptr);
  for (int32_t b = 0; b < backends; ++b) {
    gtn_backend_info backend = {};
    backend.size = sizeof backend;
    gtn_backend_query(b, &backend, nullptr);
    if (std::strcmp(backend.name, "cpu") != 0) continue;
    for (int32_t d = 1; d < backend.device_count; ++d) {  // device 0, "cpu", is one of the others
      gtn_device_info info = {};
      info.size = sizeof info;
      gtn_device_query(b, d, &info, nullptr);
      if (info.status == GTN_OK) {
        if (only == nullptr || std::strstr(only, info.name) != nullptr) names.push_back(info.name);
      } else {
        static bool told[64] = {};
        if (d < 64 && !told[d]) std::printf("%s is not available: %s\n", info.name, info.reason);
        if (d < 64) told[d] = true;
      }
    }
  }
  if (names.empty()) {
    std::fprintf(stderr, "there is no CPU device\n");
    std::abort();
  }
  return names;
}

OpenDevice::OpenDevice(const std::string& name, int threads) {
  discover();
  Message message;
  gtn_device_options options = {sizeof options, threads};
  EXPECT_EQ(GTN_OK, gtn_device_open(name.c_str(), &options, &device, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_stream_create(device, &stream, &message)) << message.text;
}

OpenDevice::~OpenDevice() {
  Message message;
  EXPECT_EQ(GTN_OK, gtn_stream_close(stream, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_device_close(device, &message)) << message.text;
}

std::string OpenDevice::message() const {
  Message message;
  gtn_stream_message(stream, &message);
  return message.text;
}

}  // namespace gatun::test
