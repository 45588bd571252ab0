/* gatun-probe <library>: does with a backend library all that the core does to list it, and with each of its devices. To get
 * to the end is all that is asked: whatever is wrong in an orderly way, the core finds out for itself. Then one byte goes to
 * descriptor 4, and the program ends as any other, the library's destructors included. Damage that is seen here and nowhere
 * else gives the exit status kDamaged. */
#include <gatun/backend.h>

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kResult = 4, kDamaged = 3 };

#if defined(GATUN_OWN_START) && defined(__x86_64__)
/* The start of a program as the x86-64 ABI lays it out on the stack: argc, argv, the environment. No init and no fini. */
__asm__(
    ".globl _start\n"
    ".type _start, @function\n"
    "_start:\n"
    "  xorl %ebp, %ebp\n"
    "  movq %rdx, %r9\n" /* what the dynamic linker runs at the end */
    "  popq %rsi\n"
    "  movq %rsp, %rdx\n"
    "  andq $-16, %rsp\n"
    "  pushq %rax\n"
    "  pushq %rsp\n" /* the end of the stack */
    "  xorl %r8d, %r8d\n"
    "  xorl %ecx, %ecx\n"
    "  leaq main(%rip), %rdi\n"
    "  call *__libc_start_main@GOTPCREL(%rip)\n"
    "  hlt\n");
#elif defined(GATUN_OWN_START) && defined(__aarch64__)
__asm__(
    ".globl _start\n"
    ".type _start, %function\n"
    "_start:\n"
    "  mov x29, #0\n"
    "  mov x30, #0\n"
    "  mov x5, x0\n" /* what the dynamic linker runs at the end */
    "  ldr x1, [sp]\n"
    "  add x2, sp, #8\n"
    "  mov x6, sp\n" /* the end of the stack */
    "  adrp x0, main\n"
    "  add x0, x0, :lo12:main\n"
    "  mov x3, #0\n"
    "  mov x4, #0\n"
    "  bl __libc_start_main\n"
    "  brk #0\n");
#endif

/* Closes what the parent had open beyond the descriptors that are meant for this program. */
static void close_inherited(void) {
#if defined(SYS_close_range)
  if (syscall(SYS_close_range, kResult + 1, ~0U, 0) == 0) return; /* Linux 5.9 */
#endif
  const long most = sysconf(_SC_OPEN_MAX);
  for (int file = kResult + 1; file < most; ++file) close(file);
}

/* In a build with sanitizers: die by the signal, as without them, and let leaks be. */
const char* __asan_default_options(void);
__attribute__((visibility("default"))) const char* __asan_default_options(void) {
  return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:detect_leaks=0";
}

/* Where a damaged library reaches beyond itself, it may hit memory in one process and nothing in another. So here it comes to
 * lie where there is nothing near it: the system places libraries downwards, and what is above is taken by memory that may
 * not be touched. */
static void clear_surroundings(void) {
  char* guard = MAP_FAILED;
  for (size_t bytes = (size_t)1 << 40; guard == MAP_FAILED && bytes >= (size_t)1 << 30; bytes /= 2) {
    guard = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (guard == MAP_FAILED) return;
  /* Gaps above it would be taken first. They are few; where the system places upwards, there is no end to them. */
  enum { kMostPages = 1 << 14 };
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < kMostPages; ++i) {
    char* filled = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (filled == MAP_FAILED) return;
    if (filled < guard) {
      munmap(filled, page);
      return;
    }
  }
}

/* Whether the segments of a library lie where its memory is reserved: one after the other, and what is to become read-only
 * within. The dynamic linker takes that for granted; it would put a segment over memory of others, or protect theirs, and
 * nobody would notice here. What is no library at all is left to the dynamic linker. */
static int segments_are_in_order(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 1;
  ElfW(Ehdr) header;
  ElfW(Phdr) segments[64];
  size_t count = 0;
  if (pread(file, &header, sizeof header, 0) == (ssize_t)sizeof header && header.e_phentsize == sizeof segments[0]) {
    const size_t most = sizeof segments / sizeof segments[0];
    const size_t bytes = (header.e_phnum < most ? header.e_phnum : most) * sizeof segments[0];
    if (pread(file, segments, bytes, (off_t)header.e_phoff) == (ssize_t)bytes) count = bytes / sizeof segments[0];
  }
  close(file);
  uint64_t end = 0;
  for (size_t i = 0; i < count; ++i) {
    const ElfW(Phdr)* segment = &segments[i];
    if (segment->p_type != PT_LOAD) continue;
    if (segment->p_vaddr < end || segment->p_filesz > segment->p_memsz) return 0;
    if (__builtin_add_overflow(segment->p_vaddr, segment->p_memsz, &end)) return 0;
  }
  const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  end = (end + page - 1) / page * page;
  for (size_t i = 0; i < count; ++i) {
    const ElfW(Phdr)* segment = &segments[i];
    if (segment->p_type == PT_GNU_RELRO && (segment->p_vaddr > end || segment->p_memsz > end - segment->p_vaddr)) return 0;
  }
  return 1;
}

/* Reads all of a text, which may lie in a part of the file that nothing else has looked at. */
static void read_text(const volatile char* text) {
  while (text != NULL && *text != '\0') ++text;
}

static void list_devices(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return;
  const gtn_backend* (*entry)(void);
  *(void**)&entry = dlsym(library, "gtn_backend_entry");
  if (entry == NULL) return;
  const gtn_backend* table = entry();
  if (table == NULL || table->abi_version != GTN_BACKEND_ABI_VERSION) return;
  if (table->size < offsetof(gtn_backend, supports) || table->device_count == NULL || table->device_info == NULL) return;
  read_text(table->name);
  read_text(table->version);
  gtn_message message = {sizeof message, ""};
  int32_t count = 0;
  if (table->device_count(&count, &message) != GTN_OK) return;
  for (int32_t i = 0; i < count; ++i) {
    gtn_device_info info = {.size = sizeof info};
    table->device_info(i, &info, &message);
  }
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  close_inherited();
  if (!segments_are_in_order(arguments[1])) return kDamaged;
  clear_surroundings();
  list_devices(arguments[1]);
  /* The dynamic linker compares names with every library there is when it opens the next one. */
  dlopen("/nonexistent", RTLD_NOW | RTLD_LOCAL);
  return write(kResult, "", 1) == 1 ? 0 : 1;
}
