// Names, selectors, options and indices of devices and backends, and paths of libraries that are none.
#include <unistd.h>

#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

// Text with what matters in it, or any. A path with a slash in it is listed for ever, so those are few.
std::string any_text(Input& input) {
  std::string text;
  while (input.ConsumeBool() && text.size() < 4096) {
    switch (input.ConsumeIntegralInRange(0, 5)) {
      case 0:
        text += one_of<const char*>(input,
                                    {"checking", "cpu", "scalar", ":", "libgatun_", ".so", "gone", "amx", "%s", "."});
        break;
      case 1:
        text += std::string(one_of<size_t>(input, {1, 31, 32, 63, 64, 1100}), 'a');
        break;
      default:
        text += input.ConsumeRandomLengthString(8);
    }
  }
  return text.substr(0, text.find('\0'));
}

void open(Input& input) {
  const std::string name = one_of<const char*>(input, {"", "checking", "checking:", "cpu", "cpu:"}) + any_text(input);
  gtn_device_options options = {sizeof options, input.ConsumeIntegralInRange(0, 4)};
  const bool right = input.ConsumeBool();
  if (!right) spoil(input, &options, sizeof options);
  Exact given(&options, sizeof options);
  gtn_message message = empty_message();
  gtn_device device = 42;
  const auto* passed = input.ConsumeBool() ? nullptr : reinterpret_cast<const gtn_device_options*>(given.data());
  const gtn_status status = gtn_device_open(name.c_str(), passed, &device, &message);
  if (status == GTN_OK) {
    gtn_device_info info = {};
    info.size = sizeof info;
    MUST(gtn_device_describe(device, &info, &message) == GTN_OK);
    MUST(std::string(info.name).rfind(name.substr(0, name.find(':')), 0) == 0);
    const int32_t op = static_cast<int32_t>(any_number(input)), dtype = static_cast<int32_t>(any_number(input));
    int32_t claimed = 42;
    const gtn_status supports = gtn_device_supports(device, op, dtype, &claimed, &message);
    const bool known = op >= GTN_OP_GEMM && op <= GTN_OP_FAKE_QUANTIZE && dtype >= GTN_F32 && dtype <= GTN_BF16_2OF4;
    MUST(supports == (known ? GTN_OK : GTN_INVALID_ARGUMENT));
    MUST(known ? claimed == 0 || claimed == 1 : claimed == 42);
    // Nothing that takes a device's time: the CPU would measure.
    const int32_t limit = static_cast<int32_t>(any_number(input));
    double per_second = 0;
    if (name[0] == 'c' && name[1] == 'h') {
      const bool measured = gtn_device_measure(device, limit, &per_second, &message) == GTN_OK;
      MUST(measured == (limit >= GTN_LIMIT_F32 && limit <= GTN_LIMIT_EXP));
    }
    MUST(gtn_device_close(device, &message) == GTN_OK);
    return;
  }
  MUST(device == 42);
  // The backend that answers this says nothing; the core need not invent it.
  if (status != GTN_DEVICE_LOST) check_failure(status, message);
}

void query(Input& input) {
  gtn_message message = empty_message();
  int32_t count = 0;
  MUST(gtn_backend_count(&count, &message) == GTN_OK && count >= 2);
  const int32_t index = static_cast<int32_t>(any_number(input)), which = static_cast<int32_t>(any_number(input));
  gtn_backend_info backend = {};
  backend.size = sizeof backend;
  const gtn_status status = gtn_backend_query(index, &backend, &message);
  MUST(status == (index >= 0 && index < count ? GTN_OK : GTN_INVALID_ARGUMENT));
  gtn_device_info device = {};
  device.size = sizeof device;
  const gtn_status found = gtn_device_query(index, which, &device, &message);
  const bool usable = status == GTN_OK && backend.status == GTN_OK;
  MUST((found == GTN_OK) == (usable && which >= 0 && which < backend.device_count));
  if (found != GTN_OK) check_failure(found, message);
}

void load(Input& input) {
  std::string path;
  if (input.ConsumeBool()) {
    path = any_text(input);
    for (char& c : path) c = c == '/' ? '_' : c;
  } else {
    path = one_of<const char*>(
        input, {"/", "/dev/null", "/proc/self/cmdline", "/libgatun_none.so", "/libgatun_.so", ".", ".."});
    if (input.ConsumeBool()) path = GATUN_FUZZ_LIBRARIES + path;
    if (input.ConsumeIntegralInRange(0, 7) == 0) {
      path = "/" + std::string(one_of<size_t>(input, {1000, 1022, 1023, 4096}), 'a');
    }
  }
  // One that is not trusted takes a child process, and that as long as thousands of other inputs.
  static int calls = 0;
  const int32_t trusted = input.ConsumeIntegralInRange(0, 15) == 0 ? -7 : ++calls % 1024 == 0 ? 0 : 1;
  gtn_message message = empty_message();
  const gtn_status status = gtn_backend_load(path.c_str(), trusted, &message);
  MUST(status == GTN_NOT_AVAILABLE || status == GTN_INVALID_ARGUMENT);
  if (trusted == -7) MUST(status == GTN_INVALID_ARGUMENT);
  check_failure(status, message);
}

void discover(Input& input) {
  gtn_message message = empty_message();
  const std::string directory = any_text(input);
  const gtn_status status = gtn_backend_discover(("no" + directory).c_str(), &message);
  MUST(status == GTN_INVALID_ARGUMENT);
  check_failure(status, message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const gtn_device devices[] = {open_device("checking"), open_device("cpu:scalar")};
  (void)devices;
  Input input(data, bytes);
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0:
      query(input);
      break;
    case 1:
      load(input);
      break;
    case 2:
      discover(input);
      break;
    default:
      open(input);
  }
  return 0;
}
