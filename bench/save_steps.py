#!/usr/bin/env python3
"""How much saving a checkpoint lengthens the steps around it, with the real command.

Trains a model of about 50 M parameters in two stages of one replica, one thread each, with a
checkpoint every so many steps, and without (the control), in turn:

    bench/save_steps.py build/starling FOLDER [--store shared] [--rounds 2] [--steps 60] [--every 10]

FOLDER is made, holds the runs, and is left for a look. Prints the medians of the seconds per step
by distance from the step that is saved, away from saves, and in the control, and what a save costs
in all: the seconds by which the steps of one period are longer than as many in the control.
Distances 1 and 2 are the steps that are under way while the save is.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

WARM = 5  # steps at the start that are not looked at

MODEL = [
    "--model.preset=llama",
    "--model.layers=10",
    "--model.width=640",
    "--model.heads=10",
    "--train.eval_every=0",
    "--swarm.stages=2",
    "--local.replicas=[1]",
    "--local.threads=[1]",
    "--chaos.kill_at_step=0",
]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(arguments, name, every):
    """One run. Gives {step: seconds} and the steps that were saved."""
    directory = pathlib.Path(arguments.folder) / name
    command = [arguments.starling, "train", arguments.run_file, f"--run-dir={directory}"]
    command += MODEL
    command += [
        f"--data.text={json.dumps([arguments.text])}",
        f"--model.context={arguments.context}",
        f"--train.global_batch={arguments.sequences}",
        f"--train.microbatch={arguments.microbatch}",
        f"--train.steps={arguments.steps}",
        f"--checkpoint.every={every}",
        "--checkpoint.keep=2",
        f"--checkpoint.store={json.dumps(arguments.store)}",
    ]
    with open(f"{directory}.log", "w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    steps = {row["step"]: row["step_s"] for row in lines(directory / "metrics.jsonl")}
    events = lines(directory / "events.jsonl")
    saved = [row["step"] for row in events if row["event"] == "checkpoint_saved"]
    return steps, [step for step in saved if step < arguments.steps]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("starling")
    parser.add_argument("folder")
    parser.add_argument("--run-file", default="examples/tiny.toml")
    parser.add_argument("--text", default="docs/*.md")
    parser.add_argument("--store", default="trainer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--microbatch", type=int, default=2)
    arguments = parser.parse_args()
    pathlib.Path(arguments.folder).mkdir(parents=True)

    by_distance = {}
    control = []
    for number in range(arguments.rounds):
        steps, saved = run(arguments, f"saving-{number}", arguments.every)
        print(f"round {number}: {len(saved)} saves")
        for step, seconds in steps.items():
            if step > max(WARM, arguments.every) - 1 and step < arguments.steps:
                by_distance.setdefault(step % arguments.every, []).append(seconds)
        steps, _ = run(arguments, f"control-{number}", 0)
        control += [seconds for step, seconds in steps.items() if WARM < step < arguments.steps]

    away = [s for d, times in by_distance.items() if d > 3 for s in times]
    normal = statistics.median(control)
    print(f"store {arguments.store}")
    print(f"control        median {normal:.3f} s of {len(control)} steps")
    print(f"away from save median {statistics.median(away):.3f} s of {len(away)} steps")
    for distance in sorted(by_distance):
        times = by_distance[distance]
        median = statistics.median(times)
        print(
            f"distance {distance:2}    median {median:.3f} s, {100 * (median / normal - 1):+.1f} % "
            f"of the control, {100 * (median / statistics.median(away) - 1):+.1f} % of those away"
        )
    period = sum(statistics.median(times) for times in by_distance.values())
    cost = period - normal * len(by_distance)
    print(f"one save costs {cost:.3f} s, {100 * cost / (normal * len(by_distance)):.1f} % of its period")


if __name__ == "__main__":
    main()
