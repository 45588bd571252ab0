// What the tests of tiles share.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/runtime.h"

namespace gatun::gpu {

// A copy of host values in memory of the model's device.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    void* memory = nullptr;
    EXPECT_EQ(allocate(0, static_cast<int64_t>(count_ * sizeof(T)) + 1, &memory, nullptr), GTN_OK);
    data_ = static_cast<T*>(memory);
    if (count_ > 0) std::memcpy(data_, values.data(), count_ * sizeof(T));
  }
  ~DeviceArray() { release(0, data_); }
  DeviceArray(const DeviceArray&) = delete;

  T* data() const { return data_; }
  T operator[](size_t i) const { return data_[i]; }

 private:
  T* data_;
  size_t count_;
};

inline int64_t up(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace gatun::gpu
