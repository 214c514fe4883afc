"""Greedy tokens from optimum's `ORTModelForCausalLM`: `generate_optimum.py FOLDER COUNT`.

Prompts come on stdin.

It loads the folder as anyone would, with no code but optimum's. Prints JSON: the tokens of each prompt by
itself, and of all as one batch padded on the left.
"""

from __future__ import annotations

import json
import sys

import torch
from optimum.onnxruntime import ORTModelForCausalLM


def main() -> None:
    """Load, generate, print."""
    folder, count = sys.argv[1], int(sys.argv[2])
    prompts: list[list[int]] = json.load(sys.stdin)
    model = ORTModelForCausalLM.from_pretrained(folder, local_files_only=True)

    def generate(rows: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, rows))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        tokens = model.generate(
            padded, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0
        )
        new: list[list[int]] = tokens[:, longest:].tolist()
        return new

    print(json.dumps({"single": [generate([prompt])[0] for prompt in prompts], "batch": generate(prompts)}))


if __name__ == "__main__":
    main()
