// The objects behind the CPU backend's handles.
#pragma once

#include <gatun/backend.h>

#include <cstdint>

namespace gatun::cpu {

struct Level;

struct Device {
  const Level* level;
  int threads;  // a run's share of the worker pool, the caller included
};

// A stream runs inline; what it owns is the scratch memory of the plans that run on it.
struct Stream {
  const Device* device;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;

  // At least `bytes` of scratch, 64-byte aligned, valid until the next call; null when memory is out.
  void* scratch(int64_t bytes);
};

// A plan of one operator family. run() is called from one thread per stream, with arguments that the core has checked.
class Plan {
 public:
  virtual ~Plan() = default;
  virtual gtn_status run(Stream& stream, const void* args, gtn_message* message) const = 0;
};

// Fills info->kernel with "cpu.<level>.<rest>".
void name_kernel(gtn_plan_info* info, const Device& device, const char* rest);

}  // namespace gatun::cpu
