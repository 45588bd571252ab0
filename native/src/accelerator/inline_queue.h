// Queues and points in them for a runtime whose launches have ended when they return, as those of host models do: they hold nothing.
// Compiled into such a runtime, with inline_queue.cc.
#pragma once

#include "backend/runtime.h"  // the backend's own

namespace gatun::GATUN_ACCELERATOR {

struct Queue {
  int device;
};

}  // namespace gatun::GATUN_ACCELERATOR
