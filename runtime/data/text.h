// Text: the bytes a run learns from and the bytes it is judged by.
//
// Files are taken in the order of their paths; the last ones are for validation. The text is held
// in memory, as one run of bytes for each of the two.
#ifndef STARLING_RUNTIME_DATA_TEXT_H_
#define STARLING_RUNTIME_DATA_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/config/run_config.h"
#include "runtime/env/file_system.h"

namespace starling {

struct Text {
  Blob train;          // u8 [bytes]
  Blob validation;     // u8 [bytes]; empty where the share is 0
  std::string sha256;  // of both, with their boundary: two runs with equal hashes see equal data
  uint64_t train_files = 0;
  uint64_t validation_files = 0;  // 0 where one file was cut in two
};

// How many of `count` files, bytes or tokens are for validation: ceil(share * count), so at least 1
// if the share is above 0.
uint64_t ValidationShare(double share, uint64_t count);

// Reads `files`, given in order. A single file is cut in two at the share of its bytes. Errors:
// what the disk says, naming the file.
absl::StatusOr<Text> LoadFiles(Disk& disk, const std::vector<std::string>& files,
                               double validation_share);

// Finds (glob.h) and reads what the run file names.
absl::StatusOr<Text> LoadText(Disk& disk, const DataConfig& config);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_TEXT_H_
