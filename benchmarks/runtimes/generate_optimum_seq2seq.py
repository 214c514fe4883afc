"""Tokens from optimum's `ORTModelForSeq2SeqLM`: `generate_optimum_seq2seq.py FOLDER COUNT`.

Sources come on stdin.

It loads the folder as anyone would, with no code but optimum's. Prints JSON: the greedy tokens of each source
by itself, those of all as one batch padded on the right, and what a search with four beams finds for each.
"""

from __future__ import annotations

import json
import sys

import torch
from optimum.onnxruntime import ORTModelForSeq2SeqLM


def main() -> None:
    """Load, generate, print."""
    folder, count = sys.argv[1], int(sys.argv[2])
    sources: list[list[int]] = json.load(sys.stdin)
    model = ORTModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)

    def generate(rows: list[list[int]], beams: int = 1) -> list[list[int]]:
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        tokens = model.generate(
            padded, attention_mask=mask, max_new_tokens=count, do_sample=False, num_beams=beams
        )
        new: list[list[int]] = tokens[:, 1:].tolist()
        return new

    found = {
        "single": [generate([source])[0] for source in sources],
        "batch": generate(sources),
        "beams": [generate([source], 4)[0] for source in sources],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
