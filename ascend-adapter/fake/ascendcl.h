// What the stand-in for AscendCL tells its tests, besides what it shares with the real one.
//
//   GATUN_FAKE_ACL_FAIL=FUNCTION:N:CODE  from when the variable is set, the N-th call of FUNCTION does nothing and gives CODE
//   GATUN_FAKE_ACL_SOC=NAME              what aclrtGetSocName says; Ascend910B3
//   GATUN_FAKE_ACL_DEVICES=N             how many devices there are; 2
//   GATUN_FAKE_ACL_SLOW=MICROSECONDS     before each thing that a stream does
#pragma once

#include <cstdint>

extern "C" {
// Blocks of memory of device and host, streams and events that were made and not given back, and lists of arguments that were
// not launched.
typedef int64_t fake_acl_live_function();
// How often a function was called.
typedef int64_t fake_acl_calls_function(const char* function);
}
