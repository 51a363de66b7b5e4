#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=2.0", "safetensors>=0.6"]
# ///
"""The Qwen3.5 forward pass in float64, in numpy and nothing else: the truth that etalon's own passes are judged against.

Written from the definition of the model and sharing no code with etalon or Transformers, so that a mistake would have to be made
twice to stay hidden. Slow and short on purpose: one token after another through the recurrence, every expert one by one.
Weights are read exactly (BF16, F16 and F32 are all exact in float64) and nothing is ever rounded below float64.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from hf_trace import Failure, failed, model_entry, model_files, point_filter, point_names, read_json, read_tokens, write_trace

EXAMPLE = """\
example:
  oracle_f64.py fixtures/models/moe-experts-f32 --tokens 1,2,3 -o truth.npz
"""

# ---- weights ---------------------------------------------------------------------------------------------------------------


def read_safetensors(path):
    """name -> float64 array, straight from the bytes: u64 header length, JSON header, data."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = read_header(path, data[8:start])
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        if entry["dtype"] == "BF16":  # the upper half of an F32
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] in ("F16", "F32", "F64"):
            values = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]])
        else:
            raise Failure(f"{path}: {name} is {entry['dtype']}; expected BF16, F16, F32 or F64")
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def read_header(path, raw):
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise Failure(f"{path}: its header is not JSON: {error}") from error
    header.pop("__metadata__", None)
    return header


def read_weights(directory, digests):
    """All tensors of the text model, without `model.` or `model.language_model.`; experts packed; the MTP block left out."""
    weights = {}
    for name in digests:
        if name.endswith(".safetensors"):
            weights |= read_safetensors(directory / name)
    weights = {
        name.removeprefix("model.").removeprefix("language_model."): tensor
        for name, tensor in weights.items()
        if not name.startswith(("mtp.", "model.visual."))
    }
    for name in [name for name in weights if name.endswith(".experts.0.gate_proj.weight")]:
        experts = name.removesuffix(".0.gate_proj.weight")
        halves = [stack(weights, experts, "gate"), stack(weights, experts, "up")]  # [E, F, D] each
        weights[f"{experts}.gate_up_proj"] = np.concatenate(halves, axis=1)
        weights[f"{experts}.down_proj"] = stack(weights, experts, "down")
    return weights


def stack(weights, experts, kind):
    """[E, out, in] of a checkpoint that keeps every expert apart."""
    names = [f"{experts}.{index}.{kind}_proj.weight" for index in range(len(weights))]
    return np.stack([weights[name] for name in names if name in weights])


# ---- the model -------------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def rms(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def l2(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


class Oracle:
    """T tokens, D hidden, H heads of Dh, Hk and Hv heads of K and V in the delta rule, E experts, F inner width."""

    def __init__(self, config, weights, record):
        self.config, self.weights, self.record = config, weights, record
        self.eps = config["rms_norm_eps"]

    def norm(self, x, name):
        return rms(x, self.eps) * (1 + self.weights[f"{name}.weight"])

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T

    def forward(self, tokens):
        x = self.weights["embed_tokens.weight"][tokens]  # [T, D]
        self.record("model.embed_tokens", x)
        for index, kind in enumerate(self.config["layer_types"]):
            layer = f"layers.{index}"
            point = f"model.{layer}"
            h = self.norm(x, f"{layer}.input_layernorm")
            self.record(f"{point}.input_layernorm", h)
            x = x + (self.delta_net(h, layer) if kind == "linear_attention" else self.attention(h, layer))
            self.record(f"{point}.attn_residual", x)
            h = self.norm(x, f"{layer}.post_attention_layernorm")
            self.record(f"{point}.post_attention_layernorm", h)
            x = x + (self.experts(h, layer) if "num_experts" in self.config else self.mlp(h, layer))
            self.record(point, x)
        x = self.norm(x, "norm")
        self.record("model.norm", x)
        head = self.weights["embed_tokens.weight" if self.config["tie_word_embeddings"] else "lm_head.weight"]
        self.record("lm_head", x @ head.T)  # [T, vocabulary]

    def delta_net(self, h, layer):
        c, name, point = self.config, f"{layer}.linear_attn", f"model.{layer}.linear_attn"
        count, kernel = len(h), c["linear_conv_kernel_dim"]
        key_heads, value_heads = c["linear_num_key_heads"], c["linear_num_value_heads"]
        key_dim, value_dim = c["linear_key_head_dim"], c["linear_value_head_dim"]
        qkv, z, b, a = (self.linear(h, f"{name}.in_proj_{part}") for part in ("qkv", "z", "b", "a"))
        for part, value in (("qkv", qkv), ("z", z), ("b", b), ("a", a)):
            self.record(f"{point}.in_proj_{part}", value)

        # Each channel is filtered over time; before the first token there are zeros. The last weight meets the newest token.
        history = np.concatenate([np.zeros((kernel - 1, qkv.shape[1])), qkv])  # [kernel-1+T, C]
        filters = self.weights[f"{name}.conv1d.weight"][:, 0]  # [C, kernel]
        mixed = silu(sum(history[tap : tap + count] * filters[:, tap] for tap in range(kernel)))  # [T, C]
        self.record(f"{point}.conv1d", mixed)
        self.record(f"{point}.conv_state", history[count:].T)  # [C, kernel-1]

        beta = sigmoid(b)  # [T, Hv]
        g = -np.exp(self.weights[f"{name}.A_log"]) * np.logaddexp(0, a + self.weights[f"{name}.dt_bias"])  # [T, Hv]
        self.record(f"{point}.beta", beta)
        self.record(f"{point}.g", g)

        q, k, v = np.split(mixed, [key_heads * key_dim, 2 * key_heads * key_dim], axis=1)
        q = l2(q.reshape(count, key_heads, key_dim)) / np.sqrt(key_dim)
        k = l2(k.reshape(count, key_heads, key_dim))
        v = v.reshape(count, value_heads, value_dim)
        out = np.empty((count, value_heads, value_dim))
        states = np.zeros((value_heads, key_dim, value_dim))
        for head in range(value_heads):
            key_head = head // (value_heads // key_heads)  # a key head serves consecutive value heads
            state = states[head]  # [K, V]
            for t in range(count):
                state *= np.exp(g[t, head])
                delta = beta[t, head] * (v[t, head] - state.T @ k[t, key_head])
                state += np.outer(k[t, key_head], delta)
                out[t, head] = state.T @ q[t, key_head]
        self.record(f"{point}.core_attn_out", out)
        self.record(f"{point}.recurrent_state", states)

        out = rms(out, self.eps) * self.weights[f"{name}.norm.weight"]  # here the weight is not 1 + w
        out = out.reshape(count, -1) * silu(z)
        self.record(f"{point}.norm", out)
        out = self.linear(out, f"{name}.out_proj")
        self.record(point, out)
        return out

    def attention(self, h, layer):
        c, name, point = self.config, f"{layer}.self_attn", f"model.{layer}.self_attn"
        count, heads, kv_heads, width = len(h), c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        q, k, v = (self.linear(h, f"{name}.{part}_proj") for part in "qkv")
        for part, value in (("q", q), ("k", k), ("v", v)):
            self.record(f"{point}.{part}_proj", value)
        q, gate = np.split(q.reshape(count, heads, 2 * width), 2, axis=2)  # side by side within each head
        q = self.norm(q, f"{name}.q_norm")  # [T, H, Dh]
        k = self.norm(k.reshape(count, kv_heads, width), f"{name}.k_norm")
        self.record(f"{point}.q_norm", q)
        self.record(f"{point}.k_norm", k)
        q, k = self.rope(q), self.rope(k)
        self.record(f"{point}.q_rope", q)
        self.record(f"{point}.k_rope", k)

        v = v.reshape(count, kv_heads, width)
        out = np.empty((count, heads, width))
        future = np.triu(np.full((count, count), -np.inf), 1)
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, kv_head].T / np.sqrt(width) + future
            out[:, head] = softmax(scores) @ v[:, kv_head]
        self.record(f"{point}.attn_out", out.reshape(count, -1))
        out = (out * sigmoid(gate)).reshape(count, -1)
        self.record(f"{point}.gated", out)
        out = self.linear(out, f"{name}.o_proj")
        self.record(point, out)
        return out

    def rope(self, x):
        """Rotate the pairs (i, i + rot/2) of the first `rot` of Dh dimensions; for text the M-RoPE sections change nothing."""
        c = self.config
        half = int(c["head_dim"] * c["rope_parameters"]["partial_rotary_factor"]) // 2
        angle = np.arange(len(x))[:, None] * c["rope_parameters"]["rope_theta"] ** (-np.arange(half) / half)  # [T, rot/2]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        first, second, rest = np.split(x, [half, 2 * half], axis=2)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=2)

    def mlp(self, h, layer):
        gate, up = self.linear(h, f"{layer}.mlp.gate_proj"), self.linear(h, f"{layer}.mlp.up_proj")
        self.record(f"model.{layer}.mlp.gate_proj", gate)
        self.record(f"model.{layer}.mlp.up_proj", up)
        out = self.linear(silu(gate) * up, f"{layer}.mlp.down_proj")
        self.record(f"model.{layer}.mlp", out)
        return out

    def experts(self, h, layer):
        name, point = f"{layer}.mlp", f"model.{layer}.mlp"
        logits = self.linear(h, f"{name}.gate")  # [T, E]
        probability = softmax(logits)
        chosen = np.argsort(-probability, axis=1, kind="stable")[:, : self.config["num_experts_per_tok"]]  # [T, k]
        weight = np.take_along_axis(probability, chosen, axis=1)
        weight = weight / weight.sum(1, keepdims=True)
        self.record(f"{point}.gate", logits)
        self.record(f"{point}.topk_index", chosen)
        self.record(f"{point}.topk_weight", weight)

        gate_up, down = self.weights[f"{name}.experts.gate_up_proj"], self.weights[f"{name}.experts.down_proj"]
        out = np.zeros_like(h)
        for t in range(len(h)):
            for slot, expert in enumerate(chosen[t]):
                gate, up = np.split(gate_up[expert] @ h[t], 2)
                out[t] += weight[t, slot] * (down[expert] @ (silu(gate) * up))
        self.record(f"{point}.experts", out)

        shared = silu(self.linear(h, f"{name}.shared_expert.gate_proj")) * self.linear(h, f"{name}.shared_expert.up_proj")
        shared = self.linear(shared, f"{name}.shared_expert.down_proj")
        self.record(f"{point}.shared_expert", shared)
        out = out + sigmoid(self.linear(h, f"{name}.shared_expert_gate")) * shared
        self.record(point, out)
        return out


# ---- the command -----------------------------------------------------------------------------------------------------------


def read_config(directory):
    raw = read_json(directory / "config.json")
    config = {"tie_word_embeddings": raw.get("tie_word_embeddings", False)} | raw.get("text_config", raw)
    if "layer_types" not in config:
        interval = config["full_attention_interval"]
        full = [(index + 1) % interval == 0 for index in range(config["num_hidden_layers"])]
        config["layer_types"] = ["full_attention" if is_full else "linear_attention" for is_full in full]
    return config


def trace(directory, tokens, wants):
    """All wanted points of a checkpoint, in trace order, and the SHA-256 of its files."""
    digests = model_files(directory)
    config = read_config(directory)
    if beyond := [token for token in tokens if token >= config["vocab_size"]]:
        raise Failure(f"token {beyond[0]} is not in the vocabulary of {config['vocab_size']}")
    points = {}

    def record(name, value):
        if wants(name):
            points[name] = np.array(value, order="C", dtype=np.int64 if value.dtype.kind == "i" else np.float64)

    Oracle(config, read_weights(directory, digests), record).forward(tokens)
    expected = [name for name in point_names(config["layer_types"], "num_experts" in config) if wants(name)]
    assert list(points) == expected
    return points, digests


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="directory with config.json and safetensors")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", metavar="1,2,3", help="token ids")
    source.add_argument("--tokens-file", type=Path, metavar="F", help="token ids as text, JSON, .npy, or in a .npz trace")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=".npz, .safetensors, else a directory")
    parser.add_argument("--points", action="append", default=[], metavar="GLOB", help="only points of this name; may be repeated")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    args = parser.parse_args()
    try:
        if args.output.exists() and not args.force:
            raise Failure(f"{args.output} exists; choose another name or give --force")
        tokens = read_tokens(args)
        points, digests = trace(args.model, tokens, point_filter(args.points, None))
        producer = {"name": "oracle_f64.py", "version": "1", "precision": "f64", "numpy": np.__version__, "files": digests}
        write_trace(args.output, tokens, points, model_entry(str(args.model), digests), producer)
        print(f"{args.output}: {len(points)} points of {len(tokens)} tokens")
    except KeyError as error:
        sys.exit(failed(f"{args.model} lacks {error}"))
    except OSError as error:
        sys.exit(failed(f"{error.filename}: {error.strerror}" if error.filename else error))
    except (Failure, ValueError) as error:
        sys.exit(failed(error))


if __name__ == "__main__":
    main()
