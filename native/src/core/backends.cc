#include "core/backends.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

#include "core/checks.h"
#include "core/message.h"
#include "core/probe/probe.h"

namespace gatun {
namespace {

// Entries are never moved nor freed: devices keep pointers to their tables.
struct Entry {
  gtn_backend_info info;
  gtn_backend table;  // meaningful when info.status is GTN_OK
  Entry* next;

  bool usable() const { return info.status == GTN_OK; }
  bool is_named(const char* name, size_t length) const {
    return std::strncmp(info.name, name, length) == 0 && info.name[length] == '\0';
  }
  bool is_missing(const char* name) const { return *info.path == '\0' && std::strcmp(info.name, name) == 0; }
};

// The list of backends, in the order in which they were found, and what guards it.
std::mutex mutex;
Entry* entries = nullptr;
Entry** last = &entries;  // where the next one goes
int entry_count = 0;

// The table of the first release ends before these; slots after it are optional.
constexpr size_t kFirstTableBytes = offsetof(gtn_backend, supports);

// How long a library may take to open and to tell its devices: some drivers start within seconds.
constexpr int kProbeMilliseconds = 10000;

// Gatun's own backends, which `gtn_backend_discover` lists even where they are not installed.
const char* const kOwn[] = {"cpu", "cuda", "rocm", "rocm_rdna", "ascend"};

// For text that may be cut: snprintf's truncation is what is wanted.
template <size_t N>
void set_text(char (&to)[N], const char* from) {
  size_t length = strnlen(from, N - 1);
  std::memcpy(to, from, length);
  to[length] = '\0';
}

// "cpu" for ".../libgatun_cpu.so", else the file's name.
template <size_t N>
void name_of_library(const char* path, char (&name)[N]) {
  const char* base = std::strrchr(path, '/');
  base = base == nullptr ? path : base + 1;
  const char* const prefix = "libgatun_";
  if (std::strncmp(base, prefix, std::strlen(prefix)) == 0) base += std::strlen(prefix);
  set_text(name, base);
  size_t length = std::strlen(name);
  if (length > 3 && std::strcmp(name + length - 3, ".so") == 0) name[length - 3] = '\0';
}

// Every slot that backend.h does not call optional, and optional groups whole or absent.
const char* missing_slot(const gtn_backend& table) {
  if (!table.name || !*table.name) return "name";
  if (!table.version) return "version";
  if (!table.device_count) return "device_count";
  if (!table.device_info) return "device_info";
  if (!table.device_open) return "device_open";
  if (!table.device_close) return "device_close";
  if (!table.device_describe) return "device_describe";
  if (!table.memory_alloc) return "memory_alloc";
  if (!table.memory_free) return "memory_free";
  if (!table.memory_copy) return "memory_copy";
  if (!table.stream_create) return "stream_create";
  if (!table.stream_destroy) return "stream_destroy";
  if (!table.stream_synchronize) return "stream_synchronize";
  if (table.event_create) {
    if (!table.event_destroy) return "event_destroy";
    if (!table.event_record) return "event_record";
    if (!table.event_synchronize) return "event_synchronize";
    if (!table.event_query) return "event_query";
    if (!table.event_elapsed) return "event_elapsed";
  }
  if ((table.weights_pack || table.conv_weights_pack) && !table.weights_destroy) return "weights_destroy";
  if (table.host_memory_alloc && !table.host_memory_free) return "host_memory_free";
  if (table.host_memory_free && !table.host_memory_alloc) return "host_memory_alloc";
  if (!table.plan_create) return "plan_create";
  if (!table.plan_destroy) return "plan_destroy";
  if (!table.run) return "run";
  return nullptr;
}

template <typename... Arguments>
void unusable(Entry& entry, gtn_status status, const char* format, Arguments... arguments) {
  gtn_message reason = {sizeof reason, ""};
  entry.info.status = fail(&reason, status, format, arguments...);
  set_text(entry.info.reason, reason.text);
}

template <typename Wanted>
Entry* find(Wanted wanted) {
  Entry* entry = entries;
  while (entry != nullptr && !wanted(*entry)) entry = entry->next;
  return entry;
}

Entry* usable_named(const char* name, size_t length) {
  return find([&](const Entry& entry) { return entry.usable() && entry.is_named(name, length); });
}

// An entry at the end of the list, not yet usable; null when memory is out.
Entry* add_entry() {
  Entry* entry = new (std::nothrow) Entry{};
  if (entry == nullptr) return nullptr;
  entry->info.size = sizeof entry->info;
  entry->info.status = GTN_NOT_AVAILABLE;
  *last = entry;
  last = &entry->next;
  ++entry_count;
  return entry;
}

// What is known of the library at `path` before it is opened.
void name_entry(Entry& entry, const char* path) {
  entry.info.size = sizeof entry.info;
  entry.info.status = GTN_NOT_AVAILABLE;
  name_of_library(path, entry.info.name);
  set_text(entry.info.path, path);
}

// Fills in `entry` for the library at `path`. The library stays open whatever comes of it: nothing is ever unloaded.
void open_library(Entry& entry, const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return unusable(entry, GTN_NOT_AVAILABLE, "the library cannot be opened: %s", dlerror());
  using EntryFunction = const gtn_backend* (*)(void);
  auto function = reinterpret_cast<EntryFunction>(dlsym(library, "gtn_backend_entry"));
  if (function == nullptr) {
    return unusable(entry, GTN_NOT_AVAILABLE, "the library is no Gatun backend: it does not export gtn_backend_entry");
  }
  const gtn_backend* given = function();
  if (given == nullptr) return unusable(entry, GTN_NOT_AVAILABLE, "gtn_backend_entry gave no table");
  entry.info.abi_version = given->abi_version;
  if (given->abi_version != GTN_BACKEND_ABI_VERSION) {
    return unusable(entry, GTN_NOT_AVAILABLE, "built for backend ABI version %u; this library needs version %u",
                    given->abi_version, GTN_BACKEND_ABI_VERSION);
  }
  if (given->size < kFirstTableBytes) {
    return unusable(entry, GTN_NOT_AVAILABLE, "its table has %u bytes; version %u of the backend ABI has at least %zu",
                    given->size, GTN_BACKEND_ABI_VERSION, kFirstTableBytes);
  }
  // Slots that the backend does not know of are null.
  gtn_backend& table = entry.table;
  table = {};
  const size_t bytes = given->size < sizeof table ? given->size : sizeof table;
  std::memcpy(&table, given, bytes / sizeof(void*) * sizeof(void*));
  if (const char* slot = missing_slot(table)) {
    return unusable(entry, GTN_NOT_AVAILABLE, "its table lacks '%s'", slot);
  }
  set_text(entry.info.name, table.name);
  set_text(entry.info.version, table.version);
  if (usable_named(entry.info.name, std::strlen(entry.info.name))) {
    return unusable(entry, GTN_NOT_AVAILABLE, "another library already provides the backend '%s'", entry.info.name);
  }
  gtn_message why = {sizeof why, ""};
  gtn_status status = table.device_count(&entry.info.device_count, &why);
  if (status != GTN_OK) {
    entry.info.device_count = 0;
    return unusable(entry, status, "%s", why.text[0] ? why.text : "the backend gave no reason");
  }
  entry.info.status = GTN_OK;
}

Entry* entry_of(const char* path) {
  return find([&](const Entry& entry) { return std::strcmp(entry.info.path, path) == 0; });
}

gtn_status load(const char* path, bool trusted, gtn_message* message) {
  char resolved[PATH_MAX];
  if (realpath(path, resolved) == nullptr) {
    set_text(resolved, path);  // a file that is not there is listed under the name that was asked for
  }
  if (std::strlen(resolved) >= sizeof gtn_backend_info{}.path) {
    return fail(message, GTN_INVALID_ARGUMENT, "path: longer than %zu bytes", sizeof gtn_backend_info{}.path - 1);
  }
  // Without a slash dlopen would search the system's directories for it.
  if (std::strchr(resolved, '/') == nullptr) {
    return fail(message, GTN_NOT_AVAILABLE, "path: there is no file '%s'", path);
  }
  if (!trusted) {
    std::lock_guard<std::mutex> lock(mutex);
    const Entry* known = entry_of(resolved);
    trusted = known != nullptr && known->usable();
  }
  // Takes its time, so nothing is locked meanwhile.
  gtn_message doubt = {sizeof doubt, ""};
  const bool survived = trusted || survives_opening(resolved, kProbeMilliseconds, &doubt);
  std::lock_guard<std::mutex> lock(mutex);
  Entry* entry = entry_of(resolved);
  if (entry == nullptr || !entry->usable()) {
    Entry opened = {};
    name_entry(opened, resolved);
    if (survived) {
      open_library(opened, resolved);
    } else {
      unusable(opened, GTN_NOT_AVAILABLE, "%s", doubt.text);
    }
    // What was listed as not installed is there now.
    if (entry == nullptr) entry = find([&](const Entry& other) { return other.is_missing(opened.info.name); });
    if (entry == nullptr) entry = add_entry();
    if (entry == nullptr) return fail(message, GTN_OUT_OF_MEMORY, "no memory for one more backend");
    entry->info = opened.info;
    entry->table = opened.table;
  }
  if (entry->usable()) return GTN_OK;
  return fail(message, entry->info.status, "backend '%s' (%s): %s", entry->info.name, entry->info.path, entry->info.reason);
}

void list_missing(const char* name, const char* directory) {
  std::lock_guard<std::mutex> lock(mutex);
  if (find([&](const Entry& entry) { return std::strcmp(entry.info.name, name) == 0; }) != nullptr) return;
  Entry* entry = add_entry();
  if (entry == nullptr) return;
  set_text(entry->info.name, name);
  unusable(*entry, GTN_NOT_AVAILABLE, "libgatun_%s.so is not installed (looked in %s)", name, directory);
}

// Null, with a message, when there is no entry of that index. To be called with the list locked.
const Entry* entry_at(const char* argument, int32_t index, gtn_message* message) {
  if (index < 0 || index >= entry_count) {
    say(message, "%s: is %d, expected 0 to %d", argument, index, entry_count - 1);
    return nullptr;
  }
  const Entry* entry = entries;
  while (index-- > 0) entry = entry->next;
  return entry;
}

bool is_backend_library(const char* file) {
  size_t length = std::strlen(file);
  return std::strncmp(file, "libgatun_", 9) == 0 && length > 12 && std::strcmp(file + length - 3, ".so") == 0;
}

}  // namespace

const gtn_backend* find_backend(const char* name, size_t length, gtn_message* message) {
  std::lock_guard<std::mutex> lock(mutex);
  if (Entry* entry = usable_named(name, length)) return &entry->table;
  if (Entry* entry = find([&](const Entry& other) { return other.is_named(name, length); })) {
    say(message, "backend '%s' is not available: %s", entry->info.name, entry->info.reason);
  } else {
    say(message, "there is no backend '%.*s'", static_cast<int>(length), name);
  }
  return nullptr;
}

gtn_status usable_backend(int32_t index, const gtn_backend** table, gtn_message* message) {
  std::lock_guard<std::mutex> lock(mutex);
  const Entry* entry = entry_at("backend", index, message);
  if (entry == nullptr) return GTN_INVALID_ARGUMENT;
  if (!entry->usable()) return fail(message, entry->info.status, "%s", entry->info.reason);
  *table = &entry->table;
  return GTN_OK;
}

}  // namespace gatun

using namespace gatun;

gtn_status gtn_backend_load(const char* path, int32_t trusted, gtn_message* message) {
  if (path == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "path: is null, expected a file");
  if (*path == '\0') return fail(message, GTN_INVALID_ARGUMENT, "path: is empty, expected a file");
  GATUN_CHECK(check_flag(message, "trusted", trusted));
  return load(path, trusted != 0, message);
}

gtn_status gtn_backend_discover(const char* directory, gtn_message* message) {
  char here[PATH_MAX];
  if (directory == nullptr) {
    Dl_info self;
    if (dladdr(reinterpret_cast<const void*>(&gtn_backend_discover), &self) == 0 || self.dli_fname == nullptr) {
      return fail(message, GTN_INTERNAL, "the directory of this library is not known");
    }
    set_text(here, self.dli_fname);
    char* slash = std::strrchr(here, '/');
    if (slash == nullptr) {
      set_text(here, ".");
    } else {
      *slash = '\0';
    }
    directory = here;
  }
  DIR* listing = opendir(directory);
  if (listing == nullptr) {
    return fail(message, GTN_INVALID_ARGUMENT, "directory: '%s' cannot be read: %s", directory, std::strerror(errno));
  }
  while (const dirent* file = readdir(listing)) {
    if (!is_backend_library(file->d_name)) continue;
    char path[PATH_MAX];
    int length = std::snprintf(path, sizeof path, "%s/%s", directory, file->d_name);
    // Those that cannot be used are listed with the reason.
    if (length > 0 && static_cast<size_t>(length) < sizeof path) (void)load(path, false, nullptr);
  }
  closedir(listing);
  for (const char* name : kOwn) list_missing(name, directory);
  return GTN_OK;
}

gtn_status gtn_backend_count(int32_t* count, gtn_message* message) {
  if (count == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "count: is null");
  std::lock_guard<std::mutex> lock(mutex);
  *count = entry_count;
  return GTN_OK;
}

gtn_status gtn_backend_query(int32_t index, gtn_backend_info* info, gtn_message* message) {
  if (gtn_status status = check_output(message, "info", info); status != GTN_OK) return status;
  std::lock_guard<std::mutex> lock(mutex);
  const Entry* entry = entry_at("index", index, message);
  if (entry == nullptr) return GTN_INVALID_ARGUMENT;
  give(entry->info, info);
  return GTN_OK;
}
