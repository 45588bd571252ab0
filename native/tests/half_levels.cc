// Compiled once per level.
#include "half_levels.h"

#include "cpu/simd.h"

namespace gatun::cpu::GATUN_LEVEL {
namespace {

template <typename T>
void load_array(const uint16_t* x, float* out, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < n; i += lanes) hn::StoreU(load(d, reinterpret_cast<const T*>(x + i)), d, out + i);
}

template <typename T>
void to_float_array(const uint16_t* x, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(T{x[i]});
}

// One lane at a time: every lane past it must be the filling value.
template <typename T>
void load_some_array(const uint16_t* x, float* out, int64_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float all[HWY_MAX_BYTES / sizeof(float)];
  for (int64_t i = 0; i < n; ++i) {
    hn::Store(load_some(d, reinterpret_cast<const T*>(x + i), 1, -3.0f), d, all);
    out[i] = all[0];
    for (size_t lane = 1; lane < lanes; ++lane) {
      if (all[lane] != -3.0f) out[i] = -3.0f;
    }
  }
}

template <typename T>
void store_array(const float* x, uint16_t* out, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < n; i += lanes) store(d, hn::LoadU(d, x + i), reinterpret_cast<T*>(out + i));
}

template <typename T>
void from_float_array(const float* x, uint16_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    T value;
    from_float(x[i], &value);
    out[i] = value.bits;
  }
}

// From the end, so that an element written beyond `count` has the one after it destroyed.
template <typename T>
void store_some_array(const float* x, uint16_t* out, int64_t n) {
  const F32 d;
  for (int64_t i = n - 1; i >= 0; --i) store_some(d, hn::Set(d, x[i]), reinterpret_cast<T*>(out + i), 1);
}

template <typename T>
constexpr gatun::test::HalfLevel::Type kType = {load_array<T>,  to_float_array<T>,   load_some_array<T>,
                                                store_array<T>, from_float_array<T>, store_some_array<T>};

}  // namespace

extern const gatun::test::HalfLevel half_level;
const gatun::test::HalfLevel half_level = {kType<bf16>, kType<f16>};

}  // namespace gatun::cpu::GATUN_LEVEL
