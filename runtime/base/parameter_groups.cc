#include "runtime/base/parameter_groups.h"

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/check.h"

namespace starling {
namespace {

// What must be alike in every stage of a tie: where each tensor lies within it.
std::map<std::string, std::pair<int64_t, std::vector<int64_t>>> TensorsOf(const StageLayout& layout,
                                                                          int tie, int64_t begin) {
  std::map<std::string, std::pair<int64_t, std::vector<int64_t>>> tensors;
  for (const TensorSpec& tensor : layout.tensors) {
    if (tensor.tie == tie) tensors[tensor.name] = {tensor.offset - begin, tensor.shape};
  }
  return tensors;
}

}  // namespace

std::vector<GroupRange> GroupRangesOf(const StageLayout& layout, StageId stage, uint32_t stages) {
  std::vector<GroupRange> ranges;
  for (const TensorSpec& tensor : layout.tensors) {
    const uint32_t group =
        tensor.tie == kNoTie ? Value(stage) : stages + static_cast<uint32_t>(tensor.tie);
    if (!ranges.empty() && ranges.back().group == group) continue;
    if (!ranges.empty()) ranges.back().count = tensor.offset - ranges.back().begin;
    ranges.push_back({group, tensor.offset, 0});
  }
  if (!ranges.empty()) ranges.back().count = layout.size - ranges.back().begin;
  return ranges;
}

std::vector<ParameterGroup> ParameterGroups(const std::vector<StageLayout>& layouts) {
  const auto stages = static_cast<uint32_t>(layouts.size());
  std::vector<ParameterGroup> groups(stages);
  std::map<uint32_t, decltype(TensorsOf({}, 0, 0))> tensors;
  std::set<std::string> stored;
  for (uint32_t s = 0; s < stages; ++s) {
    for (const GroupRange& range : GroupRangesOf(layouts[s], StageId{s}, stages)) {
      if (range.group >= groups.size()) groups.resize(range.group + 1);
      groups[range.group].stages.push_back(StageId{s});
      groups[range.group].size = range.count;
      if (range.group < stages) continue;
      const int tie = static_cast<int>(range.group - stages);
      const auto [first, is_first] =
          tensors.emplace(range.group, TensorsOf(layouts[s], tie, range.begin));
      STARLING_CHECK_MSG(is_first || first->second == TensorsOf(layouts[s], tie, range.begin),
                         "the stages of a tie hold different tensors");
    }
    for (const TensorSpec& tensor : layouts[s].tensors) {
      if (!tensor.stored) continue;
      STARLING_CHECK_MSG(stored.insert(tensor.name).second, "stored twice: " + tensor.name);
    }
  }
  for (uint32_t s = 0; s < stages; ++s) {
    for (const TensorSpec& tensor : layouts[s].tensors) {
      STARLING_CHECK_MSG(stored.count(tensor.name) == 1, "stored nowhere: " + tensor.name);
    }
  }
  return groups;
}

bool Concerns(const ParameterGroup& group, StageId stage) {
  return std::find(group.stages.begin(), group.stages.end(), stage) != group.stages.end();
}

std::string ToString(const ParameterGroup& group) {
  std::string text = group.stages.size() == 1 ? "stage " : "the tie of stages ";
  for (size_t i = 0; i < group.stages.size(); ++i) {
    if (i > 0) text += i + 1 < group.stages.size() ? ", " : " and ";
    text += ToString(group.stages[i]);
  }
  return text;
}

}  // namespace starling
