#include "runtime/data/text.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/glob.h"

namespace starling {
namespace {

absl::StatusOr<Blob> ReadOne(Disk& disk, const std::string& file) {
  absl::StatusOr<std::string> bytes = disk.Read(file);
  if (!bytes.ok()) {
    return absl::Status(bytes.status().code(), absl::StrCat("data.text: cannot read ", file, ": ",
                                                            bytes.status().message()));
  }
  return Blob::OfString(*bytes);
}

Blob Concatenate(const std::vector<Blob>& pieces, size_t begin, size_t end) {
  int64_t total = 0;
  for (size_t i = begin; i < end; ++i) total += pieces[i].element_count();
  MutableBlob all = MutableBlob::Uninitialized(DType::kU8, {total});
  std::byte* to = all.data();
  for (size_t i = begin; i < end; ++i) {
    if (!pieces[i].empty()) std::memcpy(to, pieces[i].data(), pieces[i].size_bytes());
    to += pieces[i].size_bytes();
  }
  return std::move(all).Freeze();
}

std::string HashOf(const Text& text) {
  Sha256 hash;
  const std::string boundary = absl::StrCat(text.train.size_bytes(), "\n");
  hash.Update(boundary.data(), boundary.size());
  hash.Update(text.train.data(), text.train.size_bytes());
  hash.Update(text.validation.data(), text.validation.size_bytes());
  return hash.FinishHex();
}

}  // namespace

uint64_t ValidationShare(double share, uint64_t count) {
  // Give or take the product's rounding.
  const double exact = share * static_cast<double>(count);
  return static_cast<uint64_t>(std::ceil(exact - 1e-9 * exact));
}

absl::StatusOr<Text> LoadFiles(Disk& disk, const std::vector<std::string>& files,
                               double validation_share) {
  std::vector<Blob> pieces;
  for (const std::string& file : files) {
    STARLING_ASSIGN_OR_RETURN(Blob piece, ReadOne(disk, file));
    pieces.push_back(std::move(piece));
  }
  Text text;
  text.validation_files = ValidationShare(validation_share, files.size());
  if (pieces.size() == 1 && text.validation_files == 1) {
    const Blob whole = pieces[0];
    const auto bytes = static_cast<int64_t>(whole.size_bytes());
    const auto kept = static_cast<int64_t>(ValidationShare(validation_share, whole.size_bytes()));
    pieces = {whole.Slice(0, bytes - kept), whole.Slice(bytes - kept, kept)};
    text.train_files = 1;
    text.validation_files = 0;
    text.train = pieces[0];
    text.validation = pieces[1];
  } else {
    text.train_files = files.size() - text.validation_files;
    text.train = Concatenate(pieces, 0, text.train_files);
    text.validation = Concatenate(pieces, text.train_files, pieces.size());
  }
  text.sha256 = HashOf(text);
  return text;
}

absl::StatusOr<Text> LoadText(Disk& disk, const DataConfig& config) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> files, ExpandGlobs(config.text));
  return LoadFiles(disk, files, config.validation);
}

}  // namespace starling
