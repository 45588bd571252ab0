// What of AscendCL the backend calls: our own declarations, since the library is opened when it is first asked for and the
// vendor's headers are for use with its toolkit. Names, parameters and numbers are those of the public documentation of CANN
// 8.1.RC1 and later; signatures.txt lists each line once more, and signatures_test holds one to the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gatun::ascend {

// A kernel's launch attributes; none of them is used.
struct aclrtLaunchKernelCfg {
  void* attrs;
  size_t numAttrs;
};

struct aclrtBinaryLoadOption {
  int type;
  union {
    uint32_t isLazyLoad, magic;
    int32_t cpuKernelMode;
    uint32_t rsv[4];
  } value;
};

struct aclrtBinaryLoadOptions {
  aclrtBinaryLoadOption* options;
  size_t numOpt;
};

// F(result, name, parameters) for each function.
#define GATUN_ACL_FUNCTIONS(F)                                                                                    \
  F(int, aclInit, (const char* configPath))                                                                       \
  F(const char*, aclGetRecentErrMsg, (void))                                                                      \
  F(const char*, aclrtGetSocName, (void))                                                                         \
  F(int, aclrtGetVersion, (int32_t* major, int32_t* minor, int32_t* patch))                                       \
  F(int, aclrtGetDeviceCount, (uint32_t* n))                                                                      \
  F(int, aclrtSetDevice, (int32_t id))                                                                            \
  F(int, aclrtSynchronizeDevice, (void))                                                                          \
  F(int, aclrtGetDeviceInfo, (uint32_t id, int attr, int64_t* value))                                             \
  F(int, aclrtGetMemInfo, (int attr, size_t* free, size_t* total))                                                \
  F(int, aclrtMalloc, (void** p, size_t n, int policy))                                                           \
  F(int, aclrtFree, (void* p))                                                                                    \
  F(int, aclrtMallocHost, (void** p, size_t n))                                                                   \
  F(int, aclrtFreeHost, (void* p))                                                                                \
  F(int, aclrtMemcpy, (void* dst, size_t dstMax, const void* src, size_t n, int kind))                            \
  F(int, aclrtMemcpyAsync, (void* dst, size_t dstMax, const void* src, size_t n, int kind, void* stream))         \
  F(int, aclrtCreateStream, (void** s))                                                                           \
  F(int, aclrtDestroyStream, (void* s))                                                                           \
  F(int, aclrtSynchronizeStream, (void* s))                                                                       \
  F(int, aclrtCreateEventExWithFlag, (void** e, uint32_t flag))                                                   \
  F(int, aclrtRecordEvent, (void* e, void* s))                                                                    \
  F(int, aclrtSynchronizeEvent, (void* e))                                                                        \
  F(int, aclrtQueryEventStatus, (void* e, int* status))                                                           \
  F(int, aclrtEventElapsedTime, (float* ms, void* e0, void* e1))                                                  \
  F(int, aclrtDestroyEvent, (void* e))                                                                            \
  F(int, aclrtBinaryLoadFromFile, (const char* path, aclrtBinaryLoadOptions* opt, void** bin))                    \
  F(int, aclrtBinaryGetFunction, (const void* bin, const char* kernelName, void** func))                          \
  F(int, aclrtKernelArgsInit, (void* func, void** args))                                                          \
  F(int, aclrtKernelArgsAppend, (void* args, void* param, size_t size, void** paramHandle))                       \
  F(int, aclrtKernelArgsFinalize, (void* args))                                                                   \
  F(int, aclrtLaunchKernelWithConfig,                                                                             \
    (void* func, uint32_t numBlocks, void* stream, aclrtLaunchKernelCfg* cfg, void* args, void* reserve))

// The functions of the library that was opened.
struct Acl {
#define GATUN_ACL_POINTER(result, name, parameters) result(*name) parameters;
  GATUN_ACL_FUNCTIONS(GATUN_ACL_POINTER)
#undef GATUN_ACL_POINTER
};

// Numbers of its interface. Errors: 1xxxxx is a misuse, 2xxxxx a lack of resources, 5xxxxx a failure inside or of the device.
namespace acl {

constexpr int kSuccess = 0;
constexpr int kRepeatInitialize = 100002;  // the application has called aclInit
constexpr int kInvalidDevice = 107001;
constexpr int kBadAlloc = 200000;
constexpr int kMemoryAllocation = 207001;
constexpr int kNoDevice = 207004;
constexpr int kNoPermission = 207006;
constexpr int kDeviceOutOfMemory = 207018;
constexpr int kFirstOfDevice = 507000, kLastOfDevice = 507899;
constexpr int kStreamTaskFull = 507002;
constexpr int kKernelLookup = 507027;

constexpr int kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3;
constexpr int kHugeFirst = 0;
constexpr int kHbm = 1;
constexpr uint32_t kEventProgress = 2, kEventTimeLine = 8;  // may be asked how far the stream is; has a time
constexpr int kEventComplete = 1;
constexpr int kVectorCores = 201, kCubeCores = 102;  // attributes of a device

}  // namespace acl
}  // namespace gatun::ascend
