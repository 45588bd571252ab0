// The CPU twin of an Ascend AI processor of architecture 2201 (Atlas A2 and A3): it runs, on the host, kernels written in
// the subset of Ascend C that include/kernel_operator.h knows. Every core is a fiber that runs the scalar program; every
// pipe of a core is a queue of its own, executed in an order that a seed chooses within what flags, queues and barriers
// allow. Two accesses to the same bytes, one of them a write, that nothing orders are an error, whatever the order was that
// ran. So are misalignment, sizes beyond the hardware's, undefined data and wrong use of queues and flags; what the twin
// does not model it declines.
//
// It shows that an algorithm, its indexing and its synchronisation are right as far as this reading of the documentation
// goes. It does not show speed, the accuracy of an instruction, or that the vendor's compiler accepts a source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace gatun::twin {

// Memory of the device, which is the host's own here. A kernel that leaves all ranges of its launch is out of bounds.
struct Range {
  const void* base;
  size_t bytes;
};

// A call in a kernel's source that synchronises: a flag set or waited for, a hand-over of a queue, a barrier.
struct Site {
  std::string file;
  int line;
  std::string call;
  bool operator==(const Site&) const = default;
};

// What becomes of a site when a test removes it, to see that the removal is noticed.
enum class Removal {
  Deleted,   // as if the call were not in the source: often seen by its counterpart that stays behind
  Weakened,  // the call still counts, but orders nothing: as if both sides of the hand-over were gone
};

struct Options {
  uint64_t seed = 0;
  const Site* removed = nullptr;
  Removal removal = Removal::Deleted;
};

struct Result {
  std::string error;        // empty when all went well; else it names the core, the pipe and the line of the source
  std::vector<Site> sites;  // those that were reached, by file and line
  bool ok() const { return error.empty(); }
};

// Runs `kernel`, an entry of the form void(GM_ADDR...) with `count` arguments (at most 32), on `blocks` blocks, and returns
// when it is done. Which cores make a block is what the kernel declares: KERNEL_TASK_TYPE_DEFAULT must be the first thing it
// says. Runs on the calling thread alone; several threads may launch at the same time.
Result launch(const void* kernel, uint32_t blocks, void* const* args, size_t count, std::span<const Range> memory,
              const Options& options = {});

}  // namespace gatun::twin
