#include "runtime/base/layout.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace starling {
namespace {

TensorSpec Spec(std::string name, std::vector<int64_t> shape) {
  TensorSpec spec;
  spec.name = std::move(name);
  spec.shape = std::move(shape);
  return spec;
}

TEST(Layout, TensorsLieInTheOrderOfTheirNamesWhateverTheOrderGiven) {
  const StageLayout one = MakeLayout({Spec("b", {3}), Spec("a", {5}), Spec("c", {2, 2})});
  const StageLayout other = MakeLayout({Spec("c", {2, 2}), Spec("b", {3}), Spec("a", {5})});
  ASSERT_EQ(one.tensors.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(one.tensors[i].name, std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(one.tensors[i].name, other.tensors[i].name);
    EXPECT_EQ(one.tensors[i].offset, other.tensors[i].offset);
  }
}

TEST(Layout, EachTensorStartsAligned) {
  const StageLayout layout = MakeLayout({Spec("a", {1}), Spec("b", {16}), Spec("c", {17})});
  EXPECT_EQ(layout.tensors[0].offset, 0);
  EXPECT_EQ(layout.tensors[1].offset, 16);
  EXPECT_EQ(layout.tensors[2].offset, 32);
  EXPECT_EQ(layout.size, 64);
  EXPECT_EQ(layout.parameter_count(), 1 + 16 + 17);
}

TEST(Layout, ScalarTakesOneElementAndAnEmptyTensorNone) {
  const StageLayout layout = MakeLayout({Spec("empty", {0, 4}), Spec("scalar", {})});
  EXPECT_EQ(layout.tensors[0].count, 0);
  EXPECT_EQ(layout.tensors[1].count, 1);
  EXPECT_EQ(layout.tensors[1].offset, 0);
  EXPECT_EQ(layout.size, kTensorAlignment);
}

TEST(Layout, NothingHasSizeZero) {
  EXPECT_EQ(MakeLayout({}).size, 0);
  EXPECT_EQ(MakeLayout({}).parameter_count(), 0);
}

TEST(Layout, KeepsDecayAndInitialisation) {
  TensorSpec weight = Spec("w", {2, 2});
  weight.decay = true;
  weight.init = InitKind::kNormal;
  weight.init_std = 0.02f;
  const StageLayout layout = MakeLayout({weight, Spec("bias", {2})});
  EXPECT_FALSE(layout.tensors[0].decay);
  EXPECT_TRUE(layout.tensors[1].decay);
  EXPECT_EQ(layout.tensors[1].init, InitKind::kNormal);
  EXPECT_EQ(layout.tensors[1].init_std, 0.02f);
}

TEST(LayoutDeathTest, TheSameNameTwiceAborts) {
  EXPECT_DEATH(MakeLayout({Spec("w", {1}), Spec("v", {1}), Spec("w", {2})}), "twice: w");
}

}  // namespace
}  // namespace starling
