#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.8", "transformers>=5.23", "numpy>=2.0", "safetensors>=0.6"]
# ///
"""Trace a Qwen3.5 checkpoint in Transformers: every point of the forward pass, in etalon's trace format.

Dense or MoE, text only or wrapped with vision (only the text model is loaded). Runs on the CPU with eager attention and the
plain PyTorch delta rule, whatever kernels are installed. Points are named after module paths, `model.layers.3.self_attn.q_proj`,
also where the checkpoint says `model.language_model.`; the batch axis is dropped.
"""

import argparse
import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

EXAMPLES = """\
examples:
  hf_trace.py Qwen3.5-0.8B --prompt "The capital of France is" -o france.npz
  hf_trace.py Qwen3.5-0.8B --tokens 760,6511,314,9338,369 -o france/          # a directory of .npy files
  hf_trace.py Qwen3.5-0.8B --tokens-file ids.json -o ids.safetensors --points 'model.layers.*' --points lm_head
  hf_trace.py Qwen3.5-35B-A3B --prompt-file text.txt -o text.npz --layers 0-3 --points '*.mlp*'
  hf_trace.py Qwen3.5-0.8B --prompt-file text.txt -o text.npz --decode 8      # the last 8 tokens one by one, with the cache
"""

# Points of a layer, in the order in which a trace lists them. T tokens; the two states are those after the last token.
LINEAR_POINTS = [
    "linear_attn.in_proj_qkv",  # [T, 2HkK+HvV]
    "linear_attn.in_proj_z",  # [T, HvV]
    "linear_attn.in_proj_b",  # [T, Hv]
    "linear_attn.in_proj_a",  # [T, Hv]
    "linear_attn.conv1d",  # [T, 2HkK+HvV], after silu
    "linear_attn.conv_state",  # [2HkK+HvV, kernel-1], rows of in_proj_qkv
    "linear_attn.beta",  # [T, Hv]
    "linear_attn.g",  # [T, Hv]
    "linear_attn.core_attn_out",  # [T, Hv, V]
    "linear_attn.recurrent_state",  # [Hv, K, V]
    "linear_attn.norm",  # [T, HvV]
    "linear_attn",  # [T, D]
]
ATTENTION_POINTS = [
    "self_attn.q_proj",  # [T, 2HDh], q and gate side by side in each head
    "self_attn.k_proj",  # [T, HkvDh]
    "self_attn.v_proj",  # [T, HkvDh]
    "self_attn.q_norm",  # [T, H, Dh]
    "self_attn.k_norm",  # [T, Hkv, Dh]
    "self_attn.q_rope",  # [T, H, Dh]
    "self_attn.k_rope",  # [T, Hkv, Dh]
    "self_attn.attn_out",  # [T, HDh], before the gate
    "self_attn.gated",  # [T, HDh]
    "self_attn",  # [T, D]
]
DENSE_POINTS = ["mlp.gate_proj", "mlp.up_proj", "mlp"]  # [T, F], [T, F], [T, D]
MOE_POINTS = [
    "mlp.gate",  # [T, E], router logits
    "mlp.topk_index",  # [T, k]
    "mlp.topk_weight",  # [T, k]
    "mlp.experts",  # [T, D]
    "mlp.shared_expert",  # [T, D], before its gate
    "mlp",  # [T, D]
]
STATE_POINTS = ("linear_attn.conv_state", "linear_attn.recurrent_state")


def point_names(layer_types, moe):
    """Every point of a model, in trace order."""
    names = ["model.embed_tokens"]
    for index, kind in enumerate(layer_types):
        layer = f"model.layers.{index}"
        mixer = LINEAR_POINTS if kind == "linear_attention" else ATTENTION_POINTS
        ffn = MOE_POINTS if moe else DENSE_POINTS
        suffixes = ["input_layernorm", *mixer, "attn_residual", "post_attention_layernorm", *ffn]
        names += [f"{layer}.{suffix}" for suffix in suffixes] + [layer]
    return names + ["model.norm", "lm_head"]


UNKNOWN_RELEASE = "this release of Transformers is not one that hf_trace.py knows"


class Failure(Exception):
    """Something the user can put right; printed without a traceback."""


def read_text(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_json(path):
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise Failure(f"{path}: not JSON: {error}") from error


# ---- trace files -----------------------------------------------------------------------------------------------------------


def npy_bytes(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0))
    return buffer.getvalue()


def write_npz(path, members):
    """A .npz whose bytes depend on nothing but `members` (name -> bytes): fixed order, fixed times."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def manifest(tokens, points, model, producer, file_of):
    """The text of manifest.json, a line for each point."""
    kinds = {"float32": "f32", "float64": "f64", "int64": "i64"}
    head = {"version": 1, "tokens": tokens.tolist(), "model": model, "producer": producer, "contract": None}
    rows = [
        {"name": name, "file": file_of(name), "shape": list(array.shape), "dtype": kinds[array.dtype.name]}
        for name, array in points.items()
    ]
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    return "{\n" + "".join(lines) + ' "points": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]\n}\n"


def write_trace(out, tokens, points, model, producer):
    """Write `points` (name -> array, in trace order) as `.npz`, `.safetensors` or, with no such suffix, a directory.

    The output is made beside its final place and renamed, so that it appears whole or not at all.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    file_of = (lambda name: name) if out.suffix == ".safetensors" else (lambda name: f"{name}.npy")
    text = manifest(tokens, points, model, producer, file_of)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        made = scratch / (out.name or "trace")
        if out.suffix == ".npz":
            arrays = {"tokens": tokens, **points}
            members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
            write_npz(made, {"manifest.json": text.encode(), **members})
        elif out.suffix == ".safetensors":
            from safetensors.numpy import save_file

            arrays = {name: np.ascontiguousarray(array) for name, array in points.items()}
            save_file({"tokens": tokens, **arrays}, made, metadata={"etalon.manifest": text})
        else:
            made.mkdir()
            for name, array in points.items():
                (made / file_of(name)).write_bytes(npy_bytes(array))
            (made / "manifest.json").write_text(text)
        if out.is_dir() or (out.exists() and made.is_dir()):  # these no rename replaces
            out.rename(scratch / "replaced")
        made.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def model_files(directory):
    """SHA-256 of config.json and of every weight file, by file name."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
        names = [index.name, *shards]
    else:
        names = ["model.safetensors"]
    digests = {}
    for name in ["config.json", *names]:
        path = directory / name
        if not path.is_file():
            raise Failure(f"{path}: not there; a checkpoint needs config.json and model.safetensors (or its index and shards)")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            head = file.read(64)
            if head.startswith(b"version https://git-lfs"):
                raise Failure(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull`")
            digest.update(head)
            while block := file.read(1 << 20):
                digest.update(block)
        digests[name] = digest.hexdigest()
    return digests


def model_entry(path, digests):
    """The manifest's `model`: one weight file is known by its own hash, several by that of their `sha256sum` listing."""
    weights = {name: digest for name, digest in digests.items() if name.endswith(".safetensors")}
    if len(weights) == 1:
        return {"path": path, "sha256": next(iter(weights.values()))}
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(weights.items()))
    return {"path": path, "sha256": hashlib.sha256(listing.encode()).hexdigest()}


# ---- the recorder ----------------------------------------------------------------------------------------------------------


class Recorder:
    """Hooks on the modules, and wrappers around the functions that no hook sees; each call appends its tokens."""

    def __init__(self, model, expected, wants):
        self.expected = expected
        self.wants = wants
        self.chunks = {}
        self.mixer = None  # path of the mixer that is running: functions do not know their module
        self.length = 0  # its number of tokens
        self.hook_modules(dict(model.named_modules()))
        self.wrap_functions(sys.modules[type(model).__module__])

    def record(self, name, tensor, axes=1):
        """Append `tensor` to a point, as [rows, ...] with its last `axes` axes kept."""
        if self.wants(name):
            tensor = tensor.detach().reshape(-1, *tensor.shape[-axes:])
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            # A copy, because the model writes into some of these tensors later on.
            self.chunks.setdefault(name, []).append(np.array(tensor.numpy(), order="C"))

    def hook_modules(self, modules):
        for name in self.expected:
            if name not in modules or name.endswith(".conv1d"):  # that module only holds the weight
                continue
            module = modules[name]
            if name.endswith("mlp.gate"):
                module.register_forward_hook(self.on_router(name.removesuffix(".gate")))
            elif name.endswith("linear_attn.norm"):
                module.register_forward_hook(self.on_gated_norm(name))
            else:
                module.register_forward_hook(self.on_output(name, axes=2 if name.endswith(("q_norm", "k_norm")) else 1))
            if name.endswith(("linear_attn", "self_attn")):
                module.register_forward_pre_hook(self.on_mixer(name), with_kwargs=True)
            if name.endswith("self_attn"):
                modules[f"{name}.o_proj"].register_forward_pre_hook(self.on_input(f"{name}.gated"))
            if name.endswith("post_attention_layernorm"):
                residual = name.replace("post_attention_layernorm", "attn_residual")
                module.register_forward_pre_hook(self.on_input(residual))

    def on_output(self, name, axes):
        return lambda _module, _args, output: self.record(name, output[0] if isinstance(output, tuple) else output, axes)

    def on_input(self, name):
        return lambda _module, args: self.record(name, args[0])

    def on_gated_norm(self, name):  # [T·Hv, V]
        return lambda _module, _args, output: self.record(name, output.reshape(self.length, -1))

    def on_router(self, mlp):
        def hook(_module, _args, output):
            for suffix, tensor in zip(("gate", "topk_weight", "topk_index"), output, strict=True):
                self.record(f"{mlp}.{suffix}", tensor)

        return hook

    def on_mixer(self, name):
        def hook(_module, args, kwargs):
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self.mixer, self.length = name, hidden.shape[1]

        return hook

    def wrap_functions(self, module):
        def wrap(name, record):
            if not hasattr(module, name):
                raise Failure(f"{module.__name__} has no function {name}: {UNKNOWN_RELEASE}")
            function = getattr(module, name)
            # Behind the decorator that would pick an installed kernel lies the plain PyTorch function.
            plain = getattr(function, "__wrapped__", function)

            def wrapped(*args, **kwargs):
                output = plain(*args, **kwargs)
                record(output, kwargs)
                return output

            setattr(module, name, wrapped)

        def conv(output, _kwargs):  # [1, C, T], with the cached columns before them
            self.record(f"{self.mixer}.conv1d", output[..., -self.length :].transpose(1, 2))

        def delta_rule(output, kwargs):
            self.record(f"{self.mixer}.g", kwargs["g"])
            self.record(f"{self.mixer}.beta", kwargs["beta"])
            self.record(f"{self.mixer}.core_attn_out", output[0], axes=2)

        def rope(output, _kwargs):  # [1, H, T, Dh]
            self.record(f"{self.mixer}.q_rope", output[0].transpose(1, 2), axes=2)
            self.record(f"{self.mixer}.k_rope", output[1].transpose(1, 2), axes=2)

        def attention(output, _kwargs):  # [1, T, H, Dh]
            self.record(f"{self.mixer}.attn_out", output[0].flatten(2))

        wrap("causal_conv1d_fn", conv)
        wrap("causal_conv1d_update", conv)
        wrap("torch_chunk_gated_delta_rule", delta_rule)
        wrap("torch_recurrent_gated_delta_rule", delta_rule)
        wrap("apply_rotary_pos_emb", rope)
        wrap("eager_attention_forward", attention)

    def record_states(self, cache):
        for name in self.expected:
            if name.endswith("linear_attn"):
                layer = cache.layers[int(name.split(".")[2])]
                # The cache holds one column more than the next token needs.
                self.record(f"{name}.conv_state", layer.conv_states[0][..., 1:])
                self.record(f"{name}.recurrent_state", layer.recurrent_states[0], axes=2)

    def points(self, count):
        """All wanted points in trace order; what the model did not pass is an error, not a gap."""
        points = {}
        for name in filter(self.wants, self.expected):
            if name not in self.chunks:
                raise Failure(f"{name} was never computed: {UNKNOWN_RELEASE}")
            points[name] = np.concatenate(self.chunks.pop(name))
            if not name.endswith(STATE_POINTS) and len(points[name]) != count:
                raise Failure(f"{name} has {len(points[name])} rows for {count} tokens: {UNKNOWN_RELEASE}")
        return points


# ---- loading and running ---------------------------------------------------------------------------------------------------


def text_config(directory):
    """The text model's configuration and class, or a `Failure` that says why it cannot be traced."""
    import transformers

    raw = read_json(directory / "config.json")
    text = raw.get("text_config", raw)
    classes = {"qwen3_5_text": "Qwen3_5ForCausalLM", "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM"}
    kind = text.get("model_type", raw.get("model_type"))
    if kind not in classes:
        raise Failure(f"{directory}/config.json: model_type is {kind!r}; expected one of {', '.join(classes)}")
    if "quantization_config" in raw or "quantization_config" in text:
        raise Failure(f"{directory}/config.json: quantization_config is set; trace the unquantized checkpoint")
    config = transformers.AutoConfig.from_pretrained(directory).get_text_config()
    # A wrapped checkpoint may tie at the top level alone, where the text model does not look.
    config.tie_word_embeddings = text.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))
    return config, getattr(transformers, classes[kind])


def load(directory, dtype):
    config, model_class = text_config(directory)
    try:
        model, found = model_class.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            experts_implementation="eager",
            ignore_mismatched_sizes=True,  # they are reported below, by name
            output_loading_info=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise Failure(f"{directory}: Transformers cannot load it: {error}") from error
    if found["mismatched_keys"]:
        name, stored, expected = min((name, list(stored), list(expected)) for name, stored, expected in found["mismatched_keys"])
        raise Failure(f"{directory}: {name} is {stored} where config.json asks for {expected}")
    if found["missing_keys"]:
        names = sorted(found["missing_keys"])
        raise Failure(f"{directory}: the checkpoint lacks {len(names)} tensors that the model needs: {', '.join(names[:8])}")
    if unused := sorted(found["unexpected_keys"]):
        print(f"hf_trace.py: Transformers does not use {len(unused)} tensors: {', '.join(unused[:8])}", file=sys.stderr)
    return model.eval()


def force_f32_frequencies(model):
    """RoPE frequencies in f32, as the model defines them; returns what stood there."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rotary = model.model.rotary_emb
    default = rotary.rope_type == "default"
    compute = rotary.compute_default_rope_parameters if default else ROPE_INIT_FUNCTIONS[rotary.rope_type]
    with torch.device("cpu"):
        exact = compute(model.config)[0].float()
    found = rotary.inv_freq
    rotary.inv_freq = exact
    error = ((found.double() - exact.double()).abs() / exact.double()).max().item()
    return {"found": str(found.dtype).removeprefix("torch."), "found_max_relative_error": error, "used": "float32"}


def run(model, tokens, decode, wants):
    import torch

    config = model.config
    expected = point_names(config.layer_types, moe=hasattr(config, "num_experts"))
    if not any(map(wants, expected)):
        raise Failure("--points and --layers leave nothing; points have names such as model.layers.0.linear_attn.conv1d")
    recorder = Recorder(model, expected, wants)
    split = len(tokens) - decode
    cache = None
    with torch.inference_mode():
        for call in [tokens[:split], *([token] for token in tokens[split:])]:
            cache = model(torch.tensor([call]), past_key_values=cache, use_cache=True).past_key_values
    recorder.record_states(cache)
    return recorder.points(len(tokens))


# ---- the command -----------------------------------------------------------------------------------------------------------


def read_tokens(args):
    if args.tokens is not None:
        return parse_tokens(args.tokens, "--tokens")
    if args.tokens_file is not None:
        path = args.tokens_file
        if path.suffix in (".npy", ".npz"):
            try:
                array = np.load(path)
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise Failure(f"{path}: numpy cannot read it: {error}") from error
            if path.suffix == ".npz":
                array = array["tokens"] if "tokens" in array else np.empty(0)
            if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
                raise Failure(f"{path}: expected a row of integers{' called tokens' if path.suffix == '.npz' else ''}")
            return array.tolist()
        return parse_tokens(read_text(path), path)
    from transformers import AutoTokenizer

    text = args.prompt if args.prompt is not None else read_text(args.prompt_file)
    tokens = AutoTokenizer.from_pretrained(args.model)(text, add_special_tokens=False)["input_ids"]
    if not tokens:
        raise Failure("the prompt is empty")
    return tokens


def parse_tokens(text, source):
    words = text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise Failure(f"{source}: expected token ids such as 1,2,3")
    return [int(word) for word in words]


def read_layers(text, count):
    """The layers of a list such as 0,4-7."""
    layers = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < count:
            raise Failure(f"--layers {text}: expected a list such as 0,4-7 with layers below {count}")
        layers.update(range(first, last + 1))
    return layers


def point_filter(globs, layers):
    def wants(name):
        layer = re.match(r"model\.layers\.(\d+)", name)
        if layers is not None and layer and int(layer[1]) not in layers:
            return False
        return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)

    return wants


def trace(args):
    if not (args.model / "config.json").is_file():
        raise Failure(f"{args.model}: expected a directory with config.json and safetensors")
    if args.output.exists() and not args.force:
        raise Failure(f"{args.output} exists; choose another name or give --force")
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing may be fetched in place of what the directory lacks
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("highest")
    if args.threads:
        torch.set_num_threads(args.threads)

    digests = model_files(args.model)
    tokens = read_tokens(args)
    model = load(args.model, getattr(torch, args.dtype))
    vocabulary = model.config.vocab_size
    if beyond := [token for token in tokens if token >= vocabulary]:
        raise Failure(f"token {beyond[0]} is not in the vocabulary of {vocabulary}")
    if not 0 <= args.decode < len(tokens):
        raise Failure(f"--decode {args.decode}: expected 0 to {len(tokens) - 1} for {len(tokens)} tokens")
    layers = None if args.layers is None else read_layers(args.layers, len(model.config.layer_types))
    frequencies = force_f32_frequencies(model)
    points = run(model, tokens, args.decode, point_filter(args.points, layers))
    producer = {
        "name": "transformers",
        "version": transformers.__version__,
        "precision": {"float32": "f32", "bfloat16": "bf16"}[args.dtype],
        "tool": "hf_trace.py",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "dtype": args.dtype,
        "device": "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "attention": "eager",
        "experts": "eager",
        "delta_rule": "chunks of 64, single tokens recurrent" if args.decode else "chunks of 64",
        "decoded_tokens": args.decode,
        "inv_freq": frequencies,
        "files": digests,
    }
    write_trace(args.output, tokens, points, model_entry(str(args.model), digests), producer)
    print(f"{args.output}: {len(points)} points of {len(tokens)} tokens")


def failed(message):
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="directory with config.json and safetensors")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", metavar="1,2,3", help="token ids")
    source.add_argument("--tokens-file", type=Path, metavar="F", help="token ids as text, JSON, .npy, or in a .npz trace")
    source.add_argument("--prompt", metavar="TEXT", help="text for the checkpoint's tokenizer; nothing is added to it")
    source.add_argument("--prompt-file", type=Path, metavar="F", help="the same, from a file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=".npz, .safetensors, or a directory")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights and activations")
    parser.add_argument("--points", action="append", default=[], metavar="GLOB", help="only points of this name; may be repeated")
    parser.add_argument("--layers", metavar="0,4-7", help="only these layers; points outside of layers stay")
    parser.add_argument("--decode", type=int, default=0, metavar="N", help="feed the last N tokens one by one, with the cache")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what PyTorch takes)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    args = parser.parse_args()
    try:
        trace(args)
    except ImportError as error:
        sys.exit(failed(f"{error}; run it with `uv run`, or install the packages named at its head"))
    except OSError as error:
        sys.exit(failed(f"{error.filename}: {error.strerror}" if error.filename else error))
    except (Failure, ValueError) as error:
        sys.exit(failed(error))


if __name__ == "__main__":
    main()
