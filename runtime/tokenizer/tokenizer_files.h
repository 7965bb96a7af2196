// OpenTokenizer: a tokenizer from what a user names.
//
//   "bytes"                a token per byte
//   a folder               tokenizer.json in it, or vocab.json and merges.txt, or tokenizer.model
//   one of these files     that one; a .json of any other name is a tokenizer.json, a .model of any
//                          other name a tokenizer.model
//
// A tokenizer_config.json beside it says which tokens begin and end a text.
#ifndef STARLING_RUNTIME_TOKENIZER_TOKENIZER_FILES_H_
#define STARLING_RUNTIME_TOKENIZER_TOKENIZER_FILES_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/file_system.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

// Errors, one line that names the file: not found; data loss = damaged or not such a file; invalid
// argument = something in it is not supported, which is named; what the disk says.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(Disk& disk, const std::string& path);

// Writes its files to a folder that does not exist yet, or has none of them. The files are synced,
// the folder is made last.
absl::Status WriteTokenizer(Disk& disk, const Tokenizer& tokenizer, const std::string& folder);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_TOKENIZER_FILES_H_
