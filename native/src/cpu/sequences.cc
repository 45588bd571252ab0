#include "cpu/sequences.h"

#include "core/message.h"

namespace gatun::cpu {

gtn_status check_index(const char* name, const int64_t* index, bool offsets, const char* limit_name, int64_t limit,
                       int64_t sequences, gtn_message* message) {
  if (index == nullptr) return GTN_OK;
  if (offsets && index[0] != 0) {
    return fail(message, GTN_INVALID_ARGUMENT, "%s[0] is %lld, expected 0, where the first sequence starts", name,
                static_cast<long long>(index[0]));
  }
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t i = offsets ? s + 1 : s;
    const int64_t least = offsets ? index[s] : 0;
    if (index[i] >= least && index[i] <= limit) continue;
    return fail(message, GTN_INVALID_ARGUMENT, "%s[%lld] is %lld, expected %s%lld to %s = %lld", name,
                static_cast<long long>(i), static_cast<long long>(index[i]),
                offsets ? "an offset that does not fall, " : "a length of ", static_cast<long long>(least), limit_name,
                static_cast<long long>(limit));
  }
  return GTN_OK;
}

}  // namespace gatun::cpu
