#include "core/backends.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "core/checks.h"
#include "core/message.h"

namespace gatun {
namespace {

struct Entry {
  gtn_backend_info info;
  const gtn_backend* table;  // null unless info.status is GTN_OK
};

constexpr int kMaxBackends = 64;
std::mutex mutex;
Entry entries[kMaxBackends];
int entry_count = 0;

// Gatun's own backends, which `gtn_backend_discover` lists even where they are not installed.
const char* const kOwn[] = {"cpu", "cuda", "rocm", "ascend"};

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
  if (table.weights_pack && !table.weights_destroy) return "weights_destroy";
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

Entry* usable_named(const char* name, size_t length) {
  for (int i = 0; i < entry_count; ++i) {
    if (entries[i].table && std::strncmp(entries[i].info.name, name, length) == 0 && entries[i].info.name[length] == '\0') {
      return &entries[i];
    }
  }
  return nullptr;
}

// Fills in `entry` for the library at `path`. The library stays open whatever comes of it: nothing is ever unloaded.
void open_library(Entry& entry, const char* path) {
  entry = {};
  entry.info.size = sizeof entry.info;
  name_of_library(path, entry.info.name);
  set_text(entry.info.path, path);

  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return unusable(entry, GTN_NOT_AVAILABLE, "the library cannot be opened: %s", dlerror());
  using EntryFunction = const gtn_backend* (*)(void);
  auto function = reinterpret_cast<EntryFunction>(dlsym(library, "gtn_backend_entry"));
  if (function == nullptr) {
    return unusable(entry, GTN_NOT_AVAILABLE, "the library is no Gatun backend: it does not export gtn_backend_entry");
  }
  const gtn_backend* table = function();
  if (table == nullptr) return unusable(entry, GTN_NOT_AVAILABLE, "gtn_backend_entry gave no table");
  entry.info.abi_version = table->abi_version;
  if (table->abi_version != GTN_BACKEND_ABI_VERSION) {
    return unusable(entry, GTN_NOT_AVAILABLE, "built for backend ABI version %u; this library needs version %u",
                    table->abi_version, GTN_BACKEND_ABI_VERSION);
  }
  if (table->size < sizeof(gtn_backend)) {
    return unusable(entry, GTN_NOT_AVAILABLE, "its table has %u bytes; version %u of the backend ABI has %zu", table->size,
                    GTN_BACKEND_ABI_VERSION, sizeof(gtn_backend));
  }
  if (const char* slot = missing_slot(*table)) {
    return unusable(entry, GTN_NOT_AVAILABLE, "its table lacks '%s'", slot);
  }
  set_text(entry.info.name, table->name);
  set_text(entry.info.version, table->version);
  if (usable_named(entry.info.name, std::strlen(entry.info.name))) {
    return unusable(entry, GTN_NOT_AVAILABLE, "another library already provides the backend '%s'", entry.info.name);
  }
  gtn_message why = {sizeof why, ""};
  gtn_status status = table->device_count(&entry.info.device_count, &why);
  if (status != GTN_OK) {
    entry.info.device_count = 0;
    return unusable(entry, status, "%s", why.text[0] ? why.text : "the backend gave no reason");
  }
  entry.table = table;
}

// The entry of `path`, or a new one; null when the list is full.
Entry* entry_of(const char* path) {
  for (int i = 0; i < entry_count; ++i) {
    if (std::strcmp(entries[i].info.path, path) == 0) return &entries[i];
  }
  return entry_count < kMaxBackends ? &entries[entry_count++] : nullptr;
}

gtn_status load(const char* path, gtn_message* message) {
  char resolved[PATH_MAX];
  if (realpath(path, resolved) == nullptr) {
    set_text(resolved, path);  // a file that is not there is listed under the name that was asked for
  }
  if (std::strlen(resolved) >= sizeof entries[0].info.path) {
    return fail(message, GTN_INVALID_ARGUMENT, "path: longer than %zu bytes", sizeof entries[0].info.path - 1);
  }
  // Without a slash dlopen would search the system's directories for it.
  if (std::strchr(resolved, '/') == nullptr) {
    return fail(message, GTN_NOT_AVAILABLE, "path: there is no file '%s'", path);
  }
  std::lock_guard<std::mutex> lock(mutex);
  Entry* entry = entry_of(resolved);
  if (entry == nullptr) return fail(message, GTN_NOT_AVAILABLE, "there is no room for more than %d backends", kMaxBackends);
  if (entry->table == nullptr) open_library(*entry, resolved);
  if (entry->info.status != GTN_OK) {
    return fail(message, entry->info.status, "backend '%s' (%s): %s", entry->info.name, entry->info.path, entry->info.reason);
  }
  return GTN_OK;
}

void list_missing(const char* name, const char* directory) {
  std::lock_guard<std::mutex> lock(mutex);
  for (int i = 0; i < entry_count; ++i) {
    if (std::strcmp(entries[i].info.name, name) == 0) return;
  }
  if (entry_count == kMaxBackends) return;
  Entry& entry = entries[entry_count++];
  entry = {};
  entry.info.size = sizeof entry.info;
  set_text(entry.info.name, name);
  unusable(entry, GTN_NOT_AVAILABLE, "libgatun_%s.so is not installed (looked in %s)", name, directory);
}

bool is_backend_library(const char* file) {
  size_t length = std::strlen(file);
  return std::strncmp(file, "libgatun_", 9) == 0 && length > 12 && std::strcmp(file + length - 3, ".so") == 0;
}

}  // namespace

const gtn_backend* find_backend(const char* name, size_t length, gtn_message* message) {
  std::lock_guard<std::mutex> lock(mutex);
  if (Entry* entry = usable_named(name, length)) return entry->table;
  for (int i = 0; i < entry_count; ++i) {
    const gtn_backend_info& info = entries[i].info;
    if (std::strncmp(info.name, name, length) == 0 && info.name[length] == '\0') {
      say(message, "backend '%s' is not available: %s", info.name, info.reason);
      return nullptr;
    }
  }
  say(message, "there is no backend '%.*s'", static_cast<int>(length), name);
  return nullptr;
}

gtn_status usable_backend(int32_t index, const gtn_backend** table, gtn_message* message) {
  std::lock_guard<std::mutex> lock(mutex);
  if (index < 0 || index >= entry_count) {
    return fail(message, GTN_INVALID_ARGUMENT, "backend: is %d, expected 0 to %d", index, entry_count - 1);
  }
  const Entry& entry = entries[index];
  if (entry.table == nullptr) return fail(message, entry.info.status, "%s", entry.info.reason);
  *table = entry.table;
  return GTN_OK;
}

}  // namespace gatun

using namespace gatun;

gtn_status gtn_backend_load(const char* path, gtn_message* message) {
  if (path == nullptr) return fail(message, GTN_INVALID_ARGUMENT, "path: is null, expected a file");
  if (*path == '\0') return fail(message, GTN_INVALID_ARGUMENT, "path: is empty, expected a file");
  return load(path, message);
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
    if (length > 0 && static_cast<size_t>(length) < sizeof path) (void)load(path, nullptr);  // listed with its reason
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
  if (index < 0 || index >= entry_count) {
    return fail(message, GTN_INVALID_ARGUMENT, "index: is %d, expected 0 to %d", index, entry_count - 1);
  }
  give(entries[index].info, info);
  return GTN_OK;
}
