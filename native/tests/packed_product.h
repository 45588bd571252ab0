// What the tests of GEMM share whose weights stand for others: a product with them is compared with an FP32 product of what they
// stand for, bit for bit, and with a plain FP64 product.
#pragma once

#include <algorithm>
#include <functional>

#include "device_test.h"

namespace gatun::test {

struct Product {
  int64_t m = 1, k = 1, n = 1;
  int32_t a_dtype = GTN_F32, w_dtype = GTN_F32, out_dtype = GTN_F32;
  int32_t activation = GTN_ACT_NONE;
  bool bias = false, residual = false, transposed = false;
  int64_t groups = 0, rank = 0;
  uint64_t seed = 1;

  int64_t matrices() const { return groups > 0 ? groups : 1; }

  std::string text() const {
    std::string line;
    const auto add = [&](const char* name, auto value) { line.append(name).append("=").append(std::to_string(value)).append(" "); };
    add("m", m), add("k", k), add("n", n), add("a", a_dtype), add("w", w_dtype), add("out", out_dtype);
    add("activation", activation), add("bias", bias), add("residual", residual), add("transposed", transposed);
    add("groups", groups), add("rank", rank), add("seed", seed);
    return line;
  }

  // Any mixture of types and options, by an index.
  void take_options(uint64_t index) {
    a_dtype = index % 6 == 1 ? GTN_BF16 : index % 6 == 4 ? GTN_F16 : GTN_F32;
    w_dtype = index % 7 == 3 ? GTN_BF16 : index % 7 == 5 ? GTN_F16 : GTN_F32;
    out_dtype = index % 8 == 2 ? GTN_BF16 : index % 8 == 6 ? GTN_F16 : GTN_F32;
    activation = index % 6 == 5 ? static_cast<int32_t>(1 + index / 6 % 4) : GTN_ACT_NONE;
    bias = index % 2 == 0;
    residual = index % 3 == 2;
    transposed = index % 5 >= 3;
  }
};

struct ProductOperands {
  Buffer a, w, bias, residual, lora_a, lora_b;
  std::vector<int64_t> offsets;

  ProductOperands(const Product& p, std::mt19937_64& random)
      : a(p.a_dtype, p.m * p.k), w(p.w_dtype, p.matrices() * p.k * p.n), bias(GTN_F32, p.matrices() * p.n),
        residual(p.out_dtype, p.m * p.n), lora_a(GTN_F32, p.k * p.rank), lora_b(GTN_F32, p.rank * p.n) {
    for (Buffer* buffer : {&a, &w, &bias, &residual, &lora_a, &lora_b}) buffer->fill_normal(random);
    for (int64_t e = 0; e <= p.groups; ++e) offsets.push_back(p.m * e / p.matrices());
  }

  // Where w has the weight [i, j] of matrix e.
  static int64_t w_at(const Product& p, int64_t e, int64_t i, int64_t j) {
    return e * p.k * p.n + (p.transposed ? j * p.k + i : i * p.n + j);
  }
};

// The source of weights in a format: w, of its layout, or FP32 [matrices, k, n].
inline gtn_weights_desc weights_desc(const Product& p, int32_t format, bool of_w = true) {
  gtn_weights_desc desc = {};
  desc.size = sizeof desc;
  desc.format = format;
  const int32_t dtype = of_w ? p.w_dtype : static_cast<int32_t>(GTN_F32);
  desc.source = p.groups > 0 ? tensor(dtype, {p.groups, p.k, p.n}) : tensor(dtype, {p.k, p.n});
  if (of_w && p.transposed) {
    desc.source.strides[desc.source.rank - 2] = 1;
    desc.source.strides[desc.source.rank - 1] = p.k;
  }
  return desc;
}

// Runs the product on the first `rows` rows and closes the weights. `kernel` is a part of the name of the one that is to run.
inline Buffer run_product(const OpenDevice& on, const Product& p, const ProductOperands& x, gtn_weights weights, int32_t format,
                          int64_t group_size, const std::string& kernel, int64_t rows) {
  gtn_gemm_desc desc = {};
  desc.size = sizeof desc;
  desc.format = format;
  desc.group_size = group_size;
  desc.a = tensor(p.a_dtype, {p.m, p.k});
  desc.out = tensor(p.out_dtype, {p.m, p.n});
  desc.activation = p.activation;
  desc.has_bias = p.bias;
  desc.has_residual = p.residual;
  desc.groups = p.groups;
  desc.rank = p.rank;
  desc.lora_dtype = p.rank > 0 ? GTN_F32 : 0;
  desc.lora_scale = p.rank > 0 ? 0.5f : 0.0f;
  Message message;
  gtn_plan plan = 0;
  EXPECT_EQ(GTN_OK, gtn_gemm_plan(on.device, &desc, &plan, &message)) << message.text << p.text();
  gtn_plan_info info = {};
  info.size = sizeof info;
  EXPECT_EQ(GTN_OK, gtn_plan_query(plan, &info, &message)) << message.text;
  EXPECT_NE(std::string(info.kernel).find(kernel), std::string::npos) << info.kernel;
  Buffer out(p.out_dtype, p.m * p.n);
  out.fill(-7776.0f);
  EXPECT_EQ(GTN_OK, gtn_gemm_run_with(plan, on.stream, weights, rows, rows, x.a.data(), p.bias ? x.bias.data() : nullptr,
                                      p.residual ? x.residual.data() : nullptr, out.data(),
                                      p.groups > 0 ? x.offsets.data() : nullptr, nullptr, p.rank > 0 ? x.lora_a.data() : nullptr,
                                      p.rank > 0 ? x.lora_b.data() : nullptr))
      << on.message() << p.text();
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, &message)) << message.text;
  EXPECT_EQ(GTN_OK, gtn_weights_close(weights, &message)) << message.text;
  return out;
}

// The product on FP32 weights, [matrices, k, n].
inline Buffer run_in_fp32(const OpenDevice& on, const Product& p, const ProductOperands& x, const float* weights) {
  const gtn_weights_desc desc = weights_desc(p, GTN_F32, false);
  Message message;
  gtn_weights packed = 0;
  EXPECT_EQ(GTN_OK, gtn_weights_pack(on.device, &desc, weights, &packed, &message)) << message.text << p.text();
  return run_product(on, p, x, packed, GTN_F32, 0, ".gemm.f32", p.m);
}

// Compares with an FP64 product of weight(e, i, j). Per element at most (k + more) u sum|a w|: of k multiply-adds in any order,
// each rounded once, and of what else is rounded in a term (see gemm_test.cc). The bias, the residual and the conversion round
// once each.
inline void expect_fp64_product(const std::string& device, const std::string& text, const Product& p, const ProductOperands& x,
                                const Buffer& out, double more, const std::function<double(int64_t, int64_t, int64_t)>& weight) {
  const double u = kUnitRoundoffF32;
  int reported = 0;
  for (int64_t r = 0, e = 0; r < p.m; ++r) {
    while (p.groups > 0 && r >= x.offsets[static_cast<size_t>(e + 1)]) ++e;
    for (int64_t j = 0; j < p.n; ++j) {
      double value = 0, terms = 0;
      for (int64_t i = 0; i < p.k; ++i) {
        const double term = static_cast<double>(x.a.get(r * p.k + i)) * weight(e, i, j);
        value += term;
        terms += std::fabs(term);
      }
      double error = (static_cast<double>(p.k) + more) * u * terms * 1.001;
      if (p.bias) {
        value += static_cast<double>(x.bias.get(e * p.n + j));
        error += u * (std::fabs(value) + error);
      }
      if (p.residual) {
        value += static_cast<double>(x.residual.get(r * p.n + j));
        error += u * (std::fabs(value) + error);
      }
      error += (p.out_dtype == GTN_F32 ? u : p.out_dtype == GTN_F16 ? 0x1p-11 : 0x1p-8) * (std::fabs(value) + error);
      const double got = static_cast<double>(out.get(r * p.n + j));
      if (!(std::fabs(got - value) <= error) && reported++ < 3) {
        ADD_FAILURE() << device << " [" << r << ", " << j << "] is " << got << ", expected " << value << " within " << error << ": "
                      << text;
      }
    }
  }
}

}  // namespace gatun::test
