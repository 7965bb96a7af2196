#include "runtime/config/run_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "runtime/config/run_keys.h"

namespace starling {
namespace {

using testing::HasSubstr;

RunConfig Parsed(const std::string& text, const std::vector<std::string>& overrides = {}) {
  absl::StatusOr<RunConfig> config = ParseRunFile(text, "run.toml", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : RunConfig();
}

// The message of a file that must be refused; one line.
std::string Refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const absl::StatusOr<RunConfig> config = ParseRunFile(text, "run.toml", overrides);
  if (config.ok()) return "accepted";
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(config.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

std::string ReadExample(const std::string& name) {
  std::ifstream file(std::string(STARLING_EXAMPLES) + "/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ParseRunFile, EmptyTextGivesTheDefaults) {
  EXPECT_EQ(ToToml(Parsed("")), ToToml(RunConfig()));
}

TEST(ParseRunFile, LayersOfOnesOwnAreReadPrintedAndCounted) {
  const std::string text =
      "[model]\nlayers = [\"a.pt\", \"block(width=8)\", \"b.pt\"]\n[data]\nsamples = \"s\"\n";
  const RunConfig config = Parsed(text);
  EXPECT_TRUE(config.model.own());
  EXPECT_EQ(config.model.layers, 3);
  EXPECT_EQ(config.model.own_layers, (std::vector<std::string>{"a.pt", "block(width=8)", "b.pt"}));
  EXPECT_EQ(config.data.samples, "s");
  EXPECT_EQ(ToToml(Parsed(ToToml(config))), ToToml(config));
  const auto other = ParseRunFile(text, "run.toml", {"model.layers=6", "data.samples="});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_FALSE(other->model.own());
  EXPECT_EQ(other->model.layers, 6);
}

TEST(ParseRunFile, ReadsEveryKindOfValue) {
  const RunConfig config = Parsed(R"(
[model]
layers = 12
bias = true
norm = "layernorm"
dropout = 0.25
[data]
text = ["a/*.txt", "b/**/*.md"]
[optimizer]
lr = 1
[swarm]
cuts = [3, 9]
listen = "tcp://0.0.0.0:7700"
orphan_timeout = "1m30s"
[local]
replicas = [3, 1, 2]
threads = 2
restart = false
)");
  EXPECT_EQ(config.model.layers, 12);
  EXPECT_TRUE(config.model.bias);
  EXPECT_EQ(config.model.norm, NormKind::kLayerNorm);
  EXPECT_EQ(config.model.dropout, 0.25);
  EXPECT_EQ(config.data.text, (std::vector<std::string>{"a/*.txt", "b/**/*.md"}));
  EXPECT_EQ(config.optimizer.lr, 1.0);
  EXPECT_EQ(config.swarm.cuts, (std::vector<int64_t>{3, 9}));
  EXPECT_EQ(config.stage_count(), 3u);
  EXPECT_EQ(config.swarm.stages, 3);
  EXPECT_EQ(config.swarm.listen, "tcp://0.0.0.0:7700");
  EXPECT_EQ(config.swarm.orphan_timeout, absl::Seconds(90));
  EXPECT_EQ(config.local.replicas, (std::vector<int64_t>{3, 1, 2}));
  EXPECT_EQ(config.local.threads, (std::vector<int64_t>{2}));
  EXPECT_FALSE(config.local.restart);
}

TEST(ParseRunFile, ShardsTakeTextsPlace) {
  const RunConfig config = Parsed(
      "[data]\nshards = [\"d/train_*.bin\"]\nvalidation_shards = \"d/val_*.bin\"\n"
      "shard_format = \"llm.c\"\ntokenizer = \"gpt2\"\nvalidation = 0\n");
  EXPECT_EQ(config.data.shards, (std::vector<std::string>{"d/train_*.bin"}));
  EXPECT_EQ(config.data.validation_shards, (std::vector<std::string>{"d/val_*.bin"}));
  EXPECT_EQ(config.data.shard_format, ShardFormat::kLlmC);
  EXPECT_EQ(config.data.tokenizer, "gpt2");
  const RunConfig overridden =
      Parsed("[data]\ntext = [\"a\"]\n", {"data.text=[]", "data.shards=[\"b/*.bin\"]"});
  EXPECT_TRUE(overridden.data.text.empty());
  EXPECT_EQ(overridden.data.shards, (std::vector<std::string>{"b/*.bin"}));
}

TEST(ParseRunFile, PresetSetsOnlyWhatIsNotGiven) {
  const RunConfig gpt = Parsed("[model]\npreset = \"gpt\"\nbias = false\n");
  EXPECT_EQ(gpt.model.norm, NormKind::kLayerNorm);
  EXPECT_EQ(gpt.model.mlp, MlpKind::kGelu);
  EXPECT_EQ(gpt.model.position, PositionKind::kLearned);
  EXPECT_FALSE(gpt.model.bias);
  const RunConfig llama =
      Parsed("[model]\nposition = \"learned\"\npreset = \"gpt\"\n", {"model.preset=llama"});
  EXPECT_EQ(llama.model.norm, NormKind::kRmsNorm);
  EXPECT_EQ(llama.model.mlp, MlpKind::kSwiGlu);
  EXPECT_EQ(llama.model.position, PositionKind::kLearned);
  EXPECT_FALSE(llama.model.bias);
}

TEST(ParseRunFile, OverridesWinAndTextNeedsNoQuotes) {
  const RunConfig config =
      Parsed("[train]\nsteps = 10\n[local]\nreplicas = 1\n",
             {"train.steps=20", "train.steps=30", "local.replicas=[3,1,2]", "model.norm=layernorm",
              "swarm.orphan_timeout=500ms", "data.text=/tmp/x/*.txt", "optimizer.lr=1e-4",
              "local.restart=false", "swarm.listen=\"tcp://127.0.0.1:5\""});
  EXPECT_EQ(config.train.steps, 30);
  EXPECT_EQ(config.local.replicas, (std::vector<int64_t>{3, 1, 2}));
  EXPECT_EQ(config.model.norm, NormKind::kLayerNorm);
  EXPECT_EQ(config.swarm.orphan_timeout, absl::Milliseconds(500));
  EXPECT_EQ(config.data.text, (std::vector<std::string>{"/tmp/x/*.txt"}));
  EXPECT_EQ(config.optimizer.lr, 1e-4);
  EXPECT_FALSE(config.local.restart);
  EXPECT_EQ(config.swarm.listen, "tcp://127.0.0.1:5");
}

TEST(ParseRunFile, TextThatLooksLikeAnotherTypeIsStillText) {
  EXPECT_EQ(Parsed("", {"data.text=2024"}).data.text, (std::vector<std::string>{"2024"}));
  EXPECT_EQ(Parsed("", {"data.text=2024-01-01"}).data.text,
            (std::vector<std::string>{"2024-01-01"}));
}

TEST(ParseRunFile, OverridingStagesOrCutsDisplacesTheFilesOther) {
  const std::string with_stages = "[swarm]\nstages = 3\n";
  const std::string with_cuts = "[swarm]\ncuts = [2, 4]\n";
  EXPECT_EQ(Parsed(with_stages, {"swarm.cuts=[1]"}).stage_count(), 2u);
  EXPECT_EQ(Parsed(with_cuts, {"swarm.stages=5"}).stage_count(), 5u);
  EXPECT_EQ(Parsed(with_cuts, {"swarm.cuts=[]"}).stage_count(), 3u);
  // A resolved file names both, with empty cuts.
  EXPECT_EQ(Parsed(ToToml(Parsed(with_stages)), {"swarm.cuts=[1]"}).stage_count(), 2u);
  EXPECT_EQ(Parsed(ToToml(Parsed(with_cuts)), {"swarm.stages=2"}).stage_count(), 2u);
}

struct BadFile {
  const char* text;
  const char* message;
};

TEST(ParseRunFile, BadFileIsRefusedWithLineKeyAndCause) {
  const BadFile cases[] = {
      {"[model]\nheads = 5\n", "run.toml:2: model.heads: 5 does not divide model.width = 128"},
      {"[model]\n\nwidth = 126\n", "run.toml:3: model.heads: 4 does not divide model.width = 126"},
      {"[model]\nkv_heads = 3\n", "run.toml:2: model.kv_heads: 3 does not divide model.heads = 4"},
      {"[model]\nkv_heads = 8\n", "run.toml:2: model.kv_heads: 8 does not divide model.heads = 4"},
      {"[model]\nwidth = 12\n",
       "run.toml:2: model.position: \"rope\" needs an even model.width / model.heads, not 12 / 4 = "
       "3"},
      {"[train]\nmicrobatch = 64\n",
       "run.toml:2: train.microbatch: 64 is more than train.global_batch = 32"},
      {"[train]\nglobal_batch = 2\n",
       "run.toml:2: train.microbatch: 4 is more than train.global_batch = 2"},
      {"[train]\nsteps = -1\n",
       "run.toml:2: train.steps: -1 is not a whole number from 1 to 1099511627776"},
      {"[train]\nsteps = 1.5\n",
       "run.toml:2: train.steps: 1.5 is not a whole number from 1 to 1099511627776"},
      {"[train]\nsteps = \"many\"\n",
       "run.toml:2: train.steps: \"many\" is not a whole number from 1 to 1099511627776"},
      {"[train]\non_nonfinite = \"ignore\"\n",
       "run.toml:2: train.on_nonfinite: \"ignore\" is not one of \"skip\", \"stop\""},
      {"[codec]\nround = \"int8\"\n",
       "run.toml:2: codec.round: \"int8\" is not one of \"raw\", \"fp16\", \"bf16\""},
      {"[data]\ntext = [\"a\"]\nshards = [\"b\"]\n",
       "run.toml:3: data.shards: stands beside data.text; give one of the two (data.text = [] "
       "takes "
       "text away)"},
      {"[data]\nvalidation_shards = [\"b\"]\n",
       "run.toml:2: data.validation_shards: there are no data.shards to train on beside them"},
      {"[data]\ntext = [\"a\"]\ntokenizer = \"gpt2\"\n",
       "run.toml:3: data.tokenizer: \"gpt2\" is for data.shards; data.text is read as \"bytes\". "
       "Make "
       "shards of the text with `starling tokenize --tokenizer`"},
      {"[data]\nshard_format = \"hdf5\"\n",
       "run.toml:2: data.shard_format: \"hdf5\" is not one of \"auto\", \"raw\", \"llm.c\", "
       "\"megatron\""},
      {"[data]\nshards = [5]\n",
       "run.toml:2: data.shards: [5] is not a list of file patterns such as "
       "[\"shards/train_*.bin\"]"},
      {"[data]\nshards = [\"b\"]\nvalidation = 0\n",
       "run.toml:3: data.validation: 0 leaves nothing to evaluate on; set it above 0, or "
       "train.eval_every = 0"},
      {"[optimizer]\nlr = nan\n", "run.toml:2: optimizer.lr: nan is not a number above 0"},
      {"[optimizer]\nlr = inf\n", "run.toml:2: optimizer.lr: inf is not a number above 0"},
      {"[optimizer]\nbeta2 = 1.0\n",
       "run.toml:2: optimizer.beta2: 1.0 is not a number from 0 to below 1"},
      {"[optimizer]\nmin_lr = 1.0\n",
       "run.toml:2: optimizer.min_lr: 1 is more than optimizer.lr = 0.003"},
      {"[model]\nlayers = 2\n",
       "run.toml:2: swarm.stages: 3 stages cannot be made of model.layers = 2; at most one stage "
       "per layer"},
      {"[swarm]\nstages = 3\ncuts = [2, 4]\n",
       "run.toml:3: swarm.cuts: stands beside swarm.stages; give one of the two"},
      {"[swarm]\ncuts = [4, 2]\n", "run.toml:2: swarm.cuts: 2 after 4; cuts must increase"},
      {"[swarm]\ncuts = [2, 2]\n", "run.toml:2: swarm.cuts: 2 after 2; cuts must increase"},
      {"[swarm]\ncuts = [2, 6]\n",
       "run.toml:2: swarm.cuts: 6 is not below model.layers = 6; a cut is the number of a stage's "
       "first layer, from 0"},
      {"[swarm]\ncuts = [0, 2]\n",
       "run.toml:2: swarm.cuts: [0, 2] is not a whole number or a list of them, each from 1 to "
       "100000"},
      {"[swarm]\norphan_timeout = \"soon\"\n",
       "run.toml:2: swarm.orphan_timeout: \"soon\" is not a duration above zero such as \"60s\" or "
       "\"500ms\""},
      {"[swarm]\norphan_timeout = 60\n",
       "run.toml:2: swarm.orphan_timeout: 60 is not a duration above zero such as \"60s\" or "
       "\"500ms\""},
      {"[chaos]\nkill_every = \"-3s\"\n",
       "run.toml:2: chaos.kill_every: \"-3s\" is not a duration such as \"60s\" or \"500ms\""},
      {"[swarm]\nlog_budget = \"1 GB\"\n",
       "run.toml:2: swarm.log_budget: \"1 GB\" is not a size such as \"512MiB\", \"2GiB\" or "
       "\"0B\""},
      {"[swarm]\nlog_budget = 5\n",
       "run.toml:2: swarm.log_budget: 5 is not a size such as \"512MiB\", \"2GiB\" or \"0B\""},
      {"[swarm]\ndead_after = \"1s\"\n",
       "run.toml:2: swarm.dead_after: 1s is not more than swarm.heartbeat = 1s"},
      {"[local]\nreplicas = [1, 2]\n",
       "run.toml:2: local.replicas: a list of 2 for 3 stages; give one number for all, or one per "
       "stage"},
      {"[local]\nthreads = [1, 1, 1, 1]\n",
       "run.toml:2: local.threads: a list of 4 for 3 stages; give one number for all, or one per "
       "stage"},
      {"[local]\nreplicas = []\n",
       "run.toml:2: local.replicas: [] is not a whole number or a list of them, each from 0 to "
       "10000"},
      {"[data]\ntext = [1]\n",
       "run.toml:2: data.text: [1] is not a list of file patterns such as [\"corpus/**/*.txt\"]"},
      {"[data]\nvalidation = 0\n",
       "run.toml:2: data.validation: 0 leaves nothing to evaluate on; set it above 0, or "
       "train.eval_every = 0"},
      {"[model]\nhead = 4\n", "run.toml:2: model.head: no such key; did you mean model.heads?"},
      {"[model]\nsteps = 4\n", "run.toml:2: model.steps: no such key; did you mean train.steps?"},
      {"[modle]\nheads = 4\n",
       "run.toml:1: modle: no such section; there are model, data, train, optimizer, swarm, codec, "
       "local, checkpoint, chaos"},
      {"layers = 4\n", "run.toml:1: layers: keys belong in a section; did you mean model.layers?"},
      {"train = 4\n", "run.toml:1: train: is a section; write [train]"},
      {"[model.layers]\nx = 1\n",
       "run.toml:1: model.layers: a table or date is not a whole number from 1 to 100000, or a "
       "list of layers of your own such as [\"stem.pt\", \"head.pt\"]"},
      {"[model]\nlayers = []\n",
       "run.toml:2: model.layers: [] is not a whole number from 1 to 100000, or a list of layers "
       "of "
       "your own such as [\"stem.pt\", \"head.pt\"]"},
      {"[model]\nlayers = [\"a.pt\", 3]\n",
       "run.toml:2: model.layers: [\"a.pt\", 3] is not a whole number from 1 to 100000, or a list "
       "of layers of your own such as [\"stem.pt\", \"head.pt\"]"},
      {"[model]\nlayers = [\"a.pt\", \"b.pt\"]\n",
       "run.toml:2: swarm.stages: 3 stages cannot be made of model.layers = 2; at most one stage "
       "per layer"},
      {"[model]\nlayers = [\"a.pt\", \"b.pt\", \"c.pt\"]\ndropout = 0.1\n",
       "run.toml:3: model.dropout: is for the built-in layers; layers of your own have none"},
      {"[model]\nlayers = [\"a.pt\", \"b.pt\", \"c.pt\"]\nlayer_sha256 = [\"0\"]\n",
       "run.toml:3: model.layer_sha256: 1 sums for 3 layers of your own"},
      {"[data]\nsamples = \"a\"\n",
       "run.toml:2: data.samples: is for layers of your own: model.layers = [\"stem.pt\", ...]"},
      {"[model]\nlayers = [\"a.pt\", \"b.pt\", \"c.pt\"]\n[data]\ntext = [\"t\"]\nsamples = "
       "\"a\"\n",
       "run.toml:5: data.samples: stands beside data.text or data.shards; give one of the three"},
  };
  for (const BadFile& bad : cases) EXPECT_EQ(Refusal(bad.text), bad.message) << bad.text;
}

TEST(ParseRunFile, BadAddressIsRefused) {
  const char* bad[] = {"",           "127.0.0.1:5", "tcp://",        "tcp://127.0.0.1",
                       "tcp://:5",   "tcp://h:0",   "tcp://h:65536", "tcp://h:-1",
                       "tcp://h:5x", "tcp://a b:5", "tcp://a:b:5",   "udp://127.0.0.1:5",
                       "ipc://",     "tcp://h:",    "tcp://h:5/path"};
  for (const char* listen : bad) {
    EXPECT_THAT(Refusal(std::string("[swarm]\nlisten = \"") + listen + "\"\n"),
                HasSubstr("run.toml:2: swarm.listen: "))
        << listen;
  }
  for (const char* listen : {"tcp://127.0.0.1:*", "tcp://[::1]:80", "tcp://*:7000", "ipc:///a/b"}) {
    EXPECT_EQ(Refusal(std::string("[swarm]\nlisten = \"") + listen + "\"\n"), "accepted") << listen;
  }
  // What others are told must be reachable.
  for (const char* advertise : {"tcp://host:*", "tcp://0.0.0.0:7", "tcp://*:7"}) {
    EXPECT_THAT(Refusal(std::string("[swarm]\nadvertise = \"") + advertise + "\"\n"),
                HasSubstr("run.toml:2: swarm.advertise: "))
        << advertise;
  }
}

TEST(ParseRunFile, BadSyntaxIsRefusedWithItsLine) {
  EXPECT_THAT(Refusal("[model]\nlayers = \n"), HasSubstr("run.toml:2: "));
  EXPECT_THAT(Refusal("[model]\nlayers = 1\nlayers = 2\n"), HasSubstr("run.toml:3: "));
  EXPECT_THAT(Refusal("[model\n"), HasSubstr("run.toml:1: "));
}

TEST(ParseRunFile, FirstOfSeveralMistakesIsNamed) {
  EXPECT_THAT(Refusal("[train]\nstep = 1\n[model]\nheads = 0\n"), HasSubstr("run.toml:2: "));
  EXPECT_THAT(Refusal("[train]\nsteps = 0\n[model]\nhaeds = 1\n"), HasSubstr("run.toml:2: "));
}

TEST(ParseRunFile, BadOverrideIsNamedByItself) {
  EXPECT_EQ(Refusal("", {"model.heads=5"}), "--model.heads: 5 does not divide model.width = 128");
  EXPECT_EQ(Refusal("", {"model.width=126"}),
            "--model.width: model.heads: 4 does not divide model.width = 126");
  EXPECT_EQ(Refusal("", {"train.stesp=5"}),
            "--train.stesp: no such key; did you mean train.steps?");
  EXPECT_EQ(Refusal("", {"train.steps=abc"}),
            "--train.steps: \"abc\" is not a whole number from 1 to 1099511627776");
  EXPECT_EQ(Refusal("", {"train.steps"}), "--train.steps: wants a value: --train.steps=VALUE");
  EXPECT_EQ(Refusal("", {"train.steps=5\nx=1"}),
            "--train.steps: \"5\\nx=1\" is not a whole number from 1 to 1099511627776");
  EXPECT_EQ(Refusal("", {"swarm.stages=2", "swarm.cuts=[1]"}),
            "--swarm.cuts: stands beside swarm.stages; give one of the two");
  EXPECT_EQ(Refusal("", {"data.text=\xff"}), "--data.text: the value is not UTF-8");
}

TEST(ToToml, RoundTripsExactly) {
  RunConfig config = Parsed(R"(
[model]
preset = "gpt"
rope_theta = 12345.678
norm_epsilon = 1e-6
dropout = 0.1
[data]
text = ["with \"quotes\" and \\ and \u0001", "ünïcode"]
[train]
seed = 9223372036854775807
[optimizer]
lr = 0.30000000000000004
epsilon = 1e-300
[swarm]
cuts = [1, 2, 3]
orphan_timeout = "1500ms"
heartbeat = "7us"
[local]
replicas = [0, 1, 2, 3]
[chaos]
kill_every = "2h"
)");
  const std::string text = ToToml(config);
  const RunConfig again = Parsed(text);
  EXPECT_EQ(ToToml(again), text);
  EXPECT_EQ(again.optimizer.lr, config.optimizer.lr);
  EXPECT_EQ(again.optimizer.epsilon, config.optimizer.epsilon);
  EXPECT_EQ(again.train.seed, config.train.seed);
  EXPECT_EQ(again.data.text, config.data.text);
  EXPECT_EQ(again.swarm.cuts, config.swarm.cuts);
  EXPECT_EQ(again.swarm.heartbeat, absl::Microseconds(7));
  EXPECT_EQ(again.chaos.kill_every, absl::Hours(2));
  EXPECT_THAT(text, HasSubstr("orphan_timeout = \"1500ms\"\n"));
  EXPECT_THAT(ToToml(RunConfig()), HasSubstr("orphan_timeout = \"60s\"\n"));
  EXPECT_EQ(ToToml(Parsed(ToToml(config, TomlStyle::kDocumented))), text);
}

TEST(RunFile, SizesAreReadAndPrinted) {
  for (const auto& [text, bytes] :
       std::vector<std::pair<std::string, int64_t>>{{"0B", 0},
                                                    {"1500B", 1500},
                                                    {"3KiB", 3 << 10},
                                                    {"512MiB", 512 << 20},
                                                    {"2TiB", int64_t{2} << 40}}) {
    const auto config = ParseRunFile(
        "[swarm]\nlog_budget = \"" + text + "\"\n[data]\ntext = [\"x\"]\n", "run.toml", {});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->swarm.log_budget, bytes);
    EXPECT_NE(ToToml(*config).find("log_budget = \"" + text + "\""), std::string::npos);
  }
}

TEST(Examples, AllKeysListsEveryKeyWithItsDefault) {
  const std::string text = ReadExample("all_keys.toml");
  const std::string expected = ToToml(RunConfig(), TomlStyle::kDocumented);
  const size_t body = text.find("# A pre-norm");
  ASSERT_NE(body, std::string::npos);
  EXPECT_EQ(text.substr(body), expected)
      << "examples/all_keys.toml must be its head followed by exactly this:\n"
      << expected;
  EXPECT_EQ(ToToml(Parsed(text)), ToToml(RunConfig()));
  for (const RunKey& key : RunKeys()) EXPECT_THAT(text, HasSubstr(key.name + " = "));
}

TEST(Examples, TinyIsTheDemo) {
  const RunConfig config = Parsed(ReadExample("tiny.toml"));
  EXPECT_EQ(config.train.steps, 200);
  EXPECT_EQ(config.chaos.kill_at_step, 100);
  EXPECT_EQ(config.stage_count(), 3u);
  EXPECT_EQ(config.local.replicas, (std::vector<int64_t>{2}));
  EXPECT_EQ(config.data.text, (std::vector<std::string>{"/usr/include/absl/**/*.h"}));
  EXPECT_EQ(config.model.position, PositionKind::kRope);
}

TEST(RunKeys, EachHasItsWordsAndItsOwnName) {
  std::vector<std::string> names;
  for (const RunKey& key : RunKeys()) {
    EXPECT_FALSE(key.doc.empty()) << key.full_name();
    EXPECT_FALSE(key.takes.empty()) << key.full_name();
    EXPECT_FALSE(DocOfSection(key.section).empty()) << key.section;
    EXPECT_EQ(FindRunKey(key.full_name()), &key);
  }
  EXPECT_EQ(FindRunKey("model.nothing"), nullptr);
}

}  // namespace
}  // namespace starling
