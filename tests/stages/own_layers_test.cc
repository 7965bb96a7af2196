#include "stages/own_layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/hash.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::HasSubstr;

TEST(LayerCalls, AreTakenApart) {
  EXPECT_FALSE(IsLayerCall("stem.pt"));
  EXPECT_FALSE(IsLayerCall("dir/stem(1).pt"));
  EXPECT_FALSE(IsLayerCall("my layers(1)"));
  ASSERT_TRUE(IsLayerCall("conv_block(in=8, out = 16)"));
  const auto call = ParseLayerCall("conv_block(in=8, out = 16)");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->name, "conv_block");
  EXPECT_EQ(call->arguments, (std::map<std::string, std::string>{{"in", "8"}, {"out", "16"}}));
  EXPECT_TRUE(ParseLayerCall("relu()")->arguments.empty());
  for (const char* bad : {"a(b)", "a(b=)", "a(=1)", "a(b=1, b=2)", "a(b=1,)"}) {
    EXPECT_EQ(ParseLayerCall(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(LayerNames, AreThoseOfTheFiles) {
  EXPECT_EQ(LayerName("models/a.pt"), "a.pt");
  EXPECT_EQ(LayerName("a.pt"), "a.pt");
  EXPECT_EQ(LayerName("block(path=a/b)"), "block(path=a/b)");
}

ModelConfig Model(std::vector<std::string> layers) {
  ModelConfig model;
  model.layers = static_cast<int64_t>(layers.size());
  model.own_layers = std::move(layers);
  return model;
}

TEST(LayerSources, AreReadFromTheFolderAndCheckedAgainstTheRunsSums) {
  MemoryDisk disk;
  disk.files["/own/a.pt"] = "first";
  disk.files["/elsewhere/b.pt"] = "second";
  ModelConfig model = Model({"a.pt", "/elsewhere/b.pt", "relu()"});
  const auto sources = ReadLayerSources(disk, "/own", model, LayerRange{0, 3});
  ASSERT_TRUE(sources.ok()) << sources.status();
  EXPECT_EQ((*sources)[0].path, "/own/a.pt");
  EXPECT_EQ((*sources)[1].bytes.ToStringBytes(), "second");
  EXPECT_EQ((*sources)[2].path, "");

  model.own_sha256 = {(*sources)[0].sha256, (*sources)[1].sha256, ""};
  EXPECT_TRUE(ReadLayerSources(disk, "/own", model, LayerRange{0, 3}).ok());
  disk.files["/own/a.pt"] = "another";
  // Of the layers that are asked for only.
  EXPECT_TRUE(ReadLayerSources(disk, "/own", model, LayerRange{1, 3}).ok());
  const absl::Status status = ReadLayerSources(disk, "/own", model, LayerRange{0, 1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("layer 0 (/own/a.pt): is not the file of this run"));
  disk.files.erase("/own/a.pt");
  EXPECT_EQ(ReadLayerSources(disk, "/own", model, LayerRange{0, 1}).status().code(),
            absl::StatusCode::kNotFound);
}

OwnLayer Layer(const std::string& name, std::vector<TensorSpec> tensors,
               std::vector<int64_t> output) {
  OwnLayer layer;
  layer.name = name;
  layer.tensors = std::move(tensors);
  layer.output.dims = std::move(output);
  return layer;
}

TEST(OwnModels, EveryStageNeedsParametersAndTheLastLayerClasses) {
  const std::vector<OwnLayer> layers = {Layer("a.pt", {OwnTensor(0, "weight", {2, 2})}, {2}),
                                        Layer("relu()", {}, {2}),
                                        Layer("b.pt", {OwnTensor(2, "weight", {3, 2})}, {3})};
  EXPECT_TRUE(CheckOwnModel(layers, {{0, 2}, {2, 3}}, {}).ok());
  EXPECT_THAT(std::string(CheckOwnModel(layers, {{0, 1}, {1, 2}, {2, 3}}, {}).message()),
              HasSubstr("none of the layers 1 to 1, stage 1, has parameters"));
  EXPECT_THAT(std::string(CheckOwnModel(layers, {{0, 3}}, {4}).message()),
              HasSubstr("gives f32 [n, 3], but targets of shape [n, 4] need"));
}

TEST(OwnModels, LinkedLayersAreKnownByEntryNamesAndShapes) {
  const std::string sum = LinkedLayerSha256("a(b=1)", {OwnTensor(0, "weight", {2, 3})});
  EXPECT_EQ(sum.size(), 64u);
  EXPECT_NE(sum, LinkedLayerSha256("a(b=2)", {OwnTensor(0, "weight", {2, 3})}));
  EXPECT_NE(sum, LinkedLayerSha256("a(b=1)", {OwnTensor(0, "weight", {3, 2})}));
  EXPECT_NE(sum, LinkedLayerSha256("a(b=1)", {OwnTensor(0, "bias", {2, 3})}));
}

}  // namespace
}  // namespace starling
