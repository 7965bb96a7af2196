#include "checkpoint/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::Layouts;
using starling::testing::MemoryDisk;
using starling::testing::Meta;
using starling::testing::Parts;
using starling::testing::StateOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFolder[] = "/run/checkpoints";

class CheckpointStoreTest : public ::testing::Test {
 protected:
  CheckpointStoreTest() { EXPECT_TRUE(disk_.MakeDirectories("/run").ok()); }

  void Save(uint64_t version, const std::vector<int>& cut = {2, 2}) {
    const absl::Status status = store_.Save(disk_, Meta(version), Parts(Layouts(cut), version));
    ASSERT_TRUE(status.ok()) << status;
  }

  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const auto infos = store_.List(disk_);
    EXPECT_TRUE(infos.ok()) << infos.status();
    for (const CheckpointInfo& info : *infos) names.push_back(info.name);
    return names;
  }

  CheckpointInfo Newest() {
    const auto info = store_.Newest(disk_);
    EXPECT_TRUE(info.ok()) << info.status();
    return *info;
  }

  // That `info` holds the model's state of `version`.
  void ExpectLoads(const CheckpointInfo& info, uint64_t version, const std::vector<int>& cut) {
    for (const StageLayout& layout : Layouts(cut)) {
      const auto state = LoadStage(disk_, info, layout);
      ASSERT_TRUE(state.ok()) << state.status();
      EXPECT_EQ(state->ToStringBytes(), StateOf(layout, version).ToStringBytes());
    }
  }

  MemoryDisk disk_;
  CheckpointStore store_{kFolder};
};

TEST_F(CheckpointStoreTest, NothingSavedIsListedAsNothing) {
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_EQ(store_.Newest(disk_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointStoreTest, SavedStateLoadsForEveryCut) {
  Save(50, {1, 2, 1});
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
  for (const std::vector<int>& cut :
       std::vector<std::vector<int>>{{1, 2, 1}, {4}, {2, 2}, {1, 1, 1, 1}, {3, 1}}) {
    ExpectLoads(Newest(), 50, cut);
  }
}

TEST_F(CheckpointStoreTest, ManifestSaysWhatWasSaved) {
  CheckpointMeta meta = Meta(50, 3);
  meta.updates = 48;
  meta.sequences = 1600;
  meta.text_sha256 = std::string(64, '0');
  ASSERT_TRUE(store_.Save(disk_, meta, Parts(Layouts({2, 2}), 50)).ok());
  const auto manifest = LoadManifest(disk_, Newest());
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->meta.run, RunId{77});
  EXPECT_EQ(manifest->meta.era, Era{3});
  EXPECT_EQ(manifest->meta.updates, 48u);
  EXPECT_EQ(manifest->meta.sequences, 1600u);
  EXPECT_EQ(manifest->meta.config_toml, meta.config_toml);
  EXPECT_EQ(manifest->parameters.size(), 9u);
  EXPECT_EQ(manifest->files.size(), 4u);
}

TEST_F(CheckpointStoreTest, EverythingIsSyncedBeforeTheOneRename) {
  Save(50);
  size_t renames = 0;
  std::set<std::string> unsynced;
  bool folder_synced = false;
  for (const std::string& entry : disk_.log) {
    const std::string path = entry.substr(entry.find(' ') + 1);
    if (entry.rfind("append ", 0) == 0) unsynced.insert(path);
    if (entry.rfind("sync ", 0) == 0) unsynced.erase(path);
    if (entry.rfind("sync folder /run/checkpoints/tmp-", 0) == 0) folder_synced = true;
    if (entry.rfind("rename ", 0) != 0) continue;
    ++renames;
    EXPECT_THAT(unsynced, IsEmpty());
    EXPECT_TRUE(folder_synced);
  }
  EXPECT_EQ(renames, 1u);
  EXPECT_EQ(disk_.log.back(), std::string("sync folder ") + kFolder);
}

TEST_F(CheckpointStoreTest, TornSavesAndForeignFilesAreIgnored) {
  Save(50);
  disk_.folders.insert(std::string(kFolder) + "/tmp-step-00000099");
  disk_.files[std::string(kFolder) + "/tmp-step-00000099/manifest.json"] = "half";
  disk_.folders.insert(std::string(kFolder) + "/step-00000098");  // no manifest
  disk_.folders.insert(std::string(kFolder) + "/step-97");
  disk_.files[std::string(kFolder) + "/step-97/manifest.json"] = "x";
  disk_.files[std::string(kFolder) + "/notes.txt"] = "mine";
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
  Save(60);
  EXPECT_THAT(Names(), ElementsAre("step-00000050", "step-00000060"));
  EXPECT_FALSE(disk_.Exists(std::string(kFolder) + "/tmp-step-00000099"));
  EXPECT_TRUE(disk_.Exists(std::string(kFolder) + "/notes.txt"));
  EXPECT_TRUE(disk_.Exists(std::string(kFolder) + "/step-97/manifest.json"));
}

TEST_F(CheckpointStoreTest, FullDiskAtAnyPointLeavesThePreviousOne) {
  Save(50);
  const uint64_t before = disk_.used_bytes();
  const auto files = disk_.files;
  for (uint64_t more = 0; more < before; more += 97) {
    disk_.budget_bytes = before + more;
    const absl::Status status = store_.Save(disk_, Meta(60), Parts(Layouts({2, 2}), 60));
    ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << more;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("cannot save checkpoint /run/checkpoints/step-00000060: "));
    EXPECT_EQ(disk_.files, files) << more;
  }
  disk_.budget_bytes = 3 * before;
  Save(60);
  EXPECT_THAT(Names(), ElementsAre("step-00000050", "step-00000060"));
}

TEST_F(CheckpointStoreTest, FailureOfAnyCallLeavesOnlySoundCheckpoints) {
  Save(50);
  const uint64_t begin = disk_.changing_calls;
  Save(60);
  const uint64_t calls = disk_.changing_calls - begin;
  ASSERT_GT(calls, 10u);
  for (const bool keeps_failing : {false, true}) {
    for (uint64_t call = 0; call < calls; ++call) {
      MemoryDisk disk;
      ASSERT_TRUE(disk.MakeDirectories("/run").ok());
      ASSERT_TRUE(store_.Save(disk, Meta(50), Parts(Layouts({2, 2}), 50)).ok());
      disk.calls_until_failure = disk.changing_calls + call;
      disk.keeps_failing = keeps_failing;
      const absl::Status status = store_.Save(disk, Meta(60), Parts(Layouts({2, 2}), 60));
      // Folders above the run's need not be open to this user.
      if (keeps_failing || disk.failed_call != "sync folder /") {
        EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << call;
      }
      disk.calls_until_failure = std::numeric_limits<uint64_t>::max();
      disk.keeps_failing = false;
      const auto infos = store_.List(disk);
      ASSERT_TRUE(infos.ok());
      ASSERT_GE(infos->size(), 1u);
      for (const CheckpointInfo& info : *infos) {
        const auto report = Verify(disk, info);
        EXPECT_TRUE(report.ok() && report->ok()) << call;
      }
      EXPECT_TRUE(store_.Save(disk, Meta(70), Parts(Layouts({2, 2}), 70)).ok());
      EXPECT_EQ(store_.Newest(disk)->version, Version{70});
    }
  }
}

TEST_F(CheckpointStoreTest, SameStateIsNotSavedAgain) {
  Save(50);
  const auto files = disk_.files;
  Save(50);
  EXPECT_EQ(disk_.files, files);
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
}

TEST_F(CheckpointStoreTest, CheckpointOfALaterEraTakesThePlace) {
  Save(50);
  ASSERT_TRUE(store_.Save(disk_, Meta(50, 1), Parts(Layouts({2, 2}), 51)).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
  ExpectLoads(Newest(), 51, {2, 2});
  EXPECT_EQ(disk_.List(kFolder)->size(), 1u);
}

TEST_F(CheckpointStoreTest, CrashDuringAReplacementLeavesOneThatLoads) {
  Save(50);
  const std::string aside = std::string(kFolder) + "/replaced-step-00000050";
  ASSERT_TRUE(disk_.Rename(std::string(kFolder) + "/step-00000050", aside).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
  ExpectLoads(Newest(), 50, {4});
  Save(60);
  EXPECT_THAT(Names(), ElementsAre("step-00000050", "step-00000060"));
  EXPECT_FALSE(disk_.Exists(aside));
}

TEST_F(CheckpointStoreTest, WrongPartsAreRefused) {
  const std::vector<StageLayout> layouts = Layouts({2, 2});
  std::vector<StagePart> twice = Parts({layouts[0], layouts[0]}, 1);
  EXPECT_EQ(store_.Save(disk_, Meta(1), twice).code(), absl::StatusCode::kInvalidArgument);
  std::vector<StagePart> small = {{layouts[0], Blob::OfFloats({1, 2})}};
  EXPECT_EQ(store_.Save(disk_, Meta(1), small).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(CheckpointStoreTest, PruneKeepsTheNewest) {
  for (uint64_t version : {0, 10, 20, 30}) Save(version);
  ASSERT_TRUE(store_.Prune(disk_, 2).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000020", "step-00000030"));
  EXPECT_EQ(disk_.List(kFolder)->size(), 2u);
  ASSERT_TRUE(store_.Prune(disk_, 5).ok());
  EXPECT_EQ(Names().size(), 2u);
}

TEST_F(CheckpointStoreTest, LaterErasAreNewerWhateverTheirVersion) {
  Save(50);
  Save(100);
  ASSERT_TRUE(store_.Save(disk_, Meta(60, 2), Parts(Layouts({2, 2}), 60)).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000050", "step-00000100", "step-00000060"));
  EXPECT_EQ(Newest().version, Version{60});
  EXPECT_EQ(Newest().era, Era{2});
  ASSERT_TRUE(store_.Prune(disk_, 2).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000100", "step-00000060"));
}

TEST_F(CheckpointStoreTest, ManifestThatCannotBeReadIsListedWithTheCauseAmongTheLatest) {
  Save(50);
  ASSERT_TRUE(store_.Save(disk_, Meta(60, 2), Parts(Layouts({2, 2}), 60)).ok());
  Save(70);
  disk_.files[std::string(kFolder) + "/step-00000070/manifest.json"] += " ";
  EXPECT_THAT(Names(), ElementsAre("step-00000050", "step-00000060", "step-00000070"));
  EXPECT_THAT(Newest().problem, HasSubstr("manifest.json: damaged or altered"));
  EXPECT_EQ((*store_.List(disk_))[1].problem, "");
}

TEST_F(CheckpointStoreTest, MultiplesOfKeepEveryAreKeptForGood) {
  for (uint64_t version : {0, 10, 20, 30, 40, 50}) Save(version);
  const auto doomed = store_.Doomed(disk_, 1, 20);
  ASSERT_TRUE(doomed.ok()) << doomed.status();
  EXPECT_EQ(doomed->size(), 3u);
  EXPECT_EQ(Names().size(), 6u);
  ASSERT_TRUE(store_.Prune(disk_, 1, 20).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000020", "step-00000040", "step-00000050"));
}

TEST_F(CheckpointStoreTest, DamagedOnesAreNotCountedAmongThoseToKeepAndAreLeftAlone) {
  for (uint64_t version : {10, 20, 30}) Save(version);
  ASSERT_TRUE(
      disk_.RemoveFile(std::string(kFolder) + "/step-00000030/parameters-00000.safetensors").ok());
  ASSERT_TRUE(store_.Prune(disk_, 1).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000020", "step-00000030"));
}

TEST_F(CheckpointStoreTest, LeftoversAreNamedAndCleared) {
  Save(50);
  disk_.folders.insert(std::string(kFolder) + "/tmp-step-00000060.7");
  disk_.files[std::string(kFolder) + "/tmp-step-00000060.7/manifest.json"] = "half";
  EXPECT_THAT(*store_.Leftovers(disk_), ElementsAre("tmp-step-00000060.7"));
  ASSERT_TRUE(store_.ClearLeftovers(disk_).ok());
  EXPECT_THAT(*store_.Leftovers(disk_), IsEmpty());
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
}

TEST_F(CheckpointStoreTest, CheckpointOfAnotherModelShapeIsRefusedByName) {
  Save(50);
  const StageLayout wider = Layouts({4}, 8)[0];
  const auto state = LoadStage(disk_, Newest(), wider);
  EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(state.status().message(),
            "checkpoint /run/checkpoints/step-00000050 is of another model shape: embedding is "
            "[10,6] there and [10,8] here");
  const auto deeper = LoadStage(disk_, Newest(), Layouts({5})[0]);
  EXPECT_EQ(deeper.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(deeper.status().message()), HasSubstr("it has no layers.4.norm"));
}

TEST_F(CheckpointStoreTest, CheckModelShapeSeesMoreAndFewerLayers) {
  Save(50);
  const auto manifest = LoadManifest(disk_, Newest());
  ASSERT_TRUE(manifest.ok());
  EXPECT_TRUE(CheckModelShape(Newest(), *manifest, Layouts({1, 3})).ok());
  const absl::Status fewer = CheckModelShape(Newest(), *manifest, Layouts({1, 2}));
  EXPECT_EQ(fewer.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(fewer.message()), HasSubstr("layers.3.norm has no place here"));
  EXPECT_THAT(std::string(CheckModelShape(Newest(), *manifest, Layouts({5})).message()),
              HasSubstr("it has no layers.4.norm"));
  EXPECT_THAT(std::string(CheckModelShape(Newest(), *manifest, Layouts({4}, 8)).message()),
              HasSubstr("embedding is [10,6] there and [10,8] here"));
}

TEST_F(CheckpointStoreTest, SoundCheckpointVerifies) {
  Save(50);
  const auto report = Verify(disk_, Newest());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->problems, IsEmpty());
  EXPECT_EQ(report->files, 4u);
  EXPECT_EQ(report->tensors, 27u);
  EXPECT_GT(report->bytes, 1000u);
}

// What is wrong with `info`, as one text that names the damaged file.
std::string FaultOf(MemoryDisk& disk, const CheckpointInfo& info) {
  const auto report = Verify(disk, info);
  if (!report.ok()) return std::string(report.status().message());
  return report->ok() ? "" : report->problems[0];
}

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

TEST_F(CheckpointStoreTest, EveryFlippedByteIsFoundAndItsFileNamed) {
  Save(50, {1, 1});
  const CheckpointInfo info = Newest();
  size_t flipped = 0;
  for (auto& [path, bytes] : disk_.files) {
    for (size_t at = 0; at < bytes.size(); ++at, ++flipped) {
      // Each byte in one bit, another one from byte to byte, and in all of them.
      for (const int mask : {1 << at % 8, 0xff}) {
        bytes[at] = static_cast<char>(bytes[at] ^ mask);
        EXPECT_THAT(FaultOf(disk_, info), HasSubstr(NameOf(path))) << at;
        bytes[at] = static_cast<char>(bytes[at] ^ mask);
      }
    }
  }
  EXPECT_GT(flipped, 3000u);
  EXPECT_EQ(FaultOf(disk_, info), "");
}

TEST_F(CheckpointStoreTest, NoFlippedByteIsEverLoaded) {
  Save(50, {1, 1});
  const CheckpointInfo info = Newest();
  const StageLayout layout = Layouts({2})[0];
  for (auto& [path, bytes] : disk_.files) {
    for (size_t at = 0; at < bytes.size(); ++at) {
      bytes[at] = static_cast<char>(bytes[at] ^ 1 << at % 8);
      const auto state = LoadStage(disk_, info, layout);
      ASSERT_FALSE(state.ok()) << path << " " << at;
      EXPECT_THAT(std::string(state.status().message()), HasSubstr(NameOf(path))) << at;
      bytes[at] = static_cast<char>(bytes[at] ^ 1 << at % 8);
    }
  }
}

TEST_F(CheckpointStoreTest, EveryTruncationIsFoundAndItsFileNamed) {
  Save(50, {1, 1});
  const CheckpointInfo info = Newest();
  for (auto& [path, bytes] : disk_.files) {
    const std::string whole = bytes;
    for (size_t size = 0; size < whole.size(); size += size < 300 ? 1 : 17) {
      bytes = whole.substr(0, size);
      EXPECT_THAT(FaultOf(disk_, info), HasSubstr(NameOf(path))) << size;
    }
    bytes = whole + "x";
    EXPECT_THAT(FaultOf(disk_, info), HasSubstr(NameOf(path)));
    EXPECT_EQ(CheckComplete(disk_, info).code(), absl::StatusCode::kDataLoss);
    bytes = whole;
  }
  EXPECT_TRUE(CheckComplete(disk_, info).ok());
}

TEST_F(CheckpointStoreTest, SwappedFilesAreFound) {
  Save(50, {2, 2});
  Save(60, {2, 2});
  const CheckpointInfo info = Newest();
  const auto swap = [&](const std::string& a, const std::string& b) {
    std::swap(disk_.files.at(a), disk_.files.at(b));
  };
  for (const char* kind : {"parameters", "optimizer"}) {
    const std::string first = info.path + "/" + kind + "-00000.safetensors";
    const std::string second = info.path + "/" + kind + "-00001.safetensors";
    swap(first, second);
    EXPECT_THAT(FaultOf(disk_, info), HasSubstr(std::string(kind) + "-0000"));
    swap(first, second);
    // With the file of the same name and size in another checkpoint.
    const std::string other =
        std::string(kFolder) + "/step-00000050/" + kind + "-00000.safetensors";
    ASSERT_EQ(disk_.files.at(first).size(), disk_.files.at(other).size());
    swap(first, other);
    EXPECT_THAT(FaultOf(disk_, info), HasSubstr(std::string(kind) + "-00000"));
    EXPECT_EQ(LoadStage(disk_, info, Layouts({4})[0]).status().code(), absl::StatusCode::kDataLoss);
    swap(first, other);
  }
  swap(info.path + "/manifest.json", std::string(kFolder) + "/step-00000050/manifest.json");
  EXPECT_THAT(FaultOf(disk_, info), HasSubstr("manifest.json is of step 50"));
}

TEST_F(CheckpointStoreTest, ForeignFilesAreNamedAndDoNoHarm) {
  Save(50);
  const CheckpointInfo info = Newest();
  disk_.files[info.path + "/parameters-00009.safetensors"] = "not ours";
  disk_.files[info.path + "/.nfs0001"] = "hidden";
  const auto report = Verify(disk_, info);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->ok());
  EXPECT_THAT(report->strangers, ElementsAre("parameters-00009.safetensors"));
  ExpectLoads(info, 50, {4});
}

TEST_F(CheckpointStoreTest, FlippedOrTruncatedFileIsNotLoaded) {
  Save(50, {4});
  const CheckpointInfo info = Newest();
  const StageLayout layout = Layouts({4})[0];
  for (auto& [path, bytes] : disk_.files) {
    const std::string whole = bytes;
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    EXPECT_EQ(LoadStage(disk_, info, layout).status().code(), absl::StatusCode::kDataLoss) << path;
    bytes = whole.substr(0, whole.size() / 2);
    EXPECT_EQ(LoadStage(disk_, info, layout).status().code(), absl::StatusCode::kDataLoss) << path;
    EXPECT_NE(FaultOf(disk_, info), "") << path;
    bytes = whole;
  }
}

TEST_F(CheckpointStoreTest, MissingFileIsNamed) {
  Save(50);
  const CheckpointInfo info = Newest();
  const std::string gone = info.path + "/optimizer-00001.safetensors";
  ASSERT_TRUE(disk_.RemoveFile(gone).ok());
  const auto report = Verify(disk_, info);
  ASSERT_TRUE(report.ok());
  ASSERT_FALSE(report->ok());
  EXPECT_THAT(report->problems[0], HasSubstr("optimizer-00001.safetensors"));
  const auto state = LoadStage(disk_, info, Layouts({4})[0]);
  EXPECT_EQ(state.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(state.status().message()), HasSubstr("optimizer-00001.safetensors"));
}

TEST_F(CheckpointStoreTest, FolderUnderAnotherNameIsNotTakenForItsVersion) {
  Save(50);
  ASSERT_TRUE(disk_.Rename(Newest().path, std::string(kFolder) + "/step-00000060").ok());
  EXPECT_EQ(LoadManifest(disk_, Newest()).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointStoreTest, NonFiniteValuesAreReported) {
  std::vector<StagePart> parts = Parts(Layouts({4}), 50);
  MutableBlob state = MutableBlob::Zeros(DType::kF32, parts[0].state.shape());
  state.As<float>()[parts[0].layout.tensors[1].offset] = std::nanf("");
  parts[0].state = std::move(state).Freeze();
  ASSERT_TRUE(store_.Save(disk_, Meta(50), parts).ok());
  const auto report = Verify(disk_, Newest());
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->problems.size(), 1u);
  EXPECT_THAT(report->problems[0], HasSubstr("layers.0.norm has values that are not finite"));
}

}  // namespace
}  // namespace starling
