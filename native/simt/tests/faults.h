// Kernels that are right, and the same ones with a fault each, for faults_test.cc.
#pragma once

#include <cstdint>
#include <string>

namespace gatun::simt_test {

struct Args {
  float* out;
  const float* in;
  int64_t n;
  uint32_t* counter;
};
typedef void (*Kernel)(Args);

struct Case {
  const char* name;
  Kernel kernel;
  int blocks, threads, shared_bytes;
  // What a report must say, or nullptr for a kernel that is right; its output is then out[i] = in[i] + 1 where
  // `checked`.
  const char* report;
  bool checked;
};
extern const Case kCases[];
extern const int kCaseCount;

// A kernel that is right as long as its barrier, at this line of faults.cc, is there.
extern const Kernel kRemovable;
extern const unsigned kRemovableLine;

// Threads take tickets, and what they write depends on which they got: no race, and no fixed result either.
extern const Kernel kTickets;

// Known requests to the memories: 1 warp reads in[0..31], in[0..31] with stride 2, and the banks with the given stride.
extern const Kernel kCounted;

// Whether the message has one of the words between bars.
inline bool says(const std::string& message, const std::string& words) {
  for (size_t from = 0;;) {
    const size_t bar = words.find('|', from);
    if (message.find(words.substr(from, bar - from)) != std::string::npos) return true;
    if (bar == std::string::npos) return false;
    from = bar + 1;
  }
}

}  // namespace gatun::simt_test
