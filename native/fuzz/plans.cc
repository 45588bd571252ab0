// Plans of every operator from descriptions that are right, nearly right, or any bytes.
#include <algorithm>

#include "fuzz/input.h"

using namespace gatun::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  // Workspaces are for all threads together, so the number of threads matters; no plan is run, so none is started.
  static const gtn_device devices[] = {open_device("checking"), open_device("cpu:scalar"),
                                       open_device("cpu:scalar", 1024)};
  Input input(data, bytes);
  const gtn_device device = devices[input.ConsumeIntegralInRange<size_t>(0, 2)];
  Description made = small_description(input);
  const bool right = input.ConsumeBool();
  if (!right && input.ConsumeBool()) {
    make_large(input, made);
  } else if (!right) {
    spoil(input, &made.gemm, made.bytes());
    if (made.op == GTN_OP_ATTENTION && input.ConsumeBool()) spoil(input, made.patterns, sizeof made.patterns);
  }
  if (!right && input.ConsumeIntegralInRange(0, 7) == 0) {
    const std::vector<char> raw = input.ConsumeRemainingBytes<char>();
    std::copy_n(raw.data(), std::min(raw.size(), made.bytes()), reinterpret_cast<char*>(&made.gemm));
  }
  // The library cannot know that a pointer leads to as many patterns as it is told of.
  ExactPatterns patterns(made);
  if (made.op == GTN_OP_ATTENTION) {
    gtn_attention_desc& desc = made.attention;
    desc.patterns = !right && input.ConsumeIntegralInRange(0, 15) == 0 ? nullptr : patterns.data();
    if (desc.pattern_count > static_cast<int64_t>(std::size(made.patterns))) desc.pattern_count = -desc.pattern_count;
  }
  Exact description(&made.gemm, made.bytes());
  if (!right && description.size() > made.bytes() && input.ConsumeBool()) {
    description.data()[description.size() - 1] = 1;
  }

  gtn_message message = empty_message();
  gtn_plan plan = 42;
  const gtn_status status = make_plan(device, made.op, description.data(), &plan, &message);
  if (status != GTN_OK) {
    MUST(!right);
    MUST(plan == 42);
    check_failure(status, message);
    return 0;
  }
  gtn_plan_info info = {};
  info.size = sizeof info;
  MUST(gtn_plan_query(plan, &info, &message) == GTN_OK);
  MUST(info.op == made.op);
  MUST(info.flops >= 0 && info.bytes >= 0 && info.workspace_bytes >= 0 && info.blocks >= 0);
  MUST(gtn_plan_close(plan, &message) == GTN_OK);
  MUST(gtn_plan_close(plan, &message) == GTN_STALE_HANDLE);
  return 0;
}
