#include "cpu/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>

namespace gatun::cpu {
namespace {

// How long a worker spins for the next run before it sleeps: about the gap between two operators of a model, so that a
// sequence of them pays for one wake-up, while an idle process costs nothing.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// A run is open from the moment it is published until its tasks are all handed out. A worker that comes while it is open
// enters it; one that comes late stays out, so the caller waits only for those that are inside, never for a worker that the
// operating system has not scheduled yet.
class Pool {
 public:
  void run(int threads, int64_t tasks, void (*body)(void*, int64_t, int), void* context) {
    pthread_mutex_lock(&callers_);
    start_workers(threads - 1);
    body_ = body;
    context_ = context;
    tasks_ = tasks;
    threads_ = threads;
    next_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) futex_wake_all(&epoch_);

    work(0);

    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; (gate_.load(std::memory_order_acquire)) != 0; ++spins) {
      if (spins < kSpins) {
        pause();
      } else {
        sched_yield();
      }
    }
    pthread_mutex_unlock(&callers_);
  }

 private:
  static constexpr uint32_t kOpen = 1u << 31;  // the rest of gate_ counts the workers inside

  void work(int worker) {
    for (;;) {
      int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks_) return;
      body_(context_, task, worker);
    }
  }

  bool enter() {
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) != 0) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void serve(int worker) {
    uint32_t seen = 0;
    for (;;) {
      uint32_t epoch = epoch_.load(std::memory_order_acquire);
      for (int spins = 0; epoch == seen && spins < kSpins; ++spins) {
        pause();
        epoch = epoch_.load(std::memory_order_acquire);
      }
      if (epoch == seen) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        while ((epoch = epoch_.load(std::memory_order_seq_cst)) == seen) futex_wait(&epoch_, seen);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = epoch;
      // Between the load of the epoch and the entry the run may have changed; whichever is open now is the one entered.
      if (enter()) {
        if (worker < threads_) work(worker);
        gate_.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  void start_workers(int wanted) {
    while (started_ < wanted) {
      Start* start = static_cast<Start*>(std::malloc(sizeof(Start)));
      if (start == nullptr) return;
      *start = {this, started_ + 1};
      pthread_attr_t attributes;
      pthread_attr_init(&attributes);
      pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
      // Signals belong to the application's threads (the JVM's above all): workers inherit a full mask.
      sigset_t all, before;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);
      pthread_t thread;
      int failed = pthread_create(
          &thread, &attributes,
          [](void* argument) -> void* {
            Start self = *static_cast<Start*>(argument);
            std::free(argument);
            self.pool->serve(self.worker);
            return nullptr;
          },
          start);
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      pthread_attr_destroy(&attributes);
      if (failed != 0) {
        std::free(start);
        return;  // fewer workers, same results
      }
      ++started_;
    }
  }

  struct Start {
    Pool* pool;
    int worker;
  };

  pthread_mutex_t callers_ = PTHREAD_MUTEX_INITIALIZER;
  int started_ = 0;

  void (*body_)(void*, int64_t, int) = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  int threads_ = 0;

  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> sleepers_{0};
};

// Never destroyed: its workers run until the process ends.
Pool pool;

int cgroup_quota() {
  FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (file == nullptr) return INT_MAX;
  long long quota = 0, period = 0;
  int fields = std::fscanf(file, "%lld %lld", &quota, &period);  // "max 100000" gives no number: no quota
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return INT_MAX;
  long long threads = (quota + period - 1) / period;
  return threads > INT_MAX ? INT_MAX : static_cast<int>(threads);
}

}  // namespace

int usable_threads() {
  cpu_set_t mask;
  int threads = 1;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) threads = CPU_COUNT(&mask);
  int quota = cgroup_quota();
  if (threads > quota) threads = quota;
  return threads < 1 ? 1 : threads > kMostThreads ? kMostThreads : threads;
}

void parallel_run(int threads, int64_t tasks, void (*body)(void*, int64_t, int), void* context) {
  if (threads > tasks) threads = static_cast<int>(tasks);
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  pool.run(threads, tasks, body, context);
}

}  // namespace gatun::cpu
