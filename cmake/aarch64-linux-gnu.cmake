# Builds for Linux on aarch64 elsewhere, with the cross compiler that Debian calls g++-aarch64-linux-gnu, and runs what it
# built, tests above all, by qemu-user. The preset aarch64 uses it.
#
# GATUN_QEMU_CPU    the processor that qemu stands in for: "max" has every level, "cortex-a76" no more than dotprod
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

set(GATUN_QEMU_CPU max CACHE STRING "The processor that qemu-aarch64 stands in for when tests run")
find_program(GATUN_QEMU qemu-aarch64)
if(GATUN_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${GATUN_QEMU};-cpu;${GATUN_QEMU_CPU};-L;/usr/aarch64-linux-gnu)
endif()
