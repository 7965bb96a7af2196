#include "interop/huggingface_export.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/safetensors.h"
#include "interop/tensor_pieces.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

uint64_t BytesOf(const HuggingFaceTensor& tensor) {
  return static_cast<uint64_t>(ElementCount(tensor.shape)) * sizeof(float);
}

absl::Status CopyTensor(const TensorFiles& source, const HuggingFaceTensor& tensor,
                        const AppendBytes& append) {
  if (!tensor.transposed) {
    for (const HuggingFacePart& part : tensor.parts) {
      STARLING_RETURN_IF_ERROR(
          AppendElements(source, part.name, 0, ElementCount(part.shape), append));
    }
    return absl::OkStatus();
  }
  const int64_t in = tensor.shape[0];
  const int64_t out = tensor.shape[1];
  std::vector<float> ours(static_cast<size_t>(in * out));
  for (const HuggingFacePart& part : tensor.parts) {
    STARLING_RETURN_IF_ERROR(
        source.Read(part.name, 0, ElementCount(part.shape), ours.data() + part.first_row * in));
  }
  return AppendTransposed(ours, out, in, 0, in, append);
}

absl::Status WriteShardFile(Disk& disk, const std::string& path, const TensorFiles& source,
                            const std::vector<const HuggingFaceTensor*>& tensors) {
  std::vector<TensorEntry> entries;
  for (const HuggingFaceTensor* tensor : tensors) {
    TensorEntry entry;
    entry.name = tensor->name;
    entry.shape = tensor->shape;
    entries.push_back(std::move(entry));
  }
  // Hugging Face's loaders refuse a file that does not say for whom it was laid out.
  STARLING_ASSIGN_OR_RETURN(
      std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::Create(disk, path, std::move(entries), {{"format", "pt"}}));
  for (const HuggingFaceTensor* tensor : tensors) {
    STARLING_RETURN_IF_ERROR(CopyTensor(source, *tensor, [&writer](const void* data, size_t size) {
      return writer->AppendBytes(data, size);
    }));
  }
  return writer->Finish().status();
}

absl::Status WriteIndex(Disk& disk, const std::string& path, uint64_t bytes,
                        const std::vector<std::pair<std::string, std::string>>& file_of) {
  Json json;
  json["metadata"]["total_size"] = bytes;
  json["weight_map"] = Json::object();
  for (const auto& [tensor, file] : file_of) json["weight_map"][tensor] = file;
  const std::string text = json.dump(2) + "\n";
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  return file->Sync();
}

}  // namespace

absl::StatusOr<HuggingFaceWritten> WriteHuggingFaceTensors(Disk& disk, const std::string& folder,
                                                           const ModelConfig& model,
                                                           HuggingFaceKind kind,
                                                           const TensorFiles& source,
                                                           uint64_t max_shard_bytes) {
  const std::vector<HuggingFaceTensor> tensors = HuggingFaceTensors(model, kind);
  HuggingFaceWritten written;
  std::vector<std::vector<const HuggingFaceTensor*>> shards;
  uint64_t left = 0;  // bytes for which the last one has room
  for (const HuggingFaceTensor& tensor : tensors) {
    const uint64_t bytes = BytesOf(tensor);
    if (shards.empty() || bytes > left) {
      shards.emplace_back();
      left = max_shard_bytes;
    }
    shards.back().push_back(&tensor);
    left -= std::min(left, bytes);
    written.bytes += bytes;
    ++written.tensors;
  }
  std::vector<std::pair<std::string, std::string>> file_of;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    STARLING_RETURN_IF_ERROR(
        WriteShardFile(disk, absl::StrCat(folder, "/", name), source, shards[i]));
    for (const HuggingFaceTensor* tensor : shards[i]) file_of.emplace_back(tensor->name, name);
    written.files.push_back(name);
  }
  if (shards.size() > 1) {
    written.files.push_back("model.safetensors.index.json");
    STARLING_RETURN_IF_ERROR(
        WriteIndex(disk, absl::StrCat(folder, "/", written.files.back()), written.bytes, file_of));
  }
  return written;
}

}  // namespace starling
