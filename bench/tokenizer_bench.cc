// Trains a byte-level BPE on a text, and encodes the text with it, on one thread:
//
//   tokenizer_bench FILE [VOCABULARY [ROUNDS]]     8192 and 5 if not given
//   tokenizer_bench FILE PATH [ROUNDS]             with the tokenizer in PATH instead
//
// Prints the CPU times of counting words and of merging, then the median rate of encoding: the file
// as one document, and its lines as documents of their own, as JSONL has them; and of decoding.
// "bytes" is how many bytes a token has.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "runtime/reactor/posix_disk.h"
#include "runtime/tokenizer/bpe_trainer.h"
#include "runtime/tokenizer/byte_bpe.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "runtime/tokenizer/tokenizer_json.h"

namespace starling {
namespace {

void MustBe(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "tokenizer_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

// Of this process's CPU, so that others on the machine do not count.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double Seconds(const std::function<void()>& work) {
  const double begin = CpuSeconds();
  work();
  return CpuSeconds() - begin;
}

double Megabytes(const std::string& text) { return static_cast<double>(text.size()) * 1e-6; }

std::unique_ptr<Tokenizer> Train(const std::string& text, uint32_t vocabulary) {
  WordCounts counts;
  const double count = Seconds([&] { MustBe(counts.AddText(text.data(), text.size())); });
  TrainedBpe trained;
  const double merge = Seconds([&] { trained = TrainBpe(counts, vocabulary, [](uint32_t) {}); });
  std::printf("train     %zu merges: words counted in %.2f s (%.1f MB/s), merged in %.2f s\n",
              trained.merges.size(), count, Megabytes(text) / count, merge);
  const Gpt2Files files = PrintGpt2Files(trained.tokens, trained.merges, "<|endoftext|>");
  std::unique_ptr<Tokenizer> tokenizer;
  const double load = Seconds([&] {
    auto parts = ParseTokenizerJson(files.tokenizer_json, {});
    MustBe(parts.status());
    auto made = MakeByteBpe(*std::move(parts));
    MustBe(made.status());
    tokenizer = *std::move(made);
  });
  std::printf("load      %.0f ms, tokenizer.json of %.1f MB\n", load * 1e3,
              Megabytes(files.tokenizer_json));
  return tokenizer;
}

void Print(const char* what, const std::string& text, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  std::printf("%-9s %.1f MB/s (%.1f to %.1f)\n", what,
              Megabytes(text) / seconds[seconds.size() / 2], Megabytes(text) / seconds.back(),
              Megabytes(text) / seconds.front());
}

void Run(const Tokenizer& tokenizer, const std::string& text, int rounds) {
  std::vector<double> whole;
  std::vector<double> lines;
  std::vector<double> back;
  std::vector<uint32_t> tokens;
  for (int round = 0; round < rounds; ++round) {
    tokens.clear();
    whole.push_back(Seconds([&] { MustBe(tokenizer.Encode(text.data(), text.size(), &tokens)); }));
    std::vector<uint32_t> of_lines;
    lines.push_back(Seconds([&] {
      for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
        MustBe(tokenizer.Encode(text.data() + at, end - at, &of_lines));
        at = end;
      }
    }));
    back.push_back(Seconds([&] { tokenizer.Decode(tokens); }));
  }
  std::printf("text      %.1f MB, %zu tokens, %.2f bytes each\n", Megabytes(text), tokens.size(),
              static_cast<double>(text.size()) / static_cast<double>(tokens.size()));
  Print("encode", text, whole);
  Print("by line", text, lines);
  Print("decode", text, back);
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "tokenizer_bench FILE [VOCABULARY or PATH [ROUNDS]]\n");
    return 2;
  }
  starling::PosixDisk disk;
  auto text = disk.Read(argv[1]);
  starling::MustBe(text.status());
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  const int vocabulary = argc > 2 ? std::atoi(argv[2]) : 8192;
  std::unique_ptr<starling::Tokenizer> tokenizer;
  if (vocabulary > 0) {
    tokenizer = starling::Train(*text, static_cast<uint32_t>(vocabulary) - 1);
  } else {
    auto opened = starling::OpenTokenizer(disk, argv[2]);
    starling::MustBe(opened.status());
    tokenizer = *std::move(opened);
  }
  starling::Run(*tokenizer, *text, std::max(1, rounds));
  return 0;
}
