// What the twin knows of memory: which bytes are defined, who touched them last, and what is ordered before what.
#pragma once

#include "twin/machine.h"

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

namespace gatun::twin {

// ---- What happens before what.
//
// An actor is a pipe of a core, or its scalar unit's reads or writes: a scalar read is over before anything later is issued,
// while a scalar write is ordered before the instructions of a pipe by a flag only. A clock says, per actor, how many of its
// instructions are known to be complete. An instruction's own pipe starts it after its predecessors but need not have
// completed them: only a barrier, or a way round over flags, makes that known.
using Clock = std::vector<uint32_t>;
using Moment = std::shared_ptr<const Clock>;

enum Actor : uint32_t { kScalarWrite, kScalarRead, kFirstPipe };  // then V to FIX
constexpr uint32_t kActors = kFirstPipe + kPipes - 1;

inline uint32_t actor_of(Pipe pipe) { return kFirstPipe + static_cast<uint32_t>(pipe) - 1; }

inline void join(Clock& to, const Clock& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

struct Epoch {
  uint32_t actor = 0, index = 0;  // index 0: never
  const char* name = "";
  Where at = {};
};

// ---- What is known of the bytes of a memory.
enum class Touch : uint8_t { Read, ReadGarbage, Write, Spoil };

class Shadow {
 public:
  struct Conflict {
    bool undefined = false;
    Epoch other;  // with index 0: none
    bool other_writes = false;
    uint64_t begin = 0, end = 0;
  };

  // Notes an access. The first thing wrong with it is returned.
  Conflict touch(uint64_t begin, uint64_t end, Touch touch, bool local, const Epoch& who, const Clock& knows) {
    Conflict wrong;
    if (begin >= end) return wrong;
    const bool writes = touch == Touch::Write || touch == Touch::Spoil;
    split(begin);
    split(end);
    auto first = parts_.lower_bound(begin), last = parts_.lower_bound(end);
    uint64_t at = begin;
    for (auto p = first; p != last; ++p) {
      if (p->first > at && touch == Touch::Read && local) note_undefined(wrong, at, p->first);
      at = p->second.end;
      Part& part = p->second;
      const auto unordered = [&](const Epoch& e) {
        if (e.actor == who.actor && (e.index == who.index || touch == Touch::Spoil)) return false;
        return e.index > knows[e.actor];
      };
      if (unordered(part.write)) note(wrong, part.write, true, p->first, part.end);
      if (writes) {
        for (const Epoch& r : part.reads) {
          if (unordered(r)) note(wrong, r, false, p->first, part.end);
        }
      } else if (touch == Touch::Read && local && !part.defined) {
        note_undefined(wrong, p->first, part.end);
      }
    }
    if (at < end && touch == Touch::Read && local) note_undefined(wrong, at, end);
    if (writes) {
      parts_.erase(first, last);
      parts_[begin] = {end, who, {}, touch == Touch::Write};
      return wrong;
    }
    // Holes that are read become parts of their own.
    at = begin;
    while (at < end) {
      auto p = parts_.lower_bound(at);
      if (p == parts_.end() || p->first != at) {
        const uint64_t next = p == parts_.end() ? end : std::min(end, p->first);
        p = parts_.emplace(at, Part{next, {}, {}, false}).first;
      }
      std::vector<Epoch>& reads = p->second.reads;
      auto same = std::find_if(reads.begin(), reads.end(), [&](const Epoch& e) { return e.actor == who.actor; });
      if (same != reads.end()) {
        *same = who;
      } else {
        reads.push_back(who);
      }
      at = p->second.end;
    }
    return wrong;
  }

 private:
  struct Part {
    uint64_t end;
    Epoch write;
    std::vector<Epoch> reads;  // the last of each actor since the write
    bool defined;
  };

  void split(uint64_t at) {
    auto p = parts_.upper_bound(at);
    if (p == parts_.begin()) return;
    --p;
    if (p->first == at || p->second.end <= at) return;
    Part upper = p->second;
    p->second.end = at;
    parts_.emplace_hint(std::next(p), at, std::move(upper));
  }
  static void note(Conflict& wrong, const Epoch& other, bool writes, uint64_t begin, uint64_t end) {
    if (wrong.other.index || wrong.undefined) return;
    wrong = {false, other, writes, begin, end};
  }
  static void note_undefined(Conflict& wrong, uint64_t begin, uint64_t end) {
    if (wrong.other.index || wrong.undefined) return;
    wrong = {true, {}, false, begin, end};
  }

  std::map<uint64_t, Part> parts_;  // by their first byte
};

}  // namespace gatun::twin
