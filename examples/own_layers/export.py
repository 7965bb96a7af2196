#!/usr/bin/python3
"""Makes the example: images of four shapes, six layers of a convolutional classifier, and the run
files, all in one folder.

    /usr/bin/python3 examples/own_layers/export.py FOLDER
    build/starling train FOLDER/images.toml

Needs PyTorch (Debian: python3-torch). Trained parameters go back into the same modules with

    /usr/bin/python3 examples/own_layers/export.py FOLDER --check RUN_DIRECTORY

which reads the newest checkpoint of a run and says how many of the images it was judged by the
model tells apart.
"""

import argparse
import json
import os
import shutil
import struct

import torch
from torch import nn

SIDE = 16
CLASSES = ("square", "disc", "cross", "stripes")


# --- the layers: each becomes one file, and stages are cut between them -------------------------


class Stem(nn.Module):
    """uint8 [n, 16, 16] to float32 [n, 8, 16, 16]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(1, 8)

    def forward(self, x):
        x = x.to(torch.float32).unsqueeze(1) / 255 - 0.5
        return nn.functional.silu(self.norm(self.conv(x)))


class Block(nn.Module):
    """Two convolutions and a way around them. GroupNorm: BatchNorm would change its buffers in
    forward, which Starling refuses."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(1, width)
        self.norm2 = nn.GroupNorm(1, width)

    def forward(self, x):
        hidden = nn.functional.silu(self.norm1(self.first(x)))
        return nn.functional.silu(x + self.norm2(self.second(hidden)))


class Down(nn.Module):
    """Half as wide and high, twice as many features."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, x):
        return nn.functional.silu(self.conv(x))


class Head(nn.Module):
    """The last layer gives a number for each class."""

    def __init__(self, width, classes):
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, x):
        return self.linear(x.mean([2, 3]))


def make_layers():
    torch.manual_seed(1)
    return [("stem", Stem()), ("block1", Block(8)), ("down1", Down(8)), ("block2", Block(16)),
            ("down2", Down(16)), ("head", Head(32, len(CLASSES)))]


# --- the images ---------------------------------------------------------------------------------


def draw(kind, generator):
    """One image of a shape somewhere, in some size and grey, under noise."""

    def between(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    size = between(3, 5)
    dy, dx = y - between(size, SIDE - 1 - size), x - between(size, SIDE - 1 - size)
    if kind == 0:
        shape = (dy.abs() <= size - 1) & (dx.abs() <= size - 1)
    elif kind == 1:
        shape = dy * dy + dx * dx <= size * size
    elif kind == 2:
        shape = ((dy.abs() <= 1) | (dx.abs() <= 1)) & (dy.abs() <= size) & (dx.abs() <= size)
    else:
        shape = (dy % 3 == 0) & (dy.abs() <= size) & (dx.abs() <= size)
    grey = between(40, 110) * shape + between(0, 80)
    noise = 30 * torch.randn((SIDE, SIDE), generator=generator)
    return (grey + noise).clamp(0, 255).to(torch.uint8)


def make_images(count):
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(0, len(CLASSES), (count,), generator=generator)
    inputs = torch.stack([draw(int(target), generator) for target in targets])
    return inputs, targets


# --- safetensors, as far as it is needed here ---------------------------------------------------

TYPES = {torch.uint8: "U8", torch.int64: "I64", torch.float32: "F32"}


def write_safetensors(path, tensors):
    header, blobs, end = {}, [], 0
    for name, tensor in tensors.items():
        blobs.append(tensor.contiguous().numpy().tobytes())
        begin, end = end, end + len(blobs[-1])
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_floats(path):
    """The F32 tensors of a file."""
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        first, last = entry["data_offsets"]
        tensor = torch.frombuffer(bytearray(data[begin + first:begin + last]), dtype=torch.float32)
        tensors[name] = tensor.reshape(entry["shape"])
    return tensors


# --- the two uses -------------------------------------------------------------------------------


def export(folder):
    os.makedirs(folder, exist_ok=True)
    for name, module in make_layers():
        torch.jit.script(module).save(os.path.join(folder, name + ".pt"))
    inputs, targets = make_images(2400)
    write_safetensors(os.path.join(folder, "images.safetensors"),
                      {"inputs": inputs, "targets": targets})
    here = os.path.dirname(os.path.abspath(__file__))
    for name in ("images.toml", "linked.toml"):
        shutil.copy(os.path.join(here, name), folder)
    print(f"wrote {folder}/images.toml, its layers and its images")


def check(folder, run):
    checkpoints = os.path.join(run, "checkpoints")
    newest = sorted(name for name in os.listdir(checkpoints) if name.startswith("step-"))[-1]
    tensors = {}
    for name in sorted(os.listdir(os.path.join(checkpoints, newest))):
        if name.endswith(".safetensors"):
            tensors.update(read_floats(os.path.join(checkpoints, newest, name)))
    layers = make_layers()
    for number, (_, module) in enumerate(layers):
        module.load_state_dict({name: tensors[f"layers.{number}.{name}"]
                                for name, _ in module.named_parameters()})
    inputs, targets = make_images(2400)
    judged = slice(len(targets) * 9 // 10, None)  # data.validation = 0.1 keeps the last ones
    x = inputs[judged]
    with torch.no_grad():
        for _, module in layers:
            x = module(x)
    right = int((x.argmax(-1) == targets[judged]).sum())
    print(f"{newest}: {right} of {len(x)} images that it was not trained on are told apart")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--check", metavar="RUN_DIRECTORY")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.folder, arguments.check)
    else:
        export(arguments.folder)
