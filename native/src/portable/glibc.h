// Included before everything else in what is packaged: binds functions that newer versions of glibc have under a newer name
// of their version to the one that every version from 2.28 on has. Their behaviour is the same in both: most only moved
// from libpthread and libdl into libc (2.32, 2.34), log lost a wrapper (2.29), and a start without init and fini is a start
// of 2.34. portable_libraries (native/tests) looks at the result.
#pragma once

#if defined(__x86_64__)
#define GATUN_GLIBC_BASE "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define GATUN_GLIBC_BASE "GLIBC_2.17"
#else
#error "the first version of glibc on this architecture is not known here"
#endif
#define GATUN_GLIBC_FIRST(name) __asm__(".symver " #name "," #name "@" GATUN_GLIBC_BASE)

GATUN_GLIBC_FIRST(__libc_start_main);
GATUN_GLIBC_FIRST(dladdr);
GATUN_GLIBC_FIRST(dlerror);
GATUN_GLIBC_FIRST(dlopen);
GATUN_GLIBC_FIRST(dlsym);
GATUN_GLIBC_FIRST(log);
GATUN_GLIBC_FIRST(pthread_create);
GATUN_GLIBC_FIRST(pthread_sigmask);
