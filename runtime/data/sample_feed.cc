#include "runtime/data/sample_feed.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/safetensors.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/text.h"

namespace starling {
namespace {

constexpr int64_t kMaxTargets = 1 << 20;  // what model.context can say

absl::Status InFile(const std::string& path, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat("data.samples: ", path, ": ", message));
}

bool IsInteger(DType dtype) { return dtype == DType::kI32 || dtype == DType::kI64; }

int64_t IntegerAt(const Blob& blob, uint64_t place) {
  if (blob.dtype() == DType::kI64) return blob.As<int64_t>()[place];
  return blob.As<int32_t>()[place];
}

// The tensor `name`, whose rows are the samples.
absl::StatusOr<Blob> FindTensor(const SafetensorsFile& file, const std::string& path,
                                const std::string& name, const std::vector<DType>& types) {
  const TensorEntry* const entry = file.Find(name);
  if (entry == nullptr) {
    return InFile(path,
                  absl::StrCat("has no tensor `", name, "`: it needs `inputs` and `targets`"));
  }
  const std::optional<DType> dtype = DTypeOf(entry->type);
  std::vector<std::string> names;
  for (const DType type : types) {
    if (dtype == type) {
      if (!entry->shape.empty()) return file.Tensor(*entry);
      return InFile(path, absl::StrCat("`", name, "` is a single number, not a row per sample"));
    }
    names.push_back(ToString(TensorTypeOf(type)));
  }
  return InFile(path, absl::StrCat("`", name, "` is ", ToString(entry->type), ", not ",
                                   absl::StrJoin(names, " or ")));
}

// Rows `places` of `from`, integers as i32.
absl::StatusOr<Blob> Gather(const Blob& from, const std::vector<int64_t>& row_shape,
                            const std::vector<uint64_t>& places) {
  const auto row = static_cast<uint64_t>(ElementCount(row_shape));
  std::vector<int64_t> shape = {static_cast<int64_t>(places.size())};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  const DType dtype = IsInteger(from.dtype()) ? DType::kI32 : from.dtype();
  MutableBlob rows = MutableBlob::Uninitialized(dtype, shape);
  for (size_t i = 0; i < places.size(); ++i) {
    if (from.dtype() != DType::kI64) {
      const size_t bytes = row * SizeOf(dtype);
      std::memcpy(rows.data() + i * bytes, from.data() + places[i] * bytes, bytes);
      continue;
    }
    for (uint64_t j = 0; j < row; ++j) {
      const int64_t value = IntegerAt(from, places[i] * row + j);
      if (value < std::numeric_limits<int32_t>::min() ||
          value > std::numeric_limits<int32_t>::max()) {
        return absl::InvalidArgumentError(
            absl::StrCat("sample ", places[i], " holds ", value, ", which is beyond 32 bits"));
      }
      rows.As<int32_t>()[i * row + j] = static_cast<int32_t>(value);
    }
  }
  return std::move(rows).Freeze();
}

}  // namespace

absl::StatusOr<Samples> Samples::Open(Disk& disk, const std::string& path) {
  Samples samples;
  samples.path_ = path;
  const auto named = [](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("data.samples: ", status.message()));
  };
  const absl::StatusOr<Blob> bytes = disk.Map(path);
  if (!bytes.ok()) return named(bytes.status());
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse(*bytes, path);
  if (!file.ok()) return named(file.status());
  STARLING_ASSIGN_OR_RETURN(
      samples.inputs_,
      FindTensor(*file, path, "inputs", {DType::kF32, DType::kU8, DType::kI32, DType::kI64}));
  STARLING_ASSIGN_OR_RETURN(samples.targets_,
                            FindTensor(*file, path, "targets", {DType::kI64, DType::kI32}));
  const std::vector<int64_t>& inputs = samples.inputs_.shape();
  const std::vector<int64_t>& targets = samples.targets_.shape();
  if (inputs[0] != targets[0]) {
    return InFile(path, absl::StrCat("`inputs` has ", inputs[0], " rows, `targets` ", targets[0]));
  }
  if (samples.inputs_.empty() || samples.targets_.empty()) return InFile(path, "holds no samples");
  samples.count_ = static_cast<uint64_t>(inputs[0]);
  samples.input_shape_.assign(inputs.begin() + 1, inputs.end());
  samples.target_shape_.assign(targets.begin() + 1, targets.end());
  if (samples.targets_per_sample() > kMaxTargets) {
    return InFile(path, absl::StrCat("a sample has ", samples.targets_per_sample(),
                                     " targets; at most ", kMaxTargets));
  }
  samples.sha256_ = Sha256Hex(bytes->data(), bytes->size_bytes());
  return samples;
}

DType Samples::input_type() const {
  return IsInteger(inputs_.dtype()) ? DType::kI32 : inputs_.dtype();
}

absl::Status Samples::CheckTargets(int64_t classes) const {
  const auto each = static_cast<uint64_t>(targets_per_sample());
  for (uint64_t i = 0; i < count_ * each; ++i) {
    const int64_t target = IntegerAt(targets_, i);
    if (target >= 0 && target < classes) continue;
    return InFile(path_, absl::StrCat("the target of sample ", i / each, " is ", target,
                                      ", but the last layer has ", classes,
                                      " classes: targets are 0 to ", classes - 1));
  }
  return absl::OkStatus();
}

MicrobatchData Samples::Rows(const std::vector<uint64_t>& places) const {
  MicrobatchData data;
  absl::StatusOr<Blob> inputs = Gather(inputs_, input_shape_, places);
  absl::StatusOr<Blob> targets = Gather(targets_, target_shape_, places);
  for (const absl::Status& status : {inputs.status(), targets.status()}) {
    if (status.ok()) continue;
    data.status = InFile(path_, std::string(status.message()));
    return data;
  }
  data.tokens = *std::move(inputs);
  data.targets = *std::move(targets);
  return data;
}

absl::StatusOr<std::unique_ptr<SampleFeed>> SampleFeed::Make(const RunConfig& config,
                                                             Samples samples, DataPosition start) {
  const uint64_t kept = ValidationShare(config.data.validation, samples.count());
  const uint64_t train = samples.count() - kept;
  if (train < static_cast<uint64_t>(config.train.global_batch)) {
    return InFile(samples.path(),
                  absl::StrCat(train, " samples to train on are too few; needs at least ",
                               config.train.global_batch, ": one batch"));
  }
  if (config.train.eval_every > 0 && kept == 0) {
    return InFile(samples.path(),
                  "no sample is kept to validate on; set data.validation above 0, or "
                  "train.eval_every = 0");
  }
  return std::unique_ptr<SampleFeed>(new SampleFeed(config, std::move(samples), start, train));
}

SampleFeed::SampleFeed(const RunConfig& config, Samples samples, DataPosition start,
                       uint64_t train_samples)
    : RunFeed(config.train, start, train_samples, samples.count() - train_samples),
      samples_(std::move(samples)),
      train_samples_(train_samples) {}

MicrobatchData SampleFeed::TrainRows(const std::vector<uint64_t>& places) const {
  return samples_.Rows(places);
}

MicrobatchData SampleFeed::ValidationRows(const std::vector<uint64_t>& places) const {
  std::vector<uint64_t> behind = places;
  for (uint64_t& place : behind) place += train_samples_;
  return samples_.Rows(behind);
}

void SampleFeed::ReadAhead(Step step) const {
  // What is wrong with it, Train will say.
  for (uint64_t s = 0; s < global_batch(); ++s) samples_.Rows({PlaceOf(step, s)});
}

}  // namespace starling
