# cmake -DROOT=<repository> -DRELEASE=<version> -DHEADER=<file> -P SourceHash.cmake
#
# Writes a header that defines GATUN_VERSION as "<release>+<hash>": the first 12 hex digits of a SHA-256 over the paths and
# contents of native/include, native/src and kernels-cu, so that a library says which sources it was built from. The header is left
# alone, and nothing is compiled again, as long as it would stay the same.
cmake_minimum_required(VERSION 3.25)

file(GLOB_RECURSE files LIST_DIRECTORIES false RELATIVE ${ROOT} ${ROOT}/native/include/* ${ROOT}/native/src/* ${ROOT}/kernels-cu/*)
list(SORT files)
if(NOT files)
  message(FATAL_ERROR "there are no sources below ${ROOT}/native")
endif()
set(listing "")
foreach(file IN LISTS files)
  file(SHA256 ${ROOT}/${file} hash)
  string(APPEND listing "${hash}  ${file}\n")
endforeach()
string(SHA256 hash "${listing}")
string(SUBSTRING ${hash} 0 12 hash)
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define GATUN_VERSION \"@RELEASE@+@hash@\"\n" @ONLY)
