#include <cstring>
#include <random>
#include <stdexcept>

#include "bench.h"

namespace gatun::bench {
namespace {

// Made once, since making them takes longer than most runs. A prime number, so that rows and operands are not alike.
constexpr int64_t kPool = 1048573;

const std::vector<float>& pool() {
  static const std::vector<float> floats = [] {
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> made(kPool);
    for (float& value : made) value = normal(random);
    return made;
  }();
  return floats;
}

// The upper halves: rounding is of no matter here.
const std::vector<uint16_t>& pool_bf16() {
  static const std::vector<uint16_t> halves = [] {
    std::vector<uint16_t> made(kPool);
    for (size_t i = 0; i < made.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &pool()[i], sizeof bits);
      made[i] = static_cast<uint16_t>(bits >> 16);
    }
    return made;
  }();
  return halves;
}

// The same of halves; those that would be subnormal are zeros.
const std::vector<uint16_t>& pool_f16() {
  static const std::vector<uint16_t> halves = [] {
    std::vector<uint16_t> made(kPool);
    for (size_t i = 0; i < made.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &pool()[i], sizeof bits);
      const uint32_t magnitude = bits & 0x7fffffffu;
      const uint32_t half = magnitude < 0x38800000u ? 0 : (magnitude - 0x38000000u) >> 13;
      made[i] = static_cast<uint16_t>((bits >> 16 & 0x8000u) | half);
    }
    return made;
  }();
  return halves;
}

// Calls copy(to, from, piece) until `count` elements are covered, beginning in the pool where the last call ended.
template <typename Copy>
void from_pool(int64_t count, Copy copy) {
  static int64_t at = 0;
  for (int64_t done = 0; done < count;) {
    const int64_t piece = count - done < kPool - at ? count - done : kPool - at;
    copy(done, at, piece);
    done += piece;
    at = (at + piece) % kPool;
  }
}

}  // namespace

void check(gtn_status status, const gtn_message& message) {
  if (status == GTN_UNSUPPORTED) throw Declined(message.text);
  if (status != GTN_OK) throw std::runtime_error("status " + std::to_string(status) + ": " + message.text);
}

Device::Device(const std::string& device, int threads) : name(device) {
  Message message;
  gtn_device_options options = {sizeof options, threads};
  check(gtn_device_open(name.c_str(), &options, &handle, &message), message);
  check(gtn_stream_create(handle, &stream, &message), message);
  gtn_device_info info = {};
  info.size = sizeof info;
  check(gtn_device_describe(handle, &info, &message), message);
  host_ = info.host_memory != 0;
  if (host_) return;
  check(gtn_event_create(handle, &start_, &message), message);
  check(gtn_event_create(handle, &end_, &message), message);
}

Device::~Device() {
  if (start_ != 0) gtn_event_close(start_, nullptr);
  if (end_ != 0) gtn_event_close(end_, nullptr);
  gtn_stream_close(stream, nullptr);
  gtn_device_close(handle, nullptr);
}

bool Device::claims(int32_t op, int32_t dtype) const {
  Message message;
  int32_t claimed = 0;
  check(gtn_device_supports(handle, op, dtype, &claimed, &message), message);
  return claimed != 0;
}

double Device::limit(int32_t which) {
  const auto now = std::chrono::steady_clock::now();
  const auto known = limits_.find(which);
  if (known != limits_.end() && now - known->second.when < std::chrono::seconds(1)) return known->second.per_second;
  Message message;
  double per_second = 0;
  const gtn_status status = gtn_device_measure(handle, which, &per_second, &message);
  if (status != GTN_UNSUPPORTED) check(status, message);
  limits_[which] = {per_second, std::chrono::steady_clock::now()};
  return per_second;
}

void Device::finish(gtn_status run) const {
  Message message;
  if (run != GTN_OK) {
    gtn_stream_message(stream, &message);
    check(run, message);
  }
  check(gtn_stream_synchronize(stream, &message), message);
}

double Device::seconds(const std::function<void()>& between) const {
  Message message;
  check(gtn_event_record(start_, stream, &message), message);
  between();
  check(gtn_event_record(end_, stream, &message), message);
  check(gtn_event_synchronize(end_, &message), message);
  double milliseconds = 0;
  check(gtn_event_elapsed(start_, end_, &milliseconds, &message), message);
  return milliseconds / 1e3;
}

Buffer::Buffer(const Device& device, int32_t dtype, int64_t elements) : device_(device.handle) {
  const int64_t size = dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2;
  const char* source = dtype == GTN_F32   ? reinterpret_cast<const char*>(pool().data())
                       : dtype == GTN_F16 ? reinterpret_cast<const char*>(pool_f16().data())
                                          : reinterpret_cast<const char*>(pool_bf16().data());
  Message message;
  check(gtn_memory_alloc(device_, elements * size, 64, &data_, &message), message);
  from_pool(elements, [&](int64_t to, int64_t from, int64_t count) {
    check(gtn_memory_copy(device.stream, static_cast<char*>(data_) + to * size, source + from * size, count * size,
                          GTN_HOST_TO_DEVICE, &message),
          message);
  });
}

Buffer::Buffer(const Device& device, const void* host, int64_t bytes) : device_(device.handle) {
  Message message;
  check(gtn_memory_alloc(device_, bytes, 64, &data_, &message), message);
  check(gtn_memory_copy(device.stream, data_, host, bytes, GTN_HOST_TO_DEVICE, &message), message);
}

Buffer::~Buffer() {
  if (data_ != nullptr) gtn_memory_free(device_, data_, nullptr);
}

std::vector<float> random_floats(int64_t count) {
  std::vector<float> made(static_cast<size_t>(count));
  from_pool(count, [&](int64_t to, int64_t from, int64_t piece) {
    std::memcpy(made.data() + to, pool().data() + from, static_cast<size_t>(piece) * sizeof(float));
  });
  return made;
}

gtn_tensor_desc tensor(int32_t dtype, std::initializer_list<int64_t> shape) {
  gtn_tensor_desc desc = {};
  desc.size = sizeof desc;
  desc.dtype = dtype;
  desc.rank = static_cast<int32_t>(shape.size());
  int64_t stride = 1;
  for (int d = desc.rank - 1; d >= 0; --d) {
    desc.shape[d] = shape.begin()[d];
    desc.strides[d] = stride;
    stride *= desc.shape[d];
  }
  return desc;
}

Problem::~Problem() {
  if (plan_ != 0) gtn_plan_close(plan_, nullptr);
}

gtn_plan_info Problem::info() const {
  Message message;
  gtn_plan_info info = {};
  info.size = sizeof info;
  check(gtn_plan_query(plan_, &info, &message), message);
  return info;
}

const char* type_name(int32_t dtype) {
  switch (dtype) {
    case GTN_F32:
      return "f32";
    case GTN_BF16:
      return "bf16";
    case GTN_F16:
      return "f16";
    case GTN_U4:
      return "u4";
    case GTN_U8:
      return "u8";
    case GTN_F8E4M3:
      return "f8e4m3";
    case GTN_F8E5M2:
      return "f8e5m2";
    case GTN_BF16_2OF4:
      return "bf16_2of4";
    default:
      return "int8";
  }
}

int32_t limit_of(int32_t dtype) {
  return dtype == GTN_BF16 ? GTN_LIMIT_BF16 : dtype == GTN_S8 ? GTN_LIMIT_S8 : GTN_LIMIT_F32;  // what is widened is FP32
}

}  // namespace gatun::bench
