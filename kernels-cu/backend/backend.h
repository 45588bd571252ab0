// The objects behind the handles of a GPU backend, and what a family's plans are made of.
#pragma once

#include <gatun/backend.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>

#include "core/message.h"
#include "gpu/runtime.h"

namespace gatun::gpu {

struct Device {
  int index;
  Properties properties;
  // Blocks of memory whose alignment is above the runtime's own: where the runtime's block starts.
  std::mutex lock;
  std::unordered_map<void*, void*> aligned;
};

// A queue, and the scratch memory of the plans that run on it.
struct Stream {
  Device* device;
  Queue* queue;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;

  // At least `bytes` of the device's memory, 256-byte aligned, for the kernels of one run; null when memory is out. It waits for
  // the queue where it must grow.
  void* scratch(int64_t bytes);
};

// A plan of one operator family. run() is called from one thread per stream, with arguments that the core has checked.
class Plan {
 public:
  virtual ~Plan() = default;
  virtual gtn_status run(Stream& stream, const void* args, gtn_message* message) const = 0;
};

// A new plan of type P, or null and a message.
template <typename P, typename... Arguments>
std::unique_ptr<P> make_plan(gtn_message* message, const Arguments&... arguments) {
  std::unique_ptr<P> plan(new (std::nothrow) P(arguments...));
  if (plan == nullptr) say(message, "no memory for a plan");
  return plan;
}

// Fills info->kernel with "<backend>.<arch>.<rest>", as "cuda.sm_90.norm.rms.bf16".
void name_kernel(gtn_plan_info* info, const Device& device, const char* rest);

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// The product, or more than there is memory for: sums of a few of them do not overflow.
inline int64_t times(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) || product > INT64_MAX / 64 ? INT64_MAX / 64 : product;
}

inline int64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case GTN_S8:
    case GTN_U8:
      return 1;
    case GTN_BF16:
    case GTN_F16:
      return 2;
    case GTN_S64:
      return 8;
    default:
      return 4;
  }
}

// The place of a float type in a table of kernels.
inline int type_index(int32_t dtype) { return dtype == GTN_F32 ? 0 : dtype == GTN_BF16 ? 1 : 2; }

inline const char* type_name(int32_t dtype) {
  switch (dtype) {
    case GTN_F32:
      return "f32";
    case GTN_BF16:
      return "bf16";
    case GTN_F16:
      return "f16";
    case GTN_S8:
      return "s8";
    default:
      return "u8";
  }
}

}  // namespace gatun::gpu
