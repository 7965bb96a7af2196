// TensorFiles: tensors by name in several safetensors files, read as fp32 in pieces.
//
//   TensorFiles files;
//   STARLING_RETURN_IF_ERROR(files.Add(disk, path));
//   ... files.Read("norm.weight", 0, count, buffer)
//
// Holds headers only. Files are read and not mapped: one that is cut short meanwhile is an error.
// Threads: any one at a time; calls block on the disk.
#ifndef STARLING_INTEROP_TENSOR_FILES_H_
#define STARLING_INTEROP_TENSOR_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "checkpoint/safetensors.h"
#include "runtime/env/file_system.h"

namespace starling {

// What is in a file and what is asked for of it at once, at most.
constexpr int64_t kPieceElements = int64_t{64} << 10;

class TensorFiles {
 public:
  struct Place {
    size_t file = 0;     // in the order of Add
    TensorEntry entry;   // as the file has it
    uint64_t begin = 0;  // bytes from the start of the file
  };

  // Reads the header. Errors as ReadSafetensorsLayout; data loss: a tensor is in an earlier file,
  // too.
  absl::Status Add(Disk& disk, const std::string& path);

  // Null if there is none.
  const Place* Find(const std::string& name) const;
  const std::map<std::string, Place>& places() const { return places_; }
  const std::string& PathOf(const Place& place) const { return paths_[place.file]; }
  std::vector<std::string> paths() const { return paths_; }

  // Whether Read can: F32, F16 or BF16.
  static bool IsReadable(TensorType type);

  // Elements [first, first + count) of a tensor that is there, as fp32.
  //   data loss: one is not a finite number, or the file has become shorter;
  //   invalid argument: the tensor is not readable.
  absl::Status Read(const std::string& name, int64_t first, int64_t count, float* to) const;

 private:
  std::vector<std::string> paths_;
  std::vector<std::unique_ptr<ReadableFile>> files_;
  std::map<std::string, Place> places_;
};

}  // namespace starling

#endif  // STARLING_INTEROP_TENSOR_FILES_H_
