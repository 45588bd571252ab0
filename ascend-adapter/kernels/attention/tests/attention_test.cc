// Attention on the CPU twin against FP64: sizes around those of the tiles, windows, grouped heads, block lists, several
// schedules, and every synchronisation removed in turn. What runs here is the twin, not a processor.
#include "kernels/attention/tiling.h"
#include "twin/numbers.h"
#include "twin/tests/removals.h"
#include "twin/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

using Entry = void(uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*, uint8_t*);
extern "C" {
Entry gatun_attention_bf16, gatun_attention_f16;
}

namespace gatun::ascend {
namespace {

using twin::launch, twin::Options, twin::Range, twin::Result;

struct Case {
  int64_t batch, heads_q, heads_k, len_q, len_k, dk, dv, left, right;
  uint32_t blocks = 2;
  std::vector<std::vector<int32_t>> list = {};  // of each tile of queries
};

std::string text(const Case& c) {
  return "batch " + std::to_string(c.batch) + ", heads " + std::to_string(c.heads_q) + '/' + std::to_string(c.heads_k) +
         ", lengths " + std::to_string(c.len_q) + '/' + std::to_string(c.len_k) + ", sizes " + std::to_string(c.dk) + '/' +
         std::to_string(c.dv) + ", window " + std::to_string(c.left) + " to " + std::to_string(c.right) +
         (c.list.empty() ? "" : ", listed");
}

template <typename T>
class Attention {
 public:
  Attention(Entry* entry, const Case& c) : entry_(entry), c_(c) {
    std::mt19937 random(static_cast<uint32_t>(c.len_q * 131 + c.len_k * 17 + c.dk));
    std::normal_distribution<float> normal;
    t_ = {c.batch,
          c.heads_q,
          c.heads_k,
          c.len_q,
          c.len_k,
          c.dk,
          c.dv,
          c.len_q * c.heads_q * c.dk,
          c.heads_q * c.dk,
          c.dk,
          c.len_k * c.heads_k * c.dk,
          c.heads_k * c.dk,
          c.dk,
          c.len_k * c.heads_k * c.dv,
          c.heads_k * c.dv,
          c.dv,
          c.len_q * c.heads_q * c.dv,
          c.heads_q * c.dv,
          c.dv,
          c.left,
          c.right,
          0,
          0,
          1 / std::sqrt(static_cast<float>(c.dk)),
          !c.list.empty()};
    q_.resize(size(c.batch * t_.q_batch));
    k_.resize(size(c.batch * t_.k_batch));
    v_.resize(size(c.batch * t_.v_batch));
    for (auto* x : {&q_, &k_, &v_}) {
      for (T& e : *x) e = T(normal(random));
    }
    if (c.list.empty()) return;
    list_.push_back(0);
    for (const auto& blocks : c.list) list_.push_back(list_.back() + static_cast<int32_t>(blocks.size()));
    for (const auto& blocks : c.list) list_.insert(list_.end(), blocks.begin(), blocks.end());
  }

  std::vector<T>& keys() { return k_; }
  std::vector<T>& values() { return v_; }

  // Runs it, and says what is wrong with the result.
  std::string run(const Options& options, Result* result = nullptr) {
    if (!attention_tiling(&t_)) return "refused";
    std::vector<uint8_t> workspace(static_cast<size_t>(attention_workspace_bytes(c_.blocks)), 0xff);
    std::vector<T> out(size(c_.batch * t_.out_batch), T(12345.0f));
    void* args[] = {q_.data(), k_.data(), v_.data(), list_.data(), out.data(), workspace.data(), &t_};
    const Range memory[] = {range(q_), range(k_), range(v_), range(list_), range(out), range(workspace)};
    const Result r = launch(reinterpret_cast<const void*>(entry_), c_.blocks, args, std::size(args), memory, options);
    if (result) *result = r;
    return r.ok() ? compare(out) : r.error;
  }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }
  template <typename V>
  static Range range(const std::vector<V>& v) {
    return {v.data(), v.size() * sizeof(V)};
  }

  bool sees(int64_t i, int64_t j) const {
    const int64_t p = i + c_.len_k - c_.len_q;
    if ((c_.left >= 0 && j < p - c_.left) || (c_.right >= 0 && j > p + c_.right)) return false;
    if (c_.list.empty()) return true;
    const auto& blocks = c_.list[size(i / kAttentionM)];
    return std::find(blocks.begin(), blocks.end(), static_cast<int32_t>(j / kAttentionN)) != blocks.end();
  }

  // Scores are FP32 sums of dk products; a weight has their error and one rounding to T, which its row's sum does not have; the
  // sums over keys add a rounding of FP32 for each; then one rounding of the result.
  std::string compare(const std::vector<T>& out) const {
    const double u = std::ldexp(1.0, -24), unit = std::ldexp(1.0, std::is_same_v<T, half> ? -11 : -8);
    const double least = std::is_same_v<T, half> ? std::ldexp(1.0, -24) : 0;
    std::vector<double> s(size(c_.len_k));
    for (int64_t b = 0; b < c_.batch; ++b) {
      for (int64_t h = 0; h < c_.heads_q; ++h) {
        const int64_t hk = h / (c_.heads_q / c_.heads_k);
        for (int64_t i = 0; i < c_.len_q; ++i) {
          double max = -INFINITY, sum = 0, magnitude = 0;
          for (int64_t j = 0; j < c_.len_k; ++j) {
            if (!sees(i, j)) continue;
            double dot = 0, parts = 0;
            for (int64_t d = 0; d < c_.dk; ++d) {
              const double p =
                  static_cast<double>(static_cast<float>(q_[size(b * t_.q_batch + i * t_.q_row + h * t_.q_head + d)])) *
                  static_cast<double>(static_cast<float>(k_[size(b * t_.k_batch + j * t_.k_row + hk * t_.k_head + d)]));
              dot += p;
              parts += std::fabs(p);
            }
            s[size(j)] = dot * static_cast<double>(t_.scale);
            magnitude = std::max(magnitude, parts * static_cast<double>(t_.scale));
            max = std::max(max, s[size(j)]);
          }
          for (int64_t j = 0; j < c_.len_k; ++j) sum += sees(i, j) ? std::exp(s[size(j)] - max) : 0;
          const double weight_error =
              unit + 2 * static_cast<double>(c_.dk) * u * magnitude + static_cast<double>(c_.len_k + 16) * u;
          for (int64_t d = 0; d < c_.dv; ++d) {
            double y = 0, error = 0;
            for (int64_t j = 0; j < c_.len_k; ++j) {
              if (!sees(i, j)) continue;
              const double v =
                  static_cast<double>(static_cast<float>(v_[size(b * t_.v_batch + j * t_.v_row + hk * t_.v_head + d)]));
              const double w = std::exp(s[size(j)] - max) / sum;
              y += w * v;
              error += (w * weight_error + least) * std::fabs(v);
            }
            error += unit * (std::fabs(y) + error) + least;
            const double got = static_cast<float>(out[size(b * t_.out_batch + i * t_.out_row + h * t_.out_head + d)]);
            if (!(std::fabs(got - y) <= error)) {
              return "batch " + std::to_string(b) + ", head " + std::to_string(h) + ", query " + std::to_string(i) +
                     ", element " + std::to_string(d) + ": " + std::to_string(got) + " and not " + std::to_string(y) +
                     ", off by " + std::to_string(std::fabs(got - y) / error) + " times what is allowed";
            }
          }
        }
      }
    }
    return "";
  }

  Entry* entry_;
  Case c_;
  AttentionTiling t_;
  std::vector<T> q_, k_, v_;
  std::vector<int32_t> list_ = {};
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
};

template <typename T>
void expect_right(Entry* entry) {
  for (const Case& c : kCases) {
    Attention<T> attention(entry, c);
    for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(attention.run({seed}), "") << text(c) << ", seed " << seed;
  }
}
TEST(Attention, Bf16) { expect_right<bfloat16_t>(gatun_attention_bf16); }
TEST(Attention, F16) { expect_right<half>(gatun_attention_f16); }

// Keys that nobody sees, but in tiles that are loaded, must not reach a result, nor must a tile that no query of a tile sees.
TEST(Attention, HiddenKeysDoNotLeak) {
  const Case c = {1, 1, 1, 20, 300, 32, 32, 30, 0};
  Attention<bfloat16_t> attention(gatun_attention_bf16, c);
  for (size_t j = 0; j < 200; ++j) {
    for (size_t d = 0; d < 32; ++d) attention.keys()[j * 32 + d] = bfloat16_t(NAN);
  }
  for (size_t j = 0; j < 128; ++j) {
    for (size_t d = 0; d < 32; ++d) attention.values()[j * 32 + d] = bfloat16_t(NAN);
  }
  for (uint64_t seed = 0; seed < 4; ++seed) EXPECT_EQ(attention.run({seed}), "");
}

TEST(Attention, RefusesWhatItCannotTake) {
  EXPECT_EQ(Attention<half>(gatun_attention_f16, {1, 1, 1, 1, 1, 129, 16, -1, -1}).run({}), "refused");
}

twin::Run run_of(const Case& c) {
  return [attention = Attention<bfloat16_t>(gatun_attention_bf16, c)](const Options& options, Result* result) mutable {
    return attention.run(options, result);
  };
}

TEST(Attention, EverySiteMatters) {
  twin::expect_sites_matter({run_of({1, 1, 1, 150, 650, 16, 16, 300, 0, 1}), run_of({1, 1, 1, 20, 650, 16, 16, -1, -1, 1})},
                            60);
}

}  // namespace
}  // namespace gatun::ascend
