// Safetensors: the container format of the Hugging Face ecosystem. 8 bytes little-endian header
// size, a JSON header, then the tensors' bytes without gaps.
//
// Reading is strict, because files come from elsewhere: nothing is used before sizes, offsets and
// shapes have been found to agree. Nothing in a file is ever run. The header is read as a stream of
// events, so that what it costs is in proportion to the tensors it names, however it is nested.
// Neither reading nor writing holds tensors in memory: files are mapped or read in pieces, and
// written in pieces.
#ifndef STARLING_CHECKPOINT_SAFETENSORS_H_
#define STARLING_CHECKPOINT_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/env/file_system.h"

namespace starling {

constexpr uint64_t kMaxSafetensorsHeader = 100000000;  // bytes; the format's own limit
constexpr size_t kMaxTensorRank = 64;                  // dimensions

// The element types of the format. Those without a DType travel as opaque bytes.
enum class TensorType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

size_t SizeOf(TensorType type);         // bytes per element
const char* ToString(TensorType type);  // as in files: "F32", "F8_E4M3", ...
TensorType TensorTypeOf(DType dtype);   // each has one
std::optional<DType> DTypeOf(TensorType type);

struct TensorEntry {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the end of the header
  uint64_t end = 0;
};

// What is in a file, and where: its checked header.
struct SafetensorsLayout {
  uint64_t data_begin = 0;           // bytes; of the tensors in the file
  std::vector<TensorEntry> tensors;  // in the order of their bytes, which they fill without gaps
  std::map<std::string, std::string> metadata;
};

// Reads no more than the header. Errors as SafetensorsFile::Parse; also what the disk says.
absl::StatusOr<SafetensorsLayout> ReadSafetensorsLayout(ReadableFile& file,
                                                        const std::string& name);

// A file that has been checked. Holds the bytes (usually mapped) alive; copies share them.
class SafetensorsFile {
 public:
  // `name` is for messages. Errors, one line: data loss = not a well-formed safetensors file;
  // invalid argument = well-formed, with an element type that is not known here.
  static absl::StatusOr<SafetensorsFile> Parse(Blob bytes, const std::string& name);
  // Also what the disk says.
  static absl::StatusOr<SafetensorsFile> Open(Disk& disk, const std::string& path);

  const std::vector<TensorEntry>& tensors() const { return layout_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return layout_.metadata; }

  // Null if there is none.
  const TensorEntry* Find(const std::string& name) const;

  // The tensor's bytes, shared with the file; copied where the file does not align them. A type
  // that no DType stands for comes as u8 [bytes].
  Blob Tensor(const TensorEntry& entry) const;

 private:
  Blob bytes_;
  SafetensorsLayout layout_;
  std::map<std::string, size_t> by_name_;
};

// Writes a file as a stream; never holds more than the header.
//
//   STARLING_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(disk, path, entries, {}));
//   for (...) STARLING_RETURN_IF_ERROR(writer->Append(tensor));
//   STARLING_ASSIGN_OR_RETURN(WrittenFile written, writer->Finish());
class SafetensorsWriter {
 public:
  struct WrittenFile {
    uint64_t bytes = 0;
    Hash128 hash;  // of all of them
  };

  // Writes the header. `entries` give names, types and shapes in the order of the bytes to come;
  // their offsets are ignored. Errors: invalid argument = a name twice, or "__metadata__"; or what
  // the disk says.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      Disk& disk, const std::string& path, std::vector<TensorEntry> entries,
      const std::map<std::string, std::string>& metadata);

  // The next tensor, as a whole. Its type and shape must be those announced; for a type that no
  // DType stands for, u8 [bytes]. Invalid argument otherwise.
  absl::Status Append(const Blob& tensor);

  // The next `size` bytes of the tensors, however they are cut. Invalid argument: more than were
  // announced.
  absl::Status AppendBytes(const void* data, size_t size);

  // Syncs the file; its folder is the caller's to sync. Invalid argument: bytes are missing.
  absl::StatusOr<WrittenFile> Finish();

 private:
  SafetensorsWriter(std::string path, std::vector<TensorEntry> entries, uint64_t data_bytes,
                    std::unique_ptr<WritableFile> file)
      : path_(std::move(path)),
        entries_(std::move(entries)),
        left_bytes_(data_bytes),
        file_(std::move(file)) {}
  absl::Status Write(const void* data, size_t size);

  const std::string path_;
  const std::vector<TensorEntry> entries_;
  size_t next_ = 0;  // for Append
  uint64_t left_bytes_;
  std::unique_ptr<WritableFile> file_;
  Hasher128 hash_;
  uint64_t bytes_ = 0;
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_SAFETENSORS_H_
