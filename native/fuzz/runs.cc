// Runs of small plans with any counts, index arrays and pointers into one block of memory. Every pointer has room
// behind it for all that a right run may touch.
#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

constexpr int64_t kStarts = 4096, kApart = 2048, kPlaces = 8, kArena = kPlaces * kApart + kMostBytes;

struct Bench {
  gtn_device device;
  gtn_stream stream = 0;
  char* arena = nullptr;

  explicit Bench(const char* name) : device(open_device(name)) {
    gtn_message message = empty_message();
    void* memory = nullptr;
    MUST(gtn_stream_create(device, &stream, &message) == GTN_OK);
    MUST(gtn_memory_alloc(device, kArena, 64, &memory, &message) == GTN_OK);
    arena = static_cast<char*>(memory);
  }
};

// Where an operand lies: mostly apart from the others, but also where another one does, or near it; sometimes anywhere,
// or nowhere. In a right run all lie apart.
class Places {
 public:
  Places(Input& input, char* arena, bool right) : input_(input), arena_(arena), right_(right) {}

  void* any() {
    if (right_) return next();
    switch (input_.ConsumeIntegralInRange(0, 15)) {
      case 0:
        return nullptr;
      case 1:
        return arena_ + input_.ConsumeIntegralInRange<int64_t>(0, kStarts);
      case 2:
      case 3:
        return taken();
      case 4:
      case 5:
        return taken() + input_.ConsumeIntegralInRange<int64_t>(1, 64) * 4;
      default:
        return next();
    }
  }

  // Null where the plan wants none, mostly.
  void* any(int32_t wanted) {
    if (right_) return wanted == 0 ? nullptr : any();
    return input_.ConsumeIntegralInRange(0, 15) != 0 && wanted == 0 ? nullptr : any();
  }

 private:
  char* next() { return arena_ + count_++ % kPlaces * kApart; }

  // One that was given before.
  char* taken() {
    const int64_t which = count_ == 0 ? 0 : input_.ConsumeIntegralInRange<int64_t>(0, count_ - 1);
    return arena_ + which % kPlaces * kApart;
  }

  Input& input_;
  char* arena_;
  bool right_;
  int64_t count_ = 0;
};

// Mostly a count that the plan allows.
int64_t any_count(Input& input, int64_t most, bool right) {
  const int how = input.ConsumeIntegralInRange(0, 7);
  if (!right && how == 0) return any_number(input);
  if (how == 1) return most;
  return input.ConsumeIntegralInRange<int64_t>(0, most < 8 ? most : 8);
}

// An index array in the arena: lengths or offsets, right or nearly.
void write_index(Input& input, void* at, bool packed, bool right) {
  if (at == nullptr || reinterpret_cast<uintptr_t>(at) % 8 != 0) return;
  int64_t value = 0;
  for (int s = 0; s < 5; ++s) {
    static_cast<int64_t*>(at)[s] = value;
    if (right) continue;
    if (input.ConsumeIntegralInRange(0, 15) == 0) {
      value = any_number(input);
    } else {
      value = (packed ? value % 8 : 0) + input.ConsumeIntegralInRange<int64_t>(0, 2);
    }
  }
}

gtn_weights pack(Input& input, gtn_device device, int32_t format, int64_t k, int64_t n, bool right) {
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) k += input.ConsumeIntegralInRange(-1, 1);
  if (!right && input.ConsumeIntegralInRange(0, 15) == 0) format = one_of(input, {GTN_F32, GTN_BF16, GTN_S8});
  static const float source[256] = {1.0f, -2.0f, 0.5f};
  const gtn_weights_desc desc = {sizeof desc, format, {sizeof(gtn_tensor_desc), GTN_F32, 2, 0, {k, n}, {n, 1}}};
  gtn_weights weights = 0;
  gtn_message message = empty_message();
  const gtn_status status = gtn_weights_pack(device, &desc, source, &weights, &message);
  MUST(status == GTN_OK || k < 0 || k > 16 || n > 16);
  return weights;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static Bench checking("checking"), cpu("cpu:scalar");
  Input input(data, bytes);
  // The kernels believe what they are told, so the CPU gets no plan that describes more memory than there is.
  const int choice = input.ConsumeIntegralInRange(0, 3);
  Bench& on = choice == 0 ? cpu : checking;
  Description made = small_description(input);
  if (choice == 1) make_large(input, made);
  gtn_message message = empty_message();
  gtn_plan plan = 0;
  if (make_plan(on.device, made.op, &made.gemm, &plan, &message) != GTN_OK) {
    MUST(choice == 1);
    return 0;
  }

  std::memset(on.arena, 0, kArena);  // no input may depend on the one before
  const bool right = input.ConsumeBool();
  Places places(input, on.arena, right);
  gtn_weights weights = 0;
  for (int left = input.ConsumeIntegralInRange(1, 3); left > 0; --left) {
    gtn_status status;
    switch (made.op) {
      case GTN_OP_GEMM: {
        const gtn_gemm_desc& desc = made.gemm;
        if (weights == 0) weights = pack(input, on.device, desc.format, desc.a.shape[1], desc.out.shape[1], right);
        void *a = places.any(), *bias = places.any(desc.has_bias), *residual = places.any(desc.has_residual);
        void* out = places.any();
        const int64_t rows = any_count(input, desc.a.shape[0], right);
        status = gtn_gemm_run(plan, on.stream, weights, rows, a, bias, residual, out);
        break;
      }
      case GTN_OP_ATTENTION: {
        const gtn_attention_desc& desc = made.attention;
        const bool packed = desc.q.rank == 3;
        void *q_index = places.any(packed || input.ConsumeBool()), *k_index = places.any(packed || input.ConsumeBool());
        void *q = places.any(), *k = places.any(), *v = places.any(), *out = places.any();
        void* lse = places.any(input.ConsumeBool());
        write_index(input, q_index, packed, right);
        write_index(input, k_index, packed, right);
        const int64_t sequences = any_count(input, packed ? desc.max_sequences : desc.q.shape[0], right);
        const int64_t len_q = any_count(input, desc.q.shape[packed ? 0 : 1], right);
        const int64_t len_k = any_count(input, desc.k.shape[packed ? 0 : 1], right);
        status = gtn_attention_run(plan, on.stream, sequences, len_q, len_k, q_index, k_index, q, k, v, out, lse);
        break;
      }
      case GTN_OP_NORM: {
        const gtn_norm_desc& desc = made.norm;
        void *x = places.any(), *residual = places.any(desc.has_residual), *gamma = places.any();
        void *beta = places.any(desc.has_beta), *out = places.any(), *sum = places.any(desc.has_sum);
        const int64_t rows = any_count(input, desc.x.shape[0], right);
        status = gtn_norm_run(plan, on.stream, rows, x, residual, gamma, beta, out, sum);
        break;
      }
      case GTN_OP_SOFTMAX: {
        void *x = places.any(), *out = places.any();
        status = gtn_softmax_run(plan, on.stream, any_count(input, made.softmax.x.shape[0], right), x, out);
        break;
      }
      default: {
        void *x = places.any(), *bias = places.any(made.activation.has_bias), *out = places.any();
        status = gtn_activation_run(plan, on.stream, any_count(input, made.activation.x.shape[0], right), x, bias, out);
      }
    }
    MUST(!right || status == GTN_OK || choice == 1);
    if (status == GTN_OK || status == GTN_STALE_HANDLE) continue;
    MUST(gtn_stream_message(on.stream, &message) == GTN_OK);
    check_failure(status, message);
  }
  MUST(gtn_plan_close(plan, &message) == GTN_OK);
  if (weights != 0) MUST(gtn_weights_close(weights, &message) == GTN_OK);
  return 0;
}
