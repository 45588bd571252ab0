# The kernels of the Ascend backend for hardware: whether CANN's compiler is there.
#
# ASCEND_HOME_PATH, ASCEND_TOOLKIT_HOME (environment)   where CANN is, as its set_env.sh says
# GATUN_ASCEND_SOC                                      the SoC that the kernels are compiled for; it runs them alone
set(GATUN_ASCEND_SOC Ascend910B CACHE STRING "What the Ascend kernels are compiled for: a SoC of AscendCL, or its start")

set(GATUN_CANN "")
foreach(home IN ITEMS "$ENV{ASCEND_HOME_PATH}" "$ENV{ASCEND_TOOLKIT_HOME}")
  if(home AND NOT GATUN_CANN AND IS_DIRECTORY "${home}")
    set(GATUN_CANN "${home}")
  endif()
endforeach()
if(GATUN_CANN)
  find_program(GATUN_BISHENG bisheng PATHS ${GATUN_CANN}/compiler/ccec_compiler/bin ${GATUN_CANN}/bin NO_DEFAULT_PATH)
endif()
if(GATUN_CANN AND GATUN_BISHENG)
  # Asked for by name alone: these commands have never run, so no build may depend on them.
  message(STATUS "Ascend backend: CANN in ${GATUN_CANN}; the target gatun_ascend_binary, which is untried, builds its kernels")
  set(objects)
  foreach(source IN LISTS GATUN_ASCEND_KERNELS)
    cmake_path(REPLACE_EXTENSION source LAST_ONLY .o OUTPUT_VARIABLE object)
    cmake_path(ABSOLUTE_PATH object BASE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/binary)
    cmake_path(GET object PARENT_PATH folder)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
      COMMAND ${GATUN_BISHENG} -c -O2 -std=c++17 -x cce --cce-aicore-only --cce-aicore-arch=dav-c220-vec
              -I${CMAKE_CURRENT_SOURCE_DIR} -I${GATUN_CANN}/include
              -I${GATUN_CANN}/compiler/tikcpp/tikcfw -I${GATUN_CANN}/compiler/tikcpp/tikcfw/impl
              -I${GATUN_CANN}/compiler/tikcpp/tikcfw/interface
              ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source} VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(binary ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/ascend/${GATUN_ASCEND_SOC}.o)
  add_custom_command(OUTPUT ${binary}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/ascend
    COMMAND ${GATUN_CANN}/compiler/ccec_compiler/bin/ld.lld -m aicorelinux -r ${objects} -o ${binary}
    DEPENDS ${objects} VERBATIM)
  add_custom_target(gatun_ascend_binary DEPENDS ${binary})
elseif(GATUN_BUILD_TESTS)
  message(STATUS "Ascend backend: CANN not found, so there are no kernels for hardware; tests run them on the CPU twin alone")
else()
  message(STATUS "Ascend backend: CANN not found, so there are no kernels for hardware")
endif()
