// The tokenizer of a run: found when the run is planned, kept in the run's directory, found there
// again by what turns text into tokens.
//
// A run file names a path; from then on the run's configuration has the tokenizer's name, and the
// folder `tokenizer` of the run's directory its files.
#ifndef STARLING_RUNTIME_APP_RUN_TOKENIZER_H_
#define STARLING_RUNTIME_APP_RUN_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/config/run_config.h"
#include "runtime/data/corpus.h"
#include "runtime/env/file_system.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

// Opens what data.tokenizer names as a path and puts its name there; null where it names none.
//   not found: there is no such tokenizer; invalid argument: it has more tokens than the model, or
//   is not supported; data loss: its files are damaged.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenGivenTokenizer(Disk& disk, RunConfig* config);

// The tokenizer in the folder `tokenizer` beside the corpus' shards; null where there is none, or
// where the corpus needs none. Data loss: it is not the one that the shards were made with.
absl::StatusOr<std::unique_ptr<Tokenizer>> FindShardsTokenizer(Disk& disk, const Corpus& corpus);

// Puts the files of a run's tokenizer, `name`, into its directory, unless they are there; gives the
// one that is there then. `tokenizer` may be null: then nothing is written, and null is given where
// there is none. Data loss: what is there is not the tokenizer `name`.
absl::StatusOr<std::unique_ptr<Tokenizer>> KeepRunTokenizer(Disk& disk,
                                                            const std::string& run_directory,
                                                            const std::string& name,
                                                            std::unique_ptr<Tokenizer> tokenizer);

// For a model with this configuration in `path`, a run's directory or a checkpoint's. `given` is
// what the user names, or empty.
//   failed precondition: nothing says what its tokens are, or it is another tokenizer than `given`.
absl::StatusOr<std::unique_ptr<Tokenizer>> FindModelTokenizer(Disk& disk, const std::string& path,
                                                              const RunConfig& config,
                                                              const std::string& given);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_RUN_TOKENIZER_H_
