// Which site is mutated, and which were evaluated: GATUN_MUTANT is a number, GATUN_MUTANT_REACHED a file with a byte for each
// site, shared by all processes that it is given to.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "cpu/mutation/mutation.h"

namespace gatun::mutation {
namespace {

constexpr int kMostSites = 1 << 16;
unsigned char nowhere[kMostSites];

int chosen_site() {
  const char* number = std::getenv("GATUN_MUTANT");
  return number == nullptr ? 0 : std::atoi(number);
}

unsigned char* reached_sites() {
  const char* path = std::getenv("GATUN_MUTANT_REACHED");
  if (path == nullptr) return nowhere;
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* shared = MAP_FAILED;
  if (file >= 0 && ftruncate(file, kMostSites) == 0) {
    shared = mmap(nullptr, kMostSites, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  if (shared == MAP_FAILED) std::abort();  // or all would count as out of reach
  close(file);
  return static_cast<unsigned char*>(shared);
}

}  // namespace

int chosen = 0;
unsigned char* reached = nowhere;  // from the start: sites may come before the constructor does

namespace {

__attribute__((constructor)) void start() {
  chosen = chosen_site();
  reached = reached_sites();
}

}  // namespace

}  // namespace gatun::mutation
