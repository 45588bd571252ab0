# gatun_cpu_levels(<target> SOURCES <files...> [VECTOR_SOURCES <files...>])
#
# Compiles each file once per instruction-set level of the target architecture, with that level's flags and GATUN_LEVEL set
# to its name, and links the objects into <target>. The table of levels is native/src/cpu/levels.cc.
#
# What some levels add to the one before serves products of matrices alone. They take VECTOR_SOURCES, to which it makes no
# difference, from that one, GATUN_CPU_VECTORS_<level>: one copy less of each to compile and to carry.
#
# Highway compiles for one target, that of the flags: each level defines HWY_COMPILE_ONLY_SCALAR or
# HWY_COMPILE_ONLY_STATIC, never both.
set(GATUN_CPU_LEVELS "" CACHE STRING "Levels to compile, as scalar;avx2, those of other architectures ignored; all where it is empty")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(_levels scalar avx2 avx512 vnni bf16)
  set(_avx2 -DHWY_COMPILE_ONLY_STATIC -mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt -mmovbe)
  set(_avx512 ${_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mprefer-vector-width=512)
  set(GATUN_CPU_FLAGS_avx2 ${_avx2})
  set(GATUN_CPU_FLAGS_avx512 ${_avx512})
  set(GATUN_CPU_FLAGS_vnni ${_avx512} -mavx512vnni)
  set(GATUN_CPU_FLAGS_bf16 ${_avx512} -mavx512vnni -mavx512bf16)
  set(GATUN_CPU_VECTORS_vnni avx512)
  set(GATUN_CPU_VECTORS_bf16 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  # Highway's functions for NEON are inlined only where crypto is, of which the compiler uses nothing unasked.
  set(_levels scalar neon dotprod i8mm)
  set(GATUN_CPU_FLAGS_neon -DHWY_COMPILE_ONLY_STATIC -march=armv8-a+crypto)
  set(GATUN_CPU_FLAGS_dotprod -DHWY_COMPILE_ONLY_STATIC -march=armv8.2-a+crypto+dotprod)
  set(GATUN_CPU_FLAGS_i8mm -DHWY_COMPILE_ONLY_STATIC -march=armv8.2-a+crypto+dotprod+i8mm+bf16)
  set(GATUN_CPU_VECTORS_dotprod neon)
  set(GATUN_CPU_VECTORS_i8mm neon)
else()
  set(_levels scalar)
endif()
set(GATUN_CPU_FLAGS_scalar -DHWY_COMPILE_ONLY_SCALAR)
if(GATUN_CPU_LEVELS)
  list(REMOVE_ITEM _levels scalar)
  foreach(level IN LISTS _levels)
    if(NOT level IN_LIST GATUN_CPU_LEVELS)
      list(REMOVE_ITEM _levels ${level})
    endif()
  endforeach()
  list(PREPEND _levels scalar) # never left out: it is what every processor has
endif()
set(GATUN_CPU_LEVELS ${_levels})

# The list for sources: a macro of a macro, which is applied to each level and the one that it takes vectors from.
set(_list)
set(GATUN_CPU_VECTORS)
foreach(level IN LISTS GATUN_CPU_LEVELS)
  if(NOT GATUN_CPU_VECTORS_${level})
    set(GATUN_CPU_VECTORS_${level} ${level})
  endif()
  list(APPEND GATUN_CPU_VECTORS ${GATUN_CPU_VECTORS_${level}})
  string(APPEND _list " X(${level}, ${GATUN_CPU_VECTORS_${level}})")
endforeach()
list(REMOVE_DUPLICATES GATUN_CPU_VECTORS)
file(CONFIGURE OUTPUT ${GATUN_GENERATED}/cpu/built_levels.h CONTENT "#pragma once\n#define GATUN_BUILT_LEVELS(X)${_list}\n")

function(gatun_cpu_levels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;VECTOR_SOURCES")
  set(levels ${GATUN_CPU_LEVELS} ${GATUN_CPU_VECTORS})
  list(REMOVE_DUPLICATES levels)
  foreach(level IN LISTS levels)
    set(sources)
    if(level IN_LIST GATUN_CPU_LEVELS)
      list(APPEND sources ${arg_SOURCES})
    endif()
    if(level IN_LIST GATUN_CPU_VECTORS)
      list(APPEND sources ${arg_VECTOR_SOURCES})
    endif()
    if(NOT sources)
      continue()
    endif()
    set(objects ${target}_${level})
    add_library(${objects} OBJECT ${sources})
    target_compile_definitions(${objects} PRIVATE GATUN_LEVEL=${level} GATUN_LEVEL_${level}=1 HWY_DISABLE_PCLMUL_AES)
    target_compile_options(${objects} PRIVATE ${GATUN_CPU_FLAGS_${level}})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # GCC 12's own AVX-512 headers trip these two; clang builds the same files with them on.
      target_compile_options(${objects} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
    if(GATUN_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # Kernels hand vectors on by value: watching the scope of each takes GCC 12 more than five minutes where a file has 60
      # combinations of types, and half a minute without.
      target_compile_options(${objects} PRIVATE -fno-sanitize-address-use-after-scope)
    endif()
    target_link_libraries(${objects} PRIVATE gatun_options)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()
