// Documents: the texts in files, tokenized chunk by chunk so that threads can share the work. A
// text file is one document; a file whose name ends in .jsonl or .ndjson has one in each line.
//
//   for each chunk of ChunksOf(file size, ...):        // in any order, on any thread
//     parts.push_back(TokenizeChunk(tokenizer, file, chunk, options));
//
// The parts in the order of their chunks are the file, whatever the chunks' size.
#ifndef STARLING_RUNTIME_DATA_DOCUMENTS_H_
#define STARLING_RUNTIME_DATA_DOCUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/blob.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

struct DocumentOptions {
  std::string text_key = "text";  // of a JSONL line's object: where the text is
  bool separate = true;           // Tokenizer::prefix before each document, separator after it
  uint64_t chunk_bytes = uint64_t{1} << 20;
};

struct FileChunk {
  uint64_t begin = 0;  // bytes of the file
  uint64_t end = 0;
};

struct TokenizedChunk {
  std::vector<uint32_t> tokens;
  std::vector<size_t> document_ends;  // in `tokens`: after the last token of a document
  uint64_t lines = 0;                 // JSONL: lines that begin in the chunk
  // Not empty: what is wrong, without file and line; nothing after it was looked at.
  std::string problem;
  uint64_t problem_line = 0;  // JSONL: counted from the chunk's first line, from 1; 0: no line's
};

bool IsJsonLines(const std::string& path);

// A text file is cut only where the tokenizer is divisible. Of an empty file: none.
std::vector<FileChunk> ChunksOf(uint64_t file_bytes, bool json_lines, const Tokenizer& tokenizer,
                                const DocumentOptions& options);

// `file` is the whole file (u8). Of JSONL, a chunk has the lines that begin in it, to their ends;
// blank lines are passed over, and so are documents without text.
TokenizedChunk TokenizeChunk(const Tokenizer& tokenizer, const Blob& file, bool json_lines,
                             FileChunk chunk, const DocumentOptions& options);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_DOCUMENTS_H_
