// Libraries that would end the process that opens them: they end a child process instead, and are listed with the reason.
#include "core/probe/probe.h"

#include <dirent.h>
#include <elf.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include "device_test.h"

namespace gatun::test {
namespace {

// Longer than any library here takes, even on a machine that is busy with other things.
constexpr int kPlenty = 60000;

std::string library(const std::string& name) { return GATUN_TEST_LIBRARIES "/test/libgatun_" + name + ".so"; }

bool survives(const std::string& name, std::string* why, int milliseconds = kPlenty) {
  Message message;
  const bool survived = survives_opening(library(name).c_str(), milliseconds, &message);
  *why = message.text;
  return survived;
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

int open_descriptors() {
  int count = 0;
  DIR* listing = opendir("/proc/self/fd");
  while (readdir(listing) != nullptr) ++count;
  closedir(listing);
  return count;
}

gtn_backend_info listed(const std::string& path) {
  char resolved[PATH_MAX];
  EXPECT_NE(nullptr, realpath(path.c_str(), resolved)) << path;
  int32_t count = 0;
  EXPECT_EQ(GTN_OK, gtn_backend_count(&count, nullptr));
  for (int32_t i = 0; i < count; ++i) {
    gtn_backend_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(GTN_OK, gtn_backend_query(i, &info, nullptr));
    if (std::strcmp(info.path, resolved) == 0) return info;
  }
  ADD_FAILURE() << path << " is not listed";
  return {};
}

TEST(Probe, LibrariesThatBehaveSurvive) {
  std::string why;
  for (const char* name : {"fake", "wrongabi", "nodriver", "absent"}) {
    EXPECT_TRUE(survives(name, &why)) << name << ": " << why;
    EXPECT_EQ("", why) << name;
  }
}

TEST(Probe, AnEndInTheConstructorIsNamed) {
  std::string why;
  EXPECT_FALSE(survives("crashes", &why));
  EXPECT_EQ("the library is damaged: opening it in a child process ended with signal 7 (Bus error)", why);
  EXPECT_FALSE(survives("leaves", &why));
  EXPECT_EQ("the library is damaged: opening it in a child process ended with status 0", why);
  EXPECT_FALSE(survives("crasheslate", &why)) << "a destructor would end the application just as well";
  EXPECT_TRUE(says(why, "signal 7")) << why;
}

TEST(Probe, AHangIsEnded) {
  const auto start = std::chrono::steady_clock::now();
  std::string why;
  EXPECT_FALSE(survives("hangs", &why, 300));
  EXPECT_EQ("opening the library in a child process took longer than 0.3 s: it was ended", why);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(300));
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG)) << "a child is left";
  EXPECT_EQ(ECHILD, errno);
}

TEST(Probe, LeavesNothingBehind) {
  std::string why;
  const int before = open_descriptors();
  for (const char* name : {"fake", "crashes", "absent"}) survives(name, &why);
  EXPECT_EQ(before, open_descriptors());
  EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG)) << "a child is left";
}

TEST(Probe, WorksWhereTheApplicationIgnoresItsChildren) {
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  std::string why;
  EXPECT_TRUE(survives("fake", &why)) << why;
  EXPECT_FALSE(survives("crashes", &why));
  EXPECT_TRUE(says(why, "did not come to an end")) << why;
  std::signal(SIGCHLD, before);
}

TEST(Probe, LeavesOtherChildrenAlone) {
  const pid_t other = fork();
  if (other == 0) _exit(42);
  std::string why;
  EXPECT_TRUE(survives("fake", &why)) << why;
  EXPECT_FALSE(survives("crashes", &why));
  int ended = 0;
  EXPECT_EQ(other, waitpid(other, &ended, 0));
  EXPECT_EQ(42, WEXITSTATUS(ended));
}

TEST(Probe, ThreadsDoNotGetInEachOthersWay) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&wrong, t] {
      // Signals of the application do not reach the child, blocked ones end it all the same.
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
      for (int i = 0; i < 4; ++i) {
        std::string why;
        const bool good = (t + i) % 2 == 0;
        if (survives(good ? "fake" : "crashes", &why) != good || (!good && !says(why, "signal 7"))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(0, wrong);
}

TEST(Probe, WithoutAChildNothingIsTrusted) {
  rlimit before;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
  std::string why;
  const bool survived = survives("fake", &why);
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &before));
  EXPECT_FALSE(survived);
  EXPECT_TRUE(says(why, "no child process can be started")) << why;
  EXPECT_TRUE(says(why, std::strerror(EMFILE))) << why;
}

TEST(Probe, TheListSaysWhyALibraryWasNotOpened) {
  Message message;
  EXPECT_EQ(GTN_NOT_AVAILABLE, gtn_backend_load(library("crashes").c_str(), 0, &message));
  EXPECT_TRUE(says(message.text, "signal 7 (Bus error)")) << message.text;
  const gtn_backend_info info = listed(library("crashes"));
  EXPECT_EQ(GTN_NOT_AVAILABLE, info.status);
  EXPECT_STREQ("crashes", info.name);
  EXPECT_TRUE(says(info.reason, "signal 7 (Bus error)")) << info.reason;
}

struct Range {
  size_t at, bytes;
};

using Bytes = std::vector<char>;

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <typename T>
T at(const Bytes& file, size_t offset) {
  T value;
  std::memcpy(&value, &file.at(offset + sizeof value - 1) - (sizeof value - 1), sizeof value);
  return value;
}

// The parts of a library that the dynamic linker follows, and its data: all but its code and its constants.
std::vector<Range> fragile_ranges(const Bytes& file) {
  const auto header = at<Elf64_Ehdr>(file, 0);
  std::vector<Range> ranges = {{0, sizeof header}, {header.e_phoff, size_t{header.e_phnum} * header.e_phentsize}};
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const auto section = at<Elf64_Shdr>(file, header.e_shoff + i * header.e_shentsize);
    const bool followed = section.sh_type == SHT_RELA || section.sh_type == SHT_DYNAMIC || section.sh_type == SHT_DYNSYM ||
                          section.sh_type == SHT_GNU_HASH;
    const bool data = (section.sh_flags & SHF_WRITE) != 0 && section.sh_type != SHT_NOBITS;
    if ((followed || data) && section.sh_size > 0) ranges.push_back({section.sh_offset, section.sh_size});
  }
  EXPECT_GE(ranges.size(), 7u) << "the sections were not found";
  return ranges;
}

// Cuts the file short, changes a few bytes of one fragile range, or clears a part of it.
std::string damage(std::mt19937_64& random, Bytes& file, const std::vector<Range>& ranges) {
  const auto below = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  const Range range = ranges[below(ranges.size())];
  switch (below(3)) {
    case 0: {
      file.resize(below(file.size()));
      return "cut to " + std::to_string(file.size());
    }
    case 1: {
      std::string what = "changed";
      for (size_t i = below(8) + 1; i > 0; --i) {
        const size_t place = range.at + below(range.bytes);
        file[place] = static_cast<char>(file[place] ^ static_cast<char>(below(255) + 1));
        what += " " + std::to_string(place);
      }
      return what;
    }
    default: {
      const size_t first = below(range.bytes), count = below(range.bytes - first) + 1;
      std::fill_n(file.begin() + static_cast<std::ptrdiff_t>(range.at + first), count, '\0');
      return "cleared " + std::to_string(count) + " at " + std::to_string(range.at + first);
    }
  }
}

void expect_softmax_works(const char* name) {
  OpenDevice device(name, 1);
  gtn_softmax_desc desc = {sizeof desc, 1.0f, tensor(GTN_F32, {1, 4}), tensor(GTN_F32, {1, 4})};
  gtn_plan plan = 0;
  Message message;
  ASSERT_EQ(GTN_OK, gtn_softmax_plan(device.device, &desc, &plan, &message)) << message.text;
  const float x[4] = {};
  float out[4] = {};
  EXPECT_EQ(GTN_OK, gtn_softmax_run(plan, device.stream, 1, x, out));
  for (float value : out) EXPECT_EQ(0.25f, value);
  EXPECT_EQ(GTN_OK, gtn_plan_close(plan, nullptr));
}

// Copies of two libraries, each damaged in one way of its own: each is refused with a reason, or works.
TEST(Probe, DamagedLibrariesNeverEndTheProcess) {
  constexpr int kCopies = 300;
  constexpr size_t kMostBytes = size_t{512} << 20;  // of what stays mapped: builds with sanitizers have large libraries
  const std::string sources[] = {library("fake"), GATUN_TEST_LIBRARIES "/libgatun_cpu.so"};
  const Bytes whole[] = {read_file(sources[0]), read_file(sources[1])};
  const std::vector<Range> ranges[] = {fragile_ranges(whole[0]), fragile_ranges(whole[1])};
  std::string folder = ::testing::TempDir() + "gatun-damaged-XXXXXX";
  ASSERT_NE(nullptr, mkdtemp(folder.data()));
  std::mt19937_64 random(20);
  int ended = 0, refused = 0, usable = 0;
  size_t bytes = 0;
  for (int i = 0; i < kCopies; ++i) {
    const int which = i % 2 == 1 && bytes + whole[1].size() < kMostBytes ? 1 : 0;
    Bytes copy = whole[which];
    bytes += copy.size();
    const std::string what = sources[which] + ", " + damage(random, copy, ranges[which]);
    SCOPED_TRACE(what);
    const std::string path = folder + "/libgatun_damaged" + std::to_string(i) + ".so";
    std::ofstream(path, std::ios::binary).write(copy.data(), static_cast<std::streamsize>(copy.size()));

    Message message;
    const gtn_status status = gtn_backend_load(path.c_str(), 0, &message);
    const gtn_backend_info info = listed(path);
    std::remove(path.c_str());
    EXPECT_EQ(status, info.status);
    if (status == GTN_OK) {
      ++usable;
      EXPECT_STREQ("", info.reason);
      EXPECT_GT(info.device_count, 0);
      if (which == 1) expect_softmax_works("cpu:scalar");
    } else {
      EXPECT_EQ(GTN_NOT_AVAILABLE, status);
      EXPECT_STRNE("", info.reason);
      ++(says(info.reason, "child process") ? ended : refused);
    }
  }
  EXPECT_EQ(0, rmdir(folder.c_str()));
  std::printf("%d ended the child, %d were refused in an orderly way, %d were usable\n", ended, refused, usable);
  EXPECT_GT(ended, 20);
  EXPECT_GT(refused, 20);
  EXPECT_GT(usable, 0);
}

}  // namespace
}  // namespace gatun::test
