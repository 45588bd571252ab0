// What a test asks of the stand-in for libamdhip64.so beside HIP's own functions.
#pragma once

#include <cstdint>

extern "C" {

// The n-th call from now on of a function ("hipMalloc") fails with this error; 0 for n: none does.
void fake_hip_fail(const char* function, int64_t n, int error);
// Calls of a function since the last fake_hip_fail.
int64_t fake_hip_calls(const char* function);
// What was made and not yet destroyed: allocations, streams and events.
int64_t fake_hip_live(void);
}
