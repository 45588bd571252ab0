// Groups of weights in 4 and 8 bits, of floating point, as gatun.h states it (gtn_weights_desc): what every backend packs.
//
// Every candidate range and every turn of a fit costs a pass over the group, in FP64 and in the order that gatun.h states, so that
// the same integers come out everywhere: once per matrix, so plain code.
#pragma once

#include <cmath>
#include <cstdint>

#include <gatun/gatun.h>

namespace gatun::cpu {

// The ranges that are tried: 32/32, 31/32, ... of the whole.
constexpr int kRangeParts = 32;
constexpr int kLeastRange = 16;

constexpr int kTurns = 16;

// What becomes of a group.
struct Group {
  float scale = 0;
  uint8_t zero = 0;
  uint8_t integers[128];
};

// |value| below 2^51: ties to even.
inline double round_to_even(double value) { return (value + 0x1.8p52) - 0x1.8p52; }

inline double clamp(double value, double most) { return value < 0 ? 0 : value > most ? most : value; }

struct Quantizer {
  int bits;
  bool symmetric;
  int32_t method;  // GTN_QUANTIZE_*

  double most() const { return bits == 4 ? 15 : 255; }
  double middle() const { return bits == 4 ? 8 : 128; }

  // The scale and the zero point of a range.
  void choose(double lo, double hi, Group* to) const {
    const double half = middle();
    const double amax = hi > -lo ? hi : -lo;
    to->scale = static_cast<float>(symmetric ? amax / (half - 1) : (hi - lo) / most());
    to->zero = symmetric ? static_cast<uint8_t>(half) : 0;
    if (symmetric || to->scale == 0.0f) return;
    to->zero = static_cast<uint8_t>(clamp(round_to_even(-lo / static_cast<double>(to->scale)), most()));
  }

  double integer(float w, const Group& of) const {
    if (of.scale == 0.0f) return 0;
    return clamp(round_to_even(static_cast<double>(w) / static_cast<double>(of.scale)) + of.zero, most());
  }

  double squared_error(const float* w, int64_t count, const Group& of) const {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double error = static_cast<double>(w[i]) - (integer(w[i], of) - of.zero) * static_cast<double>(of.scale);
      sum += error * error;
    }
    return sum;
  }

  // `other` in the place of `best`, if it is better.
  bool take(const float* w, int64_t count, const Group& other, Group* best, double* least) const {
    const double error = squared_error(w, count, other);
    if (!(error < *least)) return false;
    *least = error;
    best->scale = other.scale;
    best->zero = other.zero;
    return true;
  }

  // The scale of least error for the integers of `of`; 0 where there is none.
  float fitted_scale(const float* w, int64_t count, const Group& of) const {
    double products = 0, squares = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double step = integer(w[i], of) - of.zero;
      products += static_cast<double>(w[i]) * step;
      squares += step * step;
    }
    return squares == 0 ? 0.0f : static_cast<float>(products / squares);
  }

  // Scale and zero point by turns with the integers, from those of `best` on.
  void fit(const float* w, int64_t count, Group* best, double* least) const {
    bool falls = best->scale != 0.0f;
    for (int turn = 0; falls && turn < kTurns; ++turn) {
      const Group from = *best;
      falls = false;
      for (const int step : {0, -1, 1}) {
        const int zero = from.zero + step;
        if ((symmetric && step != 0) || zero < 0 || zero > static_cast<int>(most())) continue;
        Group other;
        other.scale = from.scale;
        other.zero = static_cast<uint8_t>(zero);
        other.scale = fitted_scale(w, count, other);
        if (other.scale != 0.0f) falls |= take(w, count, other, best, least);
      }
    }
  }

  void quantize(const float* w, int64_t count, Group* to) const {
    double lo = 0, hi = 0, largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      lo = w[i] < lo ? static_cast<double>(w[i]) : lo;
      hi = w[i] > hi ? static_cast<double>(w[i]) : hi;
      if (std::fabs(static_cast<double>(w[i])) > std::fabs(largest)) largest = static_cast<double>(w[i]);
    }
    choose(lo, hi, to);
    if (method != GTN_QUANTIZE_NEAREST) {
      double least = squared_error(w, count, *to);
      for (int part = kRangeParts - 1; part >= kLeastRange; --part) {
        const double of = static_cast<double>(part) / kRangeParts;
        Group other;
        choose(of * lo, of * hi, &other);
        take(w, count, other, to, &least);
      }
      if (method == GTN_QUANTIZE_FIT) {
        for (int part = kRangeParts; symmetric && part >= kLeastRange; --part) {
          Group other;
          other.scale = static_cast<float>(-(static_cast<double>(part) / kRangeParts * largest) / middle());
          other.zero = to->zero;
          if (other.scale != 0.0f) take(w, count, other, to, &least);
        }
        fit(w, count, to, &least);
      }
    }
    for (int64_t i = 0; i < count; ++i) to->integers[i] = static_cast<uint8_t>(integer(w[i], *to));
  }
};

}  // namespace gatun::cpu
