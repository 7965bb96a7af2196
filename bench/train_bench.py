#!/usr/bin/env python3
"""How fast a swarm on this machine trains, beside one process and beside plain PyTorch, in turn.

    bench/train_bench.py build/starling [--rounds 5] [--json FILE] [--only 2x1,gloo-2] [--short]

Every contender trains the same model (10.9 M parameters unless told otherwise) with the same 16
microbatches per step, one after the other, in every round:

    single      starling train --single-process, 2 threads: the baseline
    2x1 ...     a swarm of 2 stages of 1 replica each, and so on, one thread each
    torch       bench/peers/one_process.py, 2 threads
    gloo-2      bench/peers/pipeline_gloo.py, 1F1B over 2 stages, one thread each
    gloo-2x2    two such pipelines with gradient all-reduce (only if asked for)
    control     the baseline once more

Of each run the tokens/s of the median step counts, without those at its start; of all rounds the median.
Where the control and the baseline differ by more than 5 % in any round, the run says so: then the
machine was not quiet enough to tell such differences. The peers need Debian's python3-torch (or --python
of one that has torch 1.13 or newer) and are left out without it.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile

BENCH = pathlib.Path(__file__).resolve().parent
TRUSTED_SPREAD = 0.05
SWARMS = ["2x1", "4x1", "2x2", "3x2"]
PEERS = ["torch", "gloo-2", "gloo-2x2"]
DEFAULT = ["single", *SWARMS, "torch", "gloo-2", "control"]


def starling_command(arguments, contender, directory):
    command = [
        arguments.starling,
        "train",
        str(BENCH.parent / "examples" / "tiny.toml"),
        f"--run-dir={directory}",
        f"--data.text={json.dumps([arguments.text])}",
        "--model.preset=gpt",
        f"--model.layers={arguments.layers}",
        f"--model.width={arguments.width}",
        f"--model.heads={arguments.heads}",
        f"--model.context={arguments.context}",
        f"--train.steps={arguments.steps}",
        f"--train.microbatch={arguments.microbatch}",
        f"--train.global_batch={arguments.microbatch * arguments.microbatches}",
        "--train.eval_every=0",
        "--optimizer.lr=1e-3",
        "--checkpoint.every=0",
        "--chaos.kill_at_step=0",
    ]
    if contender in ("single", "control"):
        return command + ["--single-process", f"--local.threads=[{arguments.threads}]"]
    stages, replicas = contender.split("x")
    return command + [
        f"--swarm.stages={stages}",
        f"--local.replicas=[{replicas}]",
        "--local.threads=[1]",
    ]


def peer_command(arguments, contender):
    shape = []
    for name in ("layers", "width", "heads", "context", "microbatch", "microbatches", "steps"):
        shape += [f"--{name}", str(getattr(arguments, name))]
    if contender == "torch":
        script = "one_process.py"
        shape += ["--threads", str(arguments.threads)]
    else:
        script = "pipeline_gloo.py"
        stages, _, pipelines = contender.removeprefix("gloo-").partition("x")
        shape += ["--threads", "1", "--stages", stages, "--pipelines", pipelines or "1"]
    return [arguments.python, str(BENCH / "peers" / script), *shape]


def run(arguments, contender, folder, number):
    """One run: its steps' seconds without those at the start, and its processes' CPU seconds."""
    directory = folder / f"{contender}-{number}"
    log = folder / f"{contender}-{number}.log"
    peer = contender in PEERS
    if peer:
        command = peer_command(arguments, contender)
    else:
        command = starling_command(arguments, contender, directory)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(log, "w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\nfailed:\n{log.read_text()[-2000:]}{output[-2000:]}")
    rows = output if peer else (directory / "metrics.jsonl").read_text()
    steps = [json.loads(row)["step_s"] for row in rows.splitlines()]
    if len(steps) != arguments.steps:
        sys.exit(f"{contender}: {len(steps)} of {arguments.steps} steps, see {folder}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"steps_s": steps[arguments.warm :], "cpu_s": cpu}


def has_torch(python):
    try:
        return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    except OSError:
        return False


def commit():
    try:
        done = subprocess.run(
            ["git", "-C", str(BENCH), "describe", "--always", "--dirty"], capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip()


def processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def summarize(runs, tokens):
    """Per contender: tokens/s of each round, its median, and CPU seconds of a run."""
    rates = {
        name: [tokens / statistics.median(one["steps_s"]) for one in rounds]
        for name, rounds in runs.items()
    }
    return {
        name: {
            "tokens_per_s": statistics.median(rates[name]),
            "rounds": rates[name],
            "cpu_s": statistics.median(one["cpu_s"] for one in runs[name]),
        }
        for name in runs
    }


def control_spread(results):
    """The largest difference of control and baseline in one round; none if one of them is missing."""
    if "single" not in results or "control" not in results:
        return None
    pairs = zip(results["single"]["rounds"], results["control"]["rounds"])
    return max(abs(control / single - 1) for single, control in pairs)


def print_table(results):
    def ratio(name, to):
        if to not in results:
            return "-"
        return f"{results[name]['tokens_per_s'] / results[to]['tokens_per_s']:.3f}"

    print(f"{'':10} {'tokens/s':>10} {'of single':>10} {'of gloo-2':>10} {'CPU s/run':>10}  rounds")
    for name, result in results.items():
        rounds = " ".join(f"{rate:.0f}" for rate in result["rounds"])
        print(
            f"{name:10} {result['tokens_per_s']:10.0f} {ratio(name, 'single'):>10} "
            f"{ratio(name, 'gloo-2'):>10} {result['cpu_s']:10.1f}  {rounds}"
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("starling", help="the command, such as build/starling")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="these contenders, separated by commas")
    parser.add_argument("--short", action="store_true", help="one round of a few steps")
    parser.add_argument("--json", help="write everything measured to this file")
    parser.add_argument("--folder", help="keep the runs here (made; must not hold any)")
    parser.add_argument("--python", default="/usr/bin/python3", help="for the peers")
    parser.add_argument("--text", default=str(BENCH.parent / "docs" / "*.md"))
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--microbatch", type=int, default=2, help="sequences")
    parser.add_argument("--microbatches", type=int, default=16, help="per step")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--warm", type=int, default=2, help="steps at the start that do not count")
    parser.add_argument("--threads", type=int, default=2, help="of the single processes")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.steps, arguments.warm = 1, 4, 1
    arguments.contenders = arguments.only.split(",") if arguments.only else DEFAULT
    unknown = set(arguments.contenders) - {"single", "control", *SWARMS, *PEERS}
    if unknown:
        parser.error(f"no contender is called {' or '.join(sorted(unknown))}")
    if arguments.steps <= arguments.warm or arguments.rounds < 1:
        parser.error("nothing would be measured")
    return arguments


def main():
    arguments = parse()
    contenders = arguments.contenders
    if set(contenders) & set(PEERS) and not has_torch(arguments.python):
        print(f"{arguments.python} has no torch (Debian: python3-torch): the peers are left out")
        contenders = [name for name in contenders if name not in PEERS]
    load = os.getloadavg()[0]
    tokens = arguments.microbatches * arguments.microbatch * arguments.context
    runs = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory(prefix="starling-bench-") as scratch:
        folder = pathlib.Path(arguments.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(arguments.rounds):
            for name in contenders:
                runs[name].append(run(arguments, name, folder, number))
                print(f"round {number + 1} {name}: {tokens / statistics.median(runs[name][-1]['steps_s']):.0f} "
                      "tokens/s", file=sys.stderr)
    results = summarize(runs, tokens)
    spread = control_spread(results)
    about = {
        "command": shlex.join(sys.argv),
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "tokens_per_step": tokens,
        "control_spread": spread,
    }
    print(f"{about['processor']}, {about['cores']} cores, load average {load:.1f} before and "
          f"{about['load_after']:.1f} after, commit {about['commit']}")
    print_table(results)
    if spread is not None:
        print(f"control and baseline differ by at most {100 * spread:.1f} % in a round")
        if spread > TRUSTED_SPREAD:
            print(f"NOT TO BE TRUSTED: that is above {100 * TRUSTED_SPREAD:.0f} %, the machine was not quiet")
    if arguments.json:
        everything = {"about": about, "results": results, "runs": runs}
        pathlib.Path(arguments.json).write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
