// Opening a library in a child process first: a damaged one kills its process in the dynamic linker, before any of its own
// code runs, and nothing inside the process can prevent that.
#pragma once

#include <gatun/gatun.h>

namespace gatun {

// Runs probe/main.c on the library at `path` in a child process, and ends it after `milliseconds`. True when the child went
// through it and left as it should, also when the library turned out to be no usable backend; else `message` says what
// happened. Safe in a process with threads and signal handlers of any kind: no code of this process runs in the child, and
// nobody else's children are waited for.
bool survives_opening(const char* path, int milliseconds, gtn_message* message);

}  // namespace gatun
