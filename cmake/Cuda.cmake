# The CUDA backend: whether it is built, and for what.
#
# GATUN_CUDA        AUTO (where nvcc is found), ON (an error where it is not) or OFF
# GATUN_CUDA_ARCHITECTURES
#                   as CMAKE_CUDA_ARCHITECTURES. Code of 8.0 also runs on 8.6, 8.7 and 8.9, that of 10.0 on 10.3, and that of
#                   12.0 on 12.1: code of one number serves all later ones of the same generation. PTX of 8.0 serves what is
#                   to come, compiled by the driver.
set(GATUN_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE GATUN_CUDA PROPERTY STRINGS AUTO ON OFF)
set(GATUN_CUDA_ARCHITECTURES "80-real;90-real;100-real;120-real;80-virtual" CACHE STRING "What the CUDA backend is compiled for")

set(GATUN_HAS_CUDA OFF)
if(NOT GATUN_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${GATUN_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set(GATUN_HAS_CUDA ON)
    message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, for ${GATUN_CUDA_ARCHITECTURES}")
  elseif(GATUN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GATUN_CUDA is ON, and there is no nvcc: put it on the PATH or set CMAKE_CUDA_COMPILER")
  else()
    message(STATUS "CUDA backend: left out, nvcc was not found")
  endif()
else()
  message(STATUS "CUDA backend: left out, GATUN_CUDA is OFF")
endif()
