#include "backend/registry.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace gatun::rocm {
namespace {

// Filled by constructors while the library loads, and only read from then on. By the address of a kernel's variable.
std::map<uintptr_t, Kernel*>& kernels() {
  static auto* kernels = new std::map<uintptr_t, Kernel*>;
  return *kernels;
}
std::vector<Bundle*>& bundles() {
  static auto* bundles = new std::vector<Bundle*>;
  return *bundles;
}

// each(target, code object), where a target is "hipv4-amdgcn-amd-amdhsa--gfx942" and the host has an empty one.
template <typename Each>
void each_entry(const char* bundle, Each each) {
  constexpr std::string_view kMagic = "__CLANG_OFFLOAD_BUNDLE__";
  if (std::memcmp(bundle, kMagic.data(), kMagic.size()) != 0) return;
  const char* at = bundle + kMagic.size();
  const auto number = [&at] {
    uint64_t value;
    std::memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value;
  };
  for (uint64_t entries = number(); entries > 0; --entries) {
    const uint64_t offset = number(), bytes = number(), length = number();
    const std::string_view target(at, length);
    at += length;
    if (const size_t arch = target.rfind("--gfx"); arch != std::string_view::npos) {
      each(target.substr(arch + 2), std::string_view(bundle + offset, bytes));
    }
  }
}

}  // namespace

std::string_view Bundle::code_object(std::string_view arch) const {
  std::string_view found;
  each_entry(data, [&](std::string_view target, std::string_view object) {
    if (target == arch) found = object;
  });
  return found;
}

// The variables are pointers, side by side in the library's data: the table has an entry for each pointer's place there.
Kernel* find_kernel(const void* function) {
  static const uintptr_t first = kernels().empty() ? 0 : kernels().begin()->first;
  static const std::vector<Kernel*>& table = *[] {
    auto* made = new std::vector<Kernel*>;
    if (!kernels().empty()) made->resize((kernels().rbegin()->first - first) / sizeof(void*) + 1);
    for (const auto& [address, kernel] : kernels()) (*made)[(address - first) / sizeof(void*)] = kernel;
    return made;
  }();
  const uintptr_t offset = reinterpret_cast<uintptr_t>(function) - first, place = offset / sizeof(void*);
  return offset % sizeof(void*) == 0 && place < table.size() ? table[place] : nullptr;
}

bool has_code_for(std::string_view arch) {
  for (const Bundle* bundle : bundles()) {
    if (bundle->code_object(arch).empty()) return false;
  }
  return !bundles().empty();
}

std::string architectures() {
  std::string list;
  if (bundles().empty()) return list;
  each_entry(bundles().front()->data, [&](std::string_view target, std::string_view) {
    if (!list.empty()) list += ", ";
    list += target;
  });
  return list;
}

}  // namespace gatun::rocm

// ---- What the constructors that clang makes call. They live as long as the process: nothing is ever unloaded.

using gatun::rocm::Bundle;
using gatun::rocm::Kernel;

extern "C" {

struct FatBinary {
  uint32_t magic, version;
  const char* data;
  void* unused;
};

__attribute__((visibility("hidden"))) void** __hipRegisterFatBinary(const FatBinary* binary) {
  auto* bundle = new Bundle{};
  bundle->data = binary->data;
  gatun::rocm::bundles().push_back(bundle);
  return reinterpret_cast<void**>(bundle);
}

__attribute__((visibility("hidden"))) void __hipRegisterFunction(void** bundle, const void* function, char*, const char* name,
                                                                 unsigned, void*, void*, void*, void*, int*) {
  auto* kernel = new Kernel{};
  kernel->name = name;
  kernel->bundle = reinterpret_cast<Bundle*>(bundle);
  gatun::rocm::kernels().emplace(reinterpret_cast<uintptr_t>(function), kernel);
}

__attribute__((visibility("hidden"))) void __hipUnregisterFatBinary(void**) {}

// The stubs that clang makes of kernels refer to these; a kernel is never called by its name.
__attribute__((visibility("hidden"))) int __hipPopCallConfiguration(void*, void*, size_t*, void*) { return -1; }
__attribute__((visibility("hidden"))) int hipLaunchKernel(const void*) { return -1; }
}
