// What a kernel's warps ask of the memories: bank conflicts of shared memory and sectors of device memory.
//
// The lanes of a warp run one after another here, so an access is written down lane by lane, and those of one
// instruction are brought together when the warp meets: the n-th time that each lane came by that code since the last
// meeting. From the CUDA C++ Programming Guide 13.0, "Shared Memory" of compute capability 5.x and later: 32 banks of 4
// bytes, and lanes that read the same word share it; a request of 8 or 16 bytes a lane is served in halves or quarters
// of a warp (the best practices guide's and ldmatrix's phases of 128 bytes). Device memory moves in sectors of 32
// bytes.
#include "simt/block.h"

#include <algorithm>
#include <array>
#include <map>

namespace gatun::simt {
namespace {

constexpr size_t kMostTouches = 1 << 16;  // of a lane between two meetings; later ones are not counted

struct Request {
  bool shared;
  uint16_t bytes;
  LaneMask lanes = 0;
  std::array<uintptr_t, kLanes> at = {};
};

void add(Counters& counters, const Request& request) {
  if (!request.shared) {
    std::vector<uintptr_t> sectors;
    int64_t bytes = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      if ((request.lanes >> lane & 1) == 0) continue;
      bytes += request.bytes;
      for (uintptr_t s = request.at[lane] / 32; s <= (request.at[lane] + request.bytes - 1) / 32; ++s)
        sectors.push_back(s);
    }
    std::sort(sectors.begin(), sectors.end());
    sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
    ++counters.global_requests;
    counters.global_sectors += static_cast<int64_t>(sectors.size());
    counters.global_ideal += std::min((bytes + 31) / 32, static_cast<int64_t>(sectors.size()));
    return;
  }
  ++counters.shared_requests;
  const int together = request.bytes <= 4 ? 32 : request.bytes == 8 ? 16 : 8;
  for (int first = 0; first < kLanes; first += together) {
    std::vector<uintptr_t> words;
    for (int lane = first; lane < first + together; ++lane) {
      if ((request.lanes >> lane & 1) == 0) continue;
      for (uintptr_t w = request.at[lane] / 4; w <= (request.at[lane] + request.bytes - 1) / 4; ++w) words.push_back(w);
    }
    if (words.empty()) continue;
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::array<int, 32> banks = {};
    for (const uintptr_t w : words) ++banks[w % 32];
    counters.shared_passes += *std::max_element(banks.begin(), banks.end());
    counters.shared_ideal += (static_cast<int64_t>(words.size()) + 31) / 32;
  }
}

}  // namespace

void touch(Fiber& fiber, uintptr_t at, size_t bytes, bool is_shared, uintptr_t pc) {
  if (fiber.touches.size() < kMostTouches) fiber.touches.push_back({pc, at, static_cast<uint16_t>(bytes), is_shared});
}

void meet(Block& block, int warp) {
  std::map<std::array<uintptr_t, 4>, Request> requests;  // by code, kind, size and turn
  for (int lane = 0; lane < block.lanes; ++lane) {
    std::map<std::array<uintptr_t, 3>, uintptr_t> turns;
    Fiber& fiber = block.fibers[static_cast<size_t>(warp * block.lanes + lane)];
    for (const Touch& t : fiber.touches) {
      const uintptr_t turn = turns[{t.pc, t.shared, t.bytes}]++;
      Request& request = requests[{t.pc, t.shared, t.bytes, turn}];
      request.shared = t.shared;
      request.bytes = t.bytes;
      request.lanes |= LaneMask{1} << lane;
      request.at[static_cast<size_t>(lane)] = t.at;
    }
    fiber.touches.clear();
  }
  for (const auto& [key, request] : requests) add(block.counters, request);
}

}  // namespace gatun::simt
