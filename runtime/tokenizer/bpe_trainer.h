// Training of byte-level BPE: words of a text are counted, then the pair of neighbours that is most
// frequent over all words is merged, again and again (Sennrich, Haddow, Birch 2016). The result
// depends on the counts alone, not on the order in which words came.
#ifndef STARLING_RUNTIME_TOKENIZER_BPE_TRAINER_H_
#define STARLING_RUNTIME_TOKENIZER_BPE_TRAINER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/flat_map.h"
#include "runtime/tokenizer/splitter.h"

namespace starling {

// Threads: any one at a time; one per thread, then Add them up.
class WordCounts {
 public:
  WordCounts();

  // Counts the words of a text by GPT-2's pattern; those of more than 256 bytes are left out.
  absl::Status AddText(const char* text, size_t bytes);
  void Add(const char* word, size_t bytes, uint64_t count);
  void Add(const WordCounts& other);

  // Each word once with its count, in the order of their bytes.
  std::vector<std::pair<std::string, uint64_t>> Sorted() const;

 private:
  std::unique_ptr<Splitter> splitter_;
  BytesMap words_;
  std::vector<uint64_t> counts_;  // by number
};

struct TrainedBpe {
  std::vector<std::string> tokens;  // bytes, by id: 256 in GPT-2's order, then one per merge
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
};

// Until there are `tokens` tokens (at least 256), or no pair is there twice. Of pairs that are
// equally frequent the one of lower ids is merged. Calls `progress` with the number of tokens now
// and then.
TrainedBpe TrainBpe(const WordCounts& counts, uint32_t tokens,
                    const std::function<void(uint32_t)>& progress);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_BPE_TRAINER_H_
