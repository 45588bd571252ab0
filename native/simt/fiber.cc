#include "simt/fiber.h"

#include <cstring>

// A call of gatun_simt_switch may change what the ABI lets a function change, so only the callee-saved registers are
// kept: of the System V ABI for x86-64 and of AAPCS64.
#if defined(__x86_64__)
asm(R"(
  .text
  .hidden gatun_simt_switch
  .globl gatun_simt_switch
  .type gatun_simt_switch, @function
  .p2align 4
gatun_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size gatun_simt_switch, .-gatun_simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .hidden gatun_simt_switch
  .globl gatun_simt_switch
  .type gatun_simt_switch, %function
  .p2align 4
gatun_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size gatun_simt_switch, .-gatun_simt_switch
)");
#else
#error "the host model has no switch of stacks for this processor"
#endif

namespace gatun::simt {

void* fresh_stack(char* end, void (*entry)()) {
  const uintptr_t top = reinterpret_cast<uintptr_t>(end) & ~uintptr_t{15};
#if defined(__x86_64__)
  // The return address lies where a call would have put it: entry starts 8 bytes off a multiple of 16.
  auto* frame = reinterpret_cast<uint64_t*>(top - 16 - 6 * 8);
  std::memset(frame, 0, 6 * 8);
  frame[6] = reinterpret_cast<uint64_t>(entry);
  frame[7] = 0;
#else
  auto* frame = reinterpret_cast<uint64_t*>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<uint64_t>(entry);  // x30
#endif
  return frame;
}

}  // namespace gatun::simt
