// `starling checkpoint export` and `import` as users call them: there and back again, and what is
// wrong with a folder in one clear line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "codec/codec.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "tests/interop/huggingface_testing.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

struct Stored {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;

  friend bool operator==(const Stored& a, const Stored& b) {
    return a.type == b.type && a.shape == b.shape && a.bytes == b.bytes;
  }
};
using Tensors = std::map<std::string, Stored>;

class HuggingFaceCommandTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }
  Finished Export(const std::string& run, const std::string& out,
                  const std::string& max_shard_size = "5GB") {
    return Run({"checkpoint", "export", Path(run), "--format", "hf", "--out", Path(out),
                "--max-shard-size", max_shard_size});
  }
  Finished Import(const std::string& from, const std::string& out,
                  std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"checkpoint", "import", Path(from), "--out", Path(out)});
    return Run(std::move(more));
  }
  // A folder "hf" with a model of this shape.
  void MakeFolder(const ModelConfig& model) {
    testing::MakeRun(Path("run"), model);
    const Finished end = Export("run", "hf");
    ASSERT_EQ(end.exit_code, 0) << end.errors;
  }

  Tensors ReadTensors(const std::string& path) {
    auto file = SafetensorsFile::Open(disk_, Path(path));
    STARLING_CHECK_MSG(file.ok(), std::string(file.status().message()));
    Tensors tensors;
    for (const TensorEntry& entry : file->tensors()) {
      tensors[entry.name] = {entry.type, entry.shape, file->Tensor(entry).ToStringBytes()};
    }
    return tensors;
  }
  void WriteTensors(const std::string& path, const Tensors& tensors) {
    std::vector<TensorEntry> entries;
    for (const auto& [name, tensor] : tensors) {
      TensorEntry entry;
      entry.name = name;
      entry.type = tensor.type;
      entry.shape = tensor.shape;
      entries.push_back(entry);
    }
    auto writer = SafetensorsWriter::Create(disk_, Path(path), entries, {{"format", "pt"}});
    STARLING_CHECK(writer.ok());
    for (const auto& [name, tensor] : tensors) {
      STARLING_CHECK((*writer)->AppendBytes(tensor.bytes.data(), tensor.bytes.size()).ok());
    }
    STARLING_CHECK((*writer)->Finish().ok());
  }
  Json ReadConfig(const std::string& folder) {
    return Json::parse(FileText(Path(folder) + "/config.json"));
  }
  void ChangeConfig(const std::function<void(Json*)>& change) {
    Json json = ReadConfig("hf");
    change(&json);
    WriteFileText(Path("hf/config.json"), json.dump());
  }
  void ChangeTensors(const std::function<void(Tensors*)>& change) {
    Tensors tensors = ReadTensors("hf/model.safetensors");
    change(&tensors);
    WriteTensors("hf/model.safetensors", tensors);
  }

  void ExpectOneLine(const Finished& end, const std::string& first, const std::string& second) {
    EXPECT_GT(end.exit_code, 0);
    EXPECT_LT(end.exit_code, 128) << "killed";
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(first), HasSubstr(second)));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }
  // With "hf" as `spoil` leaves it.
  void ExpectRefused(const std::function<void()>& spoil, const std::string& first,
                     const std::string& second = "") {
    std::filesystem::copy(Path("hf"), Path("saved"), std::filesystem::copy_options::recursive);
    spoil();
    ExpectOneLine(Import("hf", "bad"), first, second);
    EXPECT_FALSE(disk_.Exists(Path("bad"))) << first;
    EXPECT_FALSE(disk_.Exists(Path("bad.tmp"))) << first;
    std::filesystem::remove_all(Path("hf"));
    std::filesystem::rename(Path("saved"), Path("hf"));
  }

  const TemporaryFolder folder_;
  PosixDisk disk_;
};

// --- there and back ---------------------------------------------------------------------

TEST_F(HuggingFaceCommandTest, ImportAndExportGiveTheSameBytes) {
  ModelConfig biased = testing::SmallLlama();
  biased.bias = true;
  const std::map<std::string, ModelConfig> models = {
      {"gpt2", testing::SmallGpt2()},
      {"llama", testing::SmallLlama()},
      {"biased", biased},
      {"tied-gpt2", testing::Tied(testing::SmallGpt2())},
      {"tied-llama", testing::Tied(testing::SmallLlama())}};
  for (const auto& [name, model] : models) {
    testing::MakeRun(Path(name), model);
    ASSERT_EQ(Export(name, name + "-hf").exit_code, 0);
    const Finished imported = Import(name + "-hf", name + "-run");
    ASSERT_EQ(imported.exit_code, 0) << imported.errors;
    const Finished again = Export(name + "-run", name + "-again");
    ASSERT_EQ(again.exit_code, 0) << again.errors;
    for (const char* file :
         {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"}) {
      EXPECT_EQ(FileText(Path(name + "-hf/" + file)), FileText(Path(name + "-again/" + file)))
          << name << " " << file;
    }
  }
}

TEST_F(HuggingFaceCommandTest, ShardsHaveAnIndexAndComeBackWhole) {
  MakeFolder(testing::SmallLlama());
  const Finished sharded = Export("run", "shards", "30KB");
  ASSERT_EQ(sharded.exit_code, 0) << sharded.errors;
  const Json index = Json::parse(FileText(Path("shards/model.safetensors.index.json")));
  const Tensors whole = ReadTensors("hf/model.safetensors");
  EXPECT_FALSE(disk_.Exists(Path("shards/model.safetensors")));
  EXPECT_EQ(index["weight_map"].size(), whole.size());
  Tensors together;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const Tensors part = ReadTensors("shards/" + file.get<std::string>());
    ASSERT_EQ(part.count(tensor), 1u) << tensor;
    together[tensor] = part.at(tensor);
    uint64_t bytes = 0;
    for (const auto& [name, stored] : part) bytes += stored.bytes.size();
    EXPECT_TRUE(bytes <= 30000 || part.size() == 1u) << file;
  }
  EXPECT_TRUE(together == whole);
  ASSERT_EQ(Import("shards", "from-shards").exit_code, 0);
  ASSERT_EQ(Export("from-shards", "again").exit_code, 0);
  EXPECT_EQ(FileText(Path("hf/model.safetensors")), FileText(Path("again/model.safetensors")));
}

TEST_F(HuggingFaceCommandTest, TiedFolderStartsATiedRunAndIsWrittenAsItWas) {
  MakeFolder(testing::Tied(testing::SmallGpt2()));
  const Tensors before = ReadTensors("hf/model.safetensors");
  EXPECT_EQ(before.count("lm_head.weight"), 0u);
  EXPECT_EQ(ReadConfig("hf")["tie_word_embeddings"], true);
  ChangeConfig([](Json* json) { json->erase("tie_word_embeddings"); });  // GPT-2 ties by default
  // As published: without the prefix, with masks.
  ChangeTensors([](Tensors* tensors) {
    Tensors renamed;
    for (const auto& [name, tensor] : *tensors) {
      renamed[name.substr(std::string("transformer.").size())] = tensor;
    }
    renamed["h.0.attn.bias"] = {TensorType::kBool, {1, 1, 2, 2}, std::string(4, '\1')};
    *tensors = renamed;
  });
  const Finished end = Import("hf", "tied");
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_THAT(FileText(Path("tied/run.toml")), HasSubstr("tie_embeddings = true"));
  ASSERT_EQ(Export("tied", "again").exit_code, 0);
  EXPECT_TRUE(ReadTensors("again/model.safetensors") == before);
  EXPECT_EQ(ReadConfig("again")["tie_word_embeddings"], true);
}

TEST_F(HuggingFaceCommandTest, TiedHeadThatIsWrittenOutAllTheSameIsTakenOnce) {
  MakeFolder(testing::Tied(testing::SmallLlama()));
  const Tensors before = ReadTensors("hf/model.safetensors");
  ChangeTensors([](Tensors* tensors) {
    (*tensors)["lm_head.weight"] = tensors->at("model.embed_tokens.weight");
  });
  const Finished end = Import("hf", "tied");
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  ASSERT_EQ(Export("tied", "again").exit_code, 0);
  EXPECT_TRUE(ReadTensors("again/model.safetensors") == before);
}

TEST_F(HuggingFaceCommandTest, HeadThatIsUntiedBeginsAsACopy) {
  MakeFolder(testing::Tied(testing::SmallGpt2()));
  const Finished end = Import("hf", "untied", {"--model.tie_embeddings=false"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  ASSERT_EQ(Export("untied", "again").exit_code, 0);
  Tensors expected = ReadTensors("hf/model.safetensors");
  expected["lm_head.weight"] = expected.at("transformer.wte.weight");
  EXPECT_TRUE(ReadTensors("again/model.safetensors") == expected);
  EXPECT_EQ(ReadConfig("again")["tie_word_embeddings"], false);
}

TEST_F(HuggingFaceCommandTest, SixteenBitTensorsBecomeFp32) {
  MakeFolder(testing::SmallLlama());
  const std::map<std::string, std::pair<TensorType, Encoding>> types = {
      {"F16", {TensorType::kF16, Encoding::kF16}}, {"BF16", {TensorType::kBF16, Encoding::kBF16}}};
  for (const auto& [name, type] : types) {
    Tensors rounded = ReadTensors("hf/model.safetensors");
    Tensors expected = rounded;
    for (auto& [tensor, stored] : rounded) {
      std::vector<float> values(stored.bytes.size() / sizeof(float));
      std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
      std::vector<std::byte> bytes(EncodedBytes(type.second, values.size()));
      Encode(Coding{type.second}, values, bytes.data());
      ASSERT_TRUE(Decode(type.second, bytes.data(), bytes.size(), 0, absl::MakeSpan(values)).ok());
      stored.type = type.first;
      stored.bytes.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      std::memcpy(expected[tensor].bytes.data(), values.data(), values.size() * sizeof(float));
    }
    std::filesystem::copy(Path("hf"), Path(name));
    WriteTensors(name + "/model.safetensors", rounded);
    const Finished end = Import(name, name + "-run");
    ASSERT_EQ(end.exit_code, 0) << end.errors;
    EXPECT_THAT(end.output, HasSubstr("tensors of " + name + " become fp32"));
    ASSERT_EQ(Export(name + "-run", name + "-again").exit_code, 0);
    EXPECT_TRUE(ReadTensors(name + "-again/model.safetensors") == expected) << name;
  }
}

TEST_F(HuggingFaceCommandTest, ImportedRunTrainsOn) {
  MakeFolder(testing::SmallGpt2());
  std::string text;
  while (text.size() < 20000) text += "The quick brown fox jumps over the lazy dog.\n";
  WriteFileText(Path("text"), text);
  WriteFileText(Path("tune.toml"),
                "[train]\nsteps = 2\nglobal_batch = 4\nmicrobatch = 2\neval_every = 0\n"
                "[swarm]\nstages = 2\n[local]\nreplicas = 1\n[optimizer]\nlr = 1e-5\nwarmup = 0\n");
  const Finished imported =
      Import("hf", "tuned", {"--run-file", Path("tune.toml"), "--model.dropout=0.0"});
  ASSERT_EQ(imported.exit_code, 0) << imported.errors;
  ExpectOneLine(Run({"resume", Path("tuned")}), "data", "");
  const Finished end = Run({"resume", Path("tuned"), "--data.text=" + Path("text")});
  ASSERT_EQ(end.exit_code, 0) << end.errors << end.output;
  EXPECT_THAT(end.output, HasSubstr("all 2 steps done"));
  ASSERT_EQ(Export("tuned", "again").exit_code, 0);
  // From where it was, a little.
  const Tensors before = ReadTensors("hf/model.safetensors");
  const Tensors after = ReadTensors("again/model.safetensors");
  for (const auto& [name, tensor] : before) {
    double distance = 0;
    for (size_t i = 0; i < tensor.bytes.size(); i += sizeof(float)) {
      float left = 0, right = 0;
      std::memcpy(&left, tensor.bytes.data() + i, sizeof(float));
      std::memcpy(&right, after.at(name).bytes.data() + i, sizeof(float));
      distance = std::max(distance, std::abs(static_cast<double>(left) - right));
    }
    EXPECT_GT(distance, 0) << name;
    EXPECT_LT(distance, 1e-3) << name;
  }
}

TEST_F(HuggingFaceCommandTest, TokenizerGoesAlong) {
  WriteFileText(Path("a.txt"), std::string("the quick brown fox the quick brown fox\n"));
  ASSERT_EQ(
      Run({"tokenizer", "train", "--vocab", "270", "--out", Path("bpe"), Path("a.txt")}).exit_code,
      0);
  ModelConfig model = testing::SmallLlama();
  model.vocabulary = 270;
  MakeFolder(model);
  EXPECT_FALSE(disk_.Exists(Path("hf/tokenizer.json")));  // nothing says which
  std::filesystem::copy(Path("bpe"), Path("hf"));
  const Finished end = Import("hf", "tuned");
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_TRUE(disk_.Exists(Path("tuned/tokenizer/tokenizer.json")));
  ASSERT_EQ(Export("tuned", "again").exit_code, 0);
  const auto before = OpenTokenizer(disk_, Path("bpe"));
  const auto after = OpenTokenizer(disk_, Path("again"));
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ((*after)->name(), (*before)->name());
  EXPECT_EQ(ReadConfig("again")["eos_token_id"], (*before)->separator());
  // Text is read as bytes, which are not this model's tokens.
  ExpectOneLine(Import("hf", "bad", {"--data.text=a.txt"}), "data.tokenizer", "data.shards");
  EXPECT_FALSE(disk_.Exists(Path("bad")));
}

// --- what is refused --------------------------------------------------------------------

TEST_F(HuggingFaceCommandTest, ModelOfNeitherShapeIsRefusedByTheSettingThatDoesNotFit) {
  struct Case {
    std::function<void(ModelConfig*)> change;
    std::string says;
  };
  const std::vector<Case> cases = {
      {[](ModelConfig* model) { model->bias = false; }, "model.bias = false"},
      {[](ModelConfig* model) { model->kv_heads = 2; }, "model.kv_heads = 2"},
      {[](ModelConfig* model) { model->position = PositionKind::kRope; },
       "model.position = \"rope\""},
      {[](ModelConfig* model) { model->mlp = MlpKind::kSwiGlu; }, "model.mlp = \"swiglu\""},
      {[](ModelConfig* model) {
         model->norm = NormKind::kRmsNorm;
         model->mlp = MlpKind::kSwiGlu;
       },
       "model.position = \"learned\""},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    ModelConfig model = testing::SmallGpt2();
    cases[i].change(&model);
    const std::string run = "run" + std::to_string(i);
    testing::MakeRun(Path(run), model);
    ExpectOneLine(Export(run, "out"), cases[i].says, "Hugging Face");
    EXPECT_FALSE(disk_.Exists(Path("out")));
    EXPECT_FALSE(disk_.Exists(Path("out.tmp")));
  }
}

TEST_F(HuggingFaceCommandTest, NothingIsOverwritten) {
  MakeFolder(testing::SmallLlama());
  const std::string before = FileText(Path("hf/model.safetensors"));
  ExpectOneLine(Export("run", "hf"), "hf exists", "nothing is overwritten");
  EXPECT_EQ(FileText(Path("hf/model.safetensors")), before);
  ExpectOneLine(Import("hf", "run"), "run exists", "nothing is overwritten");
  std::filesystem::create_directory(Path("new.tmp"));
  ExpectOneLine(Import("hf", "new"), "new.tmp exists", "");
  EXPECT_TRUE(disk_.Exists(Path("new.tmp")));
}

TEST_F(HuggingFaceCommandTest, DamagedCheckpointIsNotExported) {
  testing::MakeRun(Path("run"), testing::SmallLlama());
  const std::string file = Path("run/checkpoints/step-00000007/parameters-00001.safetensors");
  std::string bytes = FileText(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  WriteFileText(file, bytes);
  ExpectOneLine(Export("run", "out"), "step-00000007 is damaged", "parameters-00001");
  EXPECT_FALSE(disk_.Exists(Path("out")));
  ExpectOneLine(Export("nowhere", "out"), "nowhere", "");
  ExpectOneLine(Export("run", "out", "many"), "max-shard-size", "");
}

TEST_F(HuggingFaceCommandTest, FullDiskLeavesNothing) {
  MakeFolder(testing::SmallLlama());
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"export", Path("run")}, {"import", Path("hf")}}) {
    Subprocess::Options options;
    options.arguments = {STARLING_PROGRAM, "checkpoint", command[0],
                         command[1],       "--out",      Path("out")};
    options.file_size_limit = 20000;
    ExpectOneLine(RunToEnd(options), "out.tmp", "");
    EXPECT_FALSE(disk_.Exists(Path("out")));
    EXPECT_FALSE(disk_.Exists(Path("out.tmp")));
  }
}

TEST_F(HuggingFaceCommandTest, BadConfigIsOneLine) {
  MakeFolder(testing::SmallLlama());
  const auto set = [this](const std::string& key, const Json& value) {
    return [this, key, value] { ChangeConfig([&](Json* json) { (*json)[key] = value; }); };
  };
  const auto text = [this](const std::string& text) {
    return [this, text] { WriteFileText(Path("hf/config.json"), text); };
  };
  ExpectRefused([this] { std::filesystem::remove(Path("hf/config.json")); }, "no config.json");
  ExpectRefused(text(FileText(Path("hf/config.json")).substr(0, 100)), "config.json", "cut off");
  ExpectRefused(text("[]"), "config.json", "no JSON object");
  ExpectRefused(text(std::string(2000000, ' ')), "config.json", "too many");
  ExpectRefused(text(std::string(100000, '[')), "config.json", "no JSON");
  ExpectRefused(set("architectures", {"MistralForCausalLM"}), "MistralForCausalLM",
                "LlamaForCausalLM");
  ExpectRefused(set("model_type", "gpt2"), "LlamaForCausalLM", "gpt2");
  ExpectRefused(set("hidden_size", "24"), "hidden_size", "\"24\"");
  ExpectRefused(set("hidden_size", -24), "hidden_size", "-24");
  ExpectRefused(set("hidden_size", 3000000000), "hidden_size", "3000000000");
  ExpectRefused(set("vocab_size", 20000000), "model.vocabulary", "20000000");
  ExpectRefused(set("hidden_size", nullptr), "has no \"hidden_size\"");
  ExpectRefused(set("num_attention_heads", 5), "head_dim");
  ExpectRefused(set("num_hidden_layers", 99999), "too few for the 99999 layers");
  ExpectRefused(set("hidden_act", "gelu"), "hidden_act", "silu");
  ExpectRefused(set("rms_norm_eps", 0), "model.norm_epsilon");
  ExpectRefused(set("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}), "rope_scaling",
                "llama3");
  ExpectRefused(set("mlp_bias", true), "attention_bias", "mlp_bias");
}

TEST_F(HuggingFaceCommandTest, BadTensorsAreOneLine) {
  MakeFolder(testing::SmallLlama());
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  const auto change = [this](std::function<void(Tensors*)> how) {
    return [this, how] { ChangeTensors(how); };
  };
  const auto file = [this](std::function<void(std::string*)> how) {
    return [this, how] {
      std::string bytes = FileText(Path("hf/model.safetensors"));
      how(&bytes);
      WriteFileText(Path("hf/model.safetensors"), bytes);
    };
  };
  ExpectRefused(change([&](Tensors* t) { t->erase(name); }), "no tensor " + name, "[8,24]");
  ExpectRefused(change([&](Tensors* t) { t->erase("lm_head.weight"); }), "lm_head.weight");
  ExpectRefused(change([&](Tensors* t) { t->at(name).shape = {24, 8}; }), "is [24,8]", "[8,24]");
  ExpectRefused(change([&](Tensors* t) { t->at(name).type = TensorType::kI32; }), name, "is I32");
  ExpectRefused(change([&](Tensors* t) { (*t)["model.extra"] = t->at(name); }), "model.extra",
                "has no place");
  ExpectRefused(change([&](Tensors* t) {
                  t->at(name).bytes.replace(t->at(name).bytes.size() - 4, 4, "\0\0\xc0\x7f", 4);
                }),
                name, "not finite");
  ExpectRefused(file([](std::string* bytes) { bytes->resize(bytes->size() - 5); }),
                "model.safetensors", "holds");
  ExpectRefused(file([](std::string* bytes) { bytes->resize(3); }), "not a safetensors file");
  ExpectRefused(file([](std::string* bytes) { bytes->append("more"); }), "model.safetensors",
                "holds");
  ExpectRefused([this] { std::filesystem::rename(Path("hf/model.safetensors"), Path("hf/x.bin")); },
                "no model.safetensors");
  ExpectRefused([this] { ChangeConfig([](Json* json) { (*json)["tie_word_embeddings"] = true; }); },
                "lm_head.weight is not model.embed_tokens.weight", "tie_word_embeddings");
}

TEST_F(HuggingFaceCommandTest, BadIndexIsOneLine) {
  testing::MakeRun(Path("run"), testing::SmallLlama());
  ASSERT_EQ(Export("run", "hf", "30KB").exit_code, 0);
  const std::string path = Path("hf/model.safetensors.index.json");
  const auto change = [&](std::function<void(Json*)> how) {
    return [&path, how] {
      Json json = Json::parse(FileText(path));
      how(&json["weight_map"]);
      WriteFileText(path, json.dump());
    };
  };
  const std::string first = "model.embed_tokens.weight";
  ExpectRefused([&] { WriteFileText(path, "{"); }, "index.json", "no JSON");
  ExpectRefused([&] { WriteFileText(path, "{}"); }, "index.json", "weight_map");
  ExpectRefused(change([&](Json* map) { (*map)[first] = "../run.safetensors"; }), first);
  ExpectRefused(change([&](Json* map) { (*map)[first] = 5; }), first);
  ExpectRefused(change([&](Json* map) { (*map)[first] = "model-9.safetensors"; }),
                "no model-9.safetensors");
  ExpectRefused(change([&](Json* map) { map->erase(first); }), first, "is not in");
  ExpectRefused(change([&](Json* map) { (*map)["other"] = (*map)[first]; }), "other", "is not in");
}

TEST_F(HuggingFaceCommandTest, ImportedModelStaysTheFoldersOwn) {
  MakeFolder(testing::SmallGpt2());
  ExpectOneLine(Import("hf", "bad", {"--model.heads=12"}), "model.heads", "has 6");
  ExpectOneLine(Import("hf", "bad", {"--model.context=8"}), "model.context", "has 16");
  ExpectOneLine(Import("hf", "bad", {"--swarm.stages=3"}), "swarm.stages", "");
  ExpectOneLine(Import("hf", "bad", {"--model.tie_embeddings=true"}), "model.tie_embeddings",
                "has false");
  EXPECT_FALSE(disk_.Exists(Path("bad")));
  EXPECT_EQ(Import("hf", "good", {"--model.dropout=0.2"}).exit_code, 0);
  EXPECT_THAT(FileText(Path("good/run.toml")), HasSubstr("dropout = 0.2"));
}

}  // namespace
}  // namespace starling
