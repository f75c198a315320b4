# What `speedrun export` writes as it is, as texts in the executable: generated/speedrun_export_files.h has one constant for
# each file of src/app/export/hf, such as kExport_modeling_speedrun_py.
file(GLOB _files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/app/export/hf/*.py ${PROJECT_SOURCE_DIR}/src/app/export/hf/*.md)
set(_constants "")
foreach(_file ${_files})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${_file})
  cmake_path(GET _file FILENAME _name)
  string(MAKE_C_IDENTIFIER ${_name} _name)
  file(READ ${_file} _text)
  string(APPEND _constants "inline constexpr std::string_view kExport_${_name} = R\"~~~(${_text})~~~\";\n")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/speedrun_export_files.h @ONLY
     CONTENT "#pragma once\n#include <string_view>\n@_constants@")
