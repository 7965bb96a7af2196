#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint_store.h"
#include "interop/huggingface_config.h"
#include "interop/huggingface_export.h"
#include "interop/huggingface_tokenizer.h"
#include "interop/tensor_files.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/new_folder.h"
#include "runtime/app/run_tokenizer.h"
#include "runtime/app/terminal.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "stages/model_layout.h"

namespace starling {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;

absl::Status Damaged(const CheckpointInfo& info, const std::string& why) {
  return absl::DataLossError(absl::StrCat("checkpoint ", info.path, " is damaged: ", why,
                                          "; name an older one to export that"));
}

absl::Status CheckHash(Disk& disk, const CheckpointInfo& info, const ManifestFile& listed) {
  STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file,
                            disk.OpenToRead(absl::StrCat(info.path, "/", listed.name)));
  std::vector<std::byte> bytes(kPieceBytes);
  Hasher128 hash;
  const uint64_t size = file->size_bytes();
  for (uint64_t at = 0; at < size && size == listed.bytes;) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(size - at, kPieceBytes));
    STARLING_RETURN_IF_ERROR(file->Read(at, bytes.data(), piece));
    hash.Update(bytes.data(), piece);
    at += piece;
  }
  if (size == listed.bytes && hash.Finish() == listed.hash) return absl::OkStatus();
  return Damaged(info, absl::StrCat(listed.name, " is not what the manifest says"));
}

// Opens the parameters of a checkpoint, and finds that they are what was saved.
absl::StatusOr<TensorFiles> OpenParameters(Disk& disk, const CheckpointInfo& info,
                                           const Manifest& manifest, const StageLayout& layout) {
  STARLING_RETURN_IF_ERROR(CheckModelShape(info, manifest, {layout}));
  TensorFiles files;
  for (const ManifestFile& file : manifest.files) {
    STARLING_RETURN_IF_ERROR(files.Add(disk, absl::StrCat(info.path, "/", file.name)));
  }
  std::set<size_t> used;
  for (const TensorSpec& spec : layout.tensors) {
    const TensorFiles::Place* const place = files.Find(spec.name);
    if (place == nullptr || place->entry.shape != spec.shape ||
        place->entry.type != TensorType::kF32) {
      return Damaged(info, absl::StrCat(spec.name, " is not as the manifest says"));
    }
    used.insert(place->file);
  }
  for (const size_t index : used) {
    STARLING_RETURN_IF_ERROR(CheckHash(disk, info, manifest.files[index]));
  }
  return files;
}

// Null: nothing says what its tokens are.
absl::StatusOr<std::unique_ptr<Tokenizer>> FindTokenizer(Disk& disk, const std::string& path,
                                                         const RunConfig& config) {
  auto tokenizer = FindModelTokenizer(disk, path, config, "");
  if (absl::IsFailedPrecondition(tokenizer.status())) return std::unique_ptr<Tokenizer>();
  return tokenizer;
}

struct Export {
  CheckpointInfo checkpoint;
  RunConfig config;
  HuggingFaceKind kind = HuggingFaceKind::kGpt2;
  TensorFiles parameters;
  std::unique_ptr<Tokenizer> tokenizer;
};

absl::StatusOr<Export> Prepare(Disk& disk, const std::string& path) {
  Export prepared;
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> all, FindCheckpoints(disk, path));
  const CheckpointInfo& info = prepared.checkpoint = all.back();
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
  STARLING_ASSIGN_OR_RETURN(
      prepared.config, ParseRunFile(manifest.meta.config_toml, info.path + "/manifest.json", {}));
  const ModelConfig& model = prepared.config.model;
  if (model.own()) {
    return absl::FailedPreconditionError(absl::StrCat(
        info.path,
        " is of a run with layers of your own, which Hugging Face's layout has no place "
        "for; its files are safetensors that torch can read"));
  }
  const absl::StatusOr<HuggingFaceKind> kind = HuggingFaceKindOf(model);
  if (!kind.ok()) {
    return absl::Status(kind.status().code(),
                        absl::StrCat(info.path, ": ", kind.status().message()));
  }
  prepared.kind = *kind;
  STARLING_ASSIGN_OR_RETURN(prepared.parameters,
                            OpenParameters(disk, info, manifest, WholeModelLayout(model)));
  STARLING_ASSIGN_OR_RETURN(prepared.tokenizer, FindTokenizer(disk, path, prepared.config));
  return prepared;
}

// What was written, for the user.
absl::StatusOr<std::vector<std::string>> WriteExport(Disk& disk, const std::string& folder,
                                                     const Export& prepared,
                                                     uint64_t max_shard_bytes) {
  const ModelConfig& model = prepared.config.model;
  STARLING_ASSIGN_OR_RETURN(HuggingFaceWritten written,
                            WriteHuggingFaceTensors(disk, folder, model, prepared.kind,
                                                    prepared.parameters, max_shard_bytes));
  std::vector<TokenizerFile> files;
  HuggingFaceEnds ends;
  if (prepared.tokenizer != nullptr) {
    files = HuggingFaceTokenizerFiles(*prepared.tokenizer);
    ends = EndsOf(*prepared.tokenizer, model.vocabulary);
  }
  files.push_back({"config.json", PrintHuggingFaceConfig(model, prepared.kind, ends)});
  files.push_back({"generation_config.json", PrintGenerationConfig(ends)});
  for (const TokenizerFile& file : files) {
    STARLING_RETURN_IF_ERROR(WriteNewFile(disk, absl::StrCat(folder, "/", file.name), file.bytes));
    written.files.push_back(file.name);
  }
  return written.files;
}

}  // namespace

absl::Status ExportCheckpoint(const CheckpointExportArgs& args) {
  PosixDisk disk;
  const std::string out = WithoutSlashes(args.out);
  STARLING_RETURN_IF_ERROR(CheckNewFolder(disk, out));
  STARLING_ASSIGN_OR_RETURN(const Export prepared, Prepare(disk, WithoutSlashes(args.path)));
  std::vector<std::string> files;
  STARLING_RETURN_IF_ERROR(MakeNewFolder(disk, out, [&](const std::string& folder) -> absl::Status {
    STARLING_ASSIGN_OR_RETURN(files, WriteExport(disk, folder, prepared, args.max_shard_bytes));
    return absl::OkStatus();
  }));
  const int64_t parameters = WholeModelLayout(prepared.config.model).parameter_count();
  PrintLine(absl::StrCat("exported    ", prepared.checkpoint.path, ", ",
                         ArchitectureOf(prepared.kind), ", ", FormatCount(parameters),
                         " parameters"));
  PrintLine(absl::StrCat("wrote       ", out, "/ ", absl::StrJoin(files, ", ")));
  if (prepared.tokenizer == nullptr) {
    PrintWarning("no tokenizer is written: nothing says which one made this model's tokens");
  }
  return absl::OkStatus();
}

}  // namespace starling
