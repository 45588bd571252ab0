// What the tests of every operator family share: the CPU devices of this machine, seeded data, tensor descriptions and
// comparison against a reference. Tests go through the C ABI, as an application would.
#pragma once

#include <gatun/gatun.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace gatun::test {

// A message to pass along, and its text.
struct Message : gtn_message {
  Message() {
    size = sizeof(gtn_message);
    text[0] = '\0';
  }
};

// The names of all CPU devices that can be opened here, one per instruction-set level: "cpu:scalar", "cpu:avx2", ...
// A level that this machine lacks is not in the list; the test main prints which those are.
std::vector<std::string> cpu_devices();

// An open device and a stream on it, closed with the object. threads = 0 takes all there are.
class OpenDevice {
 public:
  explicit OpenDevice(const std::string& name, int threads = 0);
  ~OpenDevice();
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;

  gtn_device device = 0;
  gtn_stream stream = 0;

  // The message of the last failed run.
  std::string message() const;
};

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_bf16(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// A step between neighbours of F16 is 2^-10 of their power of two, and 2^-24 below 2^-14.
inline uint16_t to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isnan(value)) return sign | 0x7e00;
  if (magnitude >= 65520.0) return sign | 0x7c00;
  int exponent = -14;
  if (magnitude >= 0x1p-14) exponent = std::ilogb(magnitude);
  const double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // 1024 to 2048, or less when subnormal
  return static_cast<uint16_t>(sign + (exponent + 14) * 1024 + static_cast<int>(steps));
}

inline float from_f16(uint16_t bits) {
  using Float = std::numeric_limits<float>;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                  : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  if (exponent == 31) magnitude = fraction == 0 ? Float::infinity() : Float::quiet_NaN();
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

inline constexpr double kUnitRoundoffF32 = 0x1p-24;

// Elements of F32, BF16, F16 or S8 in memory, read and written as float. Storage in fewer bits rounds.
class Buffer {
 public:
  Buffer(int32_t dtype, int64_t elements) : dtype_(dtype), bytes_(static_cast<size_t>(elements * element_size(dtype))) {}

  static int64_t element_size(int32_t dtype) { return dtype == GTN_F32 ? 4 : dtype == GTN_S8 ? 1 : 2; }
  int32_t dtype() const { return dtype_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()) / element_size(dtype_); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  float get(int64_t i) const {
    if (dtype_ == GTN_F32) {
      float value;
      std::memcpy(&value, &bytes_[static_cast<size_t>(i) * 4], 4);
      return value;
    }
    if (dtype_ == GTN_S8) return static_cast<float>(static_cast<int8_t>(bytes_[static_cast<size_t>(i)]));
    uint16_t bits;
    std::memcpy(&bits, &bytes_[static_cast<size_t>(i) * 2], 2);
    return dtype_ == GTN_F16 ? from_f16(bits) : from_bf16(bits);
  }
  void set(int64_t i, float value) {
    if (dtype_ == GTN_F32) {
      std::memcpy(&bytes_[static_cast<size_t>(i) * 4], &value, 4);
    } else if (dtype_ == GTN_S8) {
      bytes_[static_cast<size_t>(i)] = static_cast<unsigned char>(static_cast<int8_t>(std::nearbyint(value)));
    } else {
      uint16_t bits = dtype_ == GTN_F16 ? to_f16(value) : to_bf16(value);
      std::memcpy(&bytes_[static_cast<size_t>(i) * 2], &bits, 2);
    }
  }
  void fill_normal(std::mt19937_64& random, float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    for (int64_t i = 0; i < size(); ++i) set(i, normal(random));
  }
  void fill(float value) {
    for (int64_t i = 0; i < size(); ++i) set(i, value);
  }
  bool same_bytes(const Buffer& other) const { return bytes_ == other.bytes_; }

 private:
  int32_t dtype_;
  std::vector<unsigned char> bytes_;
};

// FP32 that begins on a cache line.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count)
      : count_(count),
        data_(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(count * 4 + 63) / 64 * 64))) {}
  ~AlignedFloats() { std::free(data_); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;

  float* data() { return data_; }
  float& operator[](int64_t i) { return data_[i]; }
  void fill(float value) {
    for (int64_t i = 0; i < count_; ++i) data_[i] = value;
  }

 private:
  const int64_t count_;
  float* const data_;
};

// A row-major description; `row_stride` 0 means dense (only for rank 2). What lies beyond the rank is to be ignored, so it is no
// size and no stride that anything could do with.
inline gtn_tensor_desc tensor(int32_t dtype, const std::vector<int64_t>& shape, int64_t row_stride = 0) {
  gtn_tensor_desc desc = {};
  desc.size = sizeof desc;
  desc.dtype = dtype;
  desc.rank = static_cast<int32_t>(shape.size());
  for (size_t d = shape.size(); d < GTN_MAX_RANK; ++d) desc.shape[d] = desc.strides[d] = INT64_MAX;
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    desc.shape[d] = shape[d];
    desc.strides[d] = stride;
    stride *= shape[d];
  }
  if (row_stride != 0) desc.strides[0] = row_stride;
  return desc;
}

}  // namespace gatun::test
