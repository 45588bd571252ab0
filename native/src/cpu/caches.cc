// Linux tells each cache's size as it found it in the processor's own tables (CPUID leaf 4, or 8000001D of AMD).
// Under a hypervisor that hides those, sysconf has the sizes of older tables, in which AMD's largest cache is the sum
// of all in the package: a core reaches its own alone.
#include "cpu/caches.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace gatun::cpu {
namespace {

// What one core reaches of a last cache whose parts are not told: the part of most server processors.
constexpr int64_t kLikelyLast = int64_t{32} << 20;

// The first word of a file of cache `index` of the first processor; false where there is none.
bool read_word(int index, const char* name, char (&word)[32]) {
  char path[96];
  std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
  FILE* file = std::fopen(path, "r");
  if (file == nullptr) return false;
  const int read = std::fscanf(file, "%31s", word);
  std::fclose(file);
  return read == 1;
}

Caches find() {
  Caches found = {};
  char word[32];
  for (int index = 0; read_word(index, "type", word); ++index) {
    if (std::strcmp(word, "Instruction") == 0) continue;
    int level = 0;
    long long size = 0;
    char unit = 0;
    if (!read_word(index, "level", word) || std::sscanf(word, "%d", &level) != 1) continue;
    if (!read_word(index, "size", word) || std::sscanf(word, "%lld%c", &size, &unit) < 1) continue;
    const int64_t bytes = size << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
    if (level == 1) found.l1 = bytes;
    if (level == 2) found.l2 = bytes;
    if (bytes > found.last) found.last = bytes;
  }
  if (found.last > 0) return found;
  const auto known = [](int name, int64_t otherwise) { return sysconf(name) > 0 ? sysconf(name) : otherwise; };
  found.l1 = known(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
  found.l2 = known(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
  found.last = known(_SC_LEVEL3_CACHE_SIZE, found.l2);
  if (found.last > kLikelyLast) found.last = kLikelyLast;
  return found;
}

}  // namespace

const Caches& caches() {
  static const Caches found = find();
  return found;
}

}  // namespace gatun::cpu
