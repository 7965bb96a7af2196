// StopStrings: text that comes in pieces, up to the first of some strings, which is left out.
//
//   StopStrings stop({"\n\n", "END"});
//   while (!stop.stopped()) Write(stop.Push(piece));
//   Write(stop.Finish());
//
// What may be the beginning of such a string waits until it is clear. The string that is complete
// first ends the text; of those complete at the same byte the longest. So the text does not depend
// on how it was cut into pieces.
//
// Threads: any one at a time.
#ifndef STARLING_RUNTIME_TOKENIZER_STOP_STRINGS_H_
#define STARLING_RUNTIME_TOKENIZER_STOP_STRINGS_H_

#include <string>
#include <utility>
#include <vector>

namespace starling {

class StopStrings {
 public:
  // None may be empty; without any, all text passes.
  explicit StopStrings(std::vector<std::string> stops);

  // What can be shown now, maybe nothing. After a stop: nothing.
  std::string Push(const std::string& piece);
  bool stopped() const { return stopped_; }
  // What still waited, where the text ends by itself; after a stop nothing.
  std::string Finish() { return std::exchange(waiting_, std::string()); }

 private:
  // The longest end of waiting_ that is a beginning of a stop, not a whole one.
  size_t PossibleBeginning() const;

  const std::vector<std::string> stops_;  // longest first
  std::string waiting_;                   // between calls shorter than the longest
  bool stopped_ = false;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_STOP_STRINGS_H_
