// The worker pool: one per process, shared by every CPU device and stream.
#pragma once

#include <cstdint>
#include <type_traits>

namespace gatun::cpu {

// More threads than this are never used, the caller included.
inline constexpr int kMostThreads = 1024;

// Threads that this process may use: its affinity mask, cut by the container's CPU quota.
int usable_threads();

// Calls body(context, task, worker) once for each task of 0 to tasks - 1, on at most `threads` threads with the caller as
// worker 0 and the others as workers 1 to threads - 1, and returns when all calls have. Tasks are handed out in order to
// whoever is free, so a result must not depend on `worker`, which serves only to tell scratch memory apart. Callers queue:
// one parallel run is under way at a time, so concurrent streams never oversubscribe the processor. `body` must not call
// parallel_run.
void parallel_run(int threads, int64_t tasks, void (*body)(void* context, int64_t task, int worker), void* context);

// The same for a callable: parallel(threads, tasks, [&](int64_t task, int worker) { ... }).
template <typename Body>
void parallel(int threads, int64_t tasks, Body&& body) {
  parallel_run(
      threads, tasks,
      [](void* context, int64_t task, int worker) {
        (*static_cast<std::remove_reference_t<Body>*>(context))(task, worker);
      },
      &body);
}

}  // namespace gatun::cpu
