// Files of samples (runtime/data/sample_feed.h) for tests.
#ifndef STARLING_TESTS_TESTING_SAMPLE_FILE_H_
#define STARLING_TESTS_TESTING_SAMPLE_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace starling::testing {

// A safetensors file with these tensors, at `path`.
inline void WriteTensors(Disk& disk, const std::string& path,
                         const std::vector<std::pair<std::string, Blob>>& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, blob] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.type = TensorTypeOf(blob.dtype());
    entry.shape = blob.shape();
    entries.push_back(std::move(entry));
  }
  auto writer = SafetensorsWriter::Create(disk, path, entries, {});
  STARLING_CHECK(writer.ok());
  for (const auto& [name, blob] : tensors) STARLING_CHECK((*writer)->Append(blob).ok());
  STARLING_CHECK((*writer)->Finish().ok());
}

template <typename T>
Blob BlobOf(const std::vector<T>& values, DType dtype, std::vector<int64_t> shape) {
  return Blob::CopyOf(values.data(), dtype, std::move(shape));
}

}  // namespace starling::testing

#endif  // STARLING_TESTS_TESTING_SAMPLE_FILE_H_
