// Crashes of the machine at every write, sync, rename and removal of a save, a replacement and a
// clean-up, with every state that the disk may be left in (SimDisk::CrashedCopy): what was
// published before is there, complete, or what was to come.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"
#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/sim/sim_disk.h"
#include "tests/testing/forwarding_disk.h"

namespace starling {
namespace {

using sim::SimDisk;
using ::testing::IsEmpty;
using testing::Layouts;
using testing::Meta;
using ::testing::Not;
using testing::Parts;
using testing::StateOf;

constexpr char kFolder[] = "/runs/one/checkpoints";
using State = std::pair<uint32_t, uint64_t>;  // era, version

std::vector<StageLayout> Model() { return Layouts({1, 1}, 2); }
uint64_t SeedOf(State state) { return state.second * 100 + state.first; }

absl::Status Save(Disk& disk, State state) {
  return CheckpointStore(kFolder).Save(disk, Meta(state.second, state.first),
                                       Parts(Model(), SeedOf(state)));
}

// As replicas on a shared file system do it: two of them write the first shard, one after the
// other.
absl::Status SaveByShards(Disk& disk, State state) {
  CheckpointStore store(kFolder);
  const std::vector<StagePart> parts = Parts(Model(), SeedOf(state));
  const auto staging = store.Begin(disk, Meta(state.second, state.first), "a1");
  if (!staging.ok()) return staging.status();
  if (staging->already_published) return absl::OkStatus();
  std::vector<Shard> shards;
  for (uint32_t i = 0; i < parts.size(); ++i) {
    absl::StatusOr<Shard> shard = WriteShard(disk, staging->path, i, parts[i], "w1");
    if (shard.ok() && i == 0) shard = WriteShard(disk, staging->path, i, parts[i], "w2");
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
  }
  return store.Publish(disk, *staging, shards);
}

// A disk that says it has synced, and has not.
class LyingDisk : public testing::ForwardingDisk {
 public:
  LyingDisk(Disk* disk, bool files, bool folders)
      : ForwardingDisk(disk), lies_on_files_(files), lies_on_folders_(folders) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    auto file = ForwardingDisk::Create(path);
    if (!file.ok() || !lies_on_files_) return file;
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*std::move(file)));
  }
  absl::Status SyncDirectory(const std::string& path) override {
    return lies_on_folders_ ? absl::OkStatus() : ForwardingDisk::SyncDirectory(path);
  }

 private:
  class File : public testing::ForwardingFile {
   public:
    using ForwardingFile::ForwardingFile;
    absl::Status Sync() override { return absl::OkStatus(); }
  };

  const bool lies_on_files_;
  const bool lies_on_folders_;
};

// Calls `once` for every sequence of choices that it can make.
void ForEveryChoice(const std::function<void(const SimDisk::Choose&)>& once) {
  std::vector<std::pair<uint64_t, uint64_t>> path;  // chosen, options
  while (true) {
    size_t at = 0;
    once([&](uint64_t options) {
      if (at == path.size()) path.push_back({0, options});
      return path[at++].first;
    });
    path.resize(at);
    while (!path.empty() && path.back().first + 1 == path.back().second) path.pop_back();
    if (path.empty()) return;
    ++path.back().first;
  }
}

// Nothing is kept, everything is, all but one change, one change alone.
void ForFewChoices(const std::function<void(const SimDisk::Choose&)>& once) {
  size_t points = 0;
  once([](uint64_t) { return 0; });
  once([&](uint64_t options) {
    ++points;
    return options - 1;
  });
  for (size_t i = 0; i < points; ++i) {
    for (const bool alone : {false, true}) {
      size_t at = 0;
      once([&](uint64_t options) { return (at++ == i) == alone ? options - 1 : 0; });
    }
  }
}

// What happens: first to the disk as it was, then what is interrupted.
struct Story {
  std::function<void(Disk&)> before;
  std::function<absl::Status(Disk&)> act;
  // Of these one must always be there, and nothing else may be. The newest of `before`, and what
  // `act` makes.
  std::set<State> always_one_of;
  std::set<State> all;         // that may be listed at all
  std::set<State> always;      // that must be there whatever happens
  std::set<State> afterwards;  // that must be there once `act` has returned
};

class Crashes {
 public:
  explicit Crashes(Story story) : story_(std::move(story)) {}

  // Power fails at every change that `act` makes; every state of the disk after that.
  void CutPowerEverywhere() {
    for (uint64_t change = 0;; ++change) {
      SimDisk disk;
      Prepare(&disk);
      if (Interrupt(&disk, change, ForEveryChoice)) return;
    }
  }

  // The process is killed at every change, and the power fails at every change of what its
  // successor does.
  void KillThenCutPowerEverywhere() {
    for (uint64_t kill = 0;; ++kill) {
      for (uint64_t change = 0;; ++change) {
        SimDisk disk;
        Prepare(&disk);
        disk.CutPowerAfter(kill);
        story_.act(disk).IgnoreError();
        const bool finished = !disk.power_is_cut();
        disk.Revive();
        if (finished) return;
        if (Interrupt(&disk, change, ForFewChoices)) break;
      }
    }
  }

  // The disk says it has synced, and has not.
  void Lie(bool files, bool folders) {
    lies_on_files_ = files;
    lies_on_folders_ = folders;
    for (uint64_t change = 0;; ++change) {
      SimDisk disk;
      Prepare(&disk);
      if (Interrupt(&disk, change, ForFewChoices)) return;
    }
  }

  const std::set<std::string>& violations() const { return violations_; }
  size_t outcomes() const { return seen_.size(); }

 private:
  void Prepare(SimDisk* disk) {
    ASSERT_TRUE(disk->MakeDirectories("/runs/one").ok());
    ASSERT_TRUE(disk->SyncDirectory("/").ok());
    story_.before(*disk);
    disk->Crash();  // what was published before has been so for long
  }

  // Whether `act` came to its end before the power failed.
  template <typename ForChoices>
  bool Interrupt(SimDisk* disk, uint64_t change, const ForChoices& for_choices) {
    disk->CutPowerAfter(change);
    LyingDisk lying(disk, lies_on_files_, lies_on_folders_);
    const absl::Status status = story_.act(lying);
    const bool finished = !disk->power_is_cut();
    if (finished && !status.ok()) Violation("without a crash", status.ToString());
    disk->Revive();
    for_choices([&](const SimDisk::Choose& choose) {
      const std::unique_ptr<SimDisk> after = disk->CrashedCopy(choose);
      if (!seen_.insert(absl::StrCat(finished, after->Contents())).second) return;
      Check(after.get(), finished, absl::StrCat("crash at change ", change));
    });
    return finished;
  }

  void Violation(const std::string& when, const std::string& what) {
    violations_.insert(absl::StrCat(when, ": ", what));
  }

  void Check(SimDisk* disk, bool finished, const std::string& when) {
    const std::set<State> there = Listed(disk, when);
    bool one = story_.always_one_of.empty();
    for (const State& state : story_.always_one_of) one |= there.count(state) > 0;
    if (!one) Violation(when, "neither the old nor the new one is there");
    for (const State& state : story_.always) {
      if (there.count(state) == 0) Violation(when, absl::StrCat(state.second, " is gone"));
    }
    for (const State& state : finished ? story_.afterwards : std::set<State>()) {
      if (there.count(state) == 0) Violation(when, absl::StrCat(state.second, " was not saved"));
    }
    // Life goes on.
    const State next = {9, 900};
    if (!Save(*disk, next).ok()) Violation(when, "the next save fails");
    if (Listed(disk, when).count(next) == 0) Violation(when, "the next save is not there");
  }

  // What can be loaded; anything listed that cannot is a violation.
  std::set<State> Listed(SimDisk* disk, const std::string& when) {
    std::set<State> there;
    const auto infos = CheckpointStore(kFolder).List(*disk);
    if (!infos.ok()) {
      Violation(when, infos.status().ToString());
      return there;
    }
    for (const CheckpointInfo& info : *infos) {
      const State state = {Value(info.era), Value(info.version)};
      const auto report = Verify(*disk, info);
      if (!report.ok() || !report->ok() || !report->strangers.empty()) {
        Violation(when, absl::StrCat(info.name, " is listed and not complete"));
        continue;
      }
      if (story_.all.count(state) == 0 && state.second != 900) {
        Violation(when, absl::StrCat(info.name, " is none of those saved"));
      }
      for (const StageLayout& layout : Model()) {
        const auto loaded = LoadStage(*disk, info, layout);
        if (!loaded.ok() ||
            loaded->ToStringBytes() != StateOf(layout, SeedOf(state)).ToStringBytes()) {
          Violation(when, absl::StrCat(info.name, " has another state"));
        }
      }
      there.insert(state);
    }
    return there;
  }

  const Story story_;
  bool lies_on_files_ = false;
  bool lies_on_folders_ = false;
  std::set<std::string> seen_;
  std::set<std::string> violations_;
};

Story SaveOfTheNext() {
  Story story;
  story.before = [](Disk& disk) { ASSERT_TRUE(Save(disk, {0, 50}).ok()); };
  story.act = [](Disk& disk) { return Save(disk, {0, 60}); };
  story.all = {{0, 50}, {0, 60}};
  story.always = {{0, 50}};
  story.afterwards = {{0, 60}};
  return story;
}

Story SaveOfTheFirst() {
  Story story;
  story.before = [](Disk&) {};
  story.act = [](Disk& disk) { return Save(disk, {0, 0}); };
  story.all = {{0, 0}};
  story.afterwards = {{0, 0}};
  return story;
}

// A later era's checkpoint of the same version takes the place.
Story Replacement() {
  Story story;
  story.before = [](Disk& disk) { ASSERT_TRUE(Save(disk, {0, 50}).ok()); };
  story.act = [](Disk& disk) { return Save(disk, {1, 50}); };
  story.always_one_of = {{0, 50}, {1, 50}};
  story.all = story.always_one_of;
  story.afterwards = {{1, 50}};
  return story;
}

Story CleaningUp() {
  Story story;
  story.before = [](Disk& disk) {
    for (const uint64_t version : {10, 20, 30, 40, 50}) {
      ASSERT_TRUE(Save(disk, {0, version}).ok());
    }
  };
  story.act = [](Disk& disk) { return CheckpointStore(kFolder).Prune(disk, 2, 20); };
  story.all = {{0, 10}, {0, 20}, {0, 30}, {0, 40}, {0, 50}};
  story.always = {{0, 20}, {0, 40}, {0, 50}};
  return story;
}

TEST(CheckpointCrashTest, PowerCutAtAnyPointOfASaveLosesNothing) {
  Crashes crashes(SaveOfTheNext());
  crashes.CutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
  EXPECT_GT(crashes.outcomes(), 100u);
}

TEST(CheckpointCrashTest, PowerCutAtAnyPointOfTheFirstSaveLeavesNothingOrAllOfIt) {
  Crashes crashes(SaveOfTheFirst());
  crashes.CutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
}

TEST(CheckpointCrashTest, PowerCutAtAnyPointOfAReplacementLeavesTheOldOrTheNew) {
  Crashes crashes(Replacement());
  crashes.CutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
  EXPECT_GT(crashes.outcomes(), 100u);
}

TEST(CheckpointCrashTest, PowerCutAtAnyPointOfACleanUpTakesOnlyWhatWasDoomed) {
  Crashes crashes(CleaningUp());
  crashes.CutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
}

TEST(CheckpointCrashTest, PowerCutAtAnyPointOfASaveByShardsLosesNothing) {
  Story story = SaveOfTheNext();
  story.act = [](Disk& disk) { return SaveByShards(disk, {0, 60}); };
  Crashes crashes(story);
  crashes.CutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
}

TEST(CheckpointCrashTest, PowerCutWhileSavingOverTheLeftoversOfAKilledSaveLosesNothing) {
  for (const Story& story : {SaveOfTheNext(), SaveOfTheFirst(), Replacement(), CleaningUp()}) {
    Crashes crashes(story);
    crashes.KillThenCutPowerEverywhere();
    EXPECT_THAT(crashes.violations(), IsEmpty());
  }
}

TEST(CheckpointCrashTest, PowerCutWhileSavingOverTheLeftoversOfAKilledCleanUpLosesNothing) {
  Story story = CleaningUp();
  bool cleaned = false;
  story.before = [&, before = story.before](Disk& disk) {
    before(disk);
    cleaned = false;
  };
  // First the clean-up, which is killed, then a save.
  story.act = [&](Disk& disk) {
    return std::exchange(cleaned, true) ? Save(disk, {0, 60})
                                        : CheckpointStore(kFolder).Prune(disk, 2, 20);
  };
  story.all.insert({0, 60});
  Crashes crashes(story);
  crashes.KillThenCutPowerEverywhere();
  EXPECT_THAT(crashes.violations(), IsEmpty());
}

// The tests above can fail.
TEST(CheckpointCrashTest, DiskThatDoesNotSyncIsFoundOut) {
  for (const Story& story : {SaveOfTheNext(), Replacement()}) {
    Crashes no_files(story);
    no_files.Lie(true, false);
    EXPECT_THAT(no_files.violations(), Not(IsEmpty()));
  }
  for (const Story& story : {SaveOfTheFirst(), Replacement(), CleaningUp()}) {
    Crashes no_folders(story);
    no_folders.Lie(false, true);
    EXPECT_THAT(no_folders.violations(), Not(IsEmpty()));
  }
}

}  // namespace
}  // namespace starling
