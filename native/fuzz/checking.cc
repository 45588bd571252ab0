// A backend that computes nothing and believes nothing: whatever gatun/backend.h promises of a call, it looks for
// itself, its own way, and ends the process where the core did not keep it. Small tensors are gone through element by
// element.
#include <gatun/backend.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "fuzz/must.h"

namespace gatun::fuzz {
namespace {

// Tensors up to here are gone through element by element, and their memory must lie in one block of the device: fuzzers
// leave as much room behind every pointer that they pass.
constexpr int64_t kMostElements = 1024;

enum class Kind : uint32_t {
  kDevice = 0x47415444,
  kStream = 0x47415453,
  kEvent = 0x47415445,
  kWeights = 0x47415457,
  kPlan = 0x47415450
};

struct Device;

// What every object starts with. A call on a destroyed one is the address sanitizer's to find; on one of another kind,
// ours.
struct Object {
  Kind kind;
  Device* device;
};

struct Device : Object {
  int64_t objects = 0;
  std::map<char*, int64_t> blocks;
};

struct Stream : Object {
  std::atomic<bool> inside{false};
};

struct Event : Object {
  bool recorded = false;
};

struct Weights : Object {
  int32_t format;
  int64_t k, n;
};

struct Plan : Object {
  int32_t op;
  union {
    gtn_gemm_desc gemm;
    gtn_attention_desc attention;
    gtn_norm_desc norm;
    gtn_softmax_desc softmax;
    gtn_activation_desc activation;
  };
};

template <typename T>
T& as(void* object, Kind kind) {
  MUST(object != nullptr);
  MUST(static_cast<Object*>(object)->kind == kind);
  return *static_cast<T*>(object);
}

template <typename T>
T* made(Kind kind, Device& on) {
  T* object = new T();
  object->kind = kind;
  object->device = &on;
  ++on.objects;
  return object;
}

template <typename T>
void destroyed(void* object, Kind kind) {
  T& self = as<T>(object, kind);
  MUST(--self.device->objects >= 0);
  delete &self;
}

// A message is all there and can be written to.
void check(gtn_message* message) {
  MUST(message != nullptr);
  MUST(message->size >= sizeof *message);
  std::memset(message->text, 'x', sizeof message->text - 1);
  message->text[sizeof message->text - 1] = '\0';
}

int64_t bytes_of(int32_t dtype) {
  MUST(dtype == GTN_F32 || dtype == GTN_BF16);
  return dtype == GTN_F32 ? 4 : 2;
}

// The bytes from a tensor's first to past its last element, as wide as that may be.
__int128 extent(const gtn_tensor_desc& tensor) {
  __int128 reach = 1;
  for (int d = 0; d < tensor.rank; ++d) {
    if (tensor.shape[d] == 0) return 0;
    reach += (static_cast<__int128>(tensor.shape[d]) - 1) * tensor.strides[d];
  }
  return reach * bytes_of(tensor.dtype);
}

__int128 elements(const gtn_tensor_desc& tensor) {
  __int128 product = 1;
  for (int d = 0; d < tensor.rank; ++d) {
    product *= tensor.shape[d];
    if (product > INT64_MAX) return product;
  }
  return product;
}

// Offsets of the elements of a tensor, in elements.
std::vector<int64_t> offsets(const gtn_tensor_desc& tensor) {
  if (elements(tensor) == 0) return {};
  std::vector<int64_t> all = {0};
  for (int d = 0; d < tensor.rank; ++d) {
    std::vector<int64_t> next;
    for (int64_t from : all) {
      for (int64_t i = 0; i < tensor.shape[d]; ++i) next.push_back(from + i * tensor.strides[d]);
    }
    all = next;
  }
  return all;
}

void check(const gtn_tensor_desc& tensor, int rank, bool unit_stride, bool output) {
  MUST(tensor.size == sizeof tensor);
  MUST(tensor.rank == rank);
  for (int d = 0; d < rank; ++d) {
    MUST(tensor.shape[d] >= 0);
    MUST(tensor.strides[d] >= 0);
    MUST(static_cast<__int128>(tensor.shape[d]) * tensor.strides[d] * bytes_of(tensor.dtype) <= INT64_MAX);
  }
  MUST(extent(tensor) <= INT64_MAX);
  MUST(elements(tensor) * bytes_of(tensor.dtype) <= INT64_MAX);
  if (unit_stride) MUST(tensor.shape[rank - 1] <= 1 || tensor.strides[rank - 1] == 1);
  if (output && elements(tensor) <= kMostElements) {
    std::vector<int64_t> all = offsets(tensor);
    std::sort(all.begin(), all.end());
    MUST(std::adjacent_find(all.begin(), all.end()) == all.end());
  }
}

void check_flag(int32_t flag) { MUST(flag == 0 || flag == 1); }

void check_activation(int32_t activation) { MUST(activation >= GTN_ACT_NONE && activation <= GTN_ACT_RELU); }

void check_rows(const gtn_tensor_desc& x, const gtn_tensor_desc& out) {
  check(x, 2, true, false);
  check(out, 2, true, true);
  MUST(x.shape[0] == out.shape[0] && x.shape[1] == out.shape[1]);
}

void check(const gtn_gemm_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.format == GTN_F32 || desc.format == GTN_BF16 || desc.format == GTN_S8);
  check(desc.a, 2, true, false);
  check(desc.out, 2, true, true);
  MUST(desc.a.shape[0] == desc.out.shape[0]);
  MUST(desc.format != GTN_S8 || static_cast<__int128>(desc.a.shape[1]) * 255 * 127 <= INT32_MAX);
  check_activation(desc.activation);
  check_flag(desc.has_bias);
  check_flag(desc.has_residual);
}

void check(const gtn_attention_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(std::isfinite(desc.scale));
  const int rank = desc.q.rank;
  MUST(rank == 3 || rank == 4);
  for (const gtn_tensor_desc* tensor : {&desc.q, &desc.k, &desc.v, &desc.out}) {
    check(*tensor, rank, true, tensor == &desc.out);
    MUST(tensor->dtype == desc.q.dtype);
    if (rank == 4) MUST(tensor->shape[0] == desc.q.shape[0]);
  }
  const int length = rank - 3, heads = rank - 2, size = rank - 1;
  MUST(desc.k.shape[length] == desc.v.shape[length] && desc.q.shape[length] == desc.out.shape[length]);
  MUST(desc.k.shape[heads] == desc.v.shape[heads] && desc.q.shape[heads] == desc.out.shape[heads]);
  MUST(desc.q.shape[size] == desc.k.shape[size] && desc.v.shape[size] == desc.out.shape[size]);
  MUST(desc.q.shape[heads] >= 1 && desc.k.shape[heads] >= 1 && desc.q.shape[heads] % desc.k.shape[heads] == 0);
  MUST(desc.q.shape[size] >= 1 && desc.v.shape[size] >= 1);
  MUST(desc.window_left >= -1 && desc.window_right >= -1);
  MUST(rank == 4 || desc.max_sequences >= 0);
}

void check(const gtn_norm_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(desc.kind == GTN_NORM_LAYER || desc.kind == GTN_NORM_RMS);
  check_rows(desc.x, desc.out);
  MUST(desc.x.shape[1] >= 1);
  MUST(std::isfinite(desc.epsilon) && desc.epsilon >= 0);
  check_flag(desc.has_residual);
  check_flag(desc.has_beta);
  check_flag(desc.has_sum);
  MUST(desc.kind == GTN_NORM_LAYER || desc.has_beta == 0);
  if (desc.has_sum) check(desc.x, 2, true, true);
}

void check(const gtn_softmax_desc& desc) {
  MUST(desc.size >= sizeof desc);
  MUST(std::isfinite(desc.scale));
  check_rows(desc.x, desc.out);
}

void check(const gtn_activation_desc& desc) {
  MUST(desc.size >= sizeof desc);
  check_activation(desc.activation);
  check_flag(desc.has_bias);
  check_rows(desc.x, desc.out);
}

// ---- Memory of a run

// An operand: a tensor, with the shape that this run uses, at an address.
struct Operand {
  const void* at;
  gtn_tensor_desc tensor;

  bool is_small() const { return elements(tensor) <= kMostElements && extent(tensor) <= kMostElements * 8; }
  bool is_empty() const { return elements(tensor) == 0; }
  bool has_layout_of(const Operand& other) const {
    return tensor.dtype == other.tensor.dtype && tensor.rank == other.tensor.rank &&
           std::memcmp(tensor.strides, other.tensor.strides, static_cast<size_t>(tensor.rank) * sizeof(int64_t)) == 0;
  }
};

Operand dense(const void* at, int32_t dtype, int64_t count) {
  return {at, {sizeof(gtn_tensor_desc), dtype, 1, 0, {count}, {1}}};
}

// `tensor` with other counts in its first dimensions.
Operand part(const void* at, gtn_tensor_desc tensor, int64_t first) {
  tensor.shape[0] = first;
  return {at, tensor};
}

Operand part(const void* at, gtn_tensor_desc tensor, int64_t first, int64_t second) {
  tensor.shape[1] = second;
  return part(at, tensor, first);
}

// The addresses of an operand's elements, in order.
std::vector<uintptr_t> addresses(const Operand& operand) {
  std::vector<uintptr_t> all;
  for (int64_t offset : offsets(operand.tensor)) {
    const int64_t bytes = offset * bytes_of(operand.tensor.dtype);
    all.push_back(reinterpret_cast<uintptr_t>(operand.at) + static_cast<uintptr_t>(bytes));
  }
  std::sort(all.begin(), all.end());
  return all;
}

void check_memory(const Device& device, const Operand& operand) {
  if (operand.at == nullptr || operand.is_empty()) return;
  MUST(reinterpret_cast<uintptr_t>(operand.at) % static_cast<uintptr_t>(bytes_of(operand.tensor.dtype)) == 0);
  if (!operand.is_small()) return;
  const char* first = static_cast<const char*>(operand.at);
  auto block = device.blocks.upper_bound(const_cast<char*>(first));
  MUST(block != device.blocks.begin());
  --block;
  MUST(first - block->first + static_cast<int64_t>(extent(operand.tensor)) <= block->second);
}

void check_apart(const Operand& output, const Operand& other) {
  if (other.at == nullptr || output.at == nullptr || !output.is_small() || !other.is_small()) return;
  const std::vector<uintptr_t> written = addresses(output);
  const uintptr_t own = static_cast<uintptr_t>(bytes_of(output.tensor.dtype));
  const uintptr_t others = static_cast<uintptr_t>(bytes_of(other.tensor.dtype));
  for (uintptr_t element : addresses(other)) {
    const auto next = std::upper_bound(written.begin(), written.end(), element - own);
    MUST(next == written.end() || *next >= element + others);
  }
}

void check_apart_or_equal(const Operand& output, const Operand& other) {
  if (output.at == other.at && output.has_layout_of(other)) return;
  check_apart(output, other);
}

void check_run(const Plan& plan, const gtn_gemm_args& args) {
  const gtn_gemm_desc& desc = plan.gemm;
  const int64_t k = desc.a.shape[1], n = desc.out.shape[1];
  const Weights& weights = as<Weights>(args.weights, Kind::kWeights);
  MUST(weights.device == plan.device);
  MUST(weights.format == desc.format && weights.k == k && weights.n == n);
  MUST(args.rows >= 1 && args.rows <= desc.a.shape[0] && n > 0);
  MUST((args.a != nullptr || k == 0) && args.out != nullptr);
  MUST((args.bias != nullptr) == (desc.has_bias == 1) && (args.residual != nullptr) == (desc.has_residual == 1));
  const Operand a = part(args.a, desc.a, args.rows), out = part(args.out, desc.out, args.rows);
  const Operand residual = part(args.residual, desc.out, args.rows), bias = dense(args.bias, GTN_F32, n);
  for (const Operand& operand : {a, out, residual, bias}) check_memory(*plan.device, operand);
  check_apart(out, a);
  check_apart(out, bias);
  check_apart_or_equal(out, residual);
}

void check_run(const Plan& plan, const gtn_attention_args& args) {
  const gtn_attention_desc& desc = plan.attention;
  const bool packed = desc.q.rank == 3;
  const int length = packed ? 0 : 1;
  MUST(args.sequences >= 1 && args.sequences <= (packed ? desc.max_sequences : desc.q.shape[0]));
  MUST(args.len_q >= 1 && args.len_q <= desc.q.shape[length]);
  MUST(args.len_k >= 0 && args.len_k <= desc.k.shape[length]);
  MUST(!packed || (args.q_index != nullptr && args.k_index != nullptr));
  MUST(args.q != nullptr && args.out != nullptr);
  MUST(args.len_k == 0 || (args.k != nullptr && args.v != nullptr));
  const auto used = [&](const void* at, const gtn_tensor_desc& tensor, int64_t rows) {
    return packed ? part(at, tensor, rows) : part(at, tensor, args.sequences, rows);
  };
  const Operand q = used(args.q, desc.q, args.len_q), out = used(args.out, desc.out, args.len_q);
  const Operand k = used(args.k, desc.k, args.len_k), v = used(args.v, desc.v, args.len_k);
  const __int128 logs =
      static_cast<__int128>(packed ? 1 : args.sequences) * desc.q.shape[length + 1] * desc.q.shape[length];
  const Operand lse = dense(args.lse, GTN_F32, logs > INT64_MAX ? INT64_MAX : static_cast<int64_t>(logs));
  for (const Operand& operand : {q, k, v, out, lse}) check_memory(*plan.device, operand);
  for (const Operand& input : {q, k, v}) {
    check_apart(out, input);
    check_apart(lse, input);
  }
  check_apart(out, lse);
  const __int128 entries = static_cast<__int128>(args.sequences) + (packed ? 1 : 0);
  for (const int64_t* index : {args.q_index, args.k_index}) {
    MUST(reinterpret_cast<uintptr_t>(index) % sizeof *index == 0);
    if (index == nullptr || entries > kMostElements / 2) continue;
    const Operand words = dense(index, GTN_F32, static_cast<int64_t>(entries) * 2);
    check_memory(*plan.device, words);
    check_apart(out, words);
    check_apart(lse, words);
  }
}

void check_run(const Plan& plan, const gtn_norm_args& args) {
  const gtn_norm_desc& desc = plan.norm;
  const int64_t n = desc.x.shape[1];
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0]);
  MUST(args.x != nullptr && args.gamma != nullptr && args.out != nullptr);
  MUST((args.residual != nullptr) == (desc.has_residual == 1));
  MUST((args.beta != nullptr) == (desc.has_beta == 1));
  MUST((args.sum != nullptr) == (desc.has_sum == 1));
  const Operand x = part(args.x, desc.x, args.rows), residual = part(args.residual, desc.x, args.rows);
  const Operand out = part(args.out, desc.out, args.rows), sum = part(args.sum, desc.x, args.rows);
  const Operand gamma = dense(args.gamma, GTN_F32, n), beta = dense(args.beta, GTN_F32, n);
  for (const Operand& operand : {x, residual, out, sum, gamma, beta}) check_memory(*plan.device, operand);
  for (const Operand& output : {out, sum}) {
    check_apart_or_equal(output, x);
    check_apart_or_equal(output, residual);
    check_apart(output, gamma);
    check_apart(output, beta);
  }
  check_apart(out, sum);
}

void check_run(const Plan& plan, const gtn_softmax_args& args) {
  const gtn_softmax_desc& desc = plan.softmax;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.x != nullptr && args.out != nullptr);
  const Operand x = part(args.x, desc.x, args.rows), out = part(args.out, desc.out, args.rows);
  check_memory(*plan.device, x);
  check_memory(*plan.device, out);
  check_apart_or_equal(out, x);
}

void check_run(const Plan& plan, const gtn_activation_args& args) {
  const gtn_activation_desc& desc = plan.activation;
  MUST(args.rows >= 1 && args.rows <= desc.x.shape[0] && desc.x.shape[1] > 0);
  MUST(args.x != nullptr && args.out != nullptr && (args.bias != nullptr) == (desc.has_bias == 1));
  const Operand x = part(args.x, desc.x, args.rows), out = part(args.out, desc.out, args.rows);
  const Operand bias = dense(args.bias, GTN_F32, desc.x.shape[1]);
  for (const Operand& operand : {x, out, bias}) check_memory(*plan.device, operand);
  check_apart_or_equal(out, x);
  check_apart(out, bias);
}

// ---- The table

gtn_status device_count(int32_t* count, gtn_message* message) {
  check(message);
  *count = 2;
  return GTN_OK;
}

gtn_status device_info(int32_t index, gtn_device_info* info, gtn_message* message) {
  check(message);
  MUST(index >= 0 && index < 2);
  MUST(info->size == sizeof *info);
  std::snprintf(info->name, sizeof info->name, index == 0 ? "checking" : "checking:%d", index);
  info->memory_bytes = -1;
  return GTN_OK;
}

gtn_status device_open(const char* selector, const gtn_device_options* options, void** device, gtn_message* message) {
  check(message);
  MUST(selector != nullptr && std::strlen(selector) < 64);
  MUST(options != nullptr && options->size >= sizeof *options && options->threads >= 0);
  if (std::strcmp(selector, "gone") == 0) return GTN_DEVICE_LOST;
  Device* opened = new Device();
  opened->kind = Kind::kDevice;
  *device = opened;
  return GTN_OK;
}

void device_close(void* device) {
  Device& self = as<Device>(device, Kind::kDevice);
  MUST(self.objects == 0 && self.blocks.empty());
  delete &self;
}

gtn_status device_describe(void* device, gtn_device_info* info, gtn_message* message) {
  as<Device>(device, Kind::kDevice);
  return device_info(0, info, message);
}

gtn_status memory_alloc(void* device, int64_t bytes, int64_t alignment, void** memory, gtn_message* message) {
  check(message);
  MUST(bytes >= 1);
  MUST(alignment >= 64 && alignment <= (2 << 20) && (alignment & (alignment - 1)) == 0);
  if (bytes > (1 << 20)) return GTN_OUT_OF_MEMORY;
  if (posix_memalign(memory, static_cast<size_t>(alignment), static_cast<size_t>(bytes)) != 0) return GTN_OUT_OF_MEMORY;
  as<Device>(device, Kind::kDevice).blocks[static_cast<char*>(*memory)] = bytes;
  return GTN_OK;
}

void memory_free(void* device, void* memory, int64_t bytes) {
  std::map<char*, int64_t>& blocks = as<Device>(device, Kind::kDevice).blocks;
  const auto block = blocks.find(static_cast<char*>(memory));
  MUST(block != blocks.end() && block->second == bytes);
  blocks.erase(block);
  std::free(memory);
}

// A stream while a call is inside it.
class Entered {
 public:
  explicit Entered(void* stream) : stream_(as<Stream>(stream, Kind::kStream)) { MUST(!stream_.inside.exchange(true)); }
  ~Entered() { stream_.inside = false; }
  Stream* operator->() { return &stream_; }

 private:
  Stream& stream_;
};

gtn_status memory_copy(void* stream, void* destination, const void* source, int64_t bytes, int32_t direction,
                       gtn_message* message) {
  Entered entered(stream);
  check(message);
  MUST(bytes >= 1 && destination != nullptr && source != nullptr);
  MUST(direction >= GTN_HOST_TO_DEVICE && direction <= GTN_DEVICE_TO_DEVICE);
  std::memcpy(destination, source, static_cast<size_t>(bytes));  // the address sanitizer knows whether they overlap
  return GTN_OK;
}

gtn_status stream_create(void* device, void** stream, gtn_message* message) {
  check(message);
  *stream = made<Stream>(Kind::kStream, as<Device>(device, Kind::kDevice));
  return GTN_OK;
}

void stream_destroy(void* stream) {
  MUST(!as<Stream>(stream, Kind::kStream).inside);
  destroyed<Stream>(stream, Kind::kStream);
}

gtn_status stream_synchronize(void* stream, gtn_message* message) {
  Entered entered(stream);
  check(message);
  return GTN_OK;
}

gtn_status event_create(void* device, void** event, gtn_message* message) {
  check(message);
  *event = made<Event>(Kind::kEvent, as<Device>(device, Kind::kDevice));
  return GTN_OK;
}

void event_destroy(void* event) { destroyed<Event>(event, Kind::kEvent); }

gtn_status event_record(void* event, void* stream, gtn_message* message) {
  Entered entered(stream);
  check(message);
  Event& self = as<Event>(event, Kind::kEvent);
  MUST(self.device == entered->device);
  self.recorded = true;
  return GTN_OK;
}

gtn_status event_synchronize(void* event, gtn_message* message) {
  check(message);
  MUST(as<Event>(event, Kind::kEvent).recorded);
  return GTN_OK;
}

gtn_status event_query(void* event, int32_t* done, gtn_message* message) {
  MUST(done != nullptr);
  *done = 1;
  return event_synchronize(event, message);
}

gtn_status event_elapsed(void* start, void* end, double* milliseconds, gtn_message* message) {
  MUST(milliseconds != nullptr);
  MUST(as<Event>(start, Kind::kEvent).device == as<Event>(end, Kind::kEvent).device);
  *milliseconds = 0;
  event_synchronize(start, message);
  return event_synchronize(end, message);
}

gtn_status weights_pack(void* device, const gtn_weights_desc* desc, const void* source, void** weights,
                        gtn_weights_info* info, gtn_message* message) {
  check(message);
  MUST(desc->size >= sizeof *desc && info->size == sizeof *info);
  MUST(desc->format == GTN_F32 || desc->format == GTN_BF16 || desc->format == GTN_S8);
  check(desc->source, 2, false, false);
  MUST(source != nullptr || elements(desc->source) == 0);
  MUST(reinterpret_cast<uintptr_t>(source) % static_cast<uintptr_t>(bytes_of(desc->source.dtype)) == 0);
  Weights* packed = made<Weights>(Kind::kWeights, as<Device>(device, Kind::kDevice));
  packed->format = desc->format;
  packed->k = desc->source.shape[0];
  packed->n = desc->source.shape[1];
  *weights = packed;
  return GTN_OK;
}

void weights_destroy(void* weights) { destroyed<Weights>(weights, Kind::kWeights); }

template <typename Desc>
gtn_status keep(Desc& kept, const void* desc) {
  const Desc& given = *static_cast<const Desc*>(desc);
  check(given);
  kept = given;
  return GTN_OK;
}

gtn_status plan_create(void* device, int32_t op, const void* desc, void** plan, gtn_plan_info* info,
                       gtn_message* message) {
  check(message);
  MUST(info->size == sizeof *info && info->op == op);
  Plan* created = made<Plan>(Kind::kPlan, as<Device>(device, Kind::kDevice));
  created->op = op;
  *plan = created;
  switch (op) {
    case GTN_OP_GEMM:
      return keep(created->gemm, desc);
    case GTN_OP_ATTENTION:
      return keep(created->attention, desc);
    case GTN_OP_NORM:
      return keep(created->norm, desc);
    case GTN_OP_SOFTMAX:
      return keep(created->softmax, desc);
    case GTN_OP_ACTIVATION:
      return keep(created->activation, desc);
    default:
      MUST(!"an operator");
      return GTN_INTERNAL;
  }
}

void plan_destroy(void* plan) { destroyed<Plan>(plan, Kind::kPlan); }

gtn_status run(void* plan, void* stream, const void* args, gtn_message* message) {
  Entered entered(stream);
  check(message);
  const Plan& self = as<Plan>(plan, Kind::kPlan);
  MUST(self.device == entered->device);
  switch (self.op) {
    case GTN_OP_GEMM:
      check_run(self, *static_cast<const gtn_gemm_args*>(args));
      break;
    case GTN_OP_ATTENTION:
      check_run(self, *static_cast<const gtn_attention_args*>(args));
      break;
    case GTN_OP_NORM:
      check_run(self, *static_cast<const gtn_norm_args*>(args));
      break;
    case GTN_OP_SOFTMAX:
      check_run(self, *static_cast<const gtn_softmax_args*>(args));
      break;
    default:
      check_run(self, *static_cast<const gtn_activation_args*>(args));
  }
  return GTN_OK;
}

gtn_status supports(void* device, int32_t op, int32_t dtype, int32_t* claimed, gtn_message* message) {
  check(message);
  as<Device>(device, Kind::kDevice);
  MUST(op >= GTN_OP_GEMM && op <= GTN_OP_ACTIVATION && dtype >= GTN_F32 && dtype <= GTN_S64 && claimed != nullptr);
  *claimed = 1;
  return GTN_OK;
}

gtn_status measure(void* device, int32_t limit, double* per_second, gtn_message* message) {
  check(message);
  as<Device>(device, Kind::kDevice);
  MUST(limit >= GTN_LIMIT_F32 && limit <= GTN_LIMIT_MEMORY && per_second != nullptr);
  *per_second = 1;
  return GTN_OK;
}

const gtn_backend kTable = {
    sizeof(gtn_backend), GTN_BACKEND_ABI_VERSION, "checking", "1",
    device_count, device_info, device_open, device_close, device_describe,
    memory_alloc, memory_free, memory_copy,
    stream_create, stream_destroy, stream_synchronize,
    event_create, event_destroy, event_record, event_synchronize, event_query, event_elapsed,
    weights_pack, weights_destroy,
    plan_create, plan_destroy, run,
    supports, measure,
};

}  // namespace
}  // namespace gatun::fuzz

extern "C" const gtn_backend* gtn_backend_entry(void) { return &gatun::fuzz::kTable; }
