// How the stand-in for AscendCL starts a kernel of a library that it loaded, by the library's own copy of the twin.
#pragma once

#include <cstddef>
#include <cstdint>

struct FakeRange {
  const void* base;
  size_t bytes;
};

#define FAKE_KERNEL_API extern "C" __attribute__((visibility("default")))

// The entry of that name, or null.
FAKE_KERNEL_API const void* fake_kernel_find(const char* name);

// Runs it to its end. False, and a message, where it went wrong.
FAKE_KERNEL_API bool fake_kernel_launch(const void* kernel, uint32_t blocks, void* const* args, size_t count,
                                        const FakeRange* memory, size_t ranges, char* message, size_t capacity);
