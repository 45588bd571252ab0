// Attention on the CPU twin against FP64: sizes around those of the tiles, windows, grouped heads, block lists, several
// schedules. What runs here is the twin, not a processor.
#include "kernels/attention/tiling.h"
#include "twin/numbers.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

using Entry = void(); // of 26 arrays and the tiling, as the twin calls it
extern "C" {
Entry gatun_attention_bf16_bf16, gatun_attention_bf16_f32, gatun_attention_f16_f16, gatun_attention_f16_f32;
Entry gatun_attention_any_bf16_bf16, gatun_attention_any_bf16_f32, gatun_attention_any_f16_f16, gatun_attention_any_f16_f32;
Entry gatun_attention_terms_bf16, gatun_attention_terms_f16, gatun_attention_terms_f32;
}

namespace gatun::ascend {
namespace {

using twin::launch, twin::Options, twin::Range, twin::Result;

struct Case {
  int64_t batch, heads_q, heads_k, len_q, len_k, dk, dv, left, right;
  uint32_t blocks = 2;
  std::vector<std::vector<int32_t>> list = {};  // of each list head and tile of queries
  int64_t list_heads = 1;
  std::vector<int64_t> q_lengths = {}, k_lengths = {};  // of each sequence
};

std::string text(const Case& c) {
  return "batch " + std::to_string(c.batch) + ", heads " + std::to_string(c.heads_q) + '/' + std::to_string(c.heads_k) +
         ", lengths " + std::to_string(c.len_q) + '/' + std::to_string(c.len_k) + ", sizes " + std::to_string(c.dk) + '/' +
         std::to_string(c.dv) + ", window " + std::to_string(c.left) + " to " + std::to_string(c.right) +
         (c.list.empty() ? "" : ", listed");
}

// What an entry serves: see kernels.cpp.
enum class Serves { Windows, Options, Types };

template <typename X>
constexpr int32_t kType = std::is_same_v<X, float>        ? kAttentionF32
                          : std::is_same_v<X, bfloat16_t> ? kAttentionBf16
                          : std::is_same_v<X, half>       ? kAttentionF16
                                                          : kAttentionS8;

template <typename T, typename Out, typename KV = T>
class Attention {
 public:
  Attention(Entry* entry, const Case& c, Serves serves = Serves::Windows) : entry_(entry), serves_(serves), c_(c) {
    std::mt19937 random(static_cast<uint32_t>(c.len_q * 131 + c.len_k * 17 + c.dk));
    std::normal_distribution<float> normal;
    t_ = {};
    t_.batch = c.batch, t_.heads_q = c.heads_q, t_.heads_k = c.heads_k;
    t_.len_q = c.len_q, t_.len_k = c.len_k, t_.dk = c.dk, t_.dv = c.dv;
    t_.q_head = c.dk, t_.q_row = c.heads_q * c.dk, t_.q_batch = c.len_q * t_.q_row;
    t_.k_head = c.dk, t_.k_row = c.heads_k * c.dk, t_.k_batch = c.len_k * t_.k_row;
    t_.v_head = c.dv, t_.v_row = c.heads_k * c.dv, t_.v_batch = c.len_k * t_.v_row;
    t_.out_head = c.dv, t_.out_row = c.heads_q * c.dv, t_.out_batch = c.len_q * t_.out_row;
    t_.lq = c.list.empty() ? c.len_q + 5 : (c.len_q + kAttentionM - 1) / kAttentionM * kAttentionM, t_.lk = c.len_k, t_.most_q = c.len_q, t_.most_k = c.len_k;
    t_.heads = c.heads_q, t_.dilation = 1;
    t_.tile_m = serves != Serves::Windows ? kAttentionAnyM : kAttentionM;
    t_.q_type = kType<T>, t_.kv_type = kType<KV>;
    t_.left = c.left, t_.right = c.right;
    t_.list_heads = c.list.empty() ? 0 : c.list_heads, t_.block_q = kAttentionM, t_.block_k = kAttentionN;
    t_.scale = 1 / std::sqrt(static_cast<float>(c.dk));
    t_.has_lse = 1, t_.has_q_index = !c.q_lengths.empty(), t_.has_k_index = !c.k_lengths.empty();
    q_.resize(size(c.batch * t_.q_batch));
    k_.resize(size(c.batch * t_.k_batch));
    v_.resize(size(c.batch * t_.v_batch));
    for (T& e : q_) e = T(normal(random));
    for (auto* x : {&k_, &v_}) {
      for (KV& e : *x) e = KV(std::is_same_v<KV, int8_t> ? 40 * normal(random) : normal(random));
    }
    for (auto* x : {&k_scales_, &v_scales_}) {
      x->resize(size(c.batch * c.len_k * c.heads_k), 1.0f);
      for (float& e : *x) e = std::is_same_v<KV, int8_t> ? std::fabs(normal(random)) / 40 : 1.0f;
    }
    for (int64_t b = 0; b < c.batch; ++b) {  // the same lists for every sequence
      for (size_t i = 0; i < c.list.size(); ++i) {
        const auto& blocks = c.list[i];
        offsets_.push_back(static_cast<int64_t>(columns_.size()));
        columns_.insert(columns_.end(), blocks.begin(), blocks.end());
      }
    }
    offsets_.push_back(static_cast<int64_t>(columns_.size()));
    t_.list_entries = static_cast<int64_t>(columns_.size());
  }

  std::vector<int64_t>& offsets() { return offsets_; }
  std::vector<KV>& keys() { return k_; }
  std::vector<KV>& values() { return v_; }

  // Runs it, and says what is wrong with the result.
  std::string run(const Options& options, Result* result = nullptr) {
    std::vector<Out> out(size(c_.batch * t_.out_batch), Out(12345.0f));
    std::vector<float> lse(size(c_.batch * c_.heads_q * t_.lq), 12345.0f);
    const Result r = launched(options, out, lse);
    if (result) *result = r;
    return r.ok() ? compare(out, lse) : r.error;
  }

  // Runs it, and says what it should not have touched.
  std::string stays_inside() {
    std::vector<Out> out(size(c_.batch * t_.out_batch));
    std::vector<float> lse(size(c_.batch * c_.heads_q * t_.lq));
    return launched({}, out, lse).error;
  }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }
  template <typename V>
  static Range range(const std::vector<V>& v) {
    return {v.data(), v.size() * sizeof(V)};
  }

  Result launched(const Options& options, std::vector<Out>& out, std::vector<float>& lse) {
    if (!attention_tiling(t_)) return {"refused", {}};
    std::vector<uint8_t> workspace(static_cast<size_t>(attention_workspace_bytes(c_.blocks, serves_ == Serves::Types)), 0xff);
    void* args[27] = {q_.data(), k_.data(), v_.data(), c_.q_lengths.data(), c_.k_lengths.data()};
    args[6] = offsets_.data(), args[7] = columns_.data();
    args[23] = out.data(), args[24] = lse.data(), args[25] = workspace.data(), args[26] = &t_;
    args[21] = k_scales_.data(), args[22] = v_scales_.data();
    const Range memory[] = {range(q_),       range(k_),       range(v_),  range(c_.q_lengths), range(c_.k_lengths),
                            range(offsets_), range(columns_), range(out), range(lse),          range(workspace),
                            range(k_scales_), range(v_scales_), {&t_, sizeof t_}};
    return launch(reinterpret_cast<const void*>(entry_), c_.blocks, args, std::size(args), memory, options);
  }

  // An element of key or value j of a sequence and head.
  double number(KV x, const std::vector<float>& scales, int64_t b, int64_t j, int64_t head) const {
    return static_cast<double>(static_cast<float>(x)) * static_cast<double>(scales[size((b * c_.len_k + j) * c_.heads_k + head)]);
  }
  int64_t len_q(int64_t b) const { return c_.q_lengths.empty() ? c_.len_q : c_.q_lengths[size(b)]; }
  int64_t len_k(int64_t b) const { return c_.k_lengths.empty() ? c_.len_k : c_.k_lengths[size(b)]; }

  int64_t lists() const { return (t_.lq + kAttentionM - 1) / kAttentionM; }

  bool sees(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t p = i + len_k(b) - len_q(b);
    if (j >= len_k(b) || (c_.left >= 0 && j < p - c_.left) || (c_.right >= 0 && j > p + c_.right)) return false;
    if (c_.list.empty()) return true;
    const auto& blocks = c_.list[size(h / (c_.heads_q / c_.list_heads) * lists() + i / kAttentionM)];
    return std::find(blocks.begin(), blocks.end(), static_cast<int32_t>(j / kAttentionN)) != blocks.end();
  }

  // Scores are FP32 sums of dk products; a weight has their error and what its terms leave, which its row's sum does not have;
  // the sums over keys add a rounding of FP32 for each; then one rounding of the result. The terms of F16 are of weights times
  // 2^12, and denormals below 2^-14; those of BF16 are three but for an output of BF16.
  std::string compare(const std::vector<Out>& out, const std::vector<float>& lse) const {
    const bool half_terms = std::is_same_v<T, half> && serves_ != Serves::Types;
    const double u = std::ldexp(1.0, -24), unit = std::ldexp(1.0, half_terms ? -11 : -8);
    const double out_unit = std::is_same_v<Out, float> ? u : std::ldexp(1.0, std::is_same_v<Out, half> ? -11 : -8);
    const bool exact = !half_terms && !std::is_same_v<Out, bfloat16_t>;
    const double terms = exact ? unit * unit * unit / 4 : unit * unit / 2;
    const double least = half_terms ? std::ldexp(1.0, -25 - 12) : 0;
    const double least_out = std::is_same_v<Out, half> ? std::ldexp(1.0, -25) : 0;
    std::vector<double> s(size(c_.len_k));
    for (int64_t b = 0; b < c_.batch; ++b) {
      for (int64_t h = 0; h < c_.heads_q; ++h) {
        const int64_t hk = h / (c_.heads_q / c_.heads_k);
        for (int64_t i = 0; i < c_.len_q; ++i) {
          const std::string where =
              "batch " + std::to_string(b) + ", head " + std::to_string(h) + ", query " + std::to_string(i);
          const float got_lse = lse[size((b * c_.heads_q + h) * t_.lq + i)];
          if (i >= len_q(b)) {
            if (got_lse != 12345.0f) return where + ": wrote an lse that is not there";
            for (int64_t d = 0; d < c_.dv; ++d) {
              const Out& o = out[size(b * t_.out_batch + i * t_.out_row + h * t_.out_head + d)];
              if (static_cast<float>(o) != static_cast<float>(Out(12345.0f))) return where + ": wrote a row that is not there";
            }
            continue;
          }
          double max = -INFINITY, sum = 0, magnitude = 0;
          for (int64_t j = 0; j < c_.len_k; ++j) {
            if (!sees(b, h, i, j)) continue;
            double dot = 0, parts = 0;
            for (int64_t d = 0; d < c_.dk; ++d) {
              const double p =
                  static_cast<double>(static_cast<float>(q_[size(b * t_.q_batch + i * t_.q_row + h * t_.q_head + d)])) *
                  number(k_[size(b * t_.k_batch + j * t_.k_row + hk * t_.k_head + d)], k_scales_, b, j, hk);
              dot += p;
              parts += std::fabs(p);
            }
            s[size(j)] = dot * static_cast<double>(t_.scale);
            magnitude = std::max(magnitude, parts * static_cast<double>(t_.scale));
            max = std::max(max, s[size(j)]);
          }
          for (int64_t j = 0; j < c_.len_k; ++j) sum += sees(b, h, i, j) ? std::exp(s[size(j)] - max) : 0;
          const double weight_error =
              terms + 2 * static_cast<double>(c_.dk) * u * magnitude + static_cast<double>(c_.len_k + 16) * u;
          const double log = max + std::log(sum);
          if (sum == 0 ? got_lse != -INFINITY
                       : !(std::fabs(static_cast<double>(got_lse) - log) <= weight_error + 4 * u * std::fabs(log))) {
            return where + ": lse " + std::to_string(got_lse) + " and not " + std::to_string(log);
          }
          for (int64_t d = 0; d < c_.dv; ++d) {
            double y = 0, error = 0;
            for (int64_t j = 0; j < c_.len_k; ++j) {
              if (!sees(b, h, i, j)) continue;
              const double v = number(v_[size(b * t_.v_batch + j * t_.v_row + hk * t_.v_head + d)], v_scales_, b, j, hk);
              const double w = std::exp(s[size(j)] - max) / sum;
              y += w * v;
              error += (w * weight_error + least) * std::fabs(v);
            }
            error += out_unit * (std::fabs(y) + error) + least_out;
            const double got = static_cast<float>(out[size(b * t_.out_batch + i * t_.out_row + h * t_.out_head + d)]);
            if (!(std::fabs(got - y) <= error)) {
              return where + ", element " + std::to_string(d) + ": " + std::to_string(got) + " and not " + std::to_string(y) +
                     ", off by " + std::to_string(std::fabs(got - y) / error) + " times what is allowed";
            }
          }
        }
      }
    }
    return "";
  }

  Entry* entry_;
  Serves serves_;
  Case c_;
  AttentionTiling t_;
  std::vector<T> q_;
  std::vector<KV> k_, v_;
  std::vector<float> k_scales_, v_scales_;
  std::vector<int64_t> offsets_;
  std::vector<int32_t> columns_;
};

const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, -1, -1},
    {1, 2, 1, 129, 257, 64, 48, -1, 0},
    {2, 2, 2, 1, 300, 128, 128, 99, 0},
    {1, 3, 1, 200, 131, 17, 33, 60, 0, 3},  // the first queries see nothing
    {1, 1, 1, 127, 127, 80, 128, 5, 7},
    {1, 4, 2, 300, 300, 32, 16, 127, 0, 2},
    {1, 1, 1, 260, 500, 16, 16, -1, 0, 1, {{0, 2}, {}, {1, 3}}},
    {1, 2, 1, 129, 390, 24, 40, -1, -1, 2, {{3}, {0, 1, 2, 3}}},
    {2, 4, 2, 140, 300, 16, 24, 140, 0, 2, {{0, 1, 2, 7}, {0, 2}, {}, {1}}, 2},  // a block that is no longer there
    {3, 2, 2, 200, 400, 32, 16, -1, 0, 2, {}, 1, {200, 0, 129}, {128, 17, 400}},
    {2, 1, 1, 130, 260, 16, 16, 70, 3, 1, {{0, 1, 2}, {0, 1, 2}}, 1, {}, {0, 140}},
};

template <typename T, typename Out, typename KV = T>
void expect_right(Entry* entry, Serves serves) {
  for (const Case& c : kCases) {
    Attention<T, Out, KV> attention(entry, c, serves);
    for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(attention.run({seed}), "") << text(c) << ", seed " << seed;
  }
}
TEST(Attention, Bf16) {
  expect_right<bfloat16_t, bfloat16_t>(gatun_attention_bf16_bf16, Serves::Windows);
  expect_right<bfloat16_t, bfloat16_t>(gatun_attention_any_bf16_bf16, Serves::Options);
  expect_right<bfloat16_t, float>(gatun_attention_bf16_f32, Serves::Windows);
  expect_right<bfloat16_t, float>(gatun_attention_any_bf16_f32, Serves::Options);
}
TEST(Attention, F16) {
  expect_right<half, half>(gatun_attention_f16_f16, Serves::Windows);
  expect_right<half, half>(gatun_attention_any_f16_f16, Serves::Options);
  expect_right<half, float>(gatun_attention_f16_f32, Serves::Windows);
  expect_right<half, float>(gatun_attention_any_f16_f32, Serves::Options);
}

TEST(Attention, OtherTypes) {
  expect_right<bfloat16_t, bfloat16_t, int8_t>(gatun_attention_terms_bf16, Serves::Types);
  expect_right<bfloat16_t, float, half>(gatun_attention_terms_f32, Serves::Types);
  expect_right<half, half, int8_t>(gatun_attention_terms_f16, Serves::Types);
  expect_right<half, float, bfloat16_t>(gatun_attention_terms_f32, Serves::Types);
  expect_right<half, half, float>(gatun_attention_terms_f16, Serves::Types);
}

// Arrays of a run may hold anything.
TEST(Attention, WildArraysLeadNowhereElse) {
  const Case cases[] = {
      {3, 2, 2, 200, 400, 32, 16, -1, 0, 2, {}, 1, {1000, -5, INT64_MAX}, {-1, INT64_MIN, 4096}},
      {1, 1, 1, 130, 300, 16, 16, -1, -1, 1, {{2, 0, 1}, {-7, 1}}},
      {1, 1, 1, 130, 300, 16, 16, -1, -1, 1, {{0, 0}, {1, INT32_MAX}}},
  };
  for (const Case& c : cases) {
    Attention<bfloat16_t, bfloat16_t> attention(gatun_attention_bf16_bf16, c);
    EXPECT_EQ(attention.stays_inside(), "") << text(c);
    for (int64_t offset : {int64_t{-3}, int64_t{7}, INT64_MAX}) {
      for (size_t i = 0; i < attention.offsets().size(); ++i) {
        const int64_t was = attention.offsets()[i];
        attention.offsets()[i] = offset;
        EXPECT_EQ(attention.stays_inside(), "") << text(c) << ", offset " << i << ": " << offset;
        attention.offsets()[i] = was;
      }
    }
  }
}

// Keys that nobody sees must not reach a result, nor must their values.
TEST(Attention, HiddenKeysDoNotLeak) {
  const Case cases[] = {{1, 1, 1, 20, 300, 32, 32, 30, 0}, {1, 1, 1, 20, 300, 32, 32, 30, 0, 1, {{0, 1, 2}}}};
  for (const Case& c : cases) {
    Attention<bfloat16_t, float> attention(gatun_attention_bf16_f32, c);
    for (size_t i = 0; i < 250 * 32; ++i) attention.keys()[i] = attention.values()[i] = bfloat16_t(NAN);
    for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(attention.run({seed}), "");
  }
}

TEST(Attention, RefusesWhatItCannotTake) {
  Attention<half, half> attention(gatun_attention_f16_f16, {1, 1, 1, 1, 1, 129, 16, -1, -1});
  EXPECT_EQ(attention.run({}), "refused");
}

}  // namespace
}  // namespace gatun::ascend
