// The objects behind the handles of the Ascend backend, and what a family's plans are made of.
#pragma once

#include <gatun/backend.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <new>

#include "backend/runtime.h"
#include "core/message.h"

namespace gatun::ascend {

// A block of memory whose alignment is above the runtime's own.
struct AlignedBlock {
  void *aligned, *whole;
  AlignedBlock* next;
};

struct Device {
  int index;
  Properties properties;
  std::mutex lock;
  AlignedBlock* aligned;
};

// A queue, and the scratch memory of the plans that run on it.
struct Stream {
  Device* device;
  Queue* queue;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;

  // At least `bytes` of the device's memory for the kernels of one run. It waits for what is under way where it must grow.
  gtn_status scratch(int64_t bytes, void** memory, gtn_message* message);
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

// Launches `kernel` with these tensors, any of them null, and a copy of `tiling`.
template <typename Tiling, typename... Pointers>
gtn_status launch_with(Stream& stream, const Kernel* kernel, int64_t blocks, const Tiling& tiling, gtn_message* message,
                       Pointers... pointers) {
  static_assert(sizeof(Tiling) <= kMaxTilingBytes && sizeof...(pointers) <= kMaxPointers);
  const Arguments arguments = {{pointers...}, sizeof...(pointers), &tiling, sizeof tiling};
  return launch(stream.queue, kernel, static_cast<int>(blocks), arguments, message);
}

// Blocks for so many independent parts: one for each vector core, or fewer.
inline int64_t vector_blocks(const Device& device, int64_t parts) {
  return parts < device.properties.vector_cores ? parts : device.properties.vector_cores;
}

// The elements of a row of n that a vector core would take if all of them shared `rows` rows alike.
inline int64_t share(const Device& device, int64_t rows, int64_t n) {
  if (rows >= device.properties.vector_cores) return n;
  const int64_t cores_of_row = device.properties.vector_cores / rows;
  return (n + cores_of_row - 1) / cores_of_row;
}

// Fills info->kernel with "<backend>.<rest>", as "ascend.norm.rms.bf16".
void name_kernel(gtn_plan_info* info, const char* rest);

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

}  // namespace gatun::ascend
