// Calls that fail and calls that describe, with messages and structures of any size: what is written stays within the
// size that the caller named, ends with a NUL, and is nothing at all on success or, of what is described, on failure.
#include <limits>

#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

constexpr char kFill = 0x5a;

// A structure of the caller's, of any size that it names, filled with what nobody writes.
class Caller {
 public:
  Caller(Input& input, size_t full) {
    const int how = input.ConsumeIntegralInRange(0, 3);
    const uint32_t whole = static_cast<uint32_t>(full);
    const uint32_t size = how == 0 ? whole : input.ConsumeIntegralInRange<uint32_t>(0, whole + 64);
    bytes_.assign(size < sizeof size ? sizeof size : size, kFill);
    bytes_.shrink_to_fit();
    std::memcpy(bytes_.data(), &size, sizeof size);
    before_ = bytes_;
    size_ = size;
  }

  uint32_t size() const { return size_; }
  bool is_untouched() const { return bytes_ == before_; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }

  // As a message: ends within its size, wherever there is room for it.
  bool ends() const { return size_ <= 4 || std::memchr(bytes_.data() + 4, '\0', bytes_.size() - 4) != nullptr; }

 private:
  uint32_t size_;
  std::vector<char> bytes_, before_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const gtn_device devices[] = {open_device("checking"), open_device("cpu:scalar")};
  Input input(data, bytes);
  const gtn_device device = devices[input.ConsumeIntegralInRange<size_t>(0, 1)];
  gtn_message scratch = empty_message();
  Caller text(input, sizeof(gtn_message));
  gtn_message* message = input.ConsumeIntegralInRange(0, 15) == 0 ? nullptr : text.as<gtn_message>();

  gtn_status status = GTN_OK;
  const Caller* described = nullptr;
  Caller device_info(input, sizeof(gtn_device_info)), backend_info(input, sizeof(gtn_backend_info));
  Caller plan_info(input, sizeof(gtn_plan_info)), weights_info(input, sizeof(gtn_weights_info));
  const gtn_tensor_desc square = {sizeof square, GTN_F32, 2, 0, {2, 2}, {2, 1}};
  switch (input.ConsumeIntegralInRange(0, 8)) {
    case 0:
      described = &device_info;
      status = gtn_device_query(input.ConsumeIntegralInRange(-1, 2), input.ConsumeIntegralInRange(-1, 8),
                                device_info.as<gtn_device_info>(), message);
      break;
    case 1:
      described = &device_info;
      status = gtn_device_describe(device, device_info.as<gtn_device_info>(), message);
      break;
    case 2:
      described = &backend_info;
      status = gtn_backend_query(input.ConsumeIntegralInRange(-1, 2), backend_info.as<gtn_backend_info>(), message);
      break;
    case 3: {
      const std::string name = input.ConsumeRandomLengthString(200);
      gtn_device opened = 0;
      status = gtn_device_open(name.c_str(), nullptr, &opened, message);
      if (status == GTN_OK) MUST(gtn_device_close(opened, &scratch) == GTN_OK);
      break;
    }
    case 4: {
      gtn_softmax_desc desc = {sizeof desc, 1.0f, square, square};
      desc.x.shape[0] = any_number(input);
      gtn_plan plan = 0;
      status = gtn_softmax_plan(device, &desc, &plan, message);
      if (status != GTN_OK) break;
      described = &plan_info;
      status = gtn_plan_query(plan, plan_info.as<gtn_plan_info>(), message);
      MUST(gtn_plan_close(plan, &scratch) == GTN_OK);
      break;
    }
    case 5: {
      float source[4] = {1, 2, 3, input.ConsumeFloatingPoint<float>()};
      if (input.ConsumeBool()) source[0] = std::numeric_limits<float>::infinity();
      const gtn_weights_desc desc = {sizeof desc, one_of<int32_t>(input, {GTN_F32, GTN_S8, 9}), square, 0, 0, 0};
      gtn_weights weights = 0;
      status = gtn_weights_pack(device, &desc, source, &weights, message);
      if (status != GTN_OK) break;
      described = &weights_info;
      status = gtn_weights_query(weights, weights_info.as<gtn_weights_info>(), message);
      MUST(gtn_weights_close(weights, &scratch) == GTN_OK);
      break;
    }
    case 6: {
      // The message of a run comes from a call that succeeds.
      gtn_stream stream = 0;
      MUST(gtn_stream_create(device, &stream, &scratch) == GTN_OK);
      const gtn_softmax_desc desc = {sizeof desc, 1.0f, square, square};
      gtn_plan plan = 0;
      MUST(gtn_softmax_plan(device, &desc, &plan, &scratch) == GTN_OK);
      MUST(gtn_softmax_run(plan, stream, 3, nullptr, nullptr) == GTN_INVALID_ARGUMENT);
      const gtn_status given = gtn_stream_message(stream, message);
      MUST(given == (message == nullptr ? GTN_INVALID_ARGUMENT : GTN_OK));
      MUST(message == nullptr || text.ends());
      MUST(gtn_plan_close(plan, &scratch) == GTN_OK && gtn_stream_close(stream, &scratch) == GTN_OK);
      return 0;
    }
    case 7: {
      void* memory = nullptr;
      status = gtn_memory_alloc(device, input.ConsumeBool() ? 64 : int64_t{1} << 60, 64, &memory, message);
      if (status == GTN_OK) MUST(gtn_memory_free(device, memory, &scratch) == GTN_OK);
      break;
    }
    default:
      status = gtn_stream_close(input.ConsumeIntegral<uint64_t>() | 0xffff, message);
      MUST(status == GTN_STALE_HANDLE);
  }
  MUST(status == GTN_OK || message == nullptr || text.ends());
  if (status == GTN_OK || message == nullptr) MUST(text.is_untouched());
  if (status != GTN_OK && message != nullptr && text.size() > 5) {
    MUST(message->text[0] != '\0' && message->text[0] != kFill);
  }
  if (described != nullptr && status != GTN_OK) MUST(described->is_untouched());
  if (described != nullptr && status == GTN_OK) MUST(described->size() >= 8);
  return 0;
}
