#include "gemm/choice.h"

namespace gatun::gpu::gemm {
namespace {

// What a multiprocessor does in a cycle. From data sheets, and for mma.sync on 9.0 what is known of it: 0.62 of the peak.
struct Rates {
  double multiply_adds;  // of the format
  double shared = 128, l2 = 32, memory = 12;  // bytes

  Rates(int arch, int32_t row_dtype) {
    const double halves = arch >= 100 && arch < 120 ? 2048 : arch >= 90 && arch < 100 ? 1270 : arch == 80 || arch == 87 ? 1024 : 512;
    const double f32 = arch == 80 ? 64 : 128;
    multiply_adds = row_dtype == GTN_F32 ? 0.8 * f32 : row_dtype == GTN_U8 ? 2 * halves : halves;
  }
};

// How many cycles a block of k takes in a tile, as far as throughput goes.
double block_cycles(const Variant& v, const Rates& rates) {
  const double depth = static_cast<double>(kBlockBytes / element_bytes(v.row_dtype));
  const double products = v.rows * v.columns * depth / rates.multiply_adds;
  const double copied = v.rows * kBlockBytes + v.columns * v.column_bytes;
  // Matrix units: each warp reads its rows and columns. FP32: a warp of 32 x 64 reads 16 times 512 bytes for each 4 of k.
  const double warps = v.warps_m * v.warps_n;
  const double read =
      v.row_dtype == GTN_F32 ? 0 : warps * (v.rows / v.warps_m * kBlockBytes + v.columns / v.warps_n * v.column_bytes);
  const double shared = (copied + read) / rates.shared, l2 = copied / rates.l2;
  const double most = products > shared ? products : shared;
  return most > l2 ? most : l2;
}

}  // namespace

gtn_status Choices::prepare(const Device& device, VariantTable table, int32_t out_dtype, gtn_message* message) {
  properties_ = &device.properties;
  for (int i = 0; i < table.count && count_ < kMost; ++i) {
    const Variant& v = table.variants[i];
    if (v.shared_bytes > properties_->shared_bytes || (v.rounded && out_dtype == GTN_F32)) continue;
    int resident = 1;
    gtn_status status = gpu::prepare(device.index, v.kernel, v.shared_bytes, message);
    if (status == GTN_OK) status = occupancy(device.index, v.kernel, v.threads, v.shared_bytes, &resident, message);
    if (status != GTN_OK) return status;
    candidates_[count_++] = {&v, resident};
  }
  return GTN_OK;
}

Choice Choices::choose(const Product& product) const {
  const auto [rows, n, blocks, groups, met, matrix_bytes, may_split] = product;
  const Rates rates(properties_->arch, candidates_[0].variant->row_dtype);
  const double processors = properties_->multiprocessors;
  constexpr double kLatency = 800, kStart = 2500, kSecondLaunch = 4000;
  Choice best = {};
  double fewest = 0;
  for (int i = 0; i < count_; ++i) {
    const Variant& v = *candidates_[i].variant;
    Choice choice = {&v, 1, blocks, ceil_div(rows, v.rows), ceil_div(n, v.columns)};
    int64_t likely = times(choice.tiles_m, met);
    if (groups > 0) {
      // At most one tile of each group is not full.
      const int64_t some = groups < rows ? groups : rows;
      choice.tiles_m = rows / v.rows + some;
      if (some > 0) likely = some * ceil_div(ceil_div(rows, some), v.rows);
    }
    const double matrices = static_cast<double>(groups == 0 ? met : groups < rows ? groups : rows);
    const double streamed = matrices * static_cast<double>(matrix_bytes) / (processors * rates.memory);
    for (int64_t splits = 1; splits <= (may_split ? 16 : 1); ++splits) {
      choice.split_blocks = ceil_div(blocks, splits);
      if (splits > 1) {
        // Splits that are worth it, and none of which is empty.
        if (choice.split_blocks < 2 * v.warps_k || rows > 512 || ceil_div(blocks, choice.split_blocks) != splits) continue;
      }
      choice.splits = splits;
      const double work = static_cast<double>(likely) * static_cast<double>(choice.tiles_n) * static_cast<double>(splits);
      const double each = static_cast<double>(static_cast<int64_t>((work + processors - 1) / processors));
      const double resident = each < candidates_[i].resident ? each : candidates_[i].resident;
      const double rounds = static_cast<double>(static_cast<int64_t>((each + resident - 1) / resident));
      double step = resident * block_cycles(v, rates) * v.warps_k;
      if (step < kLatency / (v.stages - 1)) step = kLatency / (v.stages - 1);
      double cycles = rounds * static_cast<double>(ceil_div(choice.split_blocks, v.warps_k)) * step;
      if (cycles < streamed) cycles = streamed;
      cycles += rounds * kStart;
      if (splits > 1) {
        cycles += kSecondLaunch + static_cast<double>(rows * n * splits) * 8 / (processors * rates.l2);
      }
      if (best.variant == nullptr || cycles < fewest) {
        best = choice;
        fewest = cycles;
      }
    }
  }
  return best;
}

}  // namespace gatun::gpu::gemm
