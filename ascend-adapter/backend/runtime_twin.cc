// The backend's view of a device over the CPU twin. A launch has ended when launch() returns, so queues and marks hold nothing;
// what the twin finds wrong with a kernel is the status of its launch, and the next one starts afresh.
//
//   GATUN_TWIN_SEED=N      the order in which pipes run, where flags leave it open
//   GATUN_TWIN_SITES=FILE  appends the calls that synchronise, as they are reached: "line:file call"
//   GATUN_TWIN_MUTATE=SITE takes one of them away, given as there; GATUN_TWIN_WEAKEN=SITE lets it order nothing
#include <stdlib.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <string>

#include "accelerator/inline_runtime.h"
#include "core/message.h"
#include "kernels/entries.h"
#include "twin/twin.h"

#define GATUN_ENTRY(name) extern "C" void name();
GATUN_ASCEND_ENTRIES(GATUN_ENTRY)
#undef GATUN_ENTRY

namespace gatun::ascend {

const char* const kBackendName = "ascend-twin";

struct Kernel {
  const char* name;
  void (*entry)();
};

namespace {

constexpr Kernel kKernels[] = {
#define GATUN_ENTRY(name) {#name, name},
    GATUN_ASCEND_ENTRIES(GATUN_ENTRY)
#undef GATUN_ENTRY
};

// A block of the device's memory. The list says what a kernel may touch: the blocks that its arguments lie in.
struct Block {
  char* base;
  size_t bytes;
  Block* next;
};

std::mutex lock;
Block* blocks = nullptr;

bool find_block(const void* p, twin::Range* range) {
  const std::lock_guard<std::mutex> guard(lock);
  for (const Block* block = blocks; block != nullptr; block = block->next) {
    const auto offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(block->base);
    if (offset >= block->bytes) continue;
    *range = {block->base, block->bytes};
    return true;
  }
  return false;
}

std::string text_of(const twin::Site& site) { return std::to_string(site.line) + ":" + site.file + " " + site.call; }

// What the environment says of launches.
struct Wishes {
  twin::Options options;
  twin::Site removed;
  const char* sites = getenv("GATUN_TWIN_SITES");

  Wishes() {
    if (const char* seed = getenv("GATUN_TWIN_SEED")) options.seed = strtoull(seed, nullptr, 0);
    const char* site = getenv("GATUN_TWIN_MUTATE");
    if (site == nullptr) {
      site = getenv("GATUN_TWIN_WEAKEN");
      options.removal = twin::Removal::Weakened;
    }
    if (site == nullptr) return;
    const char* file = std::strchr(site, ':');
    const char* call = std::strrchr(site, ' ');
    if (file == nullptr || call == nullptr || call < file) return;
    removed = {std::string(file + 1, call), atoi(site), call + 1};
    options.removed = &removed;
  }
};

void note_sites(const char* file, const twin::Result& result) {
  static std::set<std::string> known;
  const std::lock_guard<std::mutex> guard(lock);
  for (const twin::Site& site : result.sites) {
    if (!known.insert(text_of(site)).second) continue;
    if (std::FILE* to = std::fopen(file, "a")) {
      std::fprintf(to, "%s\n", text_of(site).c_str());
      std::fclose(to);
    }
  }
}

}  // namespace

gtn_status device_count(int* count, gtn_message*) {
  *count = 1;
  return GTN_OK;
}

void device_selector(int, char (&selector)[16]) { *selector = '\0'; }

gtn_status device_properties(int, Properties* properties, gtn_message*) {
  *properties = {};
  std::snprintf(properties->description, sizeof properties->description,
                "CPU twin of Ascend C, architecture 2201; it shows neither speed nor behaviour of hardware");
  properties->vector_cores = 4;  // few, so that the cores of small cases have several parts each
  properties->cube_cores = 2;
  properties->memory_bytes = -1;
  return GTN_OK;
}

gtn_status device_start(int, gtn_message*) { return GTN_OK; }

gtn_status allocate(int, int64_t bytes, void** memory, gtn_message* message) {
  Block* block = new (std::nothrow) Block{};
  const size_t size = static_cast<size_t>(bytes);
  if (block != nullptr && bytes <= INT64_MAX - kAllocationAlignment) {
    block->base =
        static_cast<char*>(aligned_alloc(kAllocationAlignment, (size + kAllocationAlignment - 1) & -kAllocationAlignment));
  }
  if (block == nullptr || block->base == nullptr) {
    delete block;
    return fail(message, GTN_OUT_OF_MEMORY, "%s has no %lld bytes to give", kBackendName, static_cast<long long>(bytes));
  }
  block->bytes = size;
  *memory = block->base;
  const std::lock_guard<std::mutex> guard(lock);
  block->next = blocks;
  blocks = block;
  return GTN_OK;
}

void release(int, void* memory) {
  const std::lock_guard<std::mutex> guard(lock);
  Block** at = &blocks;
  while (*at != nullptr && (*at)->base != memory) at = &(*at)->next;
  if (Block* block = *at) {
    *at = block->next;
    free(block->base);
    delete block;
  }
}

gtn_status find_kernel(int, const char* name, const Kernel** kernel, gtn_message* message) {
  for (const Kernel& candidate : kKernels) {
    if (std::strcmp(candidate.name, name) != 0) continue;
    *kernel = &candidate;
    return GTN_OK;
  }
  return fail(message, GTN_INTERNAL, "there is no kernel '%s'", name);
}

gtn_status launch(Queue*, const Kernel* kernel, int count, const Arguments& arguments, gtn_message* message) {
  static const Wishes wishes;
  alignas(64) char tiling[kMaxTilingBytes];
  std::memcpy(tiling, arguments.tiling, static_cast<size_t>(arguments.tiling_bytes));
  void* args[kMaxPointers + 1];
  twin::Range memory[kMaxPointers + 1];
  size_t ranges = 0;
  for (int i = 0; i < arguments.count; ++i) {
    args[i] = const_cast<void*>(arguments.pointers[i]);
    if (args[i] == nullptr) continue;
    if (!find_block(args[i], &memory[ranges])) {
      return fail(message, GTN_INTERNAL, "%s: argument %d is in no memory of the device", kernel->name, i);
    }
    // Tensors of one block are one range.
    size_t same = 0;
    while (memory[same].base != memory[ranges].base) ++same;
    if (same == ranges) ++ranges;
  }
  args[arguments.count] = tiling;
  memory[ranges++] = {tiling, static_cast<size_t>(arguments.tiling_bytes)};
  const twin::Result result =
      twin::launch(reinterpret_cast<const void*>(kernel->entry), static_cast<uint32_t>(count), args,
                   static_cast<size_t>(arguments.count) + 1, {memory, ranges}, wishes.options);
  if (wishes.sites != nullptr) note_sites(wishes.sites, result);
  if (result.ok()) return GTN_OK;
  return fail(message, GTN_INTERNAL, "%s: %.900s", kernel->name, result.error.c_str());
}

}  // namespace gatun::ascend
