// Where the sequences of a batch lie: lengths, or offsets of packed tokens.
#pragma once

#include <gatun/gatun.h>

#include <cstdint>

namespace gatun::cpu {

// Checks a run's copy of an index; null is none. `offsets`: from 0, never falling, the last at most `limit`; else lengths
// of 0 to `limit`. Messages say `name` and `limit_name`.
gtn_status check_index(const char* name, const int64_t* index, bool offsets, const char* limit_name, int64_t limit,
                       int64_t sequences, gtn_message* message);

}  // namespace gatun::cpu
