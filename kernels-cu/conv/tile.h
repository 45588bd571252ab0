// Convolution as an implicit product of matrices, in the tiles of gemm/tile.h:
//
//   out[row, o] = sum over kernel positions t and channels c of x[place(row, t), c] * w[t * channels + c, o]
//
// Bytes: x, the weights and out once each from memory, where the L2 cache keeps the lines of x that neighbouring rows share; from
// L2 a tile reads (rows + columns) k elements, as GEMM does. FLOPs: 2 positions channels of each element of out.
//
// What binds: what binds the product of rows by k by columns, see gemm/kernels.cu; 3 x 3 by 64 channels and more is far on the side
// of the matrix units even for a few images. Beside the product the loader computes addresses: for each row of a tile and chunk of 16
// bytes 3 additions, 3 comparisons and an address, some 15 operations, and for each block of k the kernel position of a thread's
// chunk, some 25. For a tile of 128 x 128 by eight warps those are 85 a thread and block, 170 cycles of a multiprocessor's four
// schedulers beside 1024 of the matrix units on A100 (a prediction); 128 x 64 by four warps has 145 a thread, as many cycles beside
// half the products.
//
//   rows     are positions of out through the batch, all of them for each group of channels.
//   k        is kernel positions by chunks of channels, filled up to 16 bytes: no chunk has channels of two positions, so that each
//            is one copy, or zeros where its position lies outside of x. Chunks count x in 32 bits.
//   finish   as GEMM, where channels of out lie side by side; else neighbouring threads take neighbouring rows.
#pragma once

#include "conv/finish.h"
#include "conv/kernels.h"
#include "conv/places.h"
#include "gemm/products.h"
#include "gpu/gpu.h"

namespace gatun::gpu::conv {

using gemm::kBlockBytes;

// The loader of windows of x.
template <typename T>
struct Windows {
  struct Entry {
    int64_t to;     // element of out
    uint32_t from;  // chunk of x at y, in the group's first channel; y may lie outside, so modulo 2^32
    int32_t y[3];
  };

  const ConvArgs& args;
  Entry* const table = reinterpret_cast<Entry*>(shared() + T::kTableAt);

  GPU_DEVICE explicit Windows(const ConvArgs& conv) : args(conv) {}

  // Rows that there are not lie outside of x, whatever the kernel position: y + position * dilation stays below 0.
  GPU_DEVICE void fill_table(int row_begin, int row_end, int group) const {
    for (int r = thread(); r < T::kRows; r += T::kThreads) {
      const int row = row_begin + r;
      const Place place = place_of(args.places, static_cast<uint32_t>(row < row_end ? row : row_begin));
      Entry& entry = table[r];
      entry.to = place.to;
      entry.from = place.image * args.x_strides[0] + static_cast<uint32_t>(group) * args.chunks.by;
      GPU_UNROLL
      for (int d = 0; d < 3; ++d) {
        entry.from += static_cast<uint32_t>(place.y[d]) * static_cast<uint32_t>(args.x_strides[1 + d]);
        entry.y[d] = row < row_end ? place.y[d] : INT32_MIN;
      }
    }
  }

  GPU_DEVICE void copy_rows(char* to, int block, int block_end) const {
    constexpr int kStep = T::kThreads / 8, kChunks = kBlockBytes / 16;
    const int chunk = thread() % 8, row = thread() / 8;
    to += row * kBlockBytes + (chunk ^ (row % 8)) * 16;
    GPU_UNROLL
    for (int b = 0; b < T::kWarpsK; ++b, to += T::kRowsBytes) {
      uint32_t channels = static_cast<uint32_t>((block + b) * kChunks + chunk);
      uint32_t last = take(channels, args.chunks);
      const bool there = block + b < block_end && last < static_cast<uint32_t>(args.positions);
      uint32_t middle = take(last, args.kernel[1]);
      uint32_t first = take(middle, args.kernel[0]);
      first *= static_cast<uint32_t>(args.dilation[0]);
      middle *= static_cast<uint32_t>(args.dilation[1]);
      last *= static_cast<uint32_t>(args.dilation[2]);
      const uint32_t offset = first * static_cast<uint32_t>(args.x_strides[1]) + middle * static_cast<uint32_t>(args.x_strides[2]) +
                              last * static_cast<uint32_t>(args.x_strides[3]) + channels;
      GPU_UNROLL
      for (int r = 0; r < T::kRows; r += kStep) {
        const Entry& entry = table[row + r];
        // Below 0 is far above as a number without a sign.
        const bool inside = there && static_cast<uint32_t>(entry.y[0]) + first < static_cast<uint32_t>(args.size[0]) &&
                            static_cast<uint32_t>(entry.y[1]) + middle < static_cast<uint32_t>(args.size[1]) &&
                            static_cast<uint32_t>(entry.y[2]) + last < static_cast<uint32_t>(args.size[2]);
        const uint32_t from = inside ? entry.from + offset : 0;
        copy_async_16(to + r * kBlockBytes, args.tiles.a + static_cast<uint64_t>(from) * 16, inside ? 16 : 0);
      }
    }
  }
};

template <typename Products>
struct ConvRun : gemm::TileRun<Products, Windows<typename Products::T>> {
  using T = typename Products::T;
  using Base = gemm::TileRun<Products, Windows<T>>;
  using Base::group, Base::row_begin, Base::row_end, Base::column, Base::loader;
  static constexpr int kQuads = T::kColumns / 4;

  const ConvArgs& conv;

  GPU_DEVICE explicit ConvRun(const ConvArgs& of) : Base(of.tiles, of), conv(of) {}

  GPU_DEVICE void find(int64_t tile, int64_t tiles) {
    group = static_cast<int>(tile / tiles);
    const int tile_m = Base::place(tile - group * tiles, conv.tiles.tiles_m);
    Base::take_rows(tile_m * T::kRows, conv.tiles.rows);
  }

  // A thread has the same four channels in all its rows.
  GPU_DEVICE void finish_channels() const {
    const int c = thread() % kQuads * 4;
    if (column + c >= conv.finish.columns) return;
    const ChannelFinish<4> channels(conv.finish, group, column + c);
    GPU_ROLLED
    for (int r = thread() / kQuads; row_begin + r < row_end; r += T::kThreads / kQuads) finish(channels, r, c);
  }

  // Neighbouring threads have neighbouring rows: what they write of a channel is side by side.
  GPU_DEVICE void finish_planes() const {
    GPU_ROLLED
    for (int i = thread(); i < T::kRows * kQuads; i += T::kThreads) {
      const int r = i % T::kRows, c = i / T::kRows * 4;
      if (row_begin + r < row_end && column + c < conv.finish.columns) finish(ChannelFinish<4>(conv.finish, group, column + c), r, c);
    }
  }

 private:
  GPU_DEVICE void finish(const ChannelFinish<4>& channels, int r, int c) const {
    float x[4];
    Base::load_sums(r, c, x);
    channels.write(loader.table[r].to, x);
  }
};

template <typename Products, int kBlocks>
GPU_KERNEL(Products::T::kThreads, kBlocks)
void convolve_tiles(ConvArgs args) {
  ConvRun<Products> run(args);
  const int64_t of_group = static_cast<int64_t>(args.tiles.tiles_m) * args.tiles.tiles_n, tiles = of_group * args.groups;
  for (int64_t tile = block_x(); tile < tiles; tile += grid_x()) {
    run.find(tile, of_group);
    sync_threads();  // the tile before is done with the sums and the table
    run.loader.fill_table(run.row_begin, run.row_end, run.group);
    sync_threads();
    run.multiply();
    if (args.tiles.partial != nullptr) {
      run.store_partial();
    } else if (args.planes != 0) {
      run.finish_planes();
    } else {
      run.finish_channels();
    }
  }
}

// A line of the table of variants, as gemm::variant_of.
template <typename Products, int kBlocks>
Variant variant_of(int32_t format, bool rounded) {
  using T = typename Products::T;
  return {format,     format,     T::kRows,    T::kColumns, T::kWarpsM, T::kWarpsN,
          T::kWarpsK, T::kStages, T::kThreads, T::template kSharedBytes<typename Windows<T>::Entry>,
          T::kColumnBytes, rounded, kernel_pointer(convolve_tiles<Products, kBlocks>)};
}

}  // namespace gatun::gpu::conv
