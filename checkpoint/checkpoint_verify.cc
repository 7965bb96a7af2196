#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_layout.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/safetensors.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr size_t kPieceFloats = size_t{64} << 10;  // looked at while in cache

class Verifier {
 public:
  Verifier(Disk& disk, const CheckpointInfo& info) : disk_(disk), info_(info) {}

  VerifyReport Run(const Manifest& manifest) {
    for (const ManifestParameter& parameter : manifest.parameters) {
      for (const char* prefix : kPlanePrefix) expected_[prefix + parameter.name] = parameter.shape;
    }
    for (const ManifestFile& file : manifest.files) CheckFile(file);
    FindStrangers(manifest);
    for (const auto& missing : expected_) {
      Problem(absl::StrCat("tensor ", missing.first, " is missing"));
    }
    return std::move(report_);
  }

 private:
  void Problem(std::string what) { report_.problems.push_back(std::move(what)); }

  void CheckFile(const ManifestFile& listed) {
    ++report_.files;
    const auto file = disk_.OpenToRead(info_.path + "/" + listed.name);
    if (!file.ok()) return Problem(std::string(file.status().message()));
    const uint64_t size = (*file)->size_bytes();
    report_.bytes += size;
    const absl::StatusOr<SafetensorsLayout> layout = ReadSafetensorsLayout(**file, listed.name);
    Reader reader{**file, Hasher128(), 0, absl::OkStatus(), {}};
    std::vector<std::string> in_tensors;
    if (layout.ok()) {
      ReadTo(&reader, layout->data_begin, nullptr);
      for (const TensorEntry& entry : layout->tensors) {
        const std::string problem = CheckTensor(listed, &reader, *layout, entry);
        if (!problem.empty()) in_tensors.push_back(problem);
      }
    }
    ReadTo(&reader, size, nullptr);
    if (!reader.status.ok()) {
      Problem(std::string(reader.status.message()));
    } else if (size != listed.bytes) {
      Problem(absl::StrCat(listed.name, ": ", size, " bytes, should be ", listed.bytes));
    } else if (reader.hash.Finish() != listed.hash) {
      Problem(absl::StrCat(listed.name, ": its bytes have changed (their hash differs)"));
    }
    if (!layout.ok()) return Problem(std::string(layout.status().message()));
    for (std::string& problem : in_tensors) Problem(std::move(problem));
  }

  // A file that is read from end to end.
  struct Reader {
    ReadableFile& file;
    Hasher128 hash;
    uint64_t at = 0;
    absl::Status status;
    std::vector<float> piece;
  };

  // Up to `end`. If it is not null, `finite` becomes whether what comes is all finite floats.
  void ReadTo(Reader* reader, uint64_t end, bool* finite) {
    reader->piece.resize(kPieceFloats);
    while (reader->status.ok() && reader->at < end) {
      const auto size =
          static_cast<size_t>(std::min<uint64_t>(end - reader->at, kPieceFloats * sizeof(float)));
      reader->status = reader->file.Read(reader->at, reader->piece.data(), size);
      if (!reader->status.ok()) return;
      reader->hash.Update(reader->piece.data(), size);
      reader->at += size;
      if (finite != nullptr) {
        *finite = *finite && AllFinite(reader->piece.data(), size / sizeof(float));
      }
    }
  }

  static bool AllFinite(const float* values, size_t count) {
    bool finite = true;
    for (size_t i = 0; i < count; ++i) finite &= std::isfinite(values[i]);
    return finite;
  }

  void FindStrangers(const Manifest& manifest) {
    std::set<std::string> known = {kManifestName};
    for (const ManifestFile& file : manifest.files) known.insert(file.name);
    const absl::StatusOr<std::vector<std::string>> there = disk_.List(info_.path);
    if (!there.ok()) return Problem(std::string(there.status().message()));
    for (const std::string& name : *there) {
      if (name[0] != '.' && known.count(name) == 0) report_.strangers.push_back(name);
    }
  }

  // Reads it, too. What is wrong with it; empty: nothing.
  std::string CheckTensor(const ManifestFile& listed, Reader* reader,
                          const SafetensorsLayout& layout, const TensorEntry& entry) {
    ++report_.tensors;
    const std::string where = absl::StrCat(listed.name, ": tensor ", entry.name);
    const uint64_t end = layout.data_begin + entry.end;
    const auto expected = expected_.find(entry.name);
    const bool known = expected != expected_.end();
    const bool fits = known && expected->second == entry.shape && entry.type == TensorType::kF32;
    if (known) expected_.erase(expected);
    bool finite = true;
    ReadTo(reader, end, fits ? &finite : nullptr);
    if (!known) return where + " is not expected, or comes twice";
    if (!fits) return where + " is of another shape or type than the manifest says";
    return finite ? "" : where + " has values that are not finite";
  }

  Disk& disk_;
  const CheckpointInfo& info_;
  std::map<std::string, std::vector<int64_t>> expected_;
  VerifyReport report_;
};

}  // namespace

absl::StatusOr<VerifyReport> Verify(Disk& disk, const CheckpointInfo& info) {
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
  return Verifier(disk, info).Run(manifest);
}

}  // namespace starling
