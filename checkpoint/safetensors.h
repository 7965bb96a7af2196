// Safetensors: the container format of the Hugging Face ecosystem. 8 bytes little-endian header
// size, a JSON header, then the tensors' bytes without gaps.
//
// Reading is strict, because files come from elsewhere: nothing is used before sizes, offsets and
// shapes have been found to agree. Nothing in a file is ever run.
#ifndef STARLING_CHECKPOINT_SAFETENSORS_H_
#define STARLING_CHECKPOINT_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/env/file_system.h"

namespace starling {

constexpr uint64_t kMaxSafetensorsHeader = 100000000;  // bytes; the format's own limit

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the end of the header
  uint64_t end = 0;
};

// A file that has been checked. Holds the bytes (usually mapped) alive; copies share them.
class SafetensorsFile {
 public:
  // `name` is for messages. Errors, one line: data loss = not a well-formed safetensors file;
  // invalid argument = well-formed, with an element type that Starling has no use for.
  static absl::StatusOr<SafetensorsFile> Parse(Blob bytes, const std::string& name);
  // Also what the disk says.
  static absl::StatusOr<SafetensorsFile> Open(Disk& disk, const std::string& path);

  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // in order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const Blob& bytes() const { return bytes_; }  // the whole file, u8

  // Null if there is none.
  const TensorEntry* Find(const std::string& name) const;

  // The tensor's bytes, shared with the file; copied where the file does not align them.
  Blob Tensor(const TensorEntry& entry) const;

 private:
  Blob bytes_;
  uint64_t data_begin_ = 0;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Writes a file tensor by tensor; never holds more than the header.
//
//   STARLING_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(disk, path, entries, {}));
//   for (...) STARLING_RETURN_IF_ERROR(writer->Append(tensor));
//   STARLING_ASSIGN_OR_RETURN(WrittenFile written, writer->Finish());
class SafetensorsWriter {
 public:
  struct WrittenFile {
    uint64_t bytes = 0;
    std::string sha256;
  };

  // Writes the header. `entries` give names, types and shapes in the order of the Appends to come;
  // their offsets are ignored. Errors: invalid argument = a name twice, or "__metadata__"; or what
  // the disk says.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      Disk& disk, const std::string& path, std::vector<TensorEntry> entries,
      const std::map<std::string, std::string>& metadata);

  // The next tensor. Its type and shape must be those announced (invalid argument).
  absl::Status Append(const Blob& tensor);

  // Syncs the file; its folder is the caller's to sync. Every tensor must have come.
  absl::StatusOr<WrittenFile> Finish();

 private:
  SafetensorsWriter(std::vector<TensorEntry> entries, std::unique_ptr<WritableFile> file)
      : entries_(std::move(entries)), file_(std::move(file)) {}
  absl::Status Write(const void* data, size_t size);

  const std::vector<TensorEntry> entries_;
  size_t next_ = 0;
  std::unique_ptr<WritableFile> file_;
  Sha256 hash_;
  uint64_t bytes_ = 0;
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_SAFETENSORS_H_
