// The objects behind the handles, and how they are closed.
#pragma once

#include <gatun/backend.h>

#include <atomic>
#include <mutex>

#include "core/checks.h"
#include "core/handles.h"

namespace gatun {

// Addresses that gtn_memory_alloc or gtn_host_memory_alloc gave out and their sizes: open addressing, growing by doubling.
// Guarded by its device.
class Allocations {
 public:
  ~Allocations() { delete[] slots_; }
  bool reserve();                          // room for one more; false when memory is out
  void add(void* memory, int64_t bytes);   // after reserve()
  int64_t take(void* memory);              // removes it and gives its size, or -1 when it is not there

 private:
  struct Allocation {
    void* memory;  // null: never used; kGone: removed
    int64_t bytes;
  };
  Allocation* find(void* memory) const;

  Allocation* slots_ = nullptr;
  size_t capacity_ = 0, used_ = 0;  // used_ counts removed ones too
};

struct Device {
  Device(const gtn_backend* of, void* object) : backend(of), impl(object) {}

  const gtn_backend* backend;
  void* impl;
  // What is open on the device; it cannot be closed before them.
  std::atomic<int64_t> streams{0}, events{0}, plans{0}, weights{0}, blocks{0};
  std::mutex memory_mutex;
  Allocations allocations, host_allocations;
};

struct Stream {
  Device* device;
  void* impl;
  gtn_message message;  // of the last run that failed
};

struct Event {
  Event(Device* on, void* object) : device(on), impl(object) {}

  Device* device;
  void* impl;
  std::atomic<bool> recorded{false};
};

struct Weights {
  Device* device;
  void* impl;
  gtn_weights_info info;
  int32_t op;                         // of the plans that they are for
  int32_t spatial;                    // GTN_OP_CONV: dimensions
  int64_t kernel[GTN_CONV_MAX_RANK];  // GTN_OP_CONV
};

// The arrays of gtn_attention_run_with beyond those of gtn_attention_run, in the order of its parameters. Selections write some
// of them.
enum AttentionArray {
  kKScales, kVScales, kBlockTable, kSinkLogits, kSlopes, kBias, kPrefixes, kGlobals, kQDocuments, kKDocuments, kTree,
  kBlockOffsets, kBlockColumns, kBlockMaskIndex, kBlockMasks, kBlockBias, kQOrder, kKOrder, kAttentionArrays
};

// Whether runs bring an array, and what it covers.
struct RunArray {
  bool wanted = false;
  bool per_sequence = false;  // a row for each sequence of the run; else one row
  Extent extent;
};

struct Plan {
  Device* device;
  void* impl;
  int32_t op;
  gtn_plan_info info;
  union {
    gtn_gemm_desc gemm;
    gtn_attention_desc attention;
    gtn_norm_desc norm;
    gtn_softmax_desc softmax;
    gtn_activation_desc activation;
    gtn_glu_desc glu;
    gtn_merge_desc merge;
    gtn_rope_desc rope;
    gtn_route_desc route;
    gtn_mix_desc mix;
    gtn_select_desc select;
    gtn_conv_desc conv;
    gtn_pooling_desc pooling;
    gtn_fake_quantize_desc fake_quantize;
  };
  // Extents of the tensors that runs check against each other: x is a or q.
  Extent x, k, v, out;
  uint32_t masks;  // attention: GTN_MASK_* of all its patterns, which themselves are gone
  RunArray arrays[kAttentionArrays];
  Extent k_cache, v_cache;  // rope
  // Merge: with how many parts at most out may be x, and lse x_lse. Rope: 1 where q_out may be q.
  int64_t in_place, lse_in_place;
};

extern HandleTable devices, streams, events, plans, weights;

// A stream for the time of one call. Only one thread gets it; while it is held, `plan` and `weights` (0: none) that the
// call names cannot be closed.
class HeldStream {
 public:
  explicit HeldStream(gtn_stream handle, gtn_plan plan = 0, gtn_weights packed = 0);
  ~HeldStream() {
    if (slot_ != nullptr) slot_->hold.store(0, std::memory_order_release);
  }
  HeldStream(const HeldStream&) = delete;
  HeldStream& operator=(const HeldStream&) = delete;

  gtn_status status() const { return status_; }
  Stream& operator*() const { return *static_cast<Stream*>(slot_->object); }
  Stream* operator->() const { return static_cast<Stream*>(slot_->object); }

  // Whether the stream's marks keep `slot`, the one of a plan or of weights, from being released.
  static bool uses(uint64_t hold, Kind kind, uint32_t index);

 private:
  Slot* slot_ = nullptr;
  gtn_status status_;
};

}  // namespace gatun
