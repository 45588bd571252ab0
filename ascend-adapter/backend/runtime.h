// What the backend asks of an Ascend device. Two libraries are made of the same sources, with runtime_acl.cc (AscendCL, opened
// at run time) in libgatun_ascend.so and runtime_twin.cc (the CPU twin of twin/) in libgatun_ascend_twin.so.
#pragma once

#define GATUN_ACCELERATOR ascend
#include "accelerator/runtime.h"

namespace gatun::ascend {

struct Properties : CommonProperties {
  int vector_cores, cube_cores;
};

constexpr int64_t kAllocationAlignment = 64;

// A kernel on a device, by the name of its entry: part of making a plan. It lives as long as the process.
struct Kernel;
gtn_status find_kernel(int device, const char* name, const Kernel** kernel, gtn_message* message);

// The arguments of an entry: addresses of device memory, or null, and after them the address of a copy of `tiling`, which says
// all that is no tensor.
constexpr int kMaxPointers = 26;
constexpr int kMaxTilingBytes = 512;
struct Arguments {
  const void* pointers[kMaxPointers];
  int count;
  const void* tiling;
  int tiling_bytes;
};

// Starts a kernel on `blocks` blocks and returns. What is in `arguments` may change on return.
gtn_status launch(Queue* queue, const Kernel* kernel, int blocks, const Arguments& arguments, gtn_message* message);

}  // namespace gatun::ascend
