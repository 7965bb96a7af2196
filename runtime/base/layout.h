// Where each tensor of a stage lies in the stage's flat fp32 buffers.
//
// A stage keeps its parameters, each optimizer moment and each gradient segment as one flat run of
// floats with the same layout: tensors in the order of their names, each starting at a multiple of
// kTensorAlignment elements, the gaps zero. Rounds cut the run into parts, snapshots and hashes
// walk it from end to end, and the optimizer is one loop over it.
//
// Tensors that the stage shares with others (a tie) come last, tie by tie. The part of a tie lies
// alike in all of its stages, but for where it begins; runtime/base/parameter_groups.h.
#ifndef STARLING_RUNTIME_BASE_LAYOUT_H_
#define STARLING_RUNTIME_BASE_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace starling {

constexpr int kNoTie = -1;

// How version 0 of a tensor is made.
enum class InitKind : uint8_t { kZeros, kOnes, kNormal };

struct TensorSpec {
  std::string name;  // of the parameter, the same however the model is cut: "layers.3.norm1.weight"
  std::vector<int64_t> shape;
  bool decay = false;  // weight decay applies (matrices)
  InitKind init = InitKind::kZeros;
  float init_std = 0.0f;  // for kNormal
  // Other stages hold the same parameter: those that have a tensor of this name in the tie of this
  // number, from 0 on. Checkpoints have it once, from the stage where `stored` is true.
  int tie = kNoTie;
  bool stored = true;
  int64_t offset = 0;  // elements from the start of the flat run
  int64_t count = 0;   // elements
};

constexpr int64_t kTensorAlignment = 16;  // elements: 64 bytes

struct StageLayout {
  std::vector<TensorSpec> tensors;  // in the order of ties, none first, and names
  int64_t size = 0;                 // elements of the flat run, gaps included

  int64_t parameter_count() const {
    int64_t total = 0;
    for (const TensorSpec& tensor : tensors) total += tensor.count;
    return total;
  }
  // Without those that another stage counts.
  int64_t stored_count() const {
    int64_t total = 0;
    for (const TensorSpec& tensor : tensors) total += tensor.stored ? tensor.count : 0;
    return total;
  }
};

// Sorts `tensors` by tie and name and fills in offsets, counts and the size.
StageLayout MakeLayout(std::vector<TensorSpec> tensors);

// A stage's state in host memory is parameters, first and second moments, one after another:
// 3 * size floats. Snapshots, transfers and hashes use this order.
constexpr int64_t kStatePlanes = 3;

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_LAYOUT_H_
