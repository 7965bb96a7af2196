# Build type, warnings, sanitizers, ccache, where programs go. The language standard is chosen with
# LibTorch, in StarlingDependencies.cmake.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# Release: no debug information, which would double the time to link. STARLING_CHECK stays on.
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
# For the sanitizers: fast enough for the whole suite, and lines in stack traces.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")

set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

find_program(STARLING_CCACHE ccache)
if(STARLING_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STARLING_CCACHE})
endif()

# A faster linker where there is one: against LibTorch, ld takes ten times as long. gold before lld,
# since it is as strict about the order of libraries as ld is.
include(CheckCXXSourceCompiles)
foreach(linker IN ITEMS gold lld)
  set(CMAKE_REQUIRED_LINK_OPTIONS -fuse-ld=${linker})
  check_cxx_source_compiles("int main() { return 0; }" STARLING_LINKER_${linker})
  set(CMAKE_REQUIRED_LINK_OPTIONS)
  if(STARLING_LINKER_${linker})
    add_link_options(-fuse-ld=${linker})
    break()
  endif()
endforeach()

set(STARLING_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread")

# What every Starling target is compiled with.
add_library(starling_options INTERFACE)
target_include_directories(starling_options INTERFACE ${PROJECT_SOURCE_DIR})
# No contraction of a*b+c: replicas on different hardware must end with the same bits. Without errno,
# sqrtf is one instruction; the values are the same.
target_compile_options(starling_options INTERFACE -Wall -Wextra -Werror -Wno-unused-parameter
                       -ffp-contract=off -fno-math-errno)
if(STARLING_SANITIZE)
  target_compile_options(starling_options INTERFACE -fsanitize=${STARLING_SANITIZE}
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(starling_options INTERFACE -fsanitize=${STARLING_SANITIZE})
  if(STARLING_SANITIZE MATCHES "undefined")
    # LibTorch's own classes have no type information that the vptr check could look at.
    target_compile_options(starling_options INTERFACE -fno-sanitize=vptr)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 sees uninitialised variables that are none in code with sanitizers' checks.
    target_compile_options(starling_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
