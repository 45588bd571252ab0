// The backends: finding, opening and checking their libraries.
#pragma once

#include <gatun/backend.h>

namespace gatun {

// A backend that can be used, by the first part of a device's name; null, with a message that says why, when it cannot.
const gtn_backend* find_backend(const char* name, size_t length, gtn_message* message);

// The table of the backend at `index` of the list, or its status and reason.
gtn_status usable_backend(int32_t index, const gtn_backend** table, gtn_message* message);

}  // namespace gatun
