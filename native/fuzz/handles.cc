// Sequences of creating, using and closing objects of every kind, with handles that are open, closed, of another kind
// or made up. A model knows which are open, and so what each call must answer.
#include <map>

#include "fuzz/input.h"

using namespace gatun::fuzz;

namespace {

enum Kind { kDevice, kStream, kEvent, kPlan, kWeights, kKinds };

constexpr gtn_status (*kClose[])(uint64_t, gtn_message*) = {gtn_device_close, gtn_stream_close, gtn_event_close,
                                                            gtn_plan_close, gtn_weights_close};

struct Object {
  Kind kind;
  bool open = true;
  uint64_t device = 0;
  int32_t op = 0;         // of a plan
  int64_t children = 0;   // of a device, with its blocks
  bool recorded = false;  // of an event
  std::vector<void*> blocks;
};

constexpr int64_t kBlock = 256;
constexpr int64_t kSize = 2;  // of every dimension

class World {
 public:
  explicit World(Input& input) : input_(input) {}

  void step() {
    switch (input_.ConsumeIntegralInRange(0, 9)) {
      case 0:
        return open();
      case 1:
      case 2:
        return create();
      case 3:
        return allocate();
      case 4:
        return free();
      case 5:
      case 6:
        return close(any(), static_cast<Kind>(input_.ConsumeIntegralInRange(0, kKinds - 1)));
      case 7:
        return use_event();
      case 8:
        return use_stream();
      default:
        return run();
    }
  }

  void close_all() {
    for (auto& [handle, object] : objects_) {
      if (object.open && object.kind != kDevice) close(handle, object.kind);
    }
    for (auto& [handle, object] : objects_) {
      if (!object.open) continue;
      for (void* block : object.blocks) MUST(gtn_memory_free(handle, block, &message_) == GTN_OK);
      object.children -= static_cast<int64_t>(object.blocks.size());
      close(handle, kDevice);
    }
  }

 private:
  // A handle that was given out some time, as it is or damaged, or any number.
  uint64_t any() {
    const int how = input_.ConsumeIntegralInRange(0, 15);
    if (how == 0) return input_.ConsumeIntegral<uint64_t>();
    if (objects_.empty()) return 0;
    auto at = objects_.begin();
    std::advance(at, input_.ConsumeIntegralInRange<size_t>(0, objects_.size() - 1));
    return how == 1 ? at->first ^ (uint64_t{1} << input_.ConsumeIntegralInRange(0, 63)) : at->first;
  }

  // Mostly an open one of that kind.
  uint64_t any(Kind kind) {
    if (input_.ConsumeIntegralInRange(0, 7) == 0) return any();
    std::vector<uint64_t> open;
    for (const auto& [handle, object] : objects_) {
      if (object.kind == kind && object.open) open.push_back(handle);
    }
    return open.empty() ? any() : open[input_.ConsumeIntegralInRange<size_t>(0, open.size() - 1)];
  }

  Object* find(uint64_t handle, Kind kind) {
    const auto at = objects_.find(handle);
    return at != objects_.end() && at->second.kind == kind && at->second.open ? &at->second : nullptr;
  }

  // Of a call that needs its handles open, and then gives `otherwise`.
  void check(gtn_status status, std::initializer_list<const Object*> needed, gtn_status otherwise = GTN_OK) {
    gtn_status expected = otherwise;
    for (const Object* object : needed) {
      if (object == nullptr) expected = GTN_STALE_HANDLE;
    }
    MUST(status == expected);
  }

  void add(uint64_t handle, Kind kind, uint64_t device, int32_t op = 0) {
    MUST(handle != 0);
    const bool is_new = objects_.emplace(handle, Object{kind, true, device, op, 0, false, {}}).second;
    MUST(is_new);
    if (device != 0) ++objects_.at(device).children;
  }

  void open() {
    gtn_device device = 0;
    MUST(gtn_device_open("checking", nullptr, &device, &message_) == GTN_OK);
    add(device, kDevice, 0);
  }

  void create() {
    const uint64_t device = any(kDevice);
    const Kind kind = static_cast<Kind>(input_.ConsumeIntegralInRange<int>(kStream, kWeights));
    const gtn_tensor_desc square = {sizeof square, GTN_F32, 2, 0, {kSize, kSize}, {kSize, 1}};
    uint64_t made = 0;
    int32_t op = 0;
    gtn_status status;
    if (kind == kStream) {
      status = gtn_stream_create(device, &made, &message_);
    } else if (kind == kEvent) {
      status = gtn_event_create(device, &made, &message_);
    } else if (kind == kWeights) {
      static const float source[kSize * kSize] = {};
      const gtn_weights_desc desc = {sizeof desc, GTN_F32, square, 0, 0, 0};
      status = gtn_weights_pack(device, &desc, source, &made, &message_);
    } else if (input_.ConsumeBool()) {
      op = GTN_OP_GEMM;
      const gtn_gemm_desc desc = {sizeof desc, GTN_F32, square, square, GTN_ACT_NONE, 0, 0, 0, 0, 0, 0, 0, 0};
      status = gtn_gemm_plan(device, &desc, &made, &message_);
    } else {
      op = GTN_OP_SOFTMAX;
      const gtn_softmax_desc desc = {sizeof desc, 1.0f, square, square};
      status = gtn_softmax_plan(device, &desc, &made, &message_);
    }
    check(status, {find(device, kDevice)});
    if (status == GTN_OK) add(made, kind, device, op);
  }

  void allocate() {
    const uint64_t device = any(kDevice);
    void* memory = nullptr;
    const gtn_status status = gtn_memory_alloc(device, kBlock, 64, &memory, &message_);
    Object* object = find(device, kDevice);
    check(status, {object});
    if (status != GTN_OK) return;
    std::memset(memory, 0, kBlock);
    object->blocks.push_back(memory);
    ++object->children;
  }

  void free() {
    const uint64_t device = any(kDevice), other = any(kDevice);
    Object *object = find(device, kDevice), *owner = find(other, kDevice);
    void* memory = owner == nullptr || owner->blocks.empty() ? &message_ : owner->blocks.back();
    if (input_.ConsumeIntegralInRange(0, 7) == 0) memory = static_cast<char*>(memory) + 1;
    bool own = false;
    if (object != nullptr) {
      for (void* block : object->blocks) own = own || block == memory;
    }
    check(gtn_memory_free(device, memory, &message_), {object}, own ? GTN_OK : GTN_INVALID_ARGUMENT);
    if (!own) return;
    object->blocks.pop_back();
    --object->children;
  }

  void close(uint64_t handle, Kind kind) {
    Object* object = find(handle, kind);
    check(kClose[kind](handle, &message_), {object}, object != nullptr && object->children > 0 ? GTN_BUSY : GTN_OK);
    if (object == nullptr || object->children > 0) return;
    object->open = false;
    if (object->device != 0) --objects_.at(object->device).children;
  }

  void use_event() {
    const uint64_t event = any(kEvent), other = any(kEvent), stream = any(kStream);
    Object *first = find(event, kEvent), *second = find(other, kEvent), *in = find(stream, kStream);
    const gtn_status when = first != nullptr && first->recorded ? GTN_OK : GTN_INVALID_ARGUMENT;
    switch (input_.ConsumeIntegralInRange(0, 3)) {
      case 0: {
        const bool match = first != nullptr && in != nullptr && first->device == in->device;
        check(gtn_event_record(event, stream, &message_), {first, in}, match ? GTN_OK : GTN_INVALID_ARGUMENT);
        if (match) first->recorded = true;
        return;
      }
      case 1:
        return check(gtn_event_synchronize(event, &message_), {first}, when);
      case 2: {
        int32_t done = -1;
        check(gtn_event_query(event, &done, &message_), {first}, when);
        MUST(done == (first != nullptr && when == GTN_OK ? 1 : -1));
        return;
      }
      default: {
        double milliseconds = -1;
        const bool match = first != nullptr && second != nullptr && first->device == second->device && second->recorded;
        check(gtn_event_elapsed(event, other, &milliseconds, &message_), {first, second},
              match ? when : GTN_INVALID_ARGUMENT);
      }
    }
  }

  void use_stream() {
    const uint64_t stream = any(kStream);
    Object* in = find(stream, kStream);
    char from[16] = {}, to[16];
    switch (input_.ConsumeIntegralInRange(0, 2)) {
      case 0:
        return check(gtn_stream_synchronize(stream, &message_), {in});
      case 1:
        return check(gtn_stream_message(stream, &message_), {in});
      default:
        check(gtn_memory_copy(stream, to, from, sizeof to, GTN_HOST_TO_DEVICE, &message_), {in});
    }
  }

  void run() {
    const uint64_t plan = any(kPlan), stream = any(kStream), weights = any(kWeights);
    Object *what = find(plan, kPlan), *in = find(stream, kStream), *with = find(weights, kWeights);
    char* block = nullptr;
    if (what != nullptr && !objects_.at(what->device).blocks.empty()) {
      block = static_cast<char*>(objects_.at(what->device).blocks.front());
    }
    // Without memory a run of no rows.
    const int64_t rows = block == nullptr ? 0 : kSize;
    const auto at = [&](int64_t bytes) { return block == nullptr ? nullptr : block + bytes; };
    const int32_t op = input_.ConsumeBool() ? GTN_OP_GEMM : GTN_OP_SOFTMAX;
    const bool match = what != nullptr && in != nullptr && what->device == in->device && what->op == op;
    if (op == GTN_OP_SOFTMAX) {
      return check(gtn_softmax_run(plan, stream, rows, at(0), at(64)), {what, in},
                   match ? GTN_OK : GTN_INVALID_ARGUMENT);
    }
    const gtn_status status = gtn_gemm_run(plan, stream, weights, rows, at(0), nullptr, nullptr, at(64));
    // What is looked at first is told.
    if (what == nullptr || in == nullptr || match) {
      const bool all = with != nullptr && what != nullptr && with->device == what->device;
      check(status, {what, in, with}, all ? GTN_OK : GTN_INVALID_ARGUMENT);
    } else {
      MUST(status == GTN_INVALID_ARGUMENT);
    }
  }

  Input& input_;
  gtn_message message_ = empty_message();
  std::map<uint64_t, Object> objects_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const gtn_device keeps_loaded = open_device("checking");
  (void)keeps_loaded;
  Input input(data, bytes);
  World world(input);
  while (input.remaining_bytes() > 0) world.step();
  world.close_all();
  return 0;
}
