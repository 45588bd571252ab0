// What is alike in runtimes whose launches have ended when they return, as those of host models do: queues and points in them
// hold nothing, and memory of the host is as any other. Compiled into such a runtime, with inline_runtime.cc.
#pragma once

#include "backend/runtime.h"  // the backend's own

namespace gatun::GATUN_ACCELERATOR {

struct Queue {
  int device;
};

}  // namespace gatun::GATUN_ACCELERATOR
