#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.8", "transformers>=5.23", "numpy>=2.0", "safetensors>=0.6", "gguf>=0.19"]
# ///
"""Make `fixtures/models`, `fixtures/traces` and, given llama.cpp's converter, `fixtures/gguf-good`.

Five tiny checkpoints with random weights, each speaking another dialect of the format, and for each the f64 truth
(oracle_f64.py) and what Transformers computes in f32 (hf_trace.py). Weights and truth come out the same on every run; the last
bits of Transformers' values depend on the CPU. Nothing is neutral: norms are not 1, heads differ, decays and gates spread, so
that every mistake in the order, the form or the layout of something moves the result.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
TOKENS = [434, 345, 64, 261, 7, 314, 85, 327, 258, 299, 414, 280, 325, 79, 366, 13, 32, 315, 352, 47, 414, 7, 271, 82]
TOKENIZER = REPOSITORY / "fixtures/golden/dense-f32"  # 507 tokens, of which 12 are special
TOKENIZER_FILES = [
    "chat_template.jinja", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json",
]  # fmt: skip
LINEAR, FULL = "linear_attention", "full_attention"

COMMON = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": 497,
    "pad_token_id": 495,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "use_cache": True,
    "vocab_size": 512,
}


def rope(factor, sections, theta=1e7):
    found = {"partial_rotary_factor": factor, "rope_theta": theta, "rope_type": "default"}
    return found | ({"mrope_interleaved": True, "mrope_section": sections} if sections else {})


# Each model: the text configuration, and how it is stored.
MODELS = {
    # Text only, F32, one file, untied. Irregular layers (no interval describes them), Hv/Hk = 4 ≠ Hk, heads wider than D/H.
    "dense-text-f32": {
        "text": {
            "hidden_size": 32, "num_hidden_layers": 4, "layer_types": [LINEAR, FULL, FULL, LINEAR], "intermediate_size": 32,
            "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": rope(0.75, [2, 2, 2], theta=1e6),
            "linear_num_key_heads": 2, "linear_num_value_heads": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 4, "tie_word_embeddings": False,
        },
        "vision": False, "mtp": False, "dtype": "float32", "shards": 1,
        "gguf": [["f32"], ["q8_0"]],
    },
    # Wrapped with vision, BF16 with F32 islands, three shards cut across layers, tied, MTP, every third layer attention,
    # Hv/Hk = 3 ≠ Hk, a prime vocabulary.
    "dense-vision-bf16": {
        "text": {
            "hidden_size": 32, "num_hidden_layers": 6, "layer_types": [LINEAR, LINEAR, FULL] * 2, "intermediate_size": 32,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": rope(0.5, [2, 1, 1]),
            "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 4, "tie_word_embeddings": True, "vocab_size": 509,
        },
        "vision": True, "mtp": True, "dtype": "bfloat16", "shards": 3,
        "gguf": [["bf16"], ["q8_0"]],
    },
    # Text only, F32, for Hugging Face alone (GGUF engines want K = V): K ≠ V, kernel 3, `full_attention_interval` in place of
    # `layer_types`, no M-RoPE sections, an eps and a theta of its own.
    "dense-unequal-f32": {
        "text": {
            "hidden_size": 32, "num_hidden_layers": 3, "full_attention_interval": 2, "intermediate_size": 40,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": rope(0.5, None, theta=1e4),
            "linear_num_key_heads": 3, "linear_num_value_heads": 6, "linear_key_head_dim": 12, "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 3, "tie_word_embeddings": False, "rms_norm_eps": 1e-5,
        },
        "vision": False, "mtp": False, "dtype": "float32", "shards": 1,
        "gguf": [],
    },
    # Text only, F32, one tensor for each expert, a shared expert of another width.
    "moe-experts-f32": {
        "text": {
            "hidden_size": 32, "num_hidden_layers": 3, "layer_types": [LINEAR, FULL, LINEAR],
            "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": rope(0.5, [2, 1, 1]),
            "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 4, "tie_word_embeddings": False,
        },
        "vision": False, "mtp": False, "dtype": "float32", "shards": 1, "packed": False,
        "gguf": [["f16", "--split-max-tensors", "25"], ["q8_0"]],
    },
    # Wrapped with vision, BF16 with F32 islands, packed experts, two shards, MTP, Hk = Hv, a vocabulary beyond the tokenizer's.
    "moe-packed-bf16": {
        "text": {
            "hidden_size": 32, "num_hidden_layers": 3, "layer_types": [LINEAR, LINEAR, FULL],
            "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "rope_parameters": rope(0.25, [2, 1, 1]),
            "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 4, "tie_word_embeddings": False, "vocab_size": 520,
        },
        "vision": True, "mtp": True, "dtype": "bfloat16", "shards": 2, "packed": True,
        "gguf": [["bf16"], ["q8_0"]],
    },
}  # fmt: skip


# ---- weights ---------------------------------------------------------------------------------------------------------------


def draw(seed, name):
    """A generator that depends on the tensor's name alone, so that a new tensor leaves the others as they are."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


class Tensors(dict):
    """name -> f64 values; each method adds one tensor of one kind."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def normal(self, name, shape, std):
        self[name] = draw(self.seed, name).standard_normal(shape) * std

    def uniform(self, name, shape, low, high):
        self[name] = draw(self.seed, name).uniform(low, high, shape)

    def linear(self, name, outputs, inputs, gain=1.3):
        """Outputs about `gain` times as large as inputs."""
        self.normal(f"{name}.weight", (outputs, inputs), gain / np.sqrt(inputs))

    def norm(self, name, width):
        """A weight w that acts as 1 + w."""
        self.uniform(f"{name}.weight", (width,), -0.3, 0.5)


def delta_net(tensors, name, c):
    keys = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    heads, values = c["linear_num_value_heads"], c["linear_num_value_heads"] * c["linear_value_head_dim"]
    channels = 2 * keys + values
    tensors.linear(f"{name}.in_proj_qkv", channels, c["hidden_size"])
    # The first query head and the last key head are so faint that the eps of their l2 norm weighs as much as they do.
    width = c["linear_key_head_dim"]
    tensors[f"{name}.in_proj_qkv.weight"][:width] *= 1e-3
    tensors[f"{name}.in_proj_qkv.weight"][2 * keys - width : 2 * keys] *= 1e-3
    tensors.linear(f"{name}.in_proj_z", values, c["hidden_size"])
    tensors.linear(f"{name}.in_proj_b", heads, c["hidden_size"])
    tensors.linear(f"{name}.in_proj_a", heads, c["hidden_size"])
    tensors.uniform(f"{name}.conv1d.weight", (channels, 1, c["linear_conv_kernel_dim"]), -0.8, 0.8)
    # exp(g) from about 0.3 to 0.98 a token: states that forget at once and states that last the whole trace.
    tensors.uniform(f"{name}.A_log", (heads,), np.log(0.5), np.log(8))
    tensors.uniform(f"{name}.dt_bias", (heads,), -4, -0.5)
    tensors.uniform(f"{name}.norm.weight", (c["linear_value_head_dim"],), 0.5, 1.5)
    tensors.linear(f"{name}.out_proj", c["hidden_size"], values)


def attention(tensors, name, c):
    queries, kv = (c[count] * c["head_dim"] for count in ("num_attention_heads", "num_key_value_heads"))
    tensors.linear(f"{name}.q_proj", 2 * queries, c["hidden_size"])
    tensors.linear(f"{name}.k_proj", kv, c["hidden_size"])
    tensors.linear(f"{name}.v_proj", kv, c["hidden_size"])
    tensors.linear(f"{name}.o_proj", c["hidden_size"], queries)
    tensors.norm(f"{name}.q_norm", c["head_dim"])
    tensors.norm(f"{name}.k_norm", c["head_dim"])


def mlp(tensors, name, hidden, width):
    tensors.linear(f"{name}.gate_proj", width, hidden)
    tensors.linear(f"{name}.up_proj", width, hidden)
    tensors.linear(f"{name}.down_proj", hidden, width)


def experts(tensors, name, c, packed):
    hidden, width, count = c["hidden_size"], c["moe_intermediate_size"], c["num_experts"]
    tensors.linear(f"{name}.gate", count, hidden, gain=2)  # far from a tie
    mlp(tensors, f"{name}.shared_expert", hidden, c["shared_expert_intermediate_size"])
    tensors.linear(f"{name}.shared_expert_gate", 1, hidden)
    if packed:
        tensors.normal(f"{name}.experts.gate_up_proj", (count, 2 * width, hidden), 1.3 / np.sqrt(hidden))
        tensors.normal(f"{name}.experts.down_proj", (count, hidden, width), 1.3 / np.sqrt(width))
    else:
        for index in range(count):
            mlp(tensors, f"{name}.experts.{index}", hidden, width)


def layer(tensors, name, c, kind, packed):
    tensors.norm(f"{name}.input_layernorm", c["hidden_size"])
    if kind == LINEAR:
        delta_net(tensors, f"{name}.linear_attn", c)
    else:
        attention(tensors, f"{name}.self_attn", c)
    tensors.norm(f"{name}.post_attention_layernorm", c["hidden_size"])
    if "num_experts" in c:
        experts(tensors, f"{name}.mlp", c, packed)
    else:
        mlp(tensors, f"{name}.mlp", c["hidden_size"], c["intermediate_size"])


VISION = {
    "depth": 1, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 8, "in_channels": 3, "initializer_range": 0.02,
    "intermediate_size": 16, "num_heads": 2, "num_position_embeddings": 16, "patch_size": 4,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"}, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip


def vision_tower(tensors, hidden):
    """No text pass reads these; a reader has to pass them by."""
    name, width = "model.visual", VISION["hidden_size"]

    def affine(part, outputs, *inputs):
        tensors.normal(f"{name}.{part}.weight", (outputs, *inputs), 0.1)
        tensors.normal(f"{name}.{part}.bias", (outputs,), 0.1)

    affine("patch_embed.proj", width, 3, VISION["temporal_patch_size"], VISION["patch_size"], VISION["patch_size"])
    tensors.normal(f"{name}.pos_embed.weight", (VISION["num_position_embeddings"], width), 0.1)
    affine("blocks.0.norm1", width)
    affine("blocks.0.norm2", width)
    affine("blocks.0.attn.qkv", 3 * width, width)
    affine("blocks.0.attn.proj", width, width)
    affine("blocks.0.mlp.linear_fc1", VISION["intermediate_size"], width)
    affine("blocks.0.mlp.linear_fc2", width, VISION["intermediate_size"])
    merged = width * VISION["spatial_merge_size"] ** 2
    affine("merger.norm", width)
    affine("merger.linear_fc1", merged, merged)
    affine("merger.linear_fc2", hidden, merged)


def layer_types(c):
    if "layer_types" in c:
        return c["layer_types"]
    return [FULL if (index + 1) % c["full_attention_interval"] == 0 else LINEAR for index in range(c["num_hidden_layers"])]


def weights(seed, model):
    c, packed = COMMON | model["text"], model.get("packed", False)
    prefix = "model.language_model" if model["vision"] else "model"
    hidden = c["hidden_size"]
    tensors = Tensors(seed)
    # Small enough for rms_norm_eps to show in the first layer.
    tensors.normal(f"{prefix}.embed_tokens.weight", (c["vocab_size"], hidden), 0.03)
    for index, kind in enumerate(layer_types(c)):
        layer(tensors, f"{prefix}.layers.{index}", c, kind, packed)
    tensors.norm(f"{prefix}.norm", hidden)
    if not c["tie_word_embeddings"]:
        tensors.linear("lm_head", c["vocab_size"], hidden, gain=2)
    if model["mtp"]:
        tensors.linear("mtp.fc", hidden, 2 * hidden)
        layer(tensors, "mtp.layers.0", c, FULL, packed)
        for part in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
            tensors.norm(f"mtp.{part}", hidden)
    if model["vision"]:
        vision_tower(tensors, hidden)
    return tensors


# ---- checkpoint files ------------------------------------------------------------------------------------------------------


def encode(name, values, dtype):
    """dtype and bytes; in BF16 checkpoints A_log and the gated norm stay F32, as they do in released ones."""
    single = values.astype("<f4")
    if dtype == "float32" or name.endswith((".A_log", ".linear_attn.norm.weight")):
        return "F32", single.tobytes()
    bits = single.view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to nearest, ties to even
    return "BF16", (rounded >> 16).astype("<u2").tobytes()


def write_safetensors(path, tensors, dtype):
    encoded = {name: (*encode(name, values, dtype), values.shape) for name, values in tensors.items()}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    # F32 before BF16, so that everything is aligned to its own size.
    for name, (kind, raw, shape) in sorted(encoded.items(), key=lambda item: (item[1][0] != "F32", item[0])):
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return len(data)


def config(model):
    moe = "num_experts" in model["text"]
    family = "qwen3_5_moe" if moe else "qwen3_5"
    text = COMMON | model["text"] | {"model_type": f"{family}_text"}
    if moe:
        text |= {"output_router_logits": False, "router_aux_loss_coef": 0.001}
    if model["mtp"]:
        text |= {"mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False}
    stem = "Qwen3_5Moe" if moe else "Qwen3_5"
    if not model["vision"]:
        return {"architectures": [f"{stem}ForCausalLM"], "dtype": model["dtype"]} | text
    vision = VISION | {"model_type": f"{family}_vision", "out_hidden_size": text["hidden_size"]}
    return {
        "architectures": [f"{stem}ForConditionalGeneration"],
        "dtype": model["dtype"],
        "image_token_id": 501,
        "model_type": family,
        "text_config": text,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "video_token_id": 502,
        "vision_config": vision,
        "vision_end_token_id": 499,
        "vision_start_token_id": 498,
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def make_model(directory, seed, model):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER / name, directory / name)
    write_json(directory / "config.json", config(model))
    tensors, shards = weights(seed, model), model["shards"]
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, model["dtype"])
        return
    # Dealt out like cards: every layer lies in several shards.
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    shard_of = {tensor: names[index % shards] for index, tensor in enumerate(sorted(tensors))}
    parts = [{tensor: tensors[tensor] for tensor in tensors if shard_of[tensor] == name} for name in names]
    total = sum(write_safetensors(directory / name, part, model["dtype"]) for name, part in zip(names, parts, strict=True))
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": shard_of})


# ---- what others make of them ----------------------------------------------------------------------------------------------


def run(*command):
    # One thread everywhere: the order of a sum may depend on their number.
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, env=os.environ | threads, check=True)


def make_traces(fixtures, name):
    model, tokens = fixtures / "models" / name, ",".join(map(str, TOKENS))
    run("tools/oracle_f64.py", model, "--tokens", tokens, "-o", fixtures / f"traces/{name}.f64.npz", "--force")
    run("tools/hf_trace.py", model, "--tokens", tokens, "-o", fixtures / f"traces/{name}.hf_f32.npz", "--force", "--threads", 1)


# The converter knows tokenizers by a hash of what they make of a text; this one is too small to be among them.
CONVERT = """
import runpy, sys
root = sys.argv.pop(1)
sys.path[:0] = [root, root + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen35"
runpy.run_path(root + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def make_ggufs(fixtures, name, model, llama_cpp):
    for old in (REPOSITORY / fixtures / "gguf-good").glob(f"{name}-*.gguf"):
        old.unlink()
    for outtype, *options in model["gguf"]:
        out = fixtures / f"gguf-good/{name}-{outtype}{'-split' if options else ''}.gguf"
        mtp = [] if model["mtp"] else ["--no-mtp"]
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            script.write(CONVERT)
            script.flush()
            run(script.name, llama_cpp, fixtures / "models" / name, "--outtype", outtype, "--outfile", out, *mtp, *options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(MODELS)}")
    parser.add_argument("--fixtures", type=Path, default=Path("fixtures"), help="where to put them, seen from the repository")
    parser.add_argument("--llama-cpp", type=Path, help="llama.cpp's sources: make the GGUFs too, or they stay as they are")
    args = parser.parse_args()
    if unknown := set(args.names) - set(MODELS):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    (REPOSITORY / args.fixtures / "traces").mkdir(parents=True, exist_ok=True)
    (REPOSITORY / args.fixtures / "gguf-good").mkdir(parents=True, exist_ok=True)
    for seed, (name, model) in enumerate(MODELS.items()):
        if args.names and name not in args.names:
            continue
        make_model(REPOSITORY / args.fixtures / "models" / name, seed, model)
        make_traces(args.fixtures, name)
        if args.llama_cpp:
            make_ggufs(args.fixtures, name, model, args.llama_cpp.resolve())


if __name__ == "__main__":
    main()
