#include "runtime/base/blob.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Blob, DefaultIsEmptyBytesOfShapeZero) {
  const Blob blob;
  EXPECT_TRUE(blob.empty());
  EXPECT_EQ(blob.size_bytes(), 0u);
  EXPECT_EQ(blob.element_count(), 0);
  EXPECT_THAT(blob.shape(), ElementsAre(0));
  EXPECT_THAT(blob.As<uint8_t>(), IsEmpty());
  EXPECT_EQ(blob.ToStringBytes(), "");
}

TEST(Blob, SizeIsElementsTimesElementSize) {
  const std::pair<DType, size_t> sizes[] = {{DType::kU8, 1},  {DType::kI32, 4}, {DType::kI64, 8},
                                            {DType::kF32, 4}, {DType::kF16, 2}, {DType::kBF16, 2}};
  for (const auto& [dtype, size] : sizes) {
    MutableBlob made = MutableBlob::Zeros(dtype, {2, 3});
    EXPECT_EQ(made.size_bytes(), 6 * size) << ToString(dtype);
    EXPECT_EQ(std::move(made).Freeze().size_bytes(), 6 * size) << ToString(dtype);
  }
}

TEST(Blob, ScalarHasOneElement) {
  const float value = 2.5f;
  const Blob blob = Blob::CopyOf(&value, DType::kF32, {});
  EXPECT_EQ(blob.element_count(), 1);
  EXPECT_THAT(blob.As<float>(), ElementsAre(2.5f));
}

TEST(Blob, EveryDTypeHasItsOwnName) {
  EXPECT_STREQ(ToString(DType::kU8), "u8");
  EXPECT_STREQ(ToString(DType::kI32), "i32");
  EXPECT_STREQ(ToString(DType::kI64), "i64");
  EXPECT_STREQ(ToString(DType::kF32), "f32");
  EXPECT_STREQ(ToString(DType::kF16), "f16");
  EXPECT_STREQ(ToString(DType::kBF16), "bf16");
  EXPECT_STREQ(ToString(static_cast<DType>(99)), "?");
}

TEST(Blob, CopyOfIsIndependentOfItsSource) {
  std::vector<float> values = {1, 2, 3};
  const Blob blob = Blob::OfFloats(values);
  values[1] = 7;
  EXPECT_THAT(blob.As<float>(), ElementsAre(1, 2, 3));
  EXPECT_THAT(blob.shape(), ElementsAre(3));
}

TEST(Blob, CopyOfNothingReadsNothing) {
  const Blob blob = Blob::CopyOf(nullptr, DType::kF32, {0, 8});
  EXPECT_TRUE(blob.empty());
  EXPECT_THAT(blob.shape(), ElementsAre(0, 8));
}

TEST(Blob, StringKeepsZeroBytes) {
  const std::string bytes("a\0b", 3);
  EXPECT_EQ(Blob::OfString(bytes).ToStringBytes(), bytes);
}

TEST(Blob, SliceSharesTheBytesAndKeepsThemAlive) {
  Blob slice;
  const std::byte* third = nullptr;
  {
    const Blob whole = Blob::OfFloats({1, 2, 3, 4, 5});
    third = whole.data() + 2 * sizeof(float);
    slice = whole.Slice(2, 2);
  }
  EXPECT_EQ(slice.data(), third);
  EXPECT_EQ(slice.dtype(), DType::kF32);
  EXPECT_THAT(slice.shape(), ElementsAre(2));
  EXPECT_THAT(slice.As<float>(), ElementsAre(3, 4));
}

TEST(Blob, SliceOfAMatrixIsFlat) {
  const int32_t values[] = {1, 2, 3, 4, 5, 6};
  const Blob matrix = Blob::CopyOf(values, DType::kI32, {2, 3});
  EXPECT_THAT(matrix.Slice(3, 3).As<int32_t>(), ElementsAre(4, 5, 6));
  EXPECT_THAT(matrix.Slice(6, 0).As<int32_t>(), IsEmpty());
}

TEST(BlobDeathTest, SliceBeyondTheEndAborts) {
  const Blob blob = Blob::OfFloats({1, 2, 3});
  EXPECT_DEATH(blob.Slice(2, 2), "check failed");
  EXPECT_DEATH(blob.Slice(-1, 1), "check failed");
  EXPECT_DEATH(blob.Slice(1, -1), "check failed");
}

TEST(Blob, ReshapedSharesTheBytes) {
  const Blob flat = Blob::OfFloats({1, 2, 3, 4});
  const Blob square = flat.Reshaped({2, 2});
  EXPECT_EQ(square.data(), flat.data());
  EXPECT_THAT(square.shape(), ElementsAre(2, 2));
}

TEST(BlobDeathTest, ReshapeToAnotherCountAborts) {
  EXPECT_DEATH(Blob::OfFloats({1, 2, 3}).Reshaped({2, 2}), "4 vs 3");
}

TEST(BlobDeathTest, ReadingAsAnotherElementSizeAborts) {
  EXPECT_DEATH(Blob::OfFloats({1}).As<double>(), "8 vs 4");
}

TEST(BlobDeathTest, ReadingAtABadAlignmentAborts) {
  alignas(8) static const char bytes[12] = {};
  const Blob crooked(std::shared_ptr<const void>(), bytes + 1, DType::kF32, {2});
  EXPECT_DEATH(crooked.As<float>(), "check failed");
}

TEST(Blob, ForeignOwnerIsReleasedWithTheLastCopy) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
  const std::weak_ptr<std::vector<float>> watch = owner;
  const float* data = owner->data();
  Blob blob(std::move(owner), data, DType::kF32, {2});
  Blob slice = blob.Slice(1, 1);
  blob = Blob();
  EXPECT_FALSE(watch.expired());
  EXPECT_THAT(slice.As<float>(), ElementsAre(2));
  slice = Blob();
  EXPECT_TRUE(watch.expired());
}

TEST(MutableBlob, IsAlignedTo64BytesAndFreezesWithoutACopy) {
  for (const int64_t count : {0, 1, 3, 1000}) {
    MutableBlob made = MutableBlob::Uninitialized(DType::kF32, {count});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(made.data()) % 64, 0u);
    for (float& value : made.As<float>()) value = 4;
    const std::byte* before = made.data();
    const Blob frozen = std::move(made).Freeze();
    EXPECT_EQ(frozen.data(), before);
    EXPECT_THAT(frozen.As<float>(), testing::Each(4.0f));
    EXPECT_EQ(frozen.element_count(), count);
  }
}

TEST(MutableBlob, EncodedOnesSayWhatTheyDecodeTo) {
  MutableBlob made = MutableBlob::ForEncoded(Encoding::kInt8, {2, 100});
  EXPECT_EQ(made.size_bytes(), 200u + 2 * 4);
  const std::byte* before = made.data();
  const Blob frozen = std::move(made).Freeze();
  EXPECT_EQ(frozen.data(), before);
  EXPECT_TRUE(frozen.encoded());
  EXPECT_EQ(frozen.encoding(), Encoding::kInt8);
  EXPECT_EQ(frozen.dtype(), DType::kF32);
  EXPECT_EQ(frozen.element_count(), 200);
  const Blob reshaped = frozen.Reshaped({200});
  EXPECT_EQ(reshaped.encoding(), Encoding::kInt8);
  EXPECT_EQ(reshaped.size_bytes(), frozen.size_bytes());
  EXPECT_EQ(reshaped.data(), frozen.data());
}

TEST(BlobDeathTest, ElementsOfAnEncodedOneAreNotToBeHad) {
  const Blob blob = MutableBlob::ForEncoded(Encoding::kF16, {8}).Freeze();
  EXPECT_DEATH(blob.As<float>(), "encoded");
  EXPECT_DEATH(blob.Slice(0, 4), "encoded");
}

TEST(MutableBlob, ZerosAreZero) {
  EXPECT_THAT(MutableBlob::Zeros(DType::kI64, {3}).As<int64_t>(), ElementsAre(0, 0, 0));
}

}  // namespace
}  // namespace starling
