#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "runtime/app/child_process.h"
#include "runtime/app/commands.h"
#include "runtime/app/heap.h"
#include "runtime/app/version.h"

namespace starling {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

constexpr char kExamples[] =
    "\nExamples:\n"
    "  starling train examples/tiny.toml                      train on this machine\n"
    "  starling train examples/tiny.toml --train.steps=50     any key of the run file\n"
    "  starling stage --join tcp://127.0.0.1:40001            one replica more\n"
    "  starling status runs/20260101-120000                   who serves what\n"
    "  starling resume runs/20260101-120000 --train.steps=400\n"
    "  starling generate runs/20260101-120000 --prompt \"class \"\n"
    "  starling checkpoint export runs/20260101-120000 --out hf   for Hugging Face's tools\n"
    "  starling tokenize 'corpus/*.jsonl' --out shards        tokens to train on, made once\n"
    "  starling tokenizer train --vocab 4096 --out bpe FILES  fewer, longer tokens than bytes\n"
    "  starling doctor                                        why does it not work?\n"
    "  starling sim --seeds 1000                              the protocol under drawn faults\n"
    "  starling bench --short                                 how fast is it here?\n";

constexpr char kGenerateNotes[] =
    "\nThe text is written as it comes. It ends after --tokens, at a --stop string, where the "
    "model "
    "ends a document,\nor at Ctrl-C, each with exit status 0. The same seed gives the same text on "
    "the same machine.\n"
    "When prompt and text outgrow the model's context, the older half is forgotten; of a longer "
    "prompt the end counts.\n"
    "With --interactive a line begins a text, an empty line goes on with it; Ctrl-C ends a text, "
    "at "
    "the prompt the session,\nand so does the end of the input (Ctrl-D). The n-th text is that of "
    "the seed plus n - 1.\n";

// What was asked for: a function that does it, and whether it needs LibTorch.
struct Chosen {
  std::function<absl::Status()> run;
  bool needs_torch = false;
  std::function<bool()> may_need_torch;  // asked where needs_torch is false; null: it does not
};

// "--section.key=value" arguments that no option took, without their dashes.
absl::StatusOr<std::vector<std::string>> OverridesIn(const std::vector<std::string>& extras) {
  std::vector<std::string> overrides;
  for (const std::string& extra : extras) {
    const size_t equals = extra.find('=');
    const size_t dot = extra.find('.');
    const bool dashes = extra.size() > 2 && extra.compare(0, 2, "--") == 0;
    if (!dashes || equals == std::string::npos || dot == std::string::npos || dot > equals) {
      return absl::InvalidArgumentError(absl::StrCat(
          "unknown argument ", extra,
          dashes && dot != std::string::npos ? ": give keys of the run file as --section.key=value"
                                             : ": see --help"));
    }
    overrides.push_back(extra.substr(2));
  }
  return overrides;
}

class CommandLine {
 public:
  CommandLine(std::string program, const TorchCommands* torch)
      : torch_(torch), app_("Starling trains one model on many unreliable machines.", "starling") {
    train_.program = resume_.program = stage_.program = tokenize_.program =
        tokenizer_train_.program = import_.program = std::move(program);
    app_.footer(kExamples);
    app_.set_version_flag("--version", std::string("starling ") + StarlingVersion());
    AddTrain();
    AddResume();
    AddStage();
    AddStatus();
    AddOrders();
    AddGenerate();
    AddDoctor();
    AddConfig();
    AddCheckpoint();
    AddOther("sim", "The swarm in a virtual world, with faults, from a seed", BecomeSim);
    AddOther("bench", "Measured numbers of this machine, beside what to compare them with",
             BecomeBench);
    AddTokenize();
    AddTokenizer();
  }

  CLI::App& app() { return app_; }
  const Chosen& chosen() const { return chosen_; }

 private:
  // Run-file keys are taken from what is left over.
  CLI::App* AddWithOverrides(CLI::App* parent, const std::string& name, const std::string& what,
                             std::vector<std::string>* overrides, std::function<absl::Status()> run,
                             std::function<bool()> may_need_torch = nullptr) {
    CLI::App* const command = parent->add_subcommand(name, what);
    command->allow_extras();
    command->footer(
        "\nEvery key of the run file can be given as --section.key=value; "
        "examples/all_keys.toml explains them.\n");
    command->callback([this, command, overrides, run = std::move(run),
                       may_need_torch = std::move(may_need_torch)] {
      const auto found = OverridesIn(command->remaining());
      if (found.ok()) *overrides = *found;
      chosen_.may_need_torch = may_need_torch;
      chosen_.run = [run, status = found.status()] { return status.ok() ? run() : status; };
    });
    return command;
  }

  void AddTrain() {
    CLI::App* const command = AddWithOverrides(
        &app_, "train", "Start a run", &train_.overrides, [this] { return Train(train_, torch_); },
        [this] { return HasOwnLayers(train_); });
    command->add_option("run_file", train_.run_file, "The run file (TOML)")->required();
    command->add_option("--run-dir", train_.run_directory,
                        "Where the run is kept; default runs/<date>-<time>");
    command->add_flag_callback(
        "--single-process", [this] { train_.single_process = chosen_.needs_torch = true; },
        "The same run in this process alone: no swarm, the same numbers");
  }

  void AddResume() {
    CLI::App* const command = AddWithOverrides(
        &app_, "resume", "Go on with a run from its newest checkpoint", &resume_.overrides,
        [this] { return Resume(resume_, torch_); }, [this] { return HasOwnLayers(resume_); });
    command->add_option("run_dir", resume_.run_directory, "The run's directory")->required();
    command->add_flag("--accept-new-text", resume_.accept_new_text,
                      "Go on although the text has changed");
  }

  void AddStage() {
    CLI::App* const command = app_.add_subcommand("stage", "Host a replica of a stage");
    command->add_option("--join", stage_.join, "The trainer's address: tcp://HOST:PORT")
        ->required();
    command->add_option("--stage", stage_.stage, "A stage's number, or auto")
        ->capture_default_str();
    command
        ->add_option("--device", stage_.device,
                     "cpu, cuda:N, or emulated:DURATION: only takes so long per microbatch, for "
                     "tests and benches")
        ->capture_default_str();
    command->add_option("--threads", stage_.threads, "Default: half of the cores")
        ->check(CLI::Range(1, 4096));
    command
        ->add_option("--memory", stage_.memory,
                     "For tensors, such as 6GiB; activations that do not fit are computed again")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
    command->add_option("--listen", stage_.listen, "Where this replica is reached")
        ->capture_default_str();
    command->add_option("--advertise", stage_.advertise,
                        "What others are told, if they see another address");
    command->add_option("--layers-dir", stage_.layers_directory,
                        "The folder of your own copies of the run's layers, where it has some that "
                        "are not built in");
    command->add_flag("--wait", stage_.wait, "Keep trying until the trainer answers");
    command->add_flag("--child", stage_.child)->group("");
    command->callback([this] {
      chosen_.needs_torch = true;
      chosen_.run = [this] { return torch_->stage(stage_); };
    });
  }

  void AddStatus() {
    CLI::App* const command =
        app_.add_subcommand("status", "Who serves what, how fast, and what is missing");
    command->add_option("target", status_.target, "A run's directory, or its address")->required();
    command->add_flag("--json", status_.json, "For programs");
    command->callback([this] { chosen_.run = [this] { return ShowStatus(status_); }; });
  }

  void AddOrders() {
    CLI::App* const leave = app_.add_subcommand(
        "leave", "Have a replica leave at the next decision; nothing is computed again");
    leave->add_option("target", order_.target, "A run's directory, or its address")->required();
    leave->add_option("replica", order_.replica, "A replica such as 1.4, or a peer (see status)");
    leave->add_option("--stage", order_.stage, "Instead: the slowest replica of this stage")
        ->check(CLI::Range(0, 100000));
    leave->callback([this] { chosen_.run = [this] { return OrderLeave(order_); }; });
    CLI::App* const pause =
        app_.add_subcommand("pause", "Hold a run after the step under way; replicas stay");
    pause->add_option("target", order_.target, "A run's directory, or its address")->required();
    pause->add_flag("--off", order_.off, "Go on");
    pause->callback([this] { chosen_.run = [this] { return OrderPause(order_); }; });
  }

  void AddGenerate() {
    CLI::App* const command = app_.add_subcommand("generate", "Text from a trained model");
    command->add_option("run_dir", generate_.run_directory, "A run's or a checkpoint's directory")
        ->required();
    CLI::Option* const prompt = command->add_option(
        "--prompt", generate_.prompt, "What the text begins with; empty: as a document begins");
    command->add_flag("--interactive", generate_.interactive,
                      "Read prompts from the standard input, a line each");
    command->add_option("--tokenizer", generate_.tokenizer,
                        "A folder or file, where the run does not have its own");
    command->add_option("--tokens", generate_.tokens, "How many more")
        ->capture_default_str()
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    command->add_option("--temperature", generate_.temperature, "0: always the likeliest")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 100.0));
    command->add_option("--top-k", generate_.top_k, "Of the k likeliest only; 0: of all")
        ->capture_default_str()
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    command
        ->add_option("--top-p", generate_.top_p,
                     "Of the fewest likeliest that have this probability together; 1: of all")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    command->add_option("--seed", generate_.seed, "Another seed, another text")
        ->capture_default_str();
    command
        ->add_option("--stop", generate_.stops,
                     "End before this string, which may come in several tokens; repeatable. A "
                     "newline is $'\\n' in bash")
        ->allow_extra_args(false);
    command->add_option("--threads", generate_.threads, "Default: half of the cores")
        ->check(CLI::Range(1, 4096));
    command->footer(kGenerateNotes);
    command->callback([this, prompt] {
      if (!generate_.interactive && prompt->count() == 0) {
        throw CLI::RequiredError("--prompt TEXT, or --interactive,");
      }
      for (const std::string& stop : generate_.stops) {
        if (stop.empty()) throw CLI::ValidationError("--stop", "the string is empty");
      }
      chosen_.needs_torch = true;
      chosen_.run = [this] { return torch_->generate(generate_); };
    });
  }

  void AddDoctor() {
    CLI::App* const command = app_.add_subcommand("doctor", "Check this machine and this build");
    command->callback([this] {
      chosen_.needs_torch = true;
      chosen_.run = [this] { return torch_->doctor(); };
    });
  }

  void AddConfig() {
    CLI::App* const config = app_.add_subcommand("config", "Look at a run file");
    CLI::App* const print =
        AddWithOverrides(config, "print", "Every key, as resolved", &config_.overrides,
                         [this] { return PrintConfig(config_); });
    print->add_option("run_file", config_.run_file, "The run file (TOML)")->required();
    print->add_flag("--documented", config_.documented, "With what each key means");
    CLI::App* const validate =
        AddWithOverrides(config, "validate", "Only say what is wrong", &config_.overrides,
                         [this] { return ValidateConfig(config_); });
    validate->add_option("run_file", config_.run_file, "The run file (TOML)")->required();
  }

  void AddCheckpoint() {
    CLI::App* const checkpoint = app_.add_subcommand("checkpoint", "Look after checkpoints");
    CLI::App* const list = checkpoint->add_subcommand("ls", "The checkpoints of a run");
    list->add_option("run_dir", path_, "The run's directory")->required();
    list->callback([this] { chosen_.run = [this] { return ListCheckpoints(path_); }; });
    CLI::App* const verify = checkpoint->add_subcommand("verify", "Read everything, check it");
    verify->add_option("path", path_, "A run's or a checkpoint's directory")->required();
    verify->callback([this] { chosen_.run = [this] { return VerifyCheckpoints(path_); }; });
    CLI::App* const gc = checkpoint->add_subcommand("gc", "Remove old ones of a run that rests");
    gc->add_option("run_dir", gc_.run_directory, "The run's directory")->required();
    gc->add_option("--keep", gc_.keep, "How many of the newest stay; default: checkpoint.keep")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
    gc->add_option("--keep-every", gc_.keep_every,
                   "Steps: multiples of it stay; 0 = none; default: checkpoint.keep_every")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    gc->add_flag("--dry-run", gc_.dry_run, "Only say what would be removed");
    gc->callback([this] { chosen_.run = [this] { return CollectCheckpoints(gc_); }; });
    AddExport(checkpoint);
    AddImport(checkpoint);
  }

  void AddExport(CLI::App* checkpoint) {
    CLI::App* const command = checkpoint->add_subcommand(
        "export", "A model of GPT-2's or Llama's shape in Hugging Face's layout");
    command
        ->add_option("path", export_.path, "A checkpoint's directory, or a run's: its newest one")
        ->required();
    command->add_option("--out", export_.out, "The folder to make")->required();
    command->add_option("--format", export_.format, "hf: Hugging Face's")
        ->capture_default_str()
        ->check(CLI::IsMember({"hf"}));
    command
        ->add_option("--max-shard-size", export_.max_shard_bytes,
                     "Of tensors in a file, as 5GB or 200MiB; with more, several files and an "
                     "index are written")
        ->default_str("5GB")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
    command->callback([this] { chosen_.run = [this] { return ExportCheckpoint(export_); }; });
  }

  void AddImport(CLI::App* checkpoint) {
    CLI::App* const command = AddWithOverrides(
        checkpoint, "import", "A run that goes on from a model in Hugging Face's layout",
        &import_.overrides, [this] { return ImportCheckpoint(import_); });
    command
        ->add_option("folder", import_.folder,
                     "With config.json, model.safetensors and the tokenizer's files")
        ->required();
    command->add_option("--out", import_.out, "The run's directory, to be made")->required();
    command->add_option("--run-file", import_.run_file,
                        "Everything but [model], which is the folder's; default: the defaults");
  }

  void AddTokenize() {
    CLI::App* const command =
        app_.add_subcommand("tokenize", "Token shards to train on, from text and JSONL");
    command->add_option("input", tokenize_.inputs, "Files, or patterns as in data.text")
        ->required();
    command->add_option("--out", tokenize_.out, "The folder to make")->required();
    command
        ->add_option("--tokenizer", tokenize_.tokenizer,
                     "What makes the tokens: bytes, or a folder or file of a tokenizer")
        ->capture_default_str();
    command
        ->add_option("--text-key", tokenize_.text_key,
                     "Where the text is in a line of a .jsonl or .ndjson file")
        ->capture_default_str();
    command->add_option("--shard-tokens", tokenize_.shard_tokens, "Tokens of a full shard")
        ->capture_default_str()
        ->check(CLI::Range(uint64_t{1}, (uint64_t{1} << 31) - 1));
    command
        ->add_option("--validation", tokenize_.validation,
                     "Share of the documents that go to shards of their own")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 0.999));
    command->add_flag("--no-separator", tokenize_.no_separator, "No token between documents");
    command->add_option("--threads", tokenize_.threads, "Default: as many as there are cores")
        ->check(CLI::Range(1, 4096));
    command->callback([this] { chosen_.run = [this] { return Tokenize(tokenize_); }; });
  }

  void AddTokenizer() {
    CLI::App* const tokenizer = app_.add_subcommand("tokenizer", "Make and look at tokenizers");
    CLI::App* const train =
        tokenizer->add_subcommand("train", "A byte-level BPE tokenizer from text and JSONL");
    train->add_option("input", tokenizer_train_.inputs, "Files, or patterns as in data.text")
        ->required();
    train->add_option("--vocab", tokenizer_train_.vocabulary, "How many tokens, bytes included")
        ->required()
        ->check(CLI::Range(int64_t{258}, int64_t{1} << 24));
    train->add_option("--out", tokenizer_train_.out, "The folder to make")->required();
    train
        ->add_option("--text-key", tokenizer_train_.text_key,
                     "Where the text is in a line of a .jsonl or .ndjson file")
        ->capture_default_str();
    train->add_option("--threads", tokenizer_train_.threads, "Default: as many as there are cores")
        ->check(CLI::Range(1, 4096));
    train->callback([this] { chosen_.run = [this] { return TrainTokenizer(tokenizer_train_); }; });
    const auto add = [&](const char* name, const char* what,
                         absl::Status (*run)(const std::string&)) {
      CLI::App* const command = tokenizer->add_subcommand(name, what);
      command->add_option("path", path_, "\"bytes\", or a folder or file of a tokenizer")
          ->required();
      command->callback([this, run] { chosen_.run = [this, run] { return run(path_); }; });
    };
    add("info", "What it is", ShowTokenizer);
    add("encode", "Text on the standard input to tokens", EncodeInput);
    add("decode", "Tokens on the standard input to text", DecodeInput);
  }

  // A command that is a program of its own, and takes its arguments.
  void AddOther(const char* name, const char* what,
                absl::Status (*become)(const std::vector<std::string>&)) {
    CLI::App* const command = app_.add_subcommand(name, what);
    command->allow_extras()->set_help_flag();
    command->callback([this, command, become] {
      chosen_.run = [arguments = command->remaining(), become] { return become(arguments); };
    });
  }

  const TorchCommands* const torch_;
  CLI::App app_;
  Chosen chosen_;
  TrainArgs train_;
  ResumeArgs resume_;
  StageArgs stage_;
  StatusArgs status_;
  OrderArgs order_;
  GenerateArgs generate_;
  ConfigArgs config_;
  CheckpointGcArgs gc_;
  CheckpointExportArgs export_;
  CheckpointImportArgs import_;
  TokenizeArgs tokenize_;
  TokenizerTrainArgs tokenizer_train_;
  std::string path_;
};

// "starling: what is wrong", whatever the message holds, as one line.
int Fail(std::string message, int exit_status) {
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  std::fflush(stdout);
  std::fprintf(stderr, "starling: %s\n", message.c_str());
  return exit_status;
}

// Becomes the program with LibTorch; comes back only if that cannot be.
int BecomeTorchProgram(char** argv) {
  const std::string program = TorchProgramPath();
  execv(program.c_str(), argv);
  return Fail(absl::StrCat("cannot run ", program, ": ", strerror(errno),
                           "; it is built and installed beside starling"),
              kFailed);
}

}  // namespace

int RunCommandLine(int argc, char** argv, const TorchCommands* torch) {
  KeepFreedMemory();
  // Errors of writes, not the end of the process.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  CommandLine line(argc > 0 ? argv[0] : "starling", torch);
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return line.app().exit(asked);
  } catch (const CLI::ParseError& error) {
    return Fail(absl::StrCat(error.what(), "; see starling --help"), kUsage);
  }
  if (!line.chosen().run) {
    const auto given = line.app().get_subcommands();
    return Fail(
        given.empty()
            ? "name a command: train, stage, resume, status, leave, pause, "
              "generate, doctor, config, checkpoint, tokenize, tokenizer, sim or bench; see "
              "starling --help"
            : absl::StrCat(given[0]->get_name(),
                           " needs a command of its own: see "
                           "starling ",
                           given[0]->get_name(), " --help"),
        kUsage);
  }
  const Chosen& chosen = line.chosen();
  if (torch == nullptr &&
      (chosen.needs_torch || (chosen.may_need_torch && chosen.may_need_torch()))) {
    return BecomeTorchProgram(argv);
  }
  const absl::Status status = line.chosen().run();
  if (!status.ok()) return Fail(std::string(status.message()), kFailed);
  return 0;
}

}  // namespace starling
