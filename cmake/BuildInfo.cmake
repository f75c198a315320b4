# What the executable says about its own build (src/app/build_info.cpp): flags are known when CMake runs; the git commit
# is looked up by every build, and its header is rewritten only when it has changed.
if(SPEEDRUN_CUDA)
  set(_backends "cpu, cuda")
else()
  set(_backends "cpu")
endif()
string(TOUPPER "${CMAKE_BUILD_TYPE}" _type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_type}} -march=${SPEEDRUN_ARCH}" _flags)
if(SPEEDRUN_SANITIZERS)
  string(APPEND _flags " ${SPEEDRUN_SANITIZERS} -O1")
endif()
set(_generated ${PROJECT_BINARY_DIR}/generated)
file(CONFIGURE OUTPUT ${_generated}/speedrun_build_info.h @ONLY CONTENT [[
#pragma once
inline constexpr const char* kBuildVersion = "@PROJECT_VERSION@";
inline constexpr const char* kBuildType = "@CMAKE_BUILD_TYPE@";
inline constexpr const char* kBuildFlags = "@_flags@";
inline constexpr const char* kBuildBackends = "@_backends@";
]])
add_custom_target(speedrun_git_commit
  COMMAND ${CMAKE_COMMAND} -D SOURCE_DIR=${PROJECT_SOURCE_DIR} -D HEADER=${_generated}/speedrun_git_commit.h
          -P ${PROJECT_SOURCE_DIR}/cmake/WriteGitCommit.cmake
  BYPRODUCTS ${_generated}/speedrun_git_commit.h
  VERBATIM)
add_dependencies(speedrun_app speedrun_git_commit)
target_include_directories(speedrun_app PRIVATE ${_generated})
