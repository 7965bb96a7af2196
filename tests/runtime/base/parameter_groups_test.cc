#include "runtime/base/parameter_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace starling {
namespace {

using ::testing::ElementsAre;

TensorSpec Spec(std::string name, int64_t count, int tie = kNoTie, bool stored = true) {
  TensorSpec spec;
  spec.name = std::move(name);
  spec.shape = {count};
  spec.tie = tie;
  spec.stored = stored;
  return spec;
}

std::vector<StageLayout> TiedOverThree() {
  return {MakeLayout({Spec("embed", 20, 0), Spec("z", 3)}), MakeLayout({Spec("b", 40)}),
          MakeLayout({Spec("embed", 20, 0, false), Spec("a", 17), Spec("z2", 1)})};
}

TEST(ParameterGroups, UntiedStageIsOneGroupOfItsWholeRun) {
  const std::vector<StageLayout> layouts = {MakeLayout({Spec("a", 20)}),
                                            MakeLayout({Spec("b", 3), Spec("c", 3)})};
  const std::vector<ParameterGroup> groups = ParameterGroups(layouts);
  ASSERT_EQ(groups.size(), 2u);
  for (uint32_t stage : {0u, 1u}) {
    EXPECT_THAT(groups[stage].stages, ElementsAre(StageId{stage}));
    EXPECT_EQ(groups[stage].size, 32);
    const std::vector<GroupRange> ranges = GroupRangesOf(layouts[stage], StageId{stage}, 2);
    ASSERT_EQ(ranges.size(), 1u);
    EXPECT_EQ(ranges[0].group, stage);
    EXPECT_EQ(ranges[0].begin, 0);
    EXPECT_EQ(ranges[0].count, 32);
  }
  EXPECT_EQ(ToString(groups[1]), "stage 1");
}

TEST(ParameterGroups, TieIsAGroupOfItsOwnAtTheEndOfEachOfItsStages) {
  const std::vector<StageLayout> layouts = TiedOverThree();
  const std::vector<ParameterGroup> groups = ParameterGroups(layouts);
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[0].size, 16);
  EXPECT_EQ(groups[1].size, 48);
  EXPECT_EQ(groups[2].size, 48);
  EXPECT_THAT(groups[3].stages, ElementsAre(StageId{0}, StageId{2}));
  EXPECT_EQ(groups[3].size, 32);
  EXPECT_EQ(ToString(groups[3]), "the tie of stages 0 and 2");
  EXPECT_TRUE(Concerns(groups[3], StageId{2}));
  EXPECT_FALSE(Concerns(groups[3], StageId{1}));
  const std::vector<GroupRange> last = GroupRangesOf(layouts[2], StageId{2}, 3);
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0].group, 2u);
  EXPECT_EQ(last[0].count, 48);
  EXPECT_EQ(last[1].group, 3u);
  EXPECT_EQ(last[1].begin, 48);
  EXPECT_EQ(last[1].count, 32);
}

TEST(ParameterGroupsDeathTest, TieThatDiffersBetweenItsStagesIsAProgrammerError) {
  std::vector<StageLayout> layouts = TiedOverThree();
  layouts[2] = MakeLayout({Spec("embed", 21, 0, false), Spec("a", 17)});
  EXPECT_DEATH(ParameterGroups(layouts), "different tensors");
  layouts[2] = MakeLayout({Spec("embed", 20, 0, true), Spec("a", 17)});
  EXPECT_DEATH(ParameterGroups(layouts), "stored twice: embed");
  layouts[0] = MakeLayout({Spec("embed", 20, 0, false), Spec("z", 3)});
  layouts[2] = MakeLayout({Spec("embed", 20, 0, false), Spec("a", 17)});
  EXPECT_DEATH(ParameterGroups(layouts), "stored nowhere: embed");
}

}  // namespace
}  // namespace starling
