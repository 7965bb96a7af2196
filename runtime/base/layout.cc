#include "runtime/base/layout.h"

#include <algorithm>
#include <utility>

#include "runtime/base/blob.h"
#include "runtime/base/check.h"

namespace starling {

StageLayout MakeLayout(std::vector<TensorSpec> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
  StageLayout layout;
  for (size_t i = 0; i < tensors.size(); ++i) {
    TensorSpec& tensor = tensors[i];
    STARLING_CHECK_MSG(i == 0 || tensors[i - 1].name != tensor.name, "twice: " + tensor.name);
    tensor.offset = layout.size;
    tensor.count = ElementCount(tensor.shape);
    layout.size += (tensor.count + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }
  layout.tensors = std::move(tensors);
  return layout;
}

}  // namespace starling
