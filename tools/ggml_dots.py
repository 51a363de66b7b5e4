"""Writes fixtures/ggml/dots.npz: what ggml's scalar code makes of activations and of their inner products.

Build that code as a shared library, from a checkout of ggml 0.25.3 at $GGML, for baseline x86-64 and with nothing fused
(GGML_CPU_GENERIC gives the portable functions the plain names):

    F="-O2 -ffp-contract=off -march=x86-64 -fPIC -DGGML_CPU_GENERIC -D_GNU_SOURCE -I$GGML/include -I$GGML/src -I$GGML/src/ggml-cpu"
    gcc -std=gnu11 $F -c $GGML/src/ggml-quants.c -o quants.o
    gcc -std=gnu11 $F -c $GGML/src/ggml-cpu/quants.c -o dots.o
    g++ -std=c++17 $F -c $GGML/src/ggml-cpu/vec.cpp -o vec.o
    python3 tools/ggml_dots.py --shim > shim.c
    gcc $F -c shim.c && gcc -shared -o libdots.so quants.o dots.o vec.o shim.o -lm
    python3 tools/ggml_dots.py ./libdots.so fixtures/codec/quants.npz fixtures/ggml/dots.npz

Arrays of the output, rows being

- `x` [N, 512], `long` [M, 1280]: activations;
- `q8_0`, `q8_1`, `q8_K`, `f16`, `bf16` and `long_…`: their bytes in each form, a row of bytes each;
- per encoding `TYPE/dots` [16, N], u32: bits of the products of the 16 rows in quants.npz with `x`;
- per encoding `TYPE/rows` [R, bytes] and `TYPE/long` [R, M], u32: rows of random bytes (factors kept finite and of moderate
  size) and bits of their products with `long`.
"""

import ctypes
import sys

import numpy as np

# What the sources refer to and these functions do not use, and the table of halves that a program fills when it starts.
SHIM = """#include <stdlib.h>
#include <stddef.h>
float ggml_table_f32_f16[1 << 16];
void ggml_abort(const char *file, int line, const char *format, ...) { abort(); }
size_t ggml_row_size(int type, long n) { abort(); }
size_t ggml_type_size(int type) { abort(); }
const char *ggml_type_name(int type) { abort(); }
"""

# Encoding: function, partner, values and bytes of a block, where its halves lie.
TYPES = {
    "Q4_0": ("q4_0_q8_0", "q8_0", 32, 18, [0]),
    "Q4_1": ("q4_1_q8_1", "q8_1", 32, 20, [0, 2]),
    "Q5_0": ("q5_0_q8_0", "q8_0", 32, 22, [0]),
    "Q5_1": ("q5_1_q8_1", "q8_1", 32, 24, [0, 2]),
    "Q8_0": ("q8_0_q8_0", "q8_0", 32, 34, [0]),
    "Q2_K": ("q2_K_q8_K", "q8_K", 256, 84, [80, 82]),
    "Q3_K": ("q3_K_q8_K", "q8_K", 256, 110, [108]),
    "Q4_K": ("q4_K_q8_K", "q8_K", 256, 144, [0, 2]),
    "Q5_K": ("q5_K_q8_K", "q8_K", 256, 176, [0, 2]),
    "Q6_K": ("q6_K_q8_K", "q8_K", 256, 210, [208]),
    "IQ1_S": ("iq1_s_q8_K", "q8_K", 256, 50, [0]),
    "IQ1_M": ("iq1_m_q8_K", "q8_K", 256, 56, None),
    "IQ2_XXS": ("iq2_xxs_q8_K", "q8_K", 256, 66, [0]),
    "IQ2_XS": ("iq2_xs_q8_K", "q8_K", 256, 74, [0]),
    "IQ2_S": ("iq2_s_q8_K", "q8_K", 256, 82, [0]),
    "IQ3_XXS": ("iq3_xxs_q8_K", "q8_K", 256, 98, [0]),
    "IQ3_S": ("iq3_s_q8_K", "q8_K", 256, 110, [0]),
    "IQ4_NL": ("iq4_nl_q8_0", "q8_0", 32, 18, [0]),
    "IQ4_XS": ("iq4_xs_q8_K", "q8_K", 256, 136, [0]),
    "TQ1_0": ("tq1_0_q8_K", "q8_K", 256, 54, [52]),
    "TQ2_0": ("tq2_0_q8_K", "q8_K", 256, 66, [64]),
    "MXFP4": ("mxfp4_q8_0", "q8_0", 32, 17, []),
    "NVFP4": ("nvfp4_q8_0", "q8_0", 64, 36, []),
    "Q1_0": ("q1_0_q8_0", "q8_0", 128, 18, [0]),
    "Q2_0": ("q2_0_q8_0", "q8_0", 64, 18, [0]),
    "F32": ("f32", "f32", 1, 4, []),
    "F16": ("f16", "f16", 1, 2, [0]),
    "BF16": ("bf16", "bf16", 1, 2, []),
}

BLOCK = {"q8_0": (32, 34), "q8_1": (32, 36), "q8_K": (256, 292)}


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def activations(rng, width):
    """Rows that a quantizer may stumble over."""
    normal = rng.standard_normal((4, width)).astype(np.float32)
    normal[1] *= np.float32(1e-3)
    heavy = rng.standard_t(2, (2, width)).astype(np.float32)
    outliers = rng.standard_normal((2, width)).astype(np.float32)
    outliers[0, ::97] *= 300
    outliers[1, 5] = -4096
    halves = rng.integers(-254, 255, width).astype(np.float32) / 2
    halves[::32] = 127  # a step of one, so that every other value is a tie
    spread = (2.0 ** rng.uniform(-30, 10, width) * rng.choice([-1, 1], width)).astype(np.float32)
    gaps = rng.standard_normal(width).astype(np.float32)
    gaps[: width // 2] = 0
    tiny = (rng.standard_normal(width) * 1e-36).astype(np.float32)
    constant = np.full(width, np.float32(-0.3))
    single = np.zeros(width, np.float32)
    single[width - 3] = 7.25
    zeros = np.zeros(width, np.float32)
    rows = [*normal, *heavy, *outliers, halves, spread, gaps, tiny, constant, single, zeros]
    return np.stack(rows)


def rounded(library, partner, x):
    """Rows of activations in a partner's form, as bytes."""
    if partner == "f32":
        return x.view(np.uint8).reshape(len(x), -1)
    if partner == "f16":
        return x.astype(np.float16).view(np.uint8).reshape(len(x), -1)
    if partner == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(np.uint8).reshape(len(x), -1)
    values, size = BLOCK[partner]
    out = np.zeros((len(x), x.shape[1] // values * size), np.uint8)
    quantize = getattr(library, f"quantize_row_{partner}_ref")
    for row, bytes_ in zip(x, out):
        quantize(pointer(row), pointer(bytes_), ctypes.c_int64(len(row)))
    return out


def dots(library, function, rows, partners, width):
    """Bits of every row with every row of activations."""
    dot = getattr(library, f"ggml_vec_dot_{function}")
    zero, one = ctypes.c_size_t(0), ctypes.c_int(1)
    result = ctypes.c_float()
    bits = np.zeros((len(rows), len(partners)), np.uint32)
    for r, row in enumerate(np.ascontiguousarray(rows)):
        for p, partner in enumerate(np.ascontiguousarray(partners)):
            dot(width, ctypes.byref(result), zero, pointer(row), zero, pointer(partner), zero, one)
            bits[r, p] = np.float32(result.value).view(np.uint32)
    return bits


def random_rows(rng, name, count, width):
    """Rows of random bytes whose factors are neither infinite nor extreme."""
    _, _, values, size, halves = TYPES[name]
    if name == "F32":
        return rng.standard_normal((count, width)).astype(np.float32).view(np.uint8).reshape(count, -1)
    if name == "BF16":
        return rounded(None, "bf16", rng.standard_normal((count, width)).astype(np.float32))
    rows = rng.integers(0, 256, (count, width // values, size), dtype=np.uint8)
    moderate = lambda high: high & 0x87 | 0x20  # exponents 8 and 9 of a half, any sign
    if halves is None:  # IQ1_M: the half lies in the upper nibbles of four words
        rows[..., 55] = rows[..., 55] & 0x8F | 0x20
    else:
        for at in halves:
            rows[..., at + 1] = moderate(rows[..., at + 1])
    if name == "MXFP4":
        rows[..., 0] = rows[..., 0] % 40 + 108
    return rows.reshape(count, -1)


def main():
    if sys.argv[1:] == ["--shim"]:
        print(SHIM, end="")
        return
    library = ctypes.CDLL(sys.argv[1])
    table = (ctypes.c_float * 65536).in_dll(library, "ggml_table_f32_f16")
    table[:] = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32).tolist()
    quants = np.load(sys.argv[2])
    rng = np.random.default_rng(20)
    x, long = activations(rng, 512), activations(rng, 1280)[::2]
    arrays = {"x": x, "long": long}
    forms = {partner: (rounded(library, partner, x), rounded(library, partner, long))
             for partner in ["q8_0", "q8_1", "q8_K", "f16", "bf16", "f32"]}
    for partner, (short, longer) in forms.items():
        if partner != "f32":
            arrays[partner], arrays[f"long_{partner}"] = short, longer
    for name, (function, partner, *_) in TYPES.items():
        key = f"{name}/bytes" if f"{name}/bytes" in quants else f"{name}/bytes_imatrix"
        if key in quants:
            rows = quants[key].reshape(16, -1)
            arrays[f"{name}/dots"] = dots(library, function, rows, forms[partner][0], 512)
        rows = random_rows(rng, name, 3, 1280)
        arrays[f"{name}/rows"] = rows
        arrays[f"{name}/long"] = dots(library, function, rows, forms[partner][1], 1280)
    for name, array in arrays.items():
        if array.dtype == np.uint32:
            finite = np.isfinite(array.view(np.float32)).mean()
            print(f"{name}: {finite:.2%} of {array.size} finite")
    np.savez_compressed(sys.argv[3], **arrays)


main()
