// SafetensorsFile::Parse: whatever the bytes, it answers; what it accepts is consistent, and every
// tensor in it can be read to its last byte.
#include <set>

#include "checkpoint/safetensors.h"
#include "runtime/base/check.h"
#include "tests/fuzz/fuzz_driver.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

std::string Framed(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  return file + header + std::string(data_bytes, 'x');
}

// An input is a file, or `h` and a header: then the frame is made to fit, so that mutations reach
// what lies behind it.
std::string FileOf(const std::string& input) {
  if (input.empty() || input[0] != 'h') return input;
  const std::string header = input.substr(1);
  return Framed(header, header.size() % 3 == 0 ? 24 : 7);
}

// Every announced type in a file as our own writer makes it.
std::string OwnFile() {
  testing::MemoryDisk disk;
  std::vector<TensorEntry> entries;
  for (int type = 0; type <= static_cast<int>(TensorType::kF64); ++type) {
    TensorEntry entry;
    entry.type = static_cast<TensorType>(type);
    entry.name = ToString(entry.type);
    entry.shape = {2, 1, 3};
    entries.push_back(std::move(entry));
  }
  auto writer = SafetensorsWriter::Create(disk, "/f", entries, {{"format", "pt"}});
  STARLING_CHECK(writer.ok());
  for (const TensorEntry& entry : entries) {
    const std::string bytes(6 * SizeOf(entry.type), 'y');
    STARLING_CHECK((*writer)->AppendBytes(bytes.data(), bytes.size()).ok());
  }
  STARLING_CHECK((*writer)->Finish().ok());
  return disk.files["/f"];
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string two =
      R"({"__metadata__":{"a":"b"},"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},)"
      R"("a":{"data_offsets":[0,4],"shape":[1,1],"dtype":"F32"}})";
  const std::string one = R"({"t":{"dtype":"F64","shape":[3],"data_offsets":[0,24]}})";
  std::vector<std::string> seeds = {OwnFile(), Framed(two, 7), Framed(one, 24), Framed("{}", 0)};
  for (size_t spaces = 0; spaces < 3; ++spaces) {
    seeds.push_back("h" + two + std::string(spaces, ' '));
    seeds.push_back("h" + one + std::string(spaces, ' '));
  }
  return seeds;
}

void FuzzOne(const std::string& input) {
  const std::string bytes = FileOf(input);
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse(Blob::OfString(bytes), "f");
  if (!file.ok()) {
    STARLING_CHECK(absl::IsDataLoss(file.status()) || absl::IsInvalidArgument(file.status()));
    return;
  }
  uint64_t total = 0;
  std::set<std::string> names;
  for (const TensorEntry& entry : file->tensors()) {
    STARLING_CHECK(names.insert(entry.name).second);
    STARLING_CHECK(file->Find(entry.name) == &entry);
    const Blob tensor = file->Tensor(entry);
    STARLING_CHECK_EQ(tensor.size_bytes(), entry.end - entry.begin);
    STARLING_CHECK_EQ(tensor.ToStringBytes().size(), tensor.size_bytes());
    total += tensor.size_bytes();
  }
  STARLING_CHECK(total + 8 <= bytes.size());
}

}  // namespace starling
