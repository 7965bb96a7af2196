# The libraries Starling stands on: Debian's packages (scripts/install-packages.sh), or those found
# through CMAKE_PREFIX_PATH. All that are missing are named together, with the command that installs
# them.
#
# Only targets that link `starling_torch` may include LibTorch.

set(starling_missing)
set(starling_missing_packages)

macro(starling_missing_add what debian)
  list(APPEND starling_missing "${what}")
  list(APPEND starling_missing_packages ${debian})
endmacro()

# starling_need(absl libabsl-dev CONFIG): find_package, and on Debian what to install for it.
macro(starling_need package debian)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    starling_missing_add(${package} "${debian}")
  endif()
endmacro()

# The same through pkg-config; makes the target PkgConfig::<name>.
macro(starling_need_pkg_config name package debian)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(${name} QUIET IMPORTED_TARGET ${package})
  endif()
  if(NOT ${name}_FOUND)
    starling_missing_add(${package} "${debian}")
  endif()
endmacro()

foreach(folder IN LISTS CMAKE_PREFIX_PATH)
  if(NOT IS_DIRECTORY "${folder}")
    message(WARNING "CMAKE_PREFIX_PATH names ${folder}, which does not exist.")
  endif()
endforeach()

find_package(Threads REQUIRED)
starling_need(absl libabsl-dev CONFIG)
starling_need(CapnProto "libcapnp-dev;capnproto" CONFIG)
starling_need(cppzmq "cppzmq-dev;libzmq3-dev" CONFIG)
starling_need(GTest "libgtest-dev;libgmock-dev")
starling_need(spdlog "libspdlog-dev;libfmt-dev" CONFIG)
starling_need(nlohmann_json nlohmann-json3-dev CONFIG)
starling_need(CLI11 libcli11-dev CONFIG)
starling_need(OpenSSL libssl-dev)
starling_need(PkgConfig pkg-config)
starling_need_pkg_config(tomlplusplus tomlplusplus libtomlplusplus-dev)
starling_need_pkg_config(xxhash libxxhash libxxhash-dev)
starling_need_pkg_config(pcre2 libpcre2-8 libpcre2-dev)
starling_need_pkg_config(utf8proc libutf8proc libutf8proc-dev)
starling_need_pkg_config(sentencepiece sentencepiece libsentencepiece-dev)
include(GoogleTest)
include(StarlingTorch)

if(starling_missing)
  list(JOIN starling_missing ", " starling_missing)
  list(REMOVE_DUPLICATES starling_missing_packages)
  list(JOIN starling_missing_packages " " starling_missing_packages)
  message(FATAL_ERROR
    "Starling needs ${starling_missing}, not found here. On Debian:\n"
    "  sudo apt-get install ${starling_missing_packages}\n"
    "Elsewhere, name the folders they are in with -DCMAKE_PREFIX_PATH=DIR;DIR.")
endif()
