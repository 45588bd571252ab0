# What `cmake --install <build folder> --prefix <where>` lays out: libraries, headers, and how CMake and pkg-config find
# them. All paths in the installed files are relative, so that the folder can be moved.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# What a vendor's backend compiles with: headers alone, since backends are opened at run time and link nothing of Gatun.
add_library(gatun_backend INTERFACE)
set_target_properties(gatun_backend PROPERTIES EXPORT_NAME backend)
target_compile_features(gatun_backend INTERFACE c_std_11)
foreach(target IN ITEMS gatun gatun_backend)
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()

set(headers ${PROJECT_SOURCE_DIR}/native/include/gatun)
set_target_properties(gatun PROPERTIES PUBLIC_HEADER "${headers}/gatun.h;${headers}/backend.h")

# The libraries carry no version in their names: gtn_abi_version and the table of backend.h are what is compared, at run
# time, and Java loads libgatun.so by its name. Backends lie beside it, where gtn_backend_discover looks by itself.
install(TARGETS gatun gatun_backend EXPORT gatun
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gatun)
install(TARGETS gatun_cpu LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(GATUN_HAS_CUDA)
  install(TARGETS gatun_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()

set(GATUN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gatun)
install(EXPORT gatun NAMESPACE gatun:: FILE gatunTargets.cmake DESTINATION ${GATUN_CMAKE_DIR})
configure_package_config_file(cmake/gatun-config.cmake.in gatunConfig.cmake INSTALL_DESTINATION ${GATUN_CMAKE_DIR}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/gatunConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gatunConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/gatunConfigVersion.cmake
        DESTINATION ${GATUN_CMAKE_DIR})

# From lib/pkgconfig up to the prefix, however deep the library folder is.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
           OUTPUT_VARIABLE GATUN_PREFIX_FROM_PC)
configure_file(cmake/gatun.pc.in gatun.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gatun.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
