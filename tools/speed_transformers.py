#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "transformers>=5.23"]
# ///
"""Times Transformers in f32 (eager, CPU) as `cargo run --release -p etalon-reference --example speed` times the reference.

    python tools/speed_transformers.py MODEL [THREADS]
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

PREFILL, DECODE = 128, 8


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) == 3 else 2)
    model = AutoModelForCausalLM.from_pretrained(
        sys.argv[1], dtype=torch.float32, attn_implementation="eager"
    ).eval()
    vocab = model.config.get_text_config().vocab_size
    token = lambda i: (i * 7919 + 13) % vocab
    prompt = torch.tensor([[token(i) for i in range(PREFILL)]])
    for _ in range(3):
        with torch.no_grad():
            start = time.perf_counter()
            model(prompt, use_cache=True)
            every = PREFILL / (time.perf_counter() - start)
            start = time.perf_counter()
            cache = model(prompt, use_cache=True, logits_to_keep=1).past_key_values
            last = PREFILL / (time.perf_counter() - start)
            start = time.perf_counter()
            for i in range(DECODE):
                model(torch.tensor([[token(i * 31 + 5)]]), past_key_values=cache, use_cache=True)
            decode = DECODE / (time.perf_counter() - start)
        print(
            f"prefill {PREFILL}: {every:.1f} tok/s, {last:.1f} with the last logits only; decode {decode:.2f} tok/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
