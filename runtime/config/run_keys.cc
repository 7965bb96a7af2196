#include "runtime/config/run_keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

using Kind = ConfigValue::Kind;

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

// --- values as text --------------------------------------------------------------------

std::string PrintText(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      absl::StrAppend(&out, "\\n");
    } else if (c == '\t') {
      absl::StrAppend(&out, "\\t");
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppend(&out, absl::StrFormat("\\u%04x", static_cast<unsigned char>(c)));
    } else {
      out.push_back(c);
    }
  }
  return out + "\"";
}

// The shortest text that reads back as the same number, and as a real one.
std::string PrintReal(double value) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".enia") == std::string::npos) text += ".0";
  return text;
}

std::string PrintDuration(absl::Duration value) {
  const std::pair<absl::Duration, const char*> units[] = {
      {absl::Seconds(1), "s"}, {absl::Milliseconds(1), "ms"}, {absl::Microseconds(1), "us"}};
  for (const auto& [unit, name] : units) {
    if (absl::Trunc(value, unit) == value) return absl::StrCat("\"", value / unit, name, "\"");
  }
  return absl::StrCat("\"", absl::FormatDuration(value), "\"");
}

// "1GiB", "512MiB", "100B"; no fractions.
constexpr std::pair<const char*, int64_t> kByteUnits[] = {{"TiB", int64_t{1} << 40},
                                                          {"GiB", int64_t{1} << 30},
                                                          {"MiB", int64_t{1} << 20},
                                                          {"KiB", int64_t{1} << 10},
                                                          {"B", 1}};

bool ParseBytes(const std::string& text, int64_t* bytes) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return false;
  for (const auto& [unit, size] : kByteUnits) {
    if (std::string(end, text.data() + text.size()) != unit) continue;
    if (number > kAny / size) return false;
    *bytes = number * size;
    return true;
  }
  return false;
}

std::string PrintBytes(int64_t bytes) {
  for (const auto& [unit, size] : kByteUnits) {
    if (bytes >= size && bytes % size == 0) return absl::StrCat("\"", bytes / size, unit, "\"");
  }
  return "\"0B\"";
}

std::string PrintList(const std::vector<std::string>& items) {
  return absl::StrCat("[", absl::StrJoin(items, ", "), "]");
}

// --- what text must look like ----------------------------------------------------------

bool IsPort(const std::string& text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// "tcp://HOST:PORT" or "ipc://PATH"; a wildcard port is for listening only.
bool IsEndpoint(const std::string& text, bool listening) {
  if (StartsWith(text, "ipc://")) return text.size() > 6;
  if (!StartsWith(text, "tcp://")) return false;
  const size_t colon = text.rfind(':');
  if (colon <= 6 || text.find_first_of(" \t\r\n/", 6) != std::string::npos) return false;
  const std::string host = text.substr(6, colon - 6);
  const std::string port = text.substr(colon + 1);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find(':') != std::string::npos) return false;
  if (listening) return port == "*" || IsPort(port);
  return IsPort(port) && host != "*" && host != "0.0.0.0" && host != "[::]";
}

// --- the table's vocabulary ------------------------------------------------------------

std::string RangeText(const char* noun, int64_t least, int64_t most) {
  if (most == kAny) return absl::StrCat(noun, ", ", least, " or more");
  return absl::StrCat(noun, " from ", least, " to ", most);
}

bool IntegerIn(const ConfigValue& value, int64_t least, int64_t most) {
  return value.kind == Kind::kInteger && value.integer >= least && value.integer <= most;
}

// Adds one section's keys to the table. Every method is one kind of key.
template <typename Section>
class KeysOf {
 public:
  KeysOf(std::vector<RunKey>* keys, const char* name, Section RunConfig::*section)
      : keys_(keys), name_(name), section_(section) {}

  template <typename Int>
  void Integer(const char* name, Int Section::*field, int64_t least, int64_t most,
               const char* doc) {
    auto* key = Add(name, RangeText("a whole number", least, most), doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      if (!IntegerIn(value, least, most)) return false;
      (config->*section).*field = static_cast<Int>(value.integer);
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return absl::StrCat((config.*section).*field);
    };
  }

  // `inside` accepts what is finite and in range, `takes` says so.
  void Real(const char* name, double Section::*field, bool (*inside)(double), const char* takes,
            const char* doc) {
    auto* key = Add(name, takes, doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      if (value.kind != Kind::kReal && value.kind != Kind::kInteger) return false;
      const double number =
          value.kind == Kind::kReal ? value.real : static_cast<double>(value.integer);
      if (!std::isfinite(number) || !inside(number)) return false;
      (config->*section).*field = number;
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return PrintReal((config.*section).*field);
    };
  }

  void Bool(const char* name, bool Section::*field, const char* doc) {
    auto* key = Add(name, "true or false", doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      if (value.kind != Kind::kBool) return false;
      (config->*section).*field = value.boolean;
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return std::string((config.*section).*field ? "true" : "false");
    };
  }

  void Text(const char* name, std::string Section::*field, bool (*fits)(const std::string&),
            const char* takes, const char* doc) {
    auto* key = Add(name, takes, doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      if (value.kind != Kind::kText || !fits(value.text)) return false;
      (config->*section).*field = value.text;
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return PrintText((config.*section).*field);
    };
  }

  template <typename Enum>
  void Choice(const char* name, Enum Section::*field,
              std::vector<std::pair<std::string, Enum>> choices, const char* doc) {
    std::vector<std::string> names;
    for (const auto& choice : choices) names.push_back(PrintText(choice.first));
    auto* key = Add(name, "one of " + absl::StrJoin(names, ", "), doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      for (const auto& choice : choices) {
        if (value.kind != Kind::kText || value.text != choice.first) continue;
        (config->*section).*field = choice.second;
        return true;
      }
      return false;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      for (const auto& choice : choices) {
        if (choice.second == (config.*section).*field) return PrintText(choice.first);
      }
      return std::string("\"?\"");
    };
  }

  void Duration(const char* name, absl::Duration Section::*field, bool zero, const char* doc) {
    auto* key = Add(name,
                    zero ? "a duration such as \"60s\" or \"500ms\""
                         : "a duration above zero such as \"60s\" or \"500ms\"",
                    doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      absl::Duration duration;
      if (value.kind != Kind::kText || !absl::ParseDuration(value.text, &duration)) return false;
      if (duration < absl::ZeroDuration() || duration == absl::InfiniteDuration()) return false;
      if (duration == absl::ZeroDuration() && !zero) return false;
      (config->*section).*field = duration;
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return PrintDuration((config.*section).*field);
    };
  }

  void Bytes(const char* name, int64_t Section::*field, const char* doc) {
    auto* key = Add(name, "a size such as \"512MiB\", \"2GiB\" or \"0B\"", doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      return value.kind == Kind::kText && ParseBytes(value.text, &((config->*section).*field));
    };
    key->print = [=, section = section_](const RunConfig& config) {
      return PrintBytes((config.*section).*field);
    };
  }

  // One number, or a list of them (possibly empty if `empty`).
  void Integers(const char* name, std::vector<int64_t> Section::*field, int64_t least, int64_t most,
                bool empty, const char* doc) {
    auto* key = Add(name, RangeText("a whole number or a list of them, each", least, most), doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      std::vector<int64_t> numbers;
      std::vector<ConfigValue> items = {value};
      if (value.kind == Kind::kList) items = value.list;
      for (const ConfigValue& item : items) {
        if (!IntegerIn(item, least, most)) return false;
        numbers.push_back(item.integer);
      }
      if (numbers.empty() && !empty) return false;
      (config->*section).*field = std::move(numbers);
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      const std::vector<int64_t>& values = (config.*section).*field;
      return absl::StrCat("[", absl::StrJoin(values, ", "), "]");
    };
  }

  void Texts(const char* name, std::vector<std::string> Section::*field, const char* takes,
             const char* doc) {
    auto* key = Add(name, takes, doc);
    key->set = [=, section = section_](const ConfigValue& value, RunConfig* config) {
      std::vector<std::string> texts;
      std::vector<ConfigValue> items = {value};
      if (value.kind == Kind::kList) items = value.list;
      for (const ConfigValue& item : items) {
        if (item.kind != Kind::kText || item.text.empty()) return false;
        texts.push_back(item.text);
      }
      (config->*section).*field = std::move(texts);
      return true;
    };
    key->print = [=, section = section_](const RunConfig& config) {
      std::vector<std::string> items;
      for (const std::string& text : (config.*section).*field) items.push_back(PrintText(text));
      return PrintList(items);
    };
  }

  RunKey* Add(const char* name, std::string takes, const char* doc) {
    keys_->emplace_back();
    RunKey* key = &keys_->back();
    key->section = name_;
    key->name = name;
    key->takes = std::move(takes);
    key->doc = doc;
    return key;
  }

 private:
  std::vector<RunKey>* keys_;
  const char* name_;
  Section RunConfig::*section_;
};

bool SetPreset(const ConfigValue& value, RunConfig* config) {
  if (value.kind != Kind::kText || (value.text != "gpt" && value.text != "llama")) return false;
  const bool gpt = value.text == "gpt";
  config->model.norm = gpt ? NormKind::kLayerNorm : NormKind::kRmsNorm;
  config->model.mlp = gpt ? MlpKind::kGelu : MlpKind::kSwiGlu;
  config->model.position = gpt ? PositionKind::kLearned : PositionKind::kRope;
  config->model.bias = gpt;
  return true;
}

// The number of built-in layers, or a list of the user's own.
void AcceptOwnLayers(RunKey* key) {
  key->takes = absl::StrCat(key->takes,
                            ", or a list of layers of your own such as [\"stem.pt\", \"head.pt\"]");
  key->set = [set = key->set](const ConfigValue& value, RunConfig* config) {
    ModelConfig& model = config->model;
    if (value.kind != Kind::kList) {
      if (!set(value, config)) return false;
      model.own_layers.clear();
      return true;
    }
    std::vector<std::string> layers;
    for (const ConfigValue& item : value.list) {
      if (item.kind != Kind::kText || item.text.empty()) return false;
      layers.push_back(item.text);
    }
    if (layers.empty() || layers.size() > 100000) return false;
    model.layers = static_cast<int64_t>(layers.size());
    model.own_layers = std::move(layers);
    return true;
  };
  key->print = [print = key->print](const RunConfig& config) {
    if (!config.model.own()) return print(config);
    std::vector<std::string> layers;
    for (const std::string& layer : config.model.own_layers) layers.push_back(PrintText(layer));
    return PrintList(layers);
  };
}

// --- ranges of real numbers ------------------------------------------------------------

constexpr char kPositive[] = "a number above 0";
bool Positive(double x) { return x > 0; }
constexpr char kNotNegative[] = "a number, 0 or more";
bool NotNegative(double x) { return x >= 0; }
constexpr char kBelowOne[] = "a number from 0 to below 1";
bool BelowOne(double x) { return x >= 0 && x < 1; }

// --- the table -------------------------------------------------------------------------

void AddModel(std::vector<RunKey>* keys) {
  using C = ModelConfig;
  KeysOf<C> m(keys, "model", &RunConfig::model);
  RunKey* preset = m.Add("preset", "one of \"gpt\", \"llama\"",
                         "Sets norm, mlp, position and bias where they are not given:\n"
                         "\"gpt\" (GPT-2's shape) or \"llama\".");
  preset->example = "\"llama\"";
  preset->set = SetPreset;
  preset->print = [](const RunConfig&) { return std::string(); };
  m.Integer(
      "layers", &C::layers, 1, 100000,
      "transformer blocks; or a list of layers of your own such as [\"stem.pt\", \"head.pt\"]:\n"
      "TorchScript files, found from the run file's folder, or layers that were linked into\n"
      "starling-torch, \"name(key=value)\". The keys of the transformer then have no meaning");
  AcceptOwnLayers(&keys->back());
  m.Texts("layer_sha256", &C::own_sha256, "a list of SHA-256 sums",
          "of the layers of your own, one each. Filled in when a run begins: every replica's own\n"
          "files must have them");
  m.Integer("width", &C::width, 1, 1 << 20, "features per token");
  m.Integer("heads", &C::heads, 1, 1 << 16, "attention heads; must divide width");
  m.Integer("kv_heads", &C::kv_heads, 0, 1 << 16,
            "key/value heads; must divide heads; 0 = as many as heads");
  m.Integer("context", &C::context, 1, 1 << 20, "tokens per sequence");
  m.Integer("vocabulary", &C::vocabulary, 256, 1 << 24,
            "different tokens; text is read as bytes, shards say what they need");
  m.Integer("mlp_width", &C::mlp_width, 0, 1 << 22,
            "hidden features of the MLP; 0 = 4 * width for gelu, 8/3 * width (rounded up to a\n"
            "multiple of 32) for swiglu");
  m.Choice<NormKind>("norm", &C::norm,
                     {{"layernorm", NormKind::kLayerNorm}, {"rmsnorm", NormKind::kRmsNorm}},
                     "\"layernorm\" or \"rmsnorm\"");
  m.Choice<MlpKind>("mlp", &C::mlp, {{"gelu", MlpKind::kGelu}, {"swiglu", MlpKind::kSwiGlu}},
                    "\"gelu\" or \"swiglu\"");
  m.Choice<PositionKind>("position", &C::position,
                         {{"learned", PositionKind::kLearned}, {"rope", PositionKind::kRope}},
                         "\"learned\" or \"rope\" (rotary; needs an even width / heads)");
  m.Bool("bias", &C::bias, "biases in linear layers and in layernorm");
  m.Bool(
      "tie_embeddings", &C::tie_embeddings,
      "the head is the embedding's matrix (GPT-2 does so, which no preset sets): where the model\n"
      "is cut, the first and the last stage train it together");
  m.Real("rope_theta", &C::rope_theta, Positive, kPositive, "base of the rotary frequencies");
  m.Real("norm_epsilon", &C::norm_epsilon, Positive, kPositive, "added under the norm's root");
  m.Real("dropout", &C::dropout, BelowOne, kBelowOne, "share of activations dropped in training");
}

void AddDataAndTrain(std::vector<RunKey>* keys) {
  using D = DataConfig;
  KeysOf<D> d(keys, "data", &RunConfig::data);
  d.Texts("text", &D::text, "a list of file patterns such as [\"corpus/**/*.txt\"]",
          "files to train on: patterns with *, ?, [a-z]; ** stands for any folders");
  d.Texts("shards", &D::shards, "a list of file patterns such as [\"shards/train_*.bin\"]",
          "files of tokens to train on, instead of text: patterns as above. Made by\n"
          "`starling tokenize`, nanoGPT or llm.c; model.vocabulary must be above every token");
  d.Texts("validation_shards", &D::validation_shards,
          "a list of file patterns such as [\"shards/val_*.bin\"]",
          "shards to validate on; a file that `shards` matches too is only for validation.\n"
          "Empty = the share `validation` of the shards");
  d.Choice<ShardFormat>(
      "shard_format", &D::shard_format,
      {{"auto", ShardFormat::kAuto},
       {"raw", ShardFormat::kRaw},
       {"llm.c", ShardFormat::kLlmC},
       {"megatron", ShardFormat::kMegatron}},
      "\"raw\" (16-bit tokens and nothing else, as nanoGPT has it), \"llm.c\" (a header, then\n"
      "16- or 32-bit tokens), \"megatron\" (.bin files with an .idx beside each) or \"auto\"\n"
      "(what the file and an .idx beside it look like)");
  d.Text(
      "tokenizer", &D::tokenizer, [](const std::string&) { return true; },
      "\"bytes\", or a tokenizer's folder or file such as \"gpt2/tokenizer.json\"",
      "what made the shards' tokens: \"bytes\", or a folder or file of a tokenizer. Empty = what\n"
      "the shards.json beside them says, where there is one. Text is always \"bytes\"");
  d.Text(
      "samples", &D::samples, [](const std::string&) { return true; },
      "a safetensors file such as \"images.safetensors\"",
      "a safetensors file with the tensors `inputs` and `targets`, a row each per sample, found\n"
      "from the run file's folder; for layers of your own, instead of text");
  d.Real("validation", &D::validation, BelowOne, kBelowOne,
         "share of the files kept for validation, the last ones in order of their paths;\n"
         "of a single file, the share of its bytes, tokens or samples at the end");

  using T = TrainConfig;
  KeysOf<T> t(keys, "train", &RunConfig::train);
  t.Integer("steps", &T::steps, 1, int64_t{1} << 40, "optimizer steps of the whole run");
  t.Integer("global_batch", &T::global_batch, 1, 1 << 24, "sequences per step");
  t.Integer("microbatch", &T::microbatch, 1, 1 << 20,
            "sequences that travel together; at most global_batch");
  t.Integer("seed", &T::seed, 0, kAny, "of the initial weights, the order of the data and dropout");
  t.Integer("eval_every", &T::eval_every, 0, kAny,
            "steps between evaluations on the validation text; the last step evaluates too;\n"
            "0 = never");
  t.Integer("eval_sequences", &T::eval_sequences, 1, 1 << 24,
            "sequences per evaluation, always the same ones, spread evenly over the validation\n"
            "text; fewer where it is shorter");
  t.Integer("hash_every", &T::hash_every, 0, kAny, "steps between state_hash events; 0 = never");
  t.Choice<Precision>(
      "precision", &T::precision, {{"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}},
      "what matrix products are computed in: \"fp32\" or \"bf16\". Parameters, sums over\n"
      "layers, losses, gradients and the optimizer are fp32 in either");
  t.Bool("delayed_commit", &T::delayed_commit,
         "begin a step while the one before is still being summed up and applied: nobody waits\n"
         "for a slow round, but gradients are of the parameters one update earlier, which learns\n"
         "much worse unless optimizer.lr is small, and each replica keeps one more copy of its\n"
         "parameters");
  t.Choice<std::string>("on_nonfinite", &T::on_nonfinite, {{"skip", "skip"}, {"stop", "stop"}},
                        "if a loss or gradient stays non-finite: \"skip\" the step or \"stop\"");
}

void AddOptimizer(std::vector<RunKey>* keys) {
  using O = OptimizerConfig;
  KeysOf<O> o(keys, "optimizer", &RunConfig::optimizer);
  o.Real("lr", &O::lr, Positive, kPositive, "learning rate after the warm-up");
  o.Real("min_lr", &O::min_lr, NotNegative, kNotNegative,
         "where the cosine ends; at most lr; 0 = a tenth of lr");
  o.Integer("warmup", &O::warmup, 0, kAny, "steps over which the learning rate rises to lr");
  o.Real("beta1", &O::beta1, BelowOne, kBelowOne, "decay of AdamW's first moment");
  o.Real("beta2", &O::beta2, BelowOne, kBelowOne, "decay of AdamW's second moment");
  o.Real("epsilon", &O::epsilon, Positive, kPositive, "added to the root of the second moment");
  o.Real("weight_decay", &O::weight_decay, NotNegative, kNotNegative, "decoupled, on matrices");
  o.Real("clip", &O::clip, NotNegative, kNotNegative,
         "largest global gradient norm; 0 = no clipping");
}

void AddSwarm(std::vector<RunKey>* keys) {
  using S = SwarmConfig;
  KeysOf<S> s(keys, "swarm", &RunConfig::swarm);
  s.Integer("stages", &S::stages, 1, 100000,
            "the layers are cut into so many nearly equal stages; or give cuts");
  RunKey* stages = &keys->back();
  stages->print = [print = stages->print](const RunConfig& config) {
    return config.swarm.cuts.empty() ? print(config) : std::string();
  };
  s.Integers("cuts", &S::cuts, 1, 100000, true,
             "layers at which a new stage begins, such as [2, 4]; instead of stages");
  RunKey* cuts = &keys->back();
  cuts->set = [set = cuts->set](const ConfigValue& value, RunConfig* config) {
    if (!set(value, config)) return false;
    if (!config->swarm.cuts.empty()) config->swarm.stages = config->stage_count();
    return true;
  };
  s.Text(
      "listen", &S::listen, [](const std::string& text) { return IsEndpoint(text, true); },
      "an address such as \"tcp://127.0.0.1:*\" or \"tcp://0.0.0.0:7700\"",
      "where the trainer listens; * = any free port. Beyond 127.0.0.1 nothing is encrypted yet");
  s.Text(
      "advertise", &S::advertise,
      [](const std::string& text) { return text.empty() || IsEndpoint(text, false); },
      "an address that others can reach, such as \"tcp://192.0.2.7:7700\"",
      "the address that others are told; empty = the one bound");
  s.Duration("orphan_timeout", &S::orphan_timeout, false,
             "a replica without a trainer waits this long, then exits");
  s.Duration("heartbeat", &S::heartbeat, false, "how often replicas say that they live");
  s.Duration("dead_after", &S::dead_after, false,
             "a replica unheard for this long is taken for dead; more than heartbeat");
  s.Duration("drain_timeout", &S::drain_timeout, false,
             "a replica that is to leave waits this long for a decision that lets it go");
  s.Integer("join_rate", &S::join_rate, 0, kAny,
            "bytes per second that a replica gives to newcomers and checkpoints; 0 = no bound");
  s.Integer("result_budget", &S::result_budget, 0, kAny,
            "bytes of the newest decisions' results that a replica keeps while somebody catches\n"
            "up, who replays them; at least four results. Otherwise it keeps the newest one");
  s.Duration("rebalance", &S::rebalance, true,
             "how often it is considered to move replicas to slower stages; 0s = never. One that\n"
             "was started with --stage N stays there");
  s.Integer("verify_every", &S::verify_every, 0, 1 << 24,
            "steps between hashes of the state in memory, which find flipped bits; 0 = never");
  s.Integer("window", &S::window, 0, 1 << 24,
            "microbatches in flight; 0 = twice the number of replicas");
  s.Integer("slots", &S::slots, 0, 1 << 24,
            "microbatches that a replica holds at once; 0 = two steps' and 64 more");
  s.Bytes(
      "log_budget", &S::log_budget,
      "what a replica keeps of a step's activations and gradients that it sent, so that others\n"
      "can be mended with them; what does not fit is computed again after a loss");
  s.Integer(
      "contested", &S::contested, 1, 1 << 20,
      "microbatches of slow replicas that a replica computes too, each with a gradient of its\n"
      "own, in one step");
}

void AddCodec(std::vector<RunKey>* keys) {
  using C = CodecConfig;
  KeysOf<C> c(keys, "codec", &RunConfig::codec);
  std::vector<std::pair<std::string, Encoding>> sixteen;
  for (const Encoding encoding : {Encoding::kRaw, Encoding::kF16, Encoding::kBF16}) {
    sixteen.emplace_back(ToString(encoding), encoding);
  }
  std::vector<std::pair<std::string, Encoding>> all = sixteen;
  all.emplace_back(ToString(Encoding::kInt8), Encoding::kInt8);
  all.emplace_back(ToString(Encoding::kInt4), Encoding::kInt4);
  c.Choice<Encoding>(
      "forward", &C::forward, all,
      "activations from stage to stage: \"raw\" (fp32), \"fp16\", \"bf16\", or 8- or\n"
      "4-bit numbers in blocks of 128 with a scale each. Only raw trains as one process\n"
      "does; every microbatch is counted exactly once whichever it is");
  c.Choice<Encoding>("backward", &C::backward, all, "their gradients on the way back: the same");
  c.Choice<Encoding>(
      "round", &C::round, sixteen,
      "gradient sums among the replicas of a stage: \"raw\", \"fp16\" or \"bf16\", of\n"
      "the mean over the step's tokens, roughly");
  c.Choice<Rounding>(
      "rounding", &C::rounding,
      {{"nearest", Rounding::kNearest}, {"stochastic", Rounding::kStochastic}},
      "of int8 and int4: \"nearest\", or \"stochastic\" (right on the average; drawn from\n"
      "train.seed, the step and the microbatch)");
}

void AddLocalAndRest(std::vector<RunKey>* keys) {
  using L = LocalConfig;
  KeysOf<L> l(keys, "local", &RunConfig::local);
  l.Integers("replicas", &L::replicas, 0, 10000, false,
             "replicas of each stage started on this machine: one number for all stages, or a\n"
             "list with one per stage; 0 = none, others will join");
  l.Integers("threads", &L::threads, 0, 4096, false,
             "threads of each stage process: one number, or a list with one per stage; 0 = the\n"
             "cores are shared out among the local replicas");
  l.Bytes("memory", &L::memory,
          "tensors of each stage process: parameters, moments, gradients, and what forward keeps\n"
          "for backward. What does not fit is not kept but computed again; \"0B\" = no bound");
  l.Bool("restart", &L::restart, "start a local replica that died again");

  using K = CheckpointConfig;
  KeysOf<K> k(keys, "checkpoint", &RunConfig::checkpoint);
  k.Integer("every", &K::every, 0, kAny, "steps between checkpoints; 0 = only at the end");
  k.Integer("keep", &K::keep, 1, kAny, "how many of the newest are kept");
  k.Integer("keep_every", &K::keep_every, 0, kAny,
            "steps: those at multiples of it are kept for good; 0 = none");
  k.Choice<StoreKind>(
      "store", &K::store, {{"trainer", StoreKind::kTrainer}, {"shared", StoreKind::kShared}},
      "who writes: \"trainer\" = replicas send it their parts; \"shared\" = each replica writes\n"
      "its own into the run's directory, which every machine must see under the same path");

  using X = ChaosConfig;
  KeysOf<X> x(keys, "chaos", &RunConfig::chaos);
  x.Duration("kill_every", &X::kill_every, true,
             "SIGKILL a random local replica this often, never the last one of its stage;\n"
             "\"0s\" = never");
  x.Integer("kill_at_step", &X::kill_at_step, 0, kAny,
            "SIGKILL one local replica in this step; 0 = never");
}

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      const size_t swap = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({swap, above + 1, row[j - 1] + 1});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

ConfigValue ConfigValue::OfText(std::string text) {
  ConfigValue value;
  value.kind = Kind::kText;
  value.text = std::move(text);
  return value;
}

std::string ToString(const ConfigValue& value) {
  switch (value.kind) {
    case Kind::kBool:
      return value.boolean ? "true" : "false";
    case Kind::kInteger:
      return absl::StrCat(value.integer);
    case Kind::kReal:
      return PrintReal(value.real);
    case Kind::kText:
      return PrintText(value.text);
    case Kind::kList: {
      std::vector<std::string> items;
      for (const ConfigValue& item : value.list) items.push_back(ToString(item));
      return PrintList(items);
    }
    case Kind::kOther:
      break;
  }
  return "a table or date";
}

const std::vector<RunKey>& RunKeys() {
  static const std::vector<RunKey>* const keys = [] {
    auto* table = new std::vector<RunKey>;
    AddModel(table);
    AddDataAndTrain(table);
    AddOptimizer(table);
    AddSwarm(table);
    AddCodec(table);
    AddLocalAndRest(table);
    return table;
  }();
  return *keys;
}

const RunKey* FindRunKey(const std::string& full_name) {
  for (const RunKey& key : RunKeys()) {
    if (key.full_name() == full_name) return &key;
  }
  return nullptr;
}

const RunKey& NearestRunKey(const std::string& full_name) {
  const size_t dot = full_name.find('.');
  const std::string name = dot == std::string::npos ? full_name : full_name.substr(dot + 1);
  const RunKey* nearest = nullptr;
  size_t least = 0;
  for (const RunKey& key : RunKeys()) {
    // A right name in a wrong section is nearer than anything else.
    size_t distance = key.name == name ? 1 : 2 * EditDistance(key.full_name(), full_name);
    if (dot == std::string::npos) distance = 2 * EditDistance(key.name, name);
    if (nearest != nullptr && distance >= least) continue;
    nearest = &key;
    least = distance;
  }
  STARLING_CHECK(nearest != nullptr);
  return *nearest;
}

std::string DocOfSection(const std::string& section) {
  if (section == "model") return "A pre-norm decoder-only transformer.";
  if (section == "data") return "What it reads.";
  if (section == "train") return "How long and in which portions.";
  if (section == "optimizer") return "AdamW with warm-up and cosine.";
  if (section == "swarm") return "How the model is cut, and how peers meet.";
  if (section == "codec") return "How tensors travel between replicas.";
  if (section == "local") return "Stage processes that the trainer starts on its own machine.";
  if (section == "checkpoint") return "What outlives the run.";
  if (section == "chaos") return "Faults made on purpose.";
  return "";
}

}  // namespace starling
