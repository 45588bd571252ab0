// The objects behind the handles of an accelerator's backend, and what a family's plans are made of. As runtime.h, it lies in the
// backend's own namespace.
#pragma once

#include <gatun/backend.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <span>

#include "backend/runtime.h"  // the backend's own
#include "core/message.h"

namespace gatun::GATUN_ACCELERATOR {

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

  // At least `bytes` of the device's memory, aligned as the runtime does, for the kernels of one run. It waits for the queue
  // where it must grow.
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

// An operator: how its plans are made, and what it serves.
struct Operator {
  int32_t op;
  gtn_status (*plan)(Device& device, const void* desc, Plan** plan, gtn_plan_info* info, gtn_message* message);
  bool (*serves)(const Device& device, int32_t dtype);
};

template <typename Desc, gtn_status (*kPlan)(Device&, const Desc&, Plan**, gtn_plan_info*, gtn_message*)>
gtn_status plan_of(Device& device, const void* desc, Plan** plan, gtn_plan_info* info, gtn_message* message) {
  return kPlan(device, *static_cast<const Desc*>(desc), plan, info, message);
}

// What a backend has beside its runtime. Null: it measures no limits; it takes no weights that come quantized; it has no
// convolutions.
struct Served {
  std::span<const Operator> operators;
  gtn_status (*weights_pack)(Device& device, const gtn_weights_desc& desc, const void* source, void** weights,
                             gtn_weights_info* info, gtn_message* message);
  void (*weights_destroy)(void* weights);
  gtn_status (*measure)(Device& device, int32_t limit, double* per_second, gtn_message* message);
  gtn_status (*weights_pack_quantized)(Device& device, const gtn_quantized_desc& desc, const void* integers, const float* scales,
                                       const uint8_t* zero_points, void** weights, gtn_weights_info* info,
                                       gtn_message* message) = nullptr;
  gtn_status (*conv_weights_pack)(Device& device, const gtn_conv_weights_desc& desc, const void* source, const float* gamma,
                                  const float* beta, const float* mean, const float* variance, void** weights,
                                  gtn_weights_info* info, gtn_message* message) = nullptr;
};
extern const Served kServed;

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

}  // namespace gatun::GATUN_ACCELERATOR
