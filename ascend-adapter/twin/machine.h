// What the twin's kernel_operator.h is made of: how a call of a kernel reaches the machine. Nothing here keeps memory of the
// heap on a core's stack, since a core that goes wrong is left where it stands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace gatun::twin {

// Where a kernel calls: the default argument of every function of Ascend C that the twin has.
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

enum class Pipe : uint8_t { S, V, M, Mte1, Mte2, Mte3, Fix };
inline constexpr int kPipes = 7;

enum class Space : uint8_t { Gm, Ub, L1, L0A, L0B, L0C, Bias, Fixpipe };
inline constexpr int kSpaces = 8;
inline constexpr uint32_t kSpaceBytes[kSpaces] = {0, 192 << 10, 512 << 10, 64 << 10, 64 << 10, 128 << 10, 1 << 10, 7 << 10};
inline constexpr uint32_t kSpaceAlignment[kSpaces] = {1, 32, 32, 512, 512, 64, 64, 128};
inline constexpr int kEventIds = 8;
inline constexpr int kCrossFlags = 16;
inline constexpr int kCrossLimit = 15;

enum class CoreType : uint8_t { AivOnly, AicOnly, MixAiv, MixAic1To2 };

[[noreturn]] void fail(Where at, const char* format, ...) __attribute__((format(printf, 2, 3)));
// For what an instruction sees as it executes.
void fail_execution(Pipe pipe, Where at, const char* what);

// The core whose scalar program is running.
void declare(CoreType type, Where at);
bool is_cube();
int64_t block_number();
int64_t block_index();
int64_t sub_block_index();
int64_t sub_block_number();

// A stretch of a core's local memory, from begin to end in bytes. slot and generation tell whether a queue still lends it.
struct Stretch {
  Space space = Space::Gm;
  uint32_t begin = 0, end = 0;
  int32_t slot = -1;
  uint32_t generation = 0;
};

// One instruction that a scalar program issues. Operands are checked as they are named; issue() puts it on its pipe.
class Op {
 public:
  Op(Pipe pipe, const char* name, Where at);
  Op(const Op&) = delete;
  // `offset` and `bytes` of a stretch. A read of bytes that nothing has defined is an error unless `garbage` allows it. The
  // stretch begins at a multiple of `alignment` (0: that of its memory).
  const void* read(const Stretch& s, uint64_t offset, uint64_t bytes, bool garbage = false, uint32_t alignment = 0);
  void* write(const Stretch& s, uint64_t offset, uint64_t bytes, uint32_t alignment = 0);
  // Bytes that the instruction leaves with no meaning.
  void* spoil(const Stretch& s, uint64_t offset, uint64_t bytes);
  const void* read_global(const void* p, uint64_t bytes);
  void* write_global(void* p, uint64_t bytes);
  void issue(std::function<void()> execute);

  [[noreturn]] void fail(const char* format, ...) const __attribute__((format(printf, 2, 3)));
  void require(bool holds, const char* what) const {
    if (!holds) fail("%s", what);
  }

 private:
  uint8_t* local(const Stretch& s, uint64_t offset, uint64_t bytes, uint32_t alignment, int kind);
  void global(const void* p, uint64_t bytes, bool write);
  const Where at_;
};

// Scalar accesses, which happen at once.
const void* scalar_read(const Stretch& s, uint64_t offset, uint64_t bytes, Where at);
void scalar_write(const Stretch& s, uint64_t offset, const void* value, uint64_t bytes, Where at);
const void* scalar_read_global(const void* p, uint64_t bytes, Where at);

void set_flag(Pipe from, Pipe to, int32_t id, Where at);
void wait_flag(Pipe from, Pipe to, int32_t id, Where at);
void pipe_barrier(Pipe pipe, bool all, Where at);
void cross_set(int mode, Pipe pipe, uint16_t flag, Where at);
void cross_wait(int mode, Pipe pipe, uint16_t flag, Where at);
void sync_all(bool vector_only, Where at);
int32_t fetch_event(Pipe from, Pipe to, bool keep, Where at);
void release_event(Pipe from, Pipe to, int32_t id, Where at);

void pipe_begin(Where at);  // a TPipe
void pipe_end(Where at);
Stretch buffer(Space space, uint32_t bytes, Where at);
// A queue of `count` buffers that `producer` fills and `consumer` empties, at most `depth` of them filled.
int32_t queue(Space space, Pipe producer, Pipe consumer, int32_t depth, uint8_t count, uint32_t bytes, Where at);
Stretch queue_alloc(int32_t queue, Where at);
void queue_enqueue(int32_t queue, const Stretch& s, Where at);
Stretch queue_dequeue(int32_t queue, Where at);
void queue_free(int32_t queue, const Stretch& s, Where at);

}  // namespace gatun::twin
