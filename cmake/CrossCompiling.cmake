# What a build for another processor takes from this machine, where a build for its own finds it installed: the headers of
# Highway, which are the same everywhere, and the sources of GoogleTest (Debian's libhwy-dev and googletest).
if(NOT CMAKE_CROSSCOMPILING)
  return()
endif()

# Through a folder that has nothing else: the folder that has them has also what is for this machine's processor alone.
find_path(GATUN_HOST_HIGHWAY hwy/highway.h PATHS /usr/include /usr/local/include NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
file(MAKE_DIRECTORY ${GATUN_GENERATED}/host)
file(CREATE_LINK ${GATUN_HOST_HIGHWAY}/hwy ${GATUN_GENERATED}/host/hwy SYMBOLIC)
include_directories(SYSTEM ${GATUN_GENERATED}/host)

if(GATUN_BUILD_TESTS)
  find_path(GATUN_GOOGLETEST googletest/CMakeLists.txt PATHS /usr/src/googletest NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  set(BUILD_GMOCK OFF)
  set(INSTALL_GTEST OFF)
  add_subdirectory(${GATUN_GOOGLETEST} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gtest_main)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
endif()
