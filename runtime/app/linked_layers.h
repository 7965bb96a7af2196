// The layers that the build linked into starling-torch (STARLING_LAYERS; cmake/StarlingLayers.cmake
// writes the source).
#ifndef STARLING_RUNTIME_APP_LINKED_LAYERS_H_
#define STARLING_RUNTIME_APP_LINKED_LAYERS_H_

#include "stages/own_layers.h"

namespace starling {

// Made at the first call, and never changed. Any thread.
const LayerRegistry* LinkedLayers();

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_LINKED_LAYERS_H_
