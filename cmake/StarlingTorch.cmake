# LibTorch, 1.13 to 2.x: Debian's, or one found through CMAKE_PREFIX_PATH (an unpacked archive, or the
# folder that a wheel names as torch.utils.cmake_prefix_path). Makes the target `starling_torch` and
# chooses the language standard for all of Starling, which must be the same everywhere.

# CUDA 12.9 has no nvToolsExt any more, but the configuration of LibTorch before 2.6 links to it.
find_package(CUDAToolkit QUIET)
if(CUDAToolkit_FOUND AND NOT TARGET CUDA::nvToolsExt)
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()

set(starling_cxx_flags "${CMAKE_CXX_FLAGS}")  # LibTorch's configuration may add to them
starling_need(Torch "libtorch-dev;libopenblas0-openmp")
set(CMAKE_CXX_FLAGS "${starling_cxx_flags}")

set(starling_standard 17)
if(Torch_FOUND)
  if(Torch_VERSION AND Torch_VERSION VERSION_LESS 1.13)
    message(FATAL_ERROR "Starling needs LibTorch 1.13 or later; ${Torch_DIR} is ${Torch_VERSION}.")
  endif()
  if("${TORCH_CXX_FLAGS}" MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
    message(FATAL_ERROR
      "The LibTorch in ${Torch_DIR} is built with the old C++ ABI (_GLIBCXX_USE_CXX11_ABI=0), which "
      "does not link with other libraries. Take its \"cxx11 ABI\" archive, a wheel of 2.6 or later, "
      "or Debian's libtorch-dev.")
  endif()

  # 20 where LibTorch asks for it.
  get_target_property(torch_standard torch CXX_STANDARD)
  get_target_property(torch_features torch INTERFACE_COMPILE_FEATURES)
  if(Torch_VERSION VERSION_GREATER_EQUAL 2.12 OR "${torch_standard}" MATCHES "^2[0-9]$"
     OR "${torch_features}" MATCHES "cxx_std_2[0-9]")
    set(starling_standard 20)
  endif()

  add_library(starling_torch INTERFACE)
  target_include_directories(starling_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(starling_torch INTERFACE ${TORCH_LIBRARIES})
endif()

if(NOT CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD ${starling_standard})
endif()
if(Torch_FOUND)
  message(STATUS "Starling: LibTorch ${Torch_VERSION} (${Torch_DIR}), C++${CMAKE_CXX_STANDARD}, "
                 "${CMAKE_BUILD_TYPE} ${STARLING_SANITIZE}")
endif()
