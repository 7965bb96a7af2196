// OpenTokenizer: whatever the files, it answers; what it accepts turns texts into tokens below its
// vocabulary. An input's first byte says which file it is: `j` tokenizer.json, `p` vocab.json and,
// behind a zero byte, merges.txt, `m` tokenizer.model.
#include "runtime/base/check.h"
#include "runtime/tokenizer/bpe_trainer.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "runtime/tokenizer/tokenizer_json.h"
#include "tests/fuzz/fuzz_driver.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

Gpt2Files Example() {
  WordCounts counts;
  const std::string text = "low lower lowest new newer newest wide wider widest";
  STARLING_CHECK(counts.AddText(text.data(), text.size()).ok());
  const TrainedBpe trained = TrainBpe(counts, 270, [](uint32_t) {});
  return PrintGpt2Files(trained.tokens, trained.merges, "<|endoftext|>");
}

// Fields of protocol buffers, short ones.
std::string Field(int field, const std::string& value) {
  return static_cast<char>(field << 3 | 2) + std::string(1, static_cast<char>(value.size())) +
         value;
}

std::string Model() {
  std::string model;
  const char* const types[] = {"\x18\x02", "\x18\x03", "\x18\x03"};
  const char* const texts[] = {"<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "ab", "<sep>"};
  for (int i = 0; i < 8; ++i) {
    std::string piece = Field(1, texts[i]) + std::string("\x15\0\0\x80\xbf", 5);
    if (i < 3) piece += types[i];
    if (i == 7) piece += "\x18\x04";
    model += Field(1, piece);
  }
  // A double array of one replacement, whatever it may say, and two texts.
  const std::string map("\x10\0\0\0\0\x04\0\0a\1\0\0\0\0\0\x80\0\0\0\0x\0yz\0", 25);
  return model + Field(2, "\x18\x02") + Field(3, Field(2, map));
}

// A tokenizer.json that is short, so that mutations change what is not the vocabulary.
std::string Small() {
  return R"json({"added_tokens":[{"id":3,"content":"<e>","special":true}],
"normalizer":{"type":"NFC"},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[
{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}|\\s+(?!\\S)"},"behavior":"Isolated","invert":false},
{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"<e>"}},{"Sequence":{"id":"A"}}],
"special_tokens":{"<e>":{"ids":[3]}}},
"decoder":{"type":"ByteLevel"},
"model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})json";
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const Gpt2Files files = Example();
  return {"j" + files.tokenizer_json, "j" + Small(),
          "p" + files.vocab_json + std::string(1, '\0') + files.merges_txt,
          "p{\"a\":0,\"b\":1,\"ab\":2}" + std::string(1, '\0') + "a b\n", "m" + Model()};
}

void FuzzOne(const std::string& input) {
  if (input.empty()) return;
  testing::MemoryDisk disk;
  const std::string rest = input.substr(1);
  std::string path = "/t/tokenizer.json";
  if (input[0] == 'p') {
    const size_t zero = rest.find('\0');
    path = "/t/vocab.json";
    disk.files[path] = rest.substr(0, zero);
    disk.files["/t/merges.txt"] = zero == std::string::npos ? "" : rest.substr(zero + 1);
  } else {
    if (input[0] == 'm') path = "/t/tokenizer.model";
    disk.files[path] = rest;
  }
  const auto tokenizer = OpenTokenizer(disk, path);
  if (!tokenizer.ok()) {
    STARLING_CHECK(absl::IsDataLoss(tokenizer.status()) ||
                   absl::IsInvalidArgument(tokenizer.status()));
    return;
  }
  for (const std::string& text :
       {std::string("a b ab <e> low 1234\n\n e\xcc\x81 \xff <sep>"), rest}) {
    std::vector<uint32_t> tokens;
    const absl::Status status = (*tokenizer)->Encode(text.data(), text.size(), &tokens);
    STARLING_CHECK(status.ok() || absl::IsInvalidArgument(status));
    for (const uint32_t token : tokens) STARLING_CHECK_LT(token, (*tokenizer)->vocabulary());
    (*tokenizer)->Decode(tokens);
    STARLING_CHECK((*tokenizer)->name().size() > 16);
  }
}

}  // namespace starling
