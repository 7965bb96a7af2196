#!/usr/bin/env python3
"""A forward pass of GPT-2 and Llama models in Hugging Face's layout, written from the published
architectures, in float64.

    huggingface_forward.py FOLDER TOKENS OUT

TOKENS is JSON, a list of sequences of equal length; OUT gets the logits as float32, [n, T,
vocabulary]. Needs PyTorch and nothing else.
"""

import array
import json
import math
import os
import struct
import sys

import torch


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    assert header.pop("__metadata__")["format"] == "pt"
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32", entry
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4, offset=begin)
        tensors[name] = flat.reshape(entry["shape"]).double()
    return tensors


def read_model(folder):
    whole = os.path.join(folder, "model.safetensors")
    if os.path.exists(whole):
        return read_safetensors(whole)
    with open(whole + ".index.json") as file:
        index = json.load(file)
    tensors = {}
    for name in sorted(set(index["weight_map"].values())):
        tensors.update(read_safetensors(os.path.join(folder, name)))
    assert set(tensors) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in tensors.values())
    return tensors


def attend(q, k, v):
    """[n, heads, T, D] each; every token sees itself and those before it."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(later, -math.inf), -1) @ v


def split_heads(x, heads):
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def head(config, t, embedding):
    return t[embedding if config["tie_word_embeddings"] else "lm_head.weight"]


def gpt2(config, t, tokens):
    width, heads, epsilon = config["n_embd"], config["n_head"], config["layer_norm_epsilon"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
        return scaled * t[name + ".weight"] + t[name + ".bias"]

    def conv1d(name, x):  # weights are [in, out]
        return x @ t[name + ".weight"] + t[name + ".bias"]

    def gelu_new(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))

    assert config["activation_function"] == "gelu_new"
    x = t["transformer.wte.weight"][tokens] + t["transformer.wpe.weight"][: tokens.shape[1]]
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}."
        q, k, v = conv1d(block + "attn.c_attn", norm(block + "ln_1", x)).split(width, dim=-1)
        mixed = attend(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
        x = x + conv1d(block + "attn.c_proj", merge_heads(mixed))
        hidden = gelu_new(conv1d(block + "mlp.c_fc", norm(block + "ln_2", x)))
        x = x + conv1d(block + "mlp.c_proj", hidden)
    return norm("transformer.ln_f", x) @ head(config, t, "transformer.wte.weight").T


def llama(config, t, tokens):
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    head_width = config["hidden_size"] // heads
    assert config["head_dim"] == head_width and config["hidden_act"] == "silu"

    def norm(name, x):
        scale = (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt()
        return t[name + ".weight"] * (x * scale)

    def linear(name, x, bias):
        y = x @ t[name + ".weight"].T
        assert bias == (name + ".bias" in t)
        return y + t[name + ".bias"] if bias else y

    powers = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
    frequencies = 1.0 / config["rope_theta"] ** powers
    angles = torch.outer(torch.arange(tokens.shape[1], dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), -1)

    def rotate(x):
        first, second = x[..., : head_width // 2], x[..., head_width // 2 :]
        return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()

    x = t["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        bias = config["attention_bias"]
        seen = norm(block + "input_layernorm", x)
        q = rotate(split_heads(linear(block + "self_attn.q_proj", seen, bias), heads))
        k = rotate(split_heads(linear(block + "self_attn.k_proj", seen, bias), groups))
        v = split_heads(linear(block + "self_attn.v_proj", seen, bias), groups)
        k = k.repeat_interleave(heads // groups, dim=1)
        v = v.repeat_interleave(heads // groups, dim=1)
        x = x + linear(block + "self_attn.o_proj", merge_heads(attend(q, k, v)), bias)
        bias = config["mlp_bias"]
        seen = norm(block + "post_attention_layernorm", x)
        gate = linear(block + "mlp.gate_proj", seen, bias)
        up = linear(block + "mlp.up_proj", seen, bias)
        x = x + linear(block + "mlp.down_proj", gate * torch.sigmoid(gate) * up, bias)
    return norm("model.norm", x) @ head(config, t, "model.embed_tokens.weight").T


def main():
    folder, tokens_path, out_path = sys.argv[1:]
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    with open(tokens_path) as file:
        tokens = torch.tensor(json.load(file))
    forward = {"GPT2LMHeadModel": gpt2, "LlamaForCausalLM": llama}[config["architectures"][0]]
    tensors = read_model(folder)
    assert ("lm_head.weight" not in tensors) == config["tie_word_embeddings"]
    logits = forward(config, tensors, tokens)
    assert logits.shape[-1] == config["vocab_size"]
    with open(out_path, "wb") as file:
        array.array("f", logits.flatten().tolist()).tofile(file)


if __name__ == "__main__":
    main()
