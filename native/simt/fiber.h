// Switching between stacks of one thread of the operating system: callee-saved registers and the stack pointer, nothing
// else, since every fiber runs with the same floating-point modes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gatun::simt {

// Keeps the running stack in *save and goes on with the one that was kept in `to`.
extern "C" void gatun_simt_switch(void** save, void* to);

// A stack, as gatun_simt_switch keeps it, that begins in entry() when it is first switched to. entry must not return.
void* fresh_stack(char* end, void (*entry)());

}  // namespace gatun::simt
