// RunConfig: everything a run file can say, with its defaults. Parsing, overrides and validation
// are in run_file.h; the keys are documented in examples/all_keys.toml.
//
// Plain data. Only the trainer reads a run file; other peers get the resolved text from the swarm.
#ifndef STARLING_RUNTIME_CONFIG_RUN_CONFIG_H_
#define STARLING_RUNTIME_CONFIG_RUN_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/encoding.h"

namespace starling {

enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };
enum class MlpKind : uint8_t { kGelu, kSwiGlu };
enum class PositionKind : uint8_t { kLearned, kRope };

// A pre-norm decoder-only transformer. GPT-2 is LayerNorm, GELU, learned positions, biases; Llama
// is RMSNorm, SwiGLU, RoPE, no biases.
struct ModelConfig {
  int64_t layers = 6;
  int64_t width = 128;
  int64_t heads = 4;
  int64_t kv_heads = 0;      // 0: as many as heads. Must divide heads
  int64_t context = 128;     // tokens per sequence
  int64_t vocabulary = 256;  // bytes
  int64_t mlp_width = 0;     // 0: 4 * width for GELU; 8/3 * width rounded up to 32 for SwiGLU
  NormKind norm = NormKind::kRmsNorm;
  MlpKind mlp = MlpKind::kSwiGlu;
  PositionKind position = PositionKind::kRope;
  bool bias = false;            // in linear layers (and LayerNorm's offset)
  bool tie_embeddings = false;  // the head's matrix is the embedding's
  double rope_theta = 10000.0;
  double norm_epsilon = 1e-5;
  double dropout = 0.0;

  // Layers of the user's own instead of the transformer (docs/own_layers.md): TorchScript files, or
  // "name(key=value)" of those linked into starling-torch. Then `layers` is their number, `context`
  // how many targets a sequence has, and the rest of no meaning.
  std::vector<std::string> own_layers;
  std::vector<std::string> own_sha256;  // of each; empty in a run file

  bool own() const { return !own_layers.empty(); }
  int64_t head_width() const { return width / heads; }
  int64_t key_value_heads() const { return kv_heads == 0 ? heads : kv_heads; }
  int64_t mlp_hidden() const {
    if (mlp_width != 0) return mlp_width;
    if (mlp == MlpKind::kGelu) return 4 * width;
    return (8 * width / 3 + 31) / 32 * 32;
  }
};

enum class ShardFormat : uint8_t { kAuto, kRaw, kLlmC, kMegatron };

// Text, shards or samples: one of the three.
struct DataConfig {
  std::vector<std::string> text;               // globs; ** matches folders
  std::vector<std::string> shards;             // globs of files of tokens
  std::vector<std::string> validation_shards;  // globs; empty: a share of `shards`
  ShardFormat shard_format = ShardFormat::kAuto;
  std::string tokenizer;    // that made the shards: "bytes", a path, or a name (tokenizer_name.h);
                            // empty: not known. Text is always "bytes"
  std::string samples;      // a safetensors file, for layers of the user's own (sample_feed.h)
  double validation = 0.1;  // share of the files, the last ones in order of their paths; of samples
};

// What passes compute in. Parameters, moments, gradients and updates are fp32 in either.
enum class Precision : uint8_t { kFp32, kBf16 };

struct TrainConfig {
  int64_t steps = 200;
  int64_t global_batch = 32;  // sequences per step
  int64_t microbatch = 4;     // sequences
  uint64_t seed = 1;
  int64_t eval_every = 50;      // steps; 0 = never
  int64_t eval_sequences = 64;  // validation sequences per evaluation
  int64_t hash_every = 1;       // steps between state_hash events; 0 = never
  Precision precision = Precision::kFp32;
  bool delayed_commit = false;        // a step computes while the one before is summed up
  std::string on_nonfinite = "skip";  // "skip" the step, or "stop" the run

  uint32_t microbatches() const {
    return static_cast<uint32_t>((global_batch + microbatch - 1) / microbatch);
  }
};

struct OptimizerConfig {
  double lr = 3e-3;
  double min_lr = 0.0;  // the cosine's end; 0: a tenth of lr
  int64_t warmup = 20;  // steps
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // on matrices
  double clip = 1.0;          // global gradient norm; 0 = no clipping
};

struct SwarmConfig {
  int64_t stages = 3;
  std::vector<int64_t> cuts;  // layer indices where a new stage begins; empty: equal cuts
  std::string listen = "tcp://127.0.0.1:*";
  std::string advertise;  // empty: what was bound
  absl::Duration orphan_timeout = absl::Seconds(60);
  absl::Duration heartbeat = absl::Seconds(1);
  absl::Duration dead_after = absl::Seconds(20);    // without a heartbeat
  absl::Duration drain_timeout = absl::Minutes(2);  // for a decision that lets a leaver go
  int64_t join_rate = int64_t{64} << 20;        // bytes/s that a replica gives to joiners; 0: all
  int64_t result_budget = int64_t{256} << 20;   // bytes of results kept for joiners, at least four
  absl::Duration rebalance = absl::Minutes(1);  // between looks at who should serve what; 0: never
  int64_t verify_every = 16;              // steps between hashes of the state in memory; 0: never
  int64_t window = 0;                     // microbatches in flight; 0: twice the number of replicas
  int64_t slots = 0;                      // microbatches a replica holds; 0: two steps' and 64 more
  int64_t log_budget = int64_t{1} << 30;  // bytes of boundaries a replica keeps of a step
  int64_t contested = 4;                  // segments of contested microbatches a replica holds
};

// How tensors travel between replicas. Snapshots and checkpoints are never rounded.
struct CodecConfig {
  Encoding forward = Encoding::kRaw;   // of activations between stages
  Encoding backward = Encoding::kRaw;  // of their gradients
  Encoding round = Encoding::kRaw;     // of pieces and results of a round: raw, fp16 or bf16
  Rounding rounding = Rounding::kNearest;
};

struct LocalConfig {
  std::vector<int64_t> replicas = {2};  // per stage, or one number for all; 0 = none
  std::vector<int64_t> threads = {0};   // per stage process, or one number for all; 0 = by cores
  int64_t memory = 0;                   // bytes per stage process; 0 = no bound
  bool restart = true;
};

// Who writes checkpoints: the trainer, what replicas send it; or each stage's replica its own part,
// into the run's directory, which all machines see under one path.
enum class StoreKind : uint8_t { kTrainer, kShared };

struct CheckpointConfig {
  int64_t every = 50;  // steps; 0 = only at the end
  int64_t keep = 3;
  int64_t keep_every = 0;  // steps
  StoreKind store = StoreKind::kTrainer;
};

struct ChaosConfig {
  absl::Duration kill_every = absl::ZeroDuration();
  int64_t kill_at_step = 0;
};

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  SwarmConfig swarm;
  CodecConfig codec;
  LocalConfig local;
  CheckpointConfig checkpoint;
  ChaosConfig chaos;

  uint32_t stage_count() const {
    return static_cast<uint32_t>(swarm.cuts.empty() ? swarm.stages
                                                    : static_cast<int64_t>(swarm.cuts.size()) + 1);
  }
};

// Layers [begin, end) of each stage. Equal cuts give earlier stages the extra layers.
struct LayerRange {
  int64_t begin = 0;
  int64_t end = 0;
};
std::vector<LayerRange> StageRanges(const RunConfig& config);

// A per-stage setting: element `stage`, or the only one.
int64_t PerStage(const std::vector<int64_t>& values, uint32_t stage);

}  // namespace starling

#endif  // STARLING_RUNTIME_CONFIG_RUN_CONFIG_H_
