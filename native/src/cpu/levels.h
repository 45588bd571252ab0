// The instruction-set levels of the CPU backend: which there are, which this machine has, and each one's kernels.
#pragma once

#include "cpu/activation/activation.h"
#include "cpu/attention/attention.h"
#include "cpu/conv/conv.h"
#include "cpu/fake_quantize/fake_quantize.h"
#include "cpu/gemm/gemm.h"
#include "cpu/limits/limits.h"
#include "cpu/merge/merge.h"
#include "cpu/mix/mix.h"
#include "cpu/norm/norm.h"
#include "cpu/pooling/pooling.h"
#include "cpu/rope/rope.h"
#include "cpu/route/route.h"
#include "cpu/select/select.h"
#include "cpu/softmax/softmax.h"

namespace gatun::cpu {

// One level's kernels, a table per operator family. Kernel sources (native/CMakeLists.txt) are compiled once per level, with
// that level's flags and GATUN_LEVEL set to its name; each defines its family's table inside namespace
// gatun::cpu::GATUN_LEVEL. A level whose instructions are for products of matrices alone has the other families' tables of
// the level before (cmake/CpuLevels.cmake).
struct Kernels {
  const GemmKernels* gemm;
  const AttentionKernels* attention;
  const NormKernels* norm;
  const SoftmaxKernels* softmax;
  const ActivationKernels* activation;
  const MergeKernels* merge;
  const RopeKernels* rope;
  const SelectKernels* select;
  const RouteKernels* route;
  const MixKernels* mix;
  const GluKernels* glu;
  const ConvKernels* conv;
  const PoolingKernels* pooling;
  const FakeQuantizeKernels* fake_quantize;
  const LimitKernels* limits;
};

struct Level {
  const char* name;        // "scalar", "avx2", ...: the selector in "cpu:<name>" and the word in a kernel's name
  const Kernels* kernels;  // null: this build has none of this level
  bool supported;          // by the processor and the operating system
  const char* needs;       // what the processor must have, for messages
};

// Every level that the architecture knows, slowest first, built or not.
const Level* levels();
int level_count();

// Why a level cannot be used, or null when it can.
const char* why_unavailable(const Level& level);

// The level of the device "cpu": GATUN_CPU_ISA if it is set, else the best available one. Null, with a message that
// names the variable, when GATUN_CPU_ISA asks for a level that is not there.
const Level* default_level(gtn_message* message);

const Level* find_level(const char* name);

// Asks the operating system for what a level's kernels need and a process has only on request: tiles of AMX, which make the frames
// of signals larger for good. Null, or why it refuses.
const char* refusal(const Level& level);

}  // namespace gatun::cpu
