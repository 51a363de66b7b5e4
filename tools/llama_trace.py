#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf>=0.17", "numpy>=2.0"]
# ///
"""Names what tools/llama_trace.cpp recorded: a trace of llama.cpp in etalon's format.

    llama_trace.py MODEL.gguf RAW TOKENS OUT.npz

Value heads go from llama.cpp's tiled order to Hugging Face's grouped one. Names of tensors come from docs/points.md.
"""

import io
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader

POINTS = Path(__file__).parent.parent / "docs/points.md"
# Points over value heads: how the last axis ends, in units of V or of single heads.
OF_VALUES = {"in_proj_qkv", "conv1d", "in_proj_z", "norm"}
OF_HEADS = {"in_proj_b", "in_proj_a", "beta", "g"}


def records(path):
    """Name and array, outermost axis first, of each record."""
    with open(path, "rb") as file:
        while line := file.readline():
            name, dtype, *ne = line.decode().rsplit(maxsplit=5)
            shape = [int(n) for n in reversed(ne)]
            dtype = np.float32 if dtype == "f32" else np.int32
            yield name, np.frombuffer(file.read(4 * int(np.prod(shape))), dtype).reshape(shape)
            file.read(1)


def number(reader, suffix):
    field = next(field for key, field in reader.fields.items() if key.endswith(suffix))
    return int(field.contents())


def main():
    model, raw, tokens, out = sys.argv[1:5]
    reader = GGUFReader(model)
    layers = number(reader, ".block_count")
    key_heads, heads = number(reader, ".ssm.group_count"), number(reader, ".ssm.time_step_rank")
    value_dim = number(reader, ".ssm.inner_size") // heads
    # Hugging Face's head h is llama.cpp's head stored[h].
    per_key = heads // key_heads
    stored = np.array([h % per_key * key_heads + h // per_key for h in range(heads)])
    tokens = [int(token) for token in tokens.split(",")]
    tensors = dict(records(raw))
    recurrent = {int(m[1]) for name in tensors if (m := re.fullmatch(r"linear_attn_out-(\d+)", name))}
    rows = re.findall(r"^\| `([^`]+)`[ *]*\| \[([^|]*)\][^|]*\| `([^`]+)` \|", POINTS.read_text(), re.M)

    def untiled(array, width):
        array = array.reshape(len(tokens), -1)
        before = array.shape[1] - heads * width
        values = array[:, before:].reshape(len(tokens), heads, width)[:, stored]
        return np.concatenate([array[:, :before], values.reshape(len(tokens), -1)], axis=1)

    points = {}
    for layer in [None, *range(layers)]:
        for point, axes, name in rows:
            if point.startswith("P") == (layer is None):
                continue
            if layer is not None:
                if ".self_attn" in point and layer in recurrent or ".linear_attn" in point and layer not in recurrent:
                    continue
                point, name = point.replace("P", f"model.layers.{layer}", 1), f"{name}-{layer}"
                # The first is the projection, the second has its positions.
                name += "#1" if point.endswith("k_rope") else ""
            if name not in tensors:
                continue
            array, part = tensors[name], point.rsplit(".", 1)[-1] if ".linear_attn." in point else None
            if part in OF_VALUES:
                array = untiled(array, value_dim)
            elif part in OF_HEADS:
                array = untiled(array, 1)
            elif axes.count(",") == 2:
                array = array.reshape(array.shape[-3:])
            else:
                array = array.reshape(len(tokens), -1)
            points[point] = np.ascontiguousarray(array, np.float32 if array.dtype == np.float32 else np.int64)
    manifest = {
        "version": 1,
        "tokens": tokens,
        "model": {"path": Path(model).name},
        "producer": {"name": "llama.cpp", "version": "", "precision": "f32"},
        "points": [
            {"name": name, "file": f"{name}.npy", "shape": array.shape, "dtype": "f32" if array.dtype == np.float32 else "i64"}
            for name, array in points.items()
        ],
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest, indent=1))
        for name, array in points.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    print(f"{out}: {len(points)} points of {len(tokens)} tokens")


main()
