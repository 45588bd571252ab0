// The kernels of the library: clang's host pass over a kernel file makes a variable for each kernel, whose address is what
// `kernel_pointer` of backend/runtime.h holds, and a constructor that says which name in which bundle of code objects it stands
// for.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

namespace gatun::rocm {

constexpr int kMostDevices = 64;

// The code objects of one kernel file, an ELF file for each architecture, one after the other in a bundle ("Clang Offload
// Bundler", LLVM documentation).
struct Bundle {
  const char* data;
  std::atomic<void*> module[kMostDevices];  // what the runtime made of the one of each device

  // The code object for "gfx942"; empty where there is none.
  std::string_view code_object(std::string_view arch) const;
};

struct Kernel {
  const char* name;
  Bundle* bundle;
  std::atomic<void*> function[kMostDevices];
};

// nullptr for what is no kernel. Every launch asks, so it is an entry of a table, by the variable's place in the library.
Kernel* find_kernel(const void* function);

// Whether there is code for an architecture; the ones that there are, as "gfx90a, gfx942".
bool has_code_for(std::string_view arch);
std::string architectures();

}  // namespace gatun::rocm
