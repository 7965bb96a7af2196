#include "runtime/config/run_config.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

std::vector<int64_t> Begins(const RunConfig& config) {
  std::vector<int64_t> begins;
  int64_t end = 0;
  for (const LayerRange& range : StageRanges(config)) {
    EXPECT_EQ(range.begin, end);
    EXPECT_LT(range.begin, range.end);
    end = range.end;
    begins.push_back(range.begin);
  }
  EXPECT_EQ(end, config.model.layers);
  return begins;
}

TEST(StageRanges, EqualCutsGiveEarlierStagesTheExtraLayers) {
  RunConfig config;
  config.model.layers = 8;
  config.swarm.stages = 3;
  EXPECT_EQ(Begins(config), (std::vector<int64_t>{0, 3, 6}));
  config.swarm.stages = 5;
  EXPECT_EQ(Begins(config), (std::vector<int64_t>{0, 2, 4, 6, 7}));
  config.swarm.stages = 1;
  EXPECT_EQ(Begins(config), (std::vector<int64_t>{0}));
  config.swarm.stages = 8;
  EXPECT_EQ(Begins(config), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(StageRanges, GivenCutsAreUsed) {
  RunConfig config;
  config.swarm.cuts = {1, 5};
  EXPECT_EQ(Begins(config), (std::vector<int64_t>{0, 1, 5}));
  EXPECT_EQ(config.stage_count(), 3u);
}

TEST(PerStage, OneNumberIsForAllAndAListIsByStage) {
  EXPECT_EQ(PerStage({2}, 7), 2);
  EXPECT_EQ(PerStage({3, 1, 2}, 2), 2);
}

}  // namespace
}  // namespace starling
