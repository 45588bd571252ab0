// The cube core's half of the twin's kernel_operator.h: from GM to L1, to L0A and L0B, through the cube unit to L0C, and out.
//
// Layouts of architecture 2201, of fractals of 512 bytes: 16 rows of 32 bytes, so kLine elements each (CANN documentation,
// Mmad):
//   L1   NZ  fractals column by column, each row by row
//   L0A  Zz  fractals row by row, each row by row
//   L0B  Zn  fractals row by row, each column by column: what is B's column lies as 32 bytes
//   L0C  Nz  fractals of 16 x 16 words column by column, each row by row
#pragma once

#include "twin/include/kernel_operator.h"

#include <vector>

namespace AscendC {

template <typename T>
inline constexpr uint32_t kLine = 32 / sizeof(T);
constexpr uint32_t kFractalBytes = 512;
constexpr uint64_t fractals(uint64_t n, uint64_t line) { return (n + line - 1) / line; }

struct Nd2NzParams {
  uint16_t ndNum = 0, nValue = 0, dValue = 0, srcNdMatrixStride = 0, srcDValue = 0, dstNzC0Stride = 0, dstNzNStride = 0,
           dstNzMatrixStride = 0;
  Nd2NzParams() = default;
  Nd2NzParams(uint16_t nd, uint16_t n, uint16_t d, uint16_t nd_stride, uint16_t row, uint16_t c0, uint16_t nz_n, uint16_t nz)
      : ndNum(nd),
        nValue(n),
        dValue(d),
        srcNdMatrixStride(nd_stride),
        srcDValue(row),
        dstNzC0Stride(c0),
        dstNzNStride(nz_n),
        dstNzMatrixStride(nz) {}
};

// Rows of GM to L1 as NZ. The last 32 bytes of a row are filled up with zeros (CANN documentation,
// copy_gm_to_cbuf_multi_nd2nz).
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const Nd2NzParams& p, Where at = Where::here()) {
  Op op(Pipe::Mte2, "DataCopy", at);
  op.require(dst.twin_space() == Space::L1, "NZ is of L1");
  op.require(p.ndNum == 1, "the twin takes one matrix at a time");
  op.require(p.nValue >= 1 && p.nValue <= 16384 && p.dValue >= 1, "nValue is 1 to 16384 and dValue at least 1");
  op.require(p.srcDValue >= p.dValue, "rows overlap");
  op.require(p.dstNzC0Stride >= 1 && p.dstNzC0Stride <= 16384 && p.dstNzNStride >= 1, "strides of NZ are at least 1");
  const uint64_t rows = p.nValue, width = p.dValue, lines = fractals(width, kLine<T>);
  for (uint64_t r = 0; r < rows; ++r) src.twin_read(op, r * p.srcDValue, width * sizeof(T));
  const T* const s = src.twin_read(op, 0, sizeof(T));
  for (uint64_t c = 0; c < lines; ++c) {
    for (uint64_t r = 0; r < rows; ++r) op.write(dst.twin_stretch(), (c * p.dstNzC0Stride + r * p.dstNzNStride) * 32, 32);
  }
  T* const d = dst.twin_write(op, kLine<T>);
  op.issue([=] {
    for (uint64_t c = 0; c < lines; ++c) {
      for (uint64_t r = 0; r < rows; ++r) {
        T* const line = d + (c * p.dstNzC0Stride + r * p.dstNzNStride) * kLine<T>;
        const uint64_t first = c * kLine<T>, count = std::min<uint64_t>(kLine<T>, width - first);
        std::memset(line, 0, 32);
        std::memcpy(line, s + r * p.srcDValue + first, count * sizeof(T));
      }
    }
  });
}

// In fractals: repeatTimes of them, from startIndex on every srcStride-th, with dstGap between them where they go.
struct LoadData2DParams {
  uint16_t startIndex = 0;
  uint8_t repeatTimes = 0;
  uint16_t srcStride = 0;
  uint8_t sid = 0;
  uint16_t dstGap = 0;
  bool ifTranspose = false;
  uint8_t addrMode = 0;
  LoadData2DParams() = default;
  LoadData2DParams(uint16_t start, uint8_t repeats, uint16_t stride, uint8_t s, uint16_t gap, bool transpose, uint8_t mode)
      : startIndex(start),
        repeatTimes(repeats),
        srcStride(stride),
        sid(s),
        dstGap(gap),
        ifTranspose(transpose),
        addrMode(mode) {}
};

template <typename T>
void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData2DParams& p, Where at = Where::here()) {
  Op op(Pipe::Mte1, "LoadData", at);
  op.require(src.twin_space() == Space::L1 && (dst.twin_space() == Space::L0A || dst.twin_space() == Space::L0B),
             "the twin loads from L1 to L0A and L0B");
  op.require(p.repeatTimes >= 1, "repeatTimes is 1 to 255");
  op.require(p.addrMode == 0 && p.sid == 0, "the twin knows addrMode 0 and sid 0");
  op.require(!p.ifTranspose || sizeof(T) == 2, "transposes 16-bit data alone");
  const uint64_t from = uint64_t{p.srcStride} * kFractalBytes, to = (uint64_t{p.dstGap} + 1) * kFractalBytes;
  const uint64_t start = uint64_t{p.startIndex} * kFractalBytes;
  // A matrix whose rows do not fill their fractals leaves garbage behind them, which only reaches results that nobody takes.
  for (uint64_t r = 0; r < p.repeatTimes; ++r) {
    op.read(src.twin_stretch(), start + r * from, kFractalBytes, true);
    op.write(dst.twin_stretch(), r * to, kFractalBytes);
  }
  const uint8_t* const s = static_cast<const uint8_t*>(op.read(src.twin_stretch(), start, kFractalBytes, true));
  uint8_t* const d = static_cast<uint8_t*>(op.write(dst.twin_stretch(), 0, kFractalBytes));
  op.issue([=] {
    for (uint64_t r = 0; r < p.repeatTimes; ++r) {
      if (!p.ifTranspose) {
        std::memcpy(d + r * to, s + r * from, kFractalBytes);
        continue;
      }
      for (uint64_t i = 0; i < 16; ++i) {
        for (uint64_t j = 0; j < 16; ++j) std::memcpy(d + r * to + (j * 16 + i) * 2, s + r * from + (i * 16 + j) * 2, 2);
      }
    }
  });
}

struct MmadParams {
  uint16_t m = 0, n = 0, k = 0;
  uint8_t unitFlag = 0;
  bool cmatrixSource = false, cmatrixInitVal = true;
  MmadParams() = default;
  MmadParams(uint16_t rows, uint16_t columns, uint16_t depth, uint8_t unit, bool source, bool zero)
      : m(rows), n(columns), k(depth), unitFlag(unit), cmatrixSource(source), cmatrixInitVal(zero) {}
};

template <typename U, typename S, typename T>
constexpr bool is_mmad =
    std::is_same_v<U, S> && ((std::is_same_v<U, int8_t> && std::is_same_v<T, int32_t>) ||
                             ((std::is_same_v<U, half> || std::is_same_v<U, bfloat16_t>) && std::is_same_v<T, float>));

// The bytes of L0C that m rows of a column of fractals take.
template <typename F>
void each_column(uint64_t m, uint64_t n, F f) {
  for (uint64_t c = 0; c < fractals(n, 16); ++c) f(c * fractals(m, 16) * 1024, m * 64);
}

// C = A B or C += A B. Sums are of float products in float, in the order of k.
template <typename T, typename U, typename S>
void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter, const MmadParams& p,
          Where at = Where::here()) {
  static_assert(is_mmad<U, S, T>, "Mmad of these types is not of architecture 2201, or not the twin's");
  Op op(Pipe::M, "Mmad", at);
  op.require(dst.twin_space() == Space::L0C && fm.twin_space() == Space::L0A && filter.twin_space() == Space::L0B,
             "C is in L0C, A in L0A and B in L0B");
  op.require(p.m >= 1 && p.n >= 1 && p.k >= 1 && p.m <= 4095 && p.n <= 4095 && p.k <= 4095, "m, n and k are 1 to 4095");
  op.require(p.m > 1, "one row makes a product of a vector, which takes A in another layout: the twin declines it");
  op.require(p.unitFlag == 0 && !p.cmatrixSource, "the twin knows unitFlag 0 and sums in L0C");
  const uint64_t m = p.m, n = p.n, k = p.k, m1 = fractals(m, 16), n1 = fractals(n, 16), k1 = fractals(k, kLine<U>);
  const U* const a = static_cast<const U*>(op.read(fm.twin_stretch(), 0, m1 * k1 * kFractalBytes));
  const U* const b = static_cast<const U*>(op.read(filter.twin_stretch(), 0, k1 * n1 * kFractalBytes));
  if (!p.cmatrixInitVal)
    each_column(m, n, [&](uint64_t at_byte, uint64_t bytes) { op.read(dst.twin_stretch(), at_byte, bytes); });
  each_column(m, n, [&](uint64_t at_byte, uint64_t bytes) { op.write(dst.twin_stretch(), at_byte, bytes); });
  T* const c = static_cast<T*>(op.write(dst.twin_stretch(), 0, 64, 1024));
  op.issue([=] {
    std::vector<T> x(m * k), y(k * n), row(n);
    for (uint64_t i = 0; i < m; ++i) {
      for (uint64_t l = 0; l < k; ++l) {
        x[i * k + l] = static_cast<T>(a[((i / 16 * k1 + l / kLine<U>)*16 + i % 16) * kLine<U> + l % kLine<U>]);
      }
    }
    for (uint64_t l = 0; l < k; ++l) {
      for (uint64_t j = 0; j < n; ++j) {
        y[l * n + j] = static_cast<T>(b[((l / kLine<U> * n1 + j / 16) * 16 + j % 16) * kLine<U> + l % kLine<U>]);
      }
    }
    for (uint64_t i = 0; i < m; ++i) {
      const auto word = [&](uint64_t j) -> T& { return c[(j / 16 * m1 * 16 + i) * 16 + j % 16]; };
      for (uint64_t j = 0; j < n; ++j) row[j] = p.cmatrixInitVal ? T(0) : word(j);
      for (uint64_t l = 0; l < k; ++l) {
        const T v = x[i * k + l];
        for (uint64_t j = 0; j < n; ++j) row[j] += v * y[l * n + j];
      }
      for (uint64_t j = 0; j < n; ++j) word(j) = row[j];
    }
  });
}

enum class QuantMode_t : uint8_t { NoQuant, F322F16, F322BF16, DEQF16 };
struct FixpipeParamsV220 {
  uint16_t nSize = 0, mSize = 0, srcStride = 0;
  uint32_t dstStride = 0;
  QuantMode_t quantPre = QuantMode_t::NoQuant;
  uint64_t deqScalar = 0;
  uint16_t ndNum = 1, srcNdStride = 0, dstNdStride = 0;
  bool reluEn = false;
  uint8_t unitFlag = 0;
  bool isChannelSplit = false;
  FixpipeParamsV220() = default;
  FixpipeParamsV220(uint16_t n, uint16_t m, uint16_t src, uint32_t dst, bool relu)
      : nSize(n), mSize(m), srcStride(src), dstStride(dst), reluEn(relu) {}
};

template <typename T, typename U>
constexpr bool fixpipe_takes(QuantMode_t q) {
  switch (q) {
    case QuantMode_t::NoQuant:
      return std::is_same_v<T, U>;
    case QuantMode_t::F322F16:
      return std::is_same_v<T, half> && std::is_same_v<U, float>;
    case QuantMode_t::F322BF16:
      return std::is_same_v<T, bfloat16_t> && std::is_same_v<U, float>;
    case QuantMode_t::DEQF16:
      return std::is_same_v<T, half> && std::is_same_v<U, int32_t>;
  }
  return false;
}

// L0C to rows of GM.
template <typename T, typename U>
void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src, const FixpipeParamsV220& p, Where at = Where::here()) {
  Op op(Pipe::Fix, "Fixpipe", at);
  op.require(src.twin_space() == Space::L0C, "the source is in L0C");
  op.require(p.nSize >= 1 && p.nSize <= 4095 && p.mSize >= 1 && p.mSize <= 8192, "nSize is 1 to 4095 and mSize 1 to 8192");
  op.require(p.srcStride % 16 == 0 && p.srcStride >= p.mSize,
             "srcStride is that of L0C's columns of fractals: m as a multiple of 16");
  op.require(p.dstStride >= p.nSize, "rows overlap");
  op.require(p.ndNum == 1 && p.unitFlag == 0 && !p.isChannelSplit,
             "the twin takes one matrix, unitFlag 0 and no split of channels");
  op.require(fixpipe_takes<T, U>(p.quantPre), "quantPre does not lead between these types");
  const uint64_t m = p.mSize, n = p.nSize, column = uint64_t{p.srcStride} * 16;
  for (uint64_t c = 0; c < fractals(n, 16); ++c) op.read(src.twin_stretch(), c * column * 4, m * 64);
  for (uint64_t i = 0; i < m; ++i) dst.twin_write(op, i * p.dstStride, n * sizeof(T));
  const U* const s = static_cast<const U*>(op.read(src.twin_stretch(), 0, 64));
  T* const d = dst.twin_write(op, 0, sizeof(T));
  op.issue([=] {
    for (uint64_t i = 0; i < m; ++i) {
      for (uint64_t j = 0; j < n; ++j) {
        U x = s[j / 16 * column + i * 16 + j % 16];
        if (p.reluEn && !(x > 0)) x = 0;
        if constexpr (std::is_same_v<T, U>) {
          d[i * p.dstStride + j] = x;
        } else if constexpr (std::is_same_v<U, int32_t>) {
          d[i * p.dstStride + j] = T(static_cast<float>(x) * gatun::twin::fixpipe_scale(p.deqScalar));
        } else {
          d[i * p.dstStride + j] = T(x);
        }
      }
    }
  });
}

}  // namespace AscendC
