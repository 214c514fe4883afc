"""The classes of malformed input that are looked for, and those that this program has no place for."""

from __future__ import annotations

CLASSES: dict[int, str] = {
    # Recipes
    1: "empty file", 2: "comments only", 3: "a list or a scalar for a recipe", 4: "indented with tabs",
    5: "a key twice", 6: "unknown key", 7: "number written as text", 8: "yes, no, on and off",
    9: "times such as 12:30:00", 10: "not-a-number and infinity", 11: "fractions out of range",
    12: "Python tags", 13: "targets and interpolation", 14: "aliases that multiply", 15: "20,000 brackets",
    16: "10 MB", 17: "UTF-16, zero bytes", 18: "several documents", 19: "nothing to do",
    20: "two stages of one name", 21: "quantize before prune", 22: "forward and cyclic references",
    23: "null and booleans for numbers", 24: "output that leaves its folder",
    25: "output on top of the input",
    26: "schema of the future",
    # Checkpoints
    27: "missing folder", 28: "a file for a folder", 29: "no config.json",
    30: "JSON cut short or with a key twice",
    31: "width that heads do not divide", 32: "key/value heads that do not divide heads",
    33: "unknown model_type", 34: "code by auto_map", 35: "weights only as pickle",
    36: "pickle named .safetensors", 37: "0 bytes", 38: "7 bytes", 39: "header of 2**63 bytes",
    40: "header over 100 MB", 41: "header of 100,000 tensors", 42: "overlapping tensors",
    43: "holes and trailing bytes", 44: "shapes whose product overflows",
    45: "shapes other than the configuration's", 46: "missing tensor", 47: "tensor too many",
    48: "not-a-number in weights", 49: "unfit dtype", 50: "shards absent or elsewhere",
    51: "a tensor in two shards", 52: "pipes, devices, loops of links", 53: "git-LFS pointer",
    54: "tied flag that the tensors contradict",
    # Tokenizers
    55: "missing", 56: "cut short", 57: "ids beyond the embedding", 58: "teacher and student differ in size",
    59: "same size, other ids", 60: "no padding or end token", 61: "hostile chat template",
    62: "regular expression that explodes",
    # Data
    63: "empty", 64: "only spaces", 65: "fewer tokens than a window", 66: "not UTF-8",
    67: "bad line of JSONL",
    68: "missing text column", 69: "a line of a gigabyte", 70: "held-out text that is trained on",
    71: "loading script", 72: "archives", 73: "token ids of a cache beyond the vocabulary",
    # Graphs
    74: "random bytes", 75: "cut short", 76: "over 2 GB in one file", 77: "operator sets 9 and 999",
    78: "absent data", 79: "data outside the folder", 80: "data by links",
    81: "negative and petabyte extents", 82: "keys such as __class__", 83: "cycles",
    84: "operators nobody has", 85: "fixed batch", 86: "int32 inputs", 87: "already quantized",
    88: "nested 5,000 deep",
    # Command lines
    89: "unknown option", 90: "resuming without a run, or another recipe", 91: "output that holds something",
    92: "forcing a foreign folder", 93: "seeds out of range", 94: "no threads", 95: "unknown stage",
    96: "output that cannot be written", 97: "odd paths", 98: "output inside an input",
    # Beyond the survey
    99: "GGUF that is damaged", 100: "figures, recipes and manifests of a run that are damaged",
    101: "graph that opens and cannot run", 102: "configuration that a graph contradicts",
    103: "numbers beyond any machine", 104: "prompts and contexts out of bounds",
}  # fmt: skip

NOT_APPLICABLE: dict[int, str] = {
    22: "a recipe has no references: each stage takes what the one before it made",
    41: "not malformed: read in less than a second (tests/checkpoints/test_inspect.py)",
    60: "not malformed: nothing is padded with a token of the vocabulary, and text ends where it is told to",
    61: "not malformed: kept and never rendered (`template` in tests/bad_inputs/hostile.py)",
    62: "not refused: see what is not covered in docs/how/reliability.md",
    73: "a cache of a teacher is believed by its hash; one that was changed is made again "
    "(tests/training/test_teacher.py)",
    95: "stages are not chosen by an option; an unknown kind is class 6, an unknown option class 89",
}
"""Classes that no generator makes, and why."""
