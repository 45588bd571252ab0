// Linked with kernels that were compiled for the CPU twin, this makes them the "binary" that the stand-in for AscendCL loads.
#include "fake/launcher.h"

#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/entries.h"
#include "twin/twin.h"

#define GATUN_ENTRY(name) extern "C" void name();
GATUN_ASCEND_ENTRIES(GATUN_ENTRY)
#undef GATUN_ENTRY

const void* fake_kernel_find(const char* name) {
#define GATUN_ENTRY(entry) \
  if (std::strcmp(name, #entry) == 0) return reinterpret_cast<const void*>(entry);
  GATUN_ASCEND_ENTRIES(GATUN_ENTRY)
#undef GATUN_ENTRY
  return nullptr;
}

bool fake_kernel_launch(const void* kernel, uint32_t blocks, void* const* args, size_t count, const FakeRange* memory,
                        size_t ranges, char* message, size_t capacity) {
  std::vector<gatun::twin::Range> all;
  for (size_t i = 0; i < ranges; ++i) all.push_back({memory[i].base, memory[i].bytes});
  const gatun::twin::Result result = gatun::twin::launch(kernel, blocks, args, count, all);
  std::snprintf(message, capacity, "%s", result.error.c_str());
  return result.ok();
}
