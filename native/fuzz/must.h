// What must hold whatever the input.
#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the process where it does not, as the sanitizers do, so that the fuzzer keeps the input.
#define MUST(condition)                                                               \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
      std::abort();                                                                   \
    }                                                                                 \
  } while (false)
