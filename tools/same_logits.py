#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "transformers>=5.23"]
# ///
"""Loads two Hugging Face checkpoints in Transformers and compares tokenizers, ids and logits (f32, eager, CPU).

    python tools/same_logits.py ORIGINAL CONVERTED [--nmse LIMIT]

Whatever Transformers reports as missing or unexpected in CONVERTED, but for multi-token prediction, is a failure.
Exit status: 0 the same, 1 not, 2 cannot be told.
"""

import argparse
import sys
from pathlib import Path

import hf_trace
import torch
from transformers import AutoTokenizer

TEXTS = ["def f(x):\n    return x + 1\n", "The capital of France is", "<|im_start|>user\nwörld, 12 — 犬 🐕<|im_end|>\n"]
LENGTH = 64
# Gains and rates of a GGUF file are rounded once to f32: half a unit in the last place of weights (6e-8) moves logits
# by an NMSE of its square, times the layers it passes; the golden models measure 1e-13 at most.
NMSE = 1e-11


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("converted", type=Path)
    parser.add_argument("--nmse", type=float, default=NMSE)
    args = parser.parse_args()
    torch.set_num_threads(2)
    a, b = (hf_trace.load(path, torch.float32) for path in (args.original, args.converted))
    failed = False
    texts = [AutoTokenizer.from_pretrained(path) for path in (args.original, args.converted)]
    for text in TEXTS:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in texts]
        if ids[0] != ids[1]:
            print(f"ids differ: {text!r}: {ids[0]} and {ids[1]}")
            failed = True
    message = [{"role": "user", "content": "Hello"}]
    laid_out = [t.apply_chat_template(message, tokenize=False, add_generation_prompt=True) for t in texts]
    if laid_out[0] != laid_out[1]:
        print(f"chat templates differ: {laid_out}")
        failed = True
    vocabulary = a.config.get_text_config().vocab_size
    tokens = torch.tensor([[(i * 7919 + 13) % vocabulary for i in range(LENGTH)]])
    with torch.no_grad():
        x, y = (model(tokens).logits.double() for model in (a, b))
    if x.shape != y.shape:
        sys.exit(f"logits of {tuple(x.shape)} and {tuple(y.shape)}")
    nmse = ((x - y) ** 2).sum().item() / ((x - x.mean()) ** 2).sum().item()
    same = nmse <= args.nmse  # NaN fails
    print(f"logits: NMSE {nmse:.2e} (limit {args.nmse:.0e}), max |Δ| {(x - y).abs().max().item():.2e}")
    sys.exit(1 if failed or not same else 0)


if __name__ == "__main__":
    try:
        main()
    except hf_trace.Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(2)
