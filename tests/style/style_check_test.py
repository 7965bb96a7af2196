#!/usr/bin/env python3
"""A check that cannot fail is none: plants a violation of each rule and requires that it is found,
and that what is allowed passes."""

import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import style_check  # noqa: E402

UNFINISHED = "TO" + "DO"
MACHINE_PATH = "/wo" + "rk/main"

HEADER = """// A header.
#ifndef STARLING_ROUTER_WIRING_H_
#define STARLING_ROUTER_WIRING_H_
#endif  // STARLING_ROUTER_WIRING_H_
"""

CLEAN = {
    "router/wiring.h": HEADER,
    "router/wiring.cc": '#include "router/wiring.h"\n',
    "router/README.md": "# router\n",
    "runtime/reactor/loop.cc": "#include <zmq.hpp>\n#include <thread>\nstd::thread t; auto n = absl::Now();\n",
    "runtime/reactor/README.md": "# reactor\n",
    "runtime/wire/wire.cc": "#include <capnp/message.h>\ncapnp::MallocMessageBuilder b;\n",
    "runtime/wire/README.md": "# wire\n",
    "stages/torch_executor.cc": "#include <ATen/core/Tensor.h>\n#include <chrono>\n"
                                "using C = std::chrono::steady_clock; std::thread::id id;\n",
    "stages/README.md": "# stages\n",
    "tests/router/wiring_test.cc": "std::unordered_map<int, int> m; std::mutex mu;\n",
    "tests/runtime/config/parse_test.cc": 'auto a = "tcp://127.0.0.1:7000";\n',
    "build/generated.cc": "sleep(1);\n",
}

# (rule, file, a line that breaks it)
PLANTS = [
    ("no-sleep-in-tests", "tests/router/a_test.cc", "std::this_thread::sleep_for(ms);"),
    ("no-sleep-in-tests", "tests/router/a_test.cc", "absl::SleepFor(absl::Seconds(1));"),
    ("no-sleep-in-tests", "tests/sim/a.cc", "usleep(5);"),
    ("no-sleep-in-tests", "tests/cluster/a_test.cc", "if (x) sleep (1);"),
    ("no-fixed-port-in-tests", "tests/cluster/a_test.cc", 'Bind("tcp://127.0.0.1:5555");'),
    ("no-fixed-port-in-tests", "tests/runtime/reactor/a_test.cc", 'Bind("tcp://*:5555");'),
    ("no-fixed-port-in-tests", "tests/runtime/reactor/a_test.cc", "a.sin_port = htons(80);"),
    ("no-clock", "router/wiring.cc", "auto t = std::chrono::steady_clock::now();"),
    ("no-clock", "runtime/trainer/a.cc", "absl::Time t = absl::Now();"),
    ("no-clock", "tests/sim/a.cc", "time(nullptr);"),
    ("no-clock", "runtime/observe/a.cc", "clock_gettime(CLOCK_MONOTONIC, &ts);"),
    ("no-thread", "sync/a.cc", "std::thread worker(Run);"),
    ("no-thread", "runtime/base/a.cc", "std::mutex mutex;"),
    ("no-thread", "stages/segment.cc", "#include <thread>"),
    ("no-thread", "tests/sim/a.cc", "absl::Mutex mutex;"),
    ("no-thread-of-its-own", "stages/torch_executor.cc", "std::thread worker(Run);"),
    ("no-chance", "router/wiring.cc", "std::random_device device;"),
    ("no-chance", "tests/sim/a.cc", "std::mt19937 generator(1);"),
    ("no-chance", "codec/a.cc", "absl::BitGen gen;"),
    ("no-chance", "codec/a.cc", "int x = rand();"),
    ("no-unordered-container", "runtime/membership/a.cc", "absl::flat_hash_map<int, int> m;"),
    ("no-unordered-container", "router/wiring.h", "#include <unordered_set>"),
    ("no-unordered-container", "router/wiring.cc", "std::unordered_map<int, int> m;"),
    ("no-torch", "codec/raw.cc", "#include <ATen/core/Tensor.h>"),
    ("no-torch", "tests/router/a_test.cc", "#include <torch/torch.h>"),
    ("no-torch", "runtime/reactor/a.cc", '#include "c10/util/Half.h"'),
    ("no-capnp", "runtime/trainer/a.cc", "#include <capnp/message.h>"),
    ("no-capnp", "runtime/app/a.cc", '#include "runtime/wire/starling.capnp.h"'),
    ("no-zmq", "runtime/app/a.cc", "#include <zmq.hpp>"),
    ("no-zmq", "tests/cluster/a_test.cc", "zmq::context_t context;"),
    ("no-unfinished-work", "router/wiring.cc", "// " + UNFINISHED + ": later"),
    ("no-unfinished-work", "docs/wire.md", "FIX" + "ME"),
    ("no-machine-path", "docs/wire.md", "see " + MACHINE_PATH),
    ("no-machine-path", "CMakeLists.txt", "include(../sha" + "red/x.cmake)"),
    ("no-machine-path", "scripts/a.sh", "cd /tmp" + "/w/b"),
]

# (file, a line that must pass there)
ALLOWED = [
    ("tests/router/a_test.cc", "// Waits without sleep(1)."),
    ("tests/router/a_test.cc", "/* sleep(1) */ int x = 0;"),
    ("tests/router/a_test.cc", 'EXPECT_EQ(Text(), "sleep(1)");'),
    ("tests/router/a_test.cc", "fake.sleep_ms = 1; Oversleep(x);"),
    ("tests/cluster/a_test.cc", 'Bind("tcp://127.0.0.1:*"); Bind("tcp://127.0.0.1:0");'),
    ("tests/cluster/a_test.cc", 'Dial("tcp://127.0.0.1:9");  // style: allow, nobody listens there'),
    ("tests/runtime/reactor/a_test.cc", "std::thread other(Run); auto t = absl::Now();"),
    ("router/wiring.cc", "Load time(nullptr_ish); double runtime = x.timestamp;"),
    ("router/wiring.cc", "// not std::unordered_map: its order differs"),
    ("router/wiring.cc", "const int operand(3); brand(x);"),
    ("runtime/app/main.cc", "std::random_device device; std::unordered_map<int, int> m;"),
    ("tests/stages/torch_model_test.cc", "#include <ATen/ATen.h>"),
    ("examples/hello.cc", "#include <torch/torch.h>"),
    ("docs/wire.md", "a framework/library, workers"),
]


def write(root, path, text):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "w", encoding="utf-8") as file:
        file.write(text)


def findings_of(changes):
    """The findings in the clean tree with `changes` {path: text, or None to remove} applied."""
    with tempfile.TemporaryDirectory() as root:
        tree = dict(CLEAN)
        tree.update(changes)
        for path, text in tree.items():
            if text is not None:
                write(root, path, text)
        return style_check.check_tree(root)[0]


def with_line(path, line):
    """`path` as in the clean tree with `line` after what it has, READMEs made; and its number."""
    text = CLEAN.get(path, "") + line + "\n"
    folder = os.path.dirname(path)
    changes = {path: text}
    if path.endswith((".cc", ".h")):
        changes[folder + "/README.md"] = "# folder\n"
    return changes, len(text.splitlines())


class StyleCheckTest(unittest.TestCase):

    def test_clean_tree_passes(self):
        self.assertEqual(findings_of({}), [])

    def test_each_planted_violation_is_found_at_its_line(self):
        for rule, path, line in PLANTS:
            with self.subTest(rule=rule, path=path, line=line):
                changes, number = with_line(path, line)
                found = [finding[:3] for finding in findings_of(changes)]
                self.assertIn((path, number, rule), found)

    def test_what_is_allowed_passes(self):
        for path, line in ALLOWED:
            with self.subTest(path=path, line=line):
                changes, _ = with_line(path, line)
                self.assertEqual(findings_of(changes), [])

    def test_every_rule_has_a_plant(self):
        self.assertEqual({rule[0] for rule in style_check.LINE_RULES},
                         {rule for rule, _, _ in PLANTS})

    def test_violation_after_a_block_comment_is_found(self):
        text = "/* a comment\n sleep(1)\n*/ sleep(2);\n"
        found = findings_of({"tests/router/a_test.cc": text})
        self.assertEqual([finding[:3] for finding in found],
                         [("tests/router/a_test.cc", 3, "no-sleep-in-tests")])

    def test_wrong_missing_and_pragma_guards_are_found(self):
        for text, line in [
                (HEADER.replace("ROUTER", "RUTER"), 2),
                (HEADER.replace("#define STARLING", "#define OTHER"), 2),
                ("int x;\n", 1),
                ("#pragma once\n", 1),
        ]:
            with self.subTest(text=text):
                found = [finding[:3] for finding in findings_of({"router/wiring.h": text})]
                self.assertEqual(found, [("router/wiring.h", line, "include-guard")])

    def test_file_of_800_lines_passes_and_of_801_does_not(self):
        self.assertEqual(findings_of({"router/wiring.cc": "\n" * 800}), [])
        found = [finding[:3] for finding in findings_of({"router/wiring.cc": "\n" * 801})]
        self.assertEqual(found, [("router/wiring.cc", 801, "file-length")])

    def test_folder_without_readme_is_found(self):
        found = [finding[:3] for finding in findings_of({"router/README.md": None})]
        self.assertEqual(found, [("router", 1, "folder-readme")])

    def test_readme_of_40_lines_passes_and_of_41_does_not(self):
        self.assertEqual(findings_of({"router/README.md": "x\n" * 40}), [])
        found = [finding[:3] for finding in findings_of({"router/README.md": "x\n" * 41})]
        self.assertEqual(found, [("router/README.md", 41, "folder-readme")])

    def test_command_exits_with_1_on_findings_and_on_an_empty_tree(self):
        command = [sys.executable, style_check.__file__]
        with tempfile.TemporaryDirectory() as root:
            empty = subprocess.run(command + [root], capture_output=True, text=True, check=False)
            self.assertEqual(empty.returncode, 1)
            write(root, "router/README.md", "# router\n")
            clean = subprocess.run(command + [root], capture_output=True, text=True, check=False)
            self.assertEqual(clean.returncode, 0, clean.stdout)
            write(root, "router/a.cc", "int a;\nstd::mutex m;\n")
            broken = subprocess.run(command + [root], capture_output=True, text=True, check=False)
            self.assertEqual(broken.returncode, 1)
            self.assertIn("router/a.cc:2: no-thread: ", broken.stdout)


if __name__ == "__main__":
    unittest.main()
