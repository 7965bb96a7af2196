#include "runtime/base/layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "runtime/base/blob.h"
#include "runtime/base/check.h"

namespace starling {

StageLayout MakeLayout(std::vector<TensorSpec> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return std::tie(a.tie, a.name) < std::tie(b.tie, b.name);
  });
  StageLayout layout;
  std::set<std::string> names;
  for (TensorSpec& tensor : tensors) {
    STARLING_CHECK_MSG(names.insert(tensor.name).second, "twice: " + tensor.name);
    tensor.offset = layout.size;
    tensor.count = ElementCount(tensor.shape);
    layout.size += (tensor.count + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }
  layout.tensors = std::move(tensors);
  return layout;
}

}  // namespace starling
