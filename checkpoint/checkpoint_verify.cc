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
    const absl::StatusOr<Blob> bytes = disk_.Map(info_.path + "/" + listed.name);
    if (!bytes.ok()) return Problem(std::string(bytes.status().message()));
    report_.bytes += bytes->size_bytes();
    if (bytes->size_bytes() != listed.bytes) {
      Problem(
          absl::StrCat(listed.name, ": ", bytes->size_bytes(), " bytes, should be ", listed.bytes));
    } else if (HashBytes(bytes->data(), bytes->size_bytes()) != listed.hash) {
      Problem(absl::StrCat(listed.name, ": its bytes have changed (their hash differs)"));
    }
    const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse(*bytes, listed.name);
    if (!file.ok()) return Problem(std::string(file.status().message()));
    for (const TensorEntry& entry : file->tensors()) CheckTensor(listed, *file, entry);
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

  void CheckTensor(const ManifestFile& listed, const SafetensorsFile& file,
                   const TensorEntry& entry) {
    ++report_.tensors;
    const auto where = absl::StrCat(listed.name, ": tensor ", entry.name);
    const auto expected = expected_.find(entry.name);
    if (expected == expected_.end()) return Problem(where + " is not expected, or comes twice");
    const bool fits = expected->second == entry.shape && entry.type == TensorType::kF32;
    expected_.erase(expected);
    if (!fits) return Problem(where + " is of another shape or type than the manifest says");
    const Blob tensor = file.Tensor(entry);
    for (const float value : tensor.As<float>()) {
      if (!std::isfinite(value)) return Problem(where + " has values that are not finite");
    }
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
