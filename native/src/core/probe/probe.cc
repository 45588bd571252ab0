#include "core/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>

#include "core/message.h"

// The program is part of this library, so that there is nothing to install and nothing to find.
asm(R"(
  .pushsection .rodata
  .balign 16
gatun_probe_program:
  .incbin ")" GATUN_PROBE_PROGRAM R"("
gatun_probe_program_end:
  .popsection
)");

extern "C" {
extern const char gatun_probe_program[] __attribute__((visibility("hidden")));
extern const char gatun_probe_program_end[] __attribute__((visibility("hidden")));
extern char** environ;
}

namespace gatun {
namespace {

// Descriptors of the child: the program, which it was started from, and where it says that it came to the end.
constexpr int kProgramInChild = 3, kResultInChild = 4;

// A descriptor that is closed with its object.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  operator int() const { return fd_; }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // Moves it out of the way of the child's descriptors, so that making one of those overwrites no other. False: errno says
  // why.
  bool move_up() {
    const int moved = fcntl(fd_, F_DUPFD_CLOEXEC, kResultInChild + 1);
    if (moved < 0) return false;
    close();
    fd_ = moved;
    return true;
  }

 private:
  int fd_;
};

// The program as a file without a name; -1 with errno when there is none to be had.
int program_file() {
#if !defined(MFD_EXEC)
  constexpr unsigned MFD_EXEC = 0x10;  // Linux 6.3: needed where files are not to be run unless said so
#endif
  int file = memfd_create("gatun-probe", MFD_CLOEXEC | MFD_EXEC);
  if (file < 0 && errno == EINVAL) file = memfd_create("gatun-probe", MFD_CLOEXEC);
  if (file < 0) return -1;
  for (const char* from = gatun_probe_program; from != gatun_probe_program_end;) {
    const ssize_t written = write(file, from, static_cast<size_t>(gatun_probe_program_end - from));
    if (written > 0) {
      from += written;
    } else if (errno != EINTR) {
      ::close(file);
      return -1;
    }
  }
  return file;
}

// Starts the child; gives 0 or an error number.
int start(int program, int result, const char* path, pid_t* child) {
  posix_spawn_file_actions_t files;
  if (int error = posix_spawn_file_actions_init(&files)) return error;
  posix_spawnattr_t attributes;
  if (int error = posix_spawnattr_init(&attributes)) {
    posix_spawn_file_actions_destroy(&files);
    return error;
  }
  // Its output goes nowhere. Of what else it inherits it closes what it can do without.
  int error = posix_spawn_file_actions_adddup2(&files, program, kProgramInChild);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&files, result, kResultInChild);
  for (int fd = 0; fd <= 2 && error == 0; ++fd) {
    error = posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  }
  // Signals that a thread of the JVM blocks or ignores must still end the child.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (error == 0) {
    char name[] = "gatun-probe";
    char* const arguments[] = {name, const_cast<char*>(path), nullptr};
    error = posix_spawn(child, "/proc/self/fd/3", &files, &attributes, arguments, environ);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

int64_t now_milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

// Reads until the child has closed its end, which it does when it ends. False when that takes longer than `milliseconds`.
bool read_result(int from, int milliseconds, bool* said_so) {
  const int64_t deadline = now_milliseconds() + milliseconds;
  for (;;) {
    const int64_t left = deadline - now_milliseconds();
    pollfd ready = {from, POLLIN, 0};
    const int count = left <= 0 ? 0 : poll(&ready, 1, static_cast<int>(left));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    char byte;
    const ssize_t bytes = read(from, &byte, 1);
    if (bytes == 0) return true;
    if (bytes == 1) *said_so = true;
    if (bytes < 0 && errno != EINTR) return false;
  }
}

}  // namespace

bool survives_opening(const char* path, int milliseconds, gtn_message* message) {
  const auto cannot_start = [&](int error) {
    say(message, "the library is not trusted, and no child process can be started to open it first: %s", strerror(error));
    return false;
  };
  Descriptor program(program_file());
  if (program < 0 || !program.move_up()) return cannot_start(errno);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return cannot_start(errno);
  Descriptor reading(ends[0]), writing(ends[1]);
  if (!writing.move_up()) return cannot_start(errno);
  pid_t child;
  if (int error = start(program, writing, path, &child)) return cannot_start(error);
  writing.close();

  bool said_so = false;
  const bool in_time = read_result(reading, milliseconds, &said_so);
  if (!in_time) kill(child, SIGKILL);
  int ended = 0;
  pid_t waited;
  do {
    waited = waitpid(child, &ended, 0);
  } while (waited < 0 && errno == EINTR);

  if (!in_time) {
    say(message, "opening the library in a child process took longer than %g s: it was ended", milliseconds / 1000.0);
    return false;
  }
  // Where the application ignores SIGCHLD, nobody can tell how a child ended: what it said must do.
  if (waited != child) {
    if (!said_so) say(message, "the library is damaged: opening it in a child process did not come to an end");
    return said_so;
  }
  if (WIFSIGNALED(ended)) {
    say(message, "the library is damaged: opening it in a child process ended with signal %d (%s)", WTERMSIG(ended),
        strsignal(WTERMSIG(ended)));
    return false;
  }
  if (WEXITSTATUS(ended) != 0 || !said_so) {
    say(message, "the library is damaged: opening it in a child process ended with status %d", WEXITSTATUS(ended));
    return false;
  }
  return true;
}

}  // namespace gatun
