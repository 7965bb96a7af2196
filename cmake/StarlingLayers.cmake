# Layers of the user's own, linked into starling-torch (stages/torch_layer_registry.h):
#
#   cmake ... -DSTARLING_LAYERS="/home/me/conv_block.cc;/home/me/gate.cc"
#
# Each file defines void RegisterLayers_<its name without .cc>(starling::LayerRegistry*).
set(STARLING_LAYERS "" CACHE STRING "C++ files with layers of your own, linked into starling-torch")

# starling_linked_layers(target FILES...): an object library with the files and with
# starling::LinkedLayers(), which calls their functions.
function(starling_linked_layers target)
  set(declarations)
  set(calls)
  set(sources)
  foreach(file IN LISTS ARGN)
    get_filename_component(path "${file}" ABSOLUTE BASE_DIR ${PROJECT_SOURCE_DIR})
    if(NOT EXISTS "${path}")
      message(FATAL_ERROR "STARLING_LAYERS names ${path}, which does not exist.")
    endif()
    get_filename_component(name "${path}" NAME_WE)
    if(NOT name MATCHES "^[A-Za-z_][A-Za-z_0-9]*$")
      message(FATAL_ERROR "STARLING_LAYERS: ${path}: name the file as a C++ name, such as block.cc.")
    endif()
    string(APPEND declarations "void RegisterLayers_${name}(starling::LayerRegistry* registry);\n")
    string(APPEND calls "    RegisterLayers_${name}(all);\n")
    list(APPEND sources "${path}")
  endforeach()
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/${target}.cc)
  file(CONFIGURE OUTPUT ${generated} @ONLY CONTENT "// Written by cmake/StarlingLayers.cmake.
#include \"runtime/app/linked_layers.h\"
#include \"stages/torch_layer_registry.h\"

@declarations@
namespace starling {

const LayerRegistry* LinkedLayers() {
  static const LayerRegistry* const registry = [] {
    auto* all = new LayerRegistry;
@calls@    return all;
  }();
  return registry;
}

}  // namespace starling
")
  add_library(${target} OBJECT ${generated} ${sources})
  target_link_libraries(${target} PUBLIC starling_options starling_stages_torch)
endfunction()
