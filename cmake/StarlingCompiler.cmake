# Language standard, warnings, sanitizers, ccache.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

if(NOT CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD 17)
endif()
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(STARLING_CCACHE ccache)
if(STARLING_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STARLING_CCACHE})
endif()

set(STARLING_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread")

# What every Starling target is compiled with.
add_library(starling_options INTERFACE)
target_include_directories(starling_options INTERFACE ${PROJECT_SOURCE_DIR})
# No contraction of a*b+c: replicas on different hardware must end with the same bits.
target_compile_options(starling_options INTERFACE -Wall -Wextra -Werror -Wno-unused-parameter
                       -ffp-contract=off)
if(STARLING_SANITIZE)
  target_compile_options(starling_options INTERFACE -fsanitize=${STARLING_SANITIZE}
                         -fno-omit-frame-pointer)
  target_link_options(starling_options INTERFACE -fsanitize=${STARLING_SANITIZE})
endif()
