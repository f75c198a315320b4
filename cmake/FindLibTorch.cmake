# LibTorch as the PyPI wheel lays it out. The wheel's own TorchConfig.cmake insists on a CUDA toolkit; these imported
# targets do not:
#   LibTorch::cpu   headers, libtorch_cpu, libc10
#   LibTorch::cuda  the same and libtorch_cuda (defined where the wheel has it)
# LIBTORCH_DIR, a CMake or environment variable, names the folder that holds include/ and lib/; by default the one
# scripts/bootstrap installs.
if(NOT LIBTORCH_DIR)
  file(GLOB _candidates ${PROJECT_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
  list(APPEND _candidates "")
  list(GET _candidates 0 LIBTORCH_DIR)
  if(DEFINED ENV{LIBTORCH_DIR})
    set(LIBTORCH_DIR "$ENV{LIBTORCH_DIR}")
  endif()
endif()
if(NOT EXISTS "${LIBTORCH_DIR}/include/ATen/ATen.h")
  message(FATAL_ERROR "LibTorch not found (LIBTORCH_DIR='${LIBTORCH_DIR}'). Run scripts/bootstrap first.")
endif()
set(LIBTORCH_DIR "${LIBTORCH_DIR}" CACHE PATH "Folder with LibTorch's include/ and lib/")

# libtorch_cpu needs cudart and cupti even where nothing runs on a GPU: the wheels beside torch, or the toolkit.
file(GLOB _nvidia_libs ${LIBTORCH_DIR}/../nvidia/*/lib)
set(_runtime_path ${LIBTORCH_DIR}/lib ${_nvidia_libs} /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64)

add_library(LibTorch::cpu INTERFACE IMPORTED)
target_include_directories(LibTorch::cpu SYSTEM INTERFACE ${LIBTORCH_DIR}/include)
target_link_directories(LibTorch::cpu INTERFACE ${LIBTORCH_DIR}/lib)
target_link_libraries(LibTorch::cpu INTERFACE torch_cpu c10)
foreach(_dir ${_runtime_path})
  target_link_options(LibTorch::cpu INTERFACE "LINKER:-rpath,${_dir}" "LINKER:-rpath-link,${_dir}")
endforeach()
target_link_options(LibTorch::cpu INTERFACE "LINKER:--allow-shlib-undefined")

if(EXISTS "${LIBTORCH_DIR}/lib/libtorch_cuda.so")
  add_library(LibTorch::cuda INTERFACE IMPORTED)
  # Nothing refers to a symbol of libtorch_cuda by name: its kernels register themselves when it is loaded.
  target_link_options(LibTorch::cuda INTERFACE "LINKER:--no-as-needed,-ltorch_cuda,--as-needed")
  target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu)
endif()
