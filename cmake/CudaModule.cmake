# The kernels for GPUs as the shared module libspeedrun_cuda.so beside the executable, which loads it, and with it LibTorch's
# CUDA half, where a run uses a GPU.
if(SPEEDRUN_CUDA AND TARGET LibTorch::cuda)
  set(CMAKE_CUDA_COMPILER ${NVCC})
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # named below: CMake 3.25 knows neither 90a
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # nor that nvcc 13 has C++20
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/ops/cuda/*.cu)
  # cuDNN's attention, in plain C++: through its frontend (the wheel puts it beside LibTorch) and any cuDNN 9's headers.
  find_path(CUDNN_FRONTEND_INCLUDE cudnn_frontend.h HINTS ${LIBTORCH_DIR}/../include)
  find_path(CUDNN_INCLUDE cudnn.h HINTS ${LIBTORCH_DIR}/../nvidia/cudnn/include /usr/local/cuda/include)
  find_path(CUDA_RUNTIME_INCLUDE cuda_runtime_api.h HINTS /usr/local/cuda/include)
  if(CUDNN_FRONTEND_INCLUDE AND CUDNN_INCLUDE)
    add_library(speedrun_cudnn OBJECT ${PROJECT_SOURCE_DIR}/src/ops/cuda/modules/cudnn.cpp)
    target_include_directories(speedrun_cudnn SYSTEM PRIVATE
      ${CUDNN_FRONTEND_INCLUDE} ${CUDNN_INCLUDE} ${CUDA_RUNTIME_INCLUDE})
    target_compile_definitions(speedrun_cudnn PRIVATE
      NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING CUDNN_FRONTEND_SKIP_JSON_LIB NV_CUDNN_FRONTEND_DISABLE_LOGGING)
    message(STATUS "cuDNN: ${CUDNN_INCLUDE}; its frontend: ${CUDNN_FRONTEND_INCLUDE}")
  else()
    add_library(speedrun_cudnn OBJECT ${PROJECT_SOURCE_DIR}/src/ops/cuda/modules/no_cudnn.cpp)
    message(STATUS "cuDNN: its headers or its frontend not found; attention on GPUs will be ATen's flash attention")
  endif()
  # Graphs, through ATen's.
  add_library(speedrun_cuda_graphs OBJECT ${PROJECT_SOURCE_DIR}/src/ops/cuda/modules/graphs.cpp)
  target_link_libraries(speedrun_cuda_graphs PRIVATE LibTorch::cuda)
  target_include_directories(speedrun_cuda_graphs SYSTEM PRIVATE ${CUDA_RUNTIME_INCLUDE})
  foreach(part speedrun_cudnn speedrun_cuda_graphs)
    target_link_libraries(${part} PRIVATE speedrun_flags)
    set_target_properties(${part} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endforeach()
  add_library(speedrun_cuda MODULE ${sources} $<TARGET_OBJECTS:speedrun_cudnn> $<TARGET_OBJECTS:speedrun_cuda_graphs>)
  target_include_directories(speedrun_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(speedrun_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -O3 -lineinfo --Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror
    -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_90,code=compute_90>)
  find_library(CUDA_RUNTIME_LIBRARY NAMES cudart libcudart.so.13 HINTS /usr/local/cuda/lib64)
  set_target_properties(speedrun_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR} CUDA_RUNTIME_LIBRARY None)
  target_link_libraries(speedrun_cuda PRIVATE LibTorch::cuda ${CUDA_RUNTIME_LIBRARY})
  add_dependencies(speedrun speedrun_cuda)
  message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER}; LibTorch's CUDA half: ${LIBTORCH_DIR}/lib")
else()
  message(STATUS "CUDA: not found, or SPEEDRUN_CUDA is off; GPUs will not be possible")
endif()
