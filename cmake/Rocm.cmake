# The ROCm backend: whether it is built, and for what. It needs clang 22 with lld and the offload bundler (Debian: clang-22 lld-22
# clang-tools-22 llvm-22), and nothing of ROCm.
#
# GATUN_ROCM        OFF, or ON (an error where the compiler is not found)
# GATUN_ROCM_ARCHITECTURES
#                   of CDNA, with waves of 64, for libgatun_rocm.so, and of RDNA, with waves of 32, for libgatun_rocm_rdna.so
set(GATUN_ROCM OFF CACHE BOOL "Build the ROCm backends")
set(GATUN_ROCM_ARCHITECTURES "gfx90a;gfx942;gfx950;gfx1100;gfx1200" CACHE STRING "What the ROCm backends are compiled for")

if(GATUN_ROCM)
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "GATUN_ROCM: kernel files are compiled for the host that builds; there is no cross compilation of them")
  endif()
  find_program(GATUN_HIP_CLANG clang-22 REQUIRED)
  find_program(GATUN_HIP_BUNDLER clang-offload-bundler-22 REQUIRED)
  find_program(GATUN_HIP_READELF llvm-readelf-22 REQUIRED)
  find_program(GATUN_HIP_OBJDUMP llvm-objdump-22 REQUIRED)
  message(STATUS "ROCm backends: ${GATUN_HIP_CLANG}, for ${GATUN_ROCM_ARCHITECTURES}")
else()
  message(STATUS "ROCm backends: left out, GATUN_ROCM is OFF")
endif()

# Objects of kernel files for the host, each with its code objects inside, in the list OBJECTS; and the code objects in CODE_OBJECTS,
# named <out>/<family>_<file>.<arch>.co. By custom commands: CMake's own HIP language asks for an installed ROCm.
function(gatun_hip_objects out wave architectures objects code_objects)
  set(common -x hip -std=c++20 -nogpulib -nogpuinc -ffp-contract=off -fno-exceptions -fno-rtti -Wall -Wextra -Wno-unused-parameter
    -DGATUN_GPU_WAVE=${wave} -I${PROJECT_SOURCE_DIR}/kernels-cu -I${PROJECT_SOURCE_DIR}/rocm-adapter
    -I${PROJECT_SOURCE_DIR}/native/include -I${PROJECT_SOURCE_DIR}/native/src)
  file(MAKE_DIRECTORY ${out})
  foreach(source IN LISTS ARGN)
    string(REGEX REPLACE "^.*rocm-adapter/" "" stem ${source})
    string(REPLACE "/" "_" stem ${stem})
    string(REPLACE ".cu" "" stem ${out}/${stem})
    set(file ${PROJECT_SOURCE_DIR}/kernels-cu/${source})
    set(targets host-x86_64-unknown-linux-gnu)
    set(inputs -input=/dev/null)
    set(parts)
    foreach(arch IN LISTS architectures)
      set(part ${stem}.${arch}.co)
      add_custom_command(OUTPUT ${part}
        COMMAND ${GATUN_HIP_CLANG} ${common} --offload-arch=${arch} --offload-device-only --no-gpu-bundle-output -O3
          -mcode-object-version=5 -Xclang -dependency-file -Xclang ${part}.d -Xclang -MT -Xclang ${part} -o ${part} -c ${file}
        DEPENDS ${file} DEPFILE ${part}.d COMMENT "Compiling ${source} for ${arch}" VERBATIM)
      string(APPEND targets ",hipv4-amdgcn-amd-amdhsa--${arch}")
      list(APPEND inputs -input=${part})
      list(APPEND parts ${part})
    endforeach()
    add_custom_command(OUTPUT ${stem}.hipfb
      COMMAND ${GATUN_HIP_BUNDLER} -type=o -bundle-align=4096 -targets=${targets} ${inputs} -output=${stem}.hipfb
      DEPENDS ${parts} COMMENT "Bundling ${source}" VERBATIM)
    add_custom_command(OUTPUT ${stem}.o
      COMMAND ${GATUN_HIP_CLANG} ${common} --offload-host-only --no-offload-new-driver -O2 -fPIC -fvisibility=hidden
        -fvisibility-inlines-hidden -Xclang -fcuda-include-gpubinary -Xclang ${stem}.hipfb
        -MD -MF ${stem}.o.d -MT ${stem}.o -o ${stem}.o -c ${file}
      DEPENDS ${file} ${stem}.hipfb DEPFILE ${stem}.o.d COMMENT "Compiling ${source} for its host" VERBATIM)
    list(APPEND all ${stem}.o)
    list(APPEND all_parts ${parts})
  endforeach()
  set_source_files_properties(${all} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${objects} ${all} PARENT_SCOPE)
  set(${code_objects} ${all_parts} PARENT_SCOPE)
endfunction()
