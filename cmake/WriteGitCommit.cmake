# cmake -D SOURCE_DIR=... -D HEADER=... -P WriteGitCommit.cmake
set(commit "unknown")
execute_process(COMMAND git -C ${SOURCE_DIR} rev-parse HEAD
                OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(NOT failed)
  set(commit "${head}")
  execute_process(COMMAND git -C ${SOURCE_DIR} --no-optional-locks status --porcelain
                  OUTPUT_VARIABLE changes ERROR_QUIET)
  if(changes)
    string(APPEND commit " + uncommitted changes")
  endif()
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#pragma once\ninline constexpr const char* kGitCommit = \"${commit}\";\n")
