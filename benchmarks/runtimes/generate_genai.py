"""Greedy tokens from onnxruntime-genai: `generate_genai.py FOLDER COUNT`, prompts on stdin as JSON.

It loads the folder as anyone would, with no configuration. Prints JSON: the tokens of each prompt by itself,
and of all as one batch padded on the right, which is how this runtime pads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og


def main() -> None:
    """Load, generate, print."""
    folder, count = sys.argv[1], int(sys.argv[2])
    prompts: list[list[int]] = json.load(sys.stdin)
    pad = json.loads((Path(folder) / "genai_config.json").read_text(encoding="utf-8"))["model"].get(
        "pad_token_id", 0
    )
    model = og.Model(og.Config(folder))

    def generate(rows: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, rows))
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=longest + count, batch_size=len(rows), do_sample=False)
        generator = og.Generator(model, parameters)
        padded = np.array([row + [pad] * (longest - len(row)) for row in rows], np.int32)
        generator.append_tokens(padded if len(rows) > 1 else padded[0])
        while not generator.is_done():
            generator.generate_next_token()
        return [[int(token) for token in generator.get_sequence(row)[longest:]] for row in range(len(rows))]

    print(json.dumps({"single": [generate([prompt])[0] for prompt in prompts], "batch": generate(prompts)}))


if __name__ == "__main__":
    main()
