// What the libraries need of a C++ run time, so that they link none: libstdc++, linked statically, would ask for functions of
// the newest glibc that it was built with, and would come to lie in the process beside the application's own. Nothing here
// is exported, nothing throws.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <chrono>
#include <mutex>
#include <new>

namespace std {

const nothrow_t nothrow{};

// What std::mutex does where the system refuses to lock, which it never does: the mutexes are neither recursive nor checked.
void __throw_system_error(int) { abort(); }

chrono::steady_clock::time_point chrono::steady_clock::now() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return time_point(seconds(now.tv_sec) + nanoseconds(now.tv_nsec));
}

}  // namespace std

void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return malloc(bytes != 0 ? bytes : 1); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return malloc(bytes != 0 ? bytes : 1); }

void* operator new[](size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  const size_t unit = static_cast<size_t>(alignment);
  if (bytes > SIZE_MAX - unit) return nullptr;
  return aligned_alloc(unit, bytes < unit ? unit : (bytes + unit - 1) / unit * unit);
}

void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { free(memory); }

namespace {

// Held while an object of a function's own is made the first time; one such may make another.
pthread_mutex_t making = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

}  // namespace

extern "C" {
// The first byte of the guard says that the object is there; the caller has looked at it without the lock.
__attribute__((visibility("hidden"))) int __cxa_guard_acquire(int64_t* guard) {
  pthread_mutex_lock(&making);
  if (__atomic_load_n(reinterpret_cast<char*>(guard), __ATOMIC_RELAXED) == 0) return 1;
  pthread_mutex_unlock(&making);
  return 0;
}

__attribute__((visibility("hidden"))) void __cxa_guard_release(int64_t* guard) {
  __atomic_store_n(reinterpret_cast<char*>(guard), char{1}, __ATOMIC_RELEASE);
  pthread_mutex_unlock(&making);
}

// Called where an object under construction or destruction calls a function that has no body yet: a defect.
__attribute__((visibility("hidden"))) void __cxa_pure_virtual() { abort(); }
}
