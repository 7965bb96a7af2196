# The libraries Starling stands on, all from Debian's packages (scripts/install-packages.sh). A missing
# one is named together with the command that installs it.

macro(starling_need package debian)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "Starling needs ${package}, which was not found. On Debian: "
                        "sudo apt-get install ${debian}")
  endif()
endmacro()

find_package(Threads REQUIRED)
starling_need(absl libabsl-dev CONFIG)
starling_need(CapnProto "libcapnp-dev capnproto" CONFIG)
starling_need(cppzmq "cppzmq-dev libzmq3-dev" CONFIG)
starling_need(GTest "libgtest-dev libgmock-dev")
starling_need(spdlog libspdlog-dev CONFIG)
starling_need(nlohmann_json nlohmann-json3-dev CONFIG)
starling_need(CLI11 libcli11-dev CONFIG)
starling_need(OpenSSL libssl-dev)
starling_need(PkgConfig pkg-config)
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
include(GoogleTest)

starling_need(Torch "libtorch-dev libopenblas0-openmp")
add_library(starling_torch INTERFACE)
target_include_directories(starling_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(starling_torch INTERFACE ${TORCH_LIBRARIES})
