# Shared modules beside the executable, which loads them when a run needs them: each is built where its library is found,
# and the executable itself needs none of these libraries.
function(dist_module NAME)
  add_library(speedrun_${NAME} MODULE ${PROJECT_SOURCE_DIR}/src/dist/modules/${NAME}.cpp)
  target_link_libraries(speedrun_${NAME} PRIVATE speedrun_flags ${ARGN})
  set_target_properties(speedrun_${NAME} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
                        CXX_VISIBILITY_PRESET hidden)
  add_dependencies(speedrun speedrun_${NAME})
endfunction()

set(MPI_CXX_SKIP_MPICXX TRUE)
find_package(MPI QUIET COMPONENTS CXX)
if(MPI_CXX_FOUND)
  dist_module(mpi MPI::MPI_CXX)
  message(STATUS "MPI: ${MPI_CXX_LIBRARIES}")
else()
  message(STATUS "MPI: not found; several ranks on CPUs will not be possible")
endif()
