#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::HasSubstr;

std::string Framed(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  return file + header + data;
}

absl::StatusOr<SafetensorsFile> Parse(const std::string& bytes) {
  return SafetensorsFile::Parse(Blob::OfString(bytes), "f");
}

TensorEntry Entry(const std::string& name, TensorType type, std::vector<int64_t> shape) {
  TensorEntry entry;
  entry.name = name;
  entry.type = type;
  entry.shape = std::move(shape);
  return entry;
}

constexpr TensorType kAllTypes[] = {
    TensorType::kBool, TensorType::kU8,  TensorType::kI8,  TensorType::kF8E4M3, TensorType::kF8E5M2,
    TensorType::kU16,  TensorType::kI16, TensorType::kF16, TensorType::kBF16,   TensorType::kU32,
    TensorType::kI32,  TensorType::kF32, TensorType::kU64, TensorType::kI64,    TensorType::kF64};

TEST(Safetensors, EveryElementTypeRoundTrips) {
  MemoryDisk disk;
  std::vector<TensorEntry> entries;
  std::vector<Blob> blobs;
  for (const TensorType type : kAllTypes) {
    entries.push_back(Entry(std::string("t.") + ToString(type), type, {2, 3}));
    std::string bytes;
    for (size_t i = 0; i < 6 * SizeOf(type); ++i) bytes.push_back(static_cast<char>(i * 7 + 1));
    const auto dtype = DTypeOf(type);
    blobs.push_back(dtype ? Blob::CopyOf(bytes.data(), *dtype, {2, 3}) : Blob::OfString(bytes));
  }
  entries.push_back(Entry("scalar", TensorType::kF32, {}));
  blobs.push_back(Blob::CopyOf("\0\0\x80\x3f", DType::kF32, {}));
  entries.push_back(Entry("nothing", TensorType::kF32, {0, 5}));
  blobs.push_back(Blob::CopyOf("", DType::kF32, {0, 5}));

  auto writer = SafetensorsWriter::Create(disk, "/f", entries, {{"who", "me \"quoted\""}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const Blob& blob : blobs) ASSERT_TRUE((*writer)->Append(blob).ok());
  const auto written = (*writer)->Finish();
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->bytes, disk.files["/f"].size());
  EXPECT_EQ(written->hash, HashBytes(disk.files["/f"].data(), disk.files["/f"].size()));

  const auto file = SafetensorsFile::Open(disk, "/f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), entries.size());
  EXPECT_EQ(file->metadata().at("who"), "me \"quoted\"");
  for (size_t i = 0; i < entries.size(); ++i) {
    const TensorEntry* entry = file->Find(entries[i].name);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->type, entries[i].type);
    EXPECT_EQ(entry->shape, entries[i].shape);
    const Blob tensor = file->Tensor(*entry);
    EXPECT_EQ(tensor.dtype(), blobs[i].dtype());
    EXPECT_EQ(tensor.shape(), blobs[i].shape());
    EXPECT_EQ(tensor.ToStringBytes(), blobs[i].ToStringBytes());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % SizeOf(tensor.dtype()), 0u);
  }
  EXPECT_EQ(file->Find("other"), nullptr);
}

TEST(Safetensors, EveryBlobTypeHasAPlace) {
  for (const DType dtype :
       {DType::kU8, DType::kI32, DType::kI64, DType::kF32, DType::kF16, DType::kBF16}) {
    EXPECT_EQ(DTypeOf(TensorTypeOf(dtype)), dtype);
    EXPECT_EQ(SizeOf(TensorTypeOf(dtype)), SizeOf(dtype));
  }
}

TEST(SafetensorsWriter, PiecesMakeTheSameFileHoweverTheyAreCut) {
  const std::vector<TensorEntry> entries = {Entry("a", TensorType::kF32, {3}),
                                            Entry("b", TensorType::kU8, {5})};
  const std::string data = "twelve bytes12345";
  std::set<std::string> files;
  for (size_t piece = 1; piece <= data.size(); ++piece) {
    MemoryDisk disk;
    auto writer = SafetensorsWriter::Create(disk, "/f", entries, {});
    ASSERT_TRUE(writer.ok());
    for (size_t at = 0; at < data.size(); at += piece) {
      const std::string part = data.substr(at, piece);
      EXPECT_EQ((*writer)->Finish().status().code(), absl::StatusCode::kInvalidArgument);
      ASSERT_TRUE((*writer)->AppendBytes(part.data(), part.size()).ok());
    }
    EXPECT_EQ((*writer)->AppendBytes("x", 1).code(), absl::StatusCode::kInvalidArgument);
    ASSERT_TRUE((*writer)->Finish().ok());
    files.insert(disk.files["/f"]);
  }
  EXPECT_EQ(files.size(), 1u);
}

TEST(Safetensors, ReadsAFileWrittenByHand) {
  const auto file = Parse(Framed(
      R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}  )",
      std::string("\0\0\x80\x3f"
                  "xyz",
                  7)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Tensor(*file->Find("a")).As<float>()[0], 1.0f);
  EXPECT_EQ(file->Tensor(*file->Find("b")).ToStringBytes(), "xyz");
  EXPECT_EQ(file->tensors()[0].name, "a");
}

TEST(Safetensors, EmptyFileOfNoTensorsIsFine) { EXPECT_TRUE(Parse(Framed("{}", "")).ok()); }

struct BadFile {
  const char* header;
  size_t data_bytes;
  const char* message;
};

TEST(Safetensors, MalformedFilesAreRefusedWithTheCause) {
  const BadFile cases[] = {
      {"", 0, "its header is not JSON"},
      {"[]", 0, "its header is not JSON"},
      {" {}", 0, "its header is not JSON"},
      {"{", 0, "not JSON with unique names"},
      {"{}x", 0, "not JSON with unique names"},
      {"{}", 1, "its tensors are 0 bytes, but it holds 1"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "unique names"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1, "unique names"},
      {R"({"a":1})", 0, "tensor a: is not described by"},
      {R"({"a":{"dtype":"U8","shape":[1]}})", 1, "tensor a: is not described by"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "is not described by"},
      {R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1, "is not described by"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "has bad data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551616]}})", 1,
       "has bad data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", 1, "size that is not that of"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", 3, "size that is not that of"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "size that is not that of"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "size that is not that of"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor b: overlaps"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "tensor b: leaves a gap"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "tensor a: leaves a gap"},
      {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 2,
       "its tensors are 3 bytes, but it holds 2"},
      {R"({"a":[[[[[[]]]]]]})", 0, "tensor a: is not described by"},
      {R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":{"dtype":"U8","shape":{"b":1},"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "has bad data_offsets"},
      {R"({"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}})", 1, "has a bad shape"},
      {R"({"a":null})", 0, "tensor a: is not described by"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "names a key twice"},
      {R"({"__metadata__":{"a":{}}})", 0, "__metadata__ is not a map of text"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ is not a map of text"},
      {R"({"__metadata__":[]})", 0, "__metadata__ is not a map of text"},
  };
  for (const BadFile& bad : cases) {
    const auto file = Parse(Framed(bad.header, std::string(bad.data_bytes, 'x')));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << bad.header;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(bad.message));
    EXPECT_THAT(std::string(file.status().message()), ::testing::StartsWith("f: ")) << bad.header;
  }
}

TEST(Safetensors, HeaderSizeThatDoesNotFitIsRefused) {
  EXPECT_EQ(Parse("").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Parse("1234567").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Parse(std::string(8, '\xff') + "{}").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Parse(std::string("\x03\0\0\0\0\0\0\0{}", 10)).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(Safetensors, UnsupportedElementTypeIsNamed) {
  const auto file =
      Parse(Framed(R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})", "12345678"));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file.status().message(), "f: tensor a: element type C64 is not supported");
}

TEST(Safetensors, DeepNestingIsRefusedAtOnce) {
  const std::string deep(5 << 20, '[');
  for (const char* before : {"{\"a\":", "{\"__metadata__\":", "{\"a\":{\"shape\":"}) {
    EXPECT_EQ(Parse(Framed(before + deep, "")).status().code(), absl::StatusCode::kDataLoss);
  }
  std::string objects = "{";
  for (int i = 0; i < 1 << 20; ++i) objects += "\"a\":{";
  EXPECT_EQ(Parse(Framed(objects, "")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Safetensors, MoreDimensionsThanTheBoundAreRefused) {
  std::string ones = "1";
  for (size_t i = 1; i < kMaxTensorRank; ++i) ones += ",1";
  const auto header = [](const std::string& shape) {
    return R"({"a":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,1]}})";
  };
  EXPECT_TRUE(Parse(Framed(header(ones), "x")).ok());
  EXPECT_EQ(Parse(Framed(header(ones + ",1"), "x")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string whole =
      Framed(R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})", "12345");
  ASSERT_TRUE(Parse(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Parse(whole.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(Safetensors, TensorsTheFileDoesNotAlignAreCopied) {
  const auto file = Parse(Framed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                 std::string("\0\0\x80\x3f", 4)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Tensor(*file->Find("a")).As<float>()[0], 1.0f);  // As checks the alignment
}

TEST(SafetensorsWriter, RefusesWhatItDidNotAnnounce) {
  MemoryDisk disk;
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const std::vector<TensorEntry> twice = {Entry("a", TensorType::kU8, {1}),
                                          Entry("a", TensorType::kU8, {1})};
  EXPECT_EQ(SafetensorsWriter::Create(disk, "/f", twice, {}).status().code(), invalid);
  const std::vector<TensorEntry> reserved = {Entry("__metadata__", TensorType::kU8, {1})};
  EXPECT_EQ(SafetensorsWriter::Create(disk, "/f", reserved, {}).status().code(), invalid);

  auto writer = SafetensorsWriter::Create(disk, "/f", {Entry("a", TensorType::kF32, {2})}, {});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->Append(Blob::OfFloats({1, 2, 3})).code(), invalid);
  EXPECT_EQ((*writer)->Finish().status().code(), invalid);
  EXPECT_TRUE((*writer)->Append(Blob::OfFloats({1, 2})).ok());
  EXPECT_EQ((*writer)->Append(Blob::OfFloats({1, 2})).code(), invalid);
  EXPECT_TRUE((*writer)->Finish().ok());
}

}  // namespace
}  // namespace starling
