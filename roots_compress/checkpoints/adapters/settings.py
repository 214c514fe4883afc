"""The settings of a LoRA adapter, as peft writes them beside its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from roots_compress.errors import InputError
from roots_compress.families.values import shown
from roots_compress.io.hub_cache import FETCH, on_disk
from roots_compress.io.json_files import read_errors, read_json_object

SETTINGS, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
MERGE = "Merge it into its base first (peft's merge_and_unload), and name the merged model."
OF_OTHERS = {
    "adapter_model.bin": (
        "is an adapter in a pickle, which can run code and is never read",
        "Save it again with peft's save_pretrained, which writes adapter_model.safetensors. Or merge it into "
        "its base (merge_and_unload), and name the merged model.",
    ),
    **dict.fromkeys(
        ("adapters.safetensors", "adapters.npz"),
        (
            "is an adapter of MLX, which is not read",
            "Fuse it with its base (mlx_lm.fuse is MLX's merge_and_unload), and name the fused model.",
        ),
    ),
}
"""Files of adapters that are refused, with message and advice."""
BASE = "base_model_name_or_path"
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base as it is."""
UNREAD = frozenset(
    """
    auto_mapping base_model_name_or_path bias eva_config exclude_modules fan_in_fan_out inference_mode
    layers_pattern layers_to_transform lora_bias lora_dropout megatron_core modules_to_save peft_version
    qalora_group_size revision runtime_config target_modules task_type
    """.split()  # noqa: SIM905
)
"""Keys that are read elsewhere, or that repeat what the adapter's tensors show."""
CLASSES = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "FEATURE_EXTRACTION": "Model",
}
"""Ending of the adapted model's class, by task; for other tasks it is the base's."""
TASKS = (*CLASSES, "CAUSAL_LM", "SEQ_2_SEQ_LM")
Value = TypeVar("Value", int, float)
QUANTIFIER, MOST_QUANTIFIERS = re.compile(r"[*+?{]"), 6
AFTER_GROUP = re.compile(r"\)[*+{]")


@dataclass(frozen=True)
class AdapterSettings:
    """The settings needed to add an adapter to its base."""

    where: Path
    rank: int
    alpha: float
    by_root: bool
    """Whether alpha is divided by the square root of the rank, not by the rank (Kalajdzievski 2023)."""
    ranks: Mapping[str, int]
    """Other ranks, by patterns of modules' names."""
    alphas: Mapping[str, float]
    parameters: tuple[str, ...]
    """Ends of the names of parameters that are adapted without being a module's weight."""
    tokens: Mapping[str, tuple[int, ...]]
    """Tokens whose rows are replaced, by the module's name; under "" of the embedding."""
    has_lengths: bool
    """Whether each update sets the lengths of the weights of each output (`use_dora`)."""
    keeps_tie: bool
    """Whether a tied head follows the embedding."""
    ending: str | None
    """Ending of the adapted model's class, if the task gives it."""
    named_class: str | None
    """The adapted model's class, where it is named."""

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's update."""
        return _matched(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Return the factor on a module's update."""
        rank = self.rank_of(module)
        return _matched(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.by_root else rank)

    def adapts(self, parameter: str) -> bool:
        """Whether a parameter is adapted by its own name."""
        return any(parameter == each or parameter.endswith(f".{each}") for each in self.parameters)


def _matched(values: Mapping[str, Value], module: str, default: Value) -> Value:
    """Return the value of the first pattern that matches a name, or its end after a dot."""
    return next((each for key, each in values.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def is_adapter(directory: Path) -> bool:
    """Whether a folder holds an adapter that may be read."""
    return any((directory / name).exists() for name in (SETTINGS, ADAPTER))


def refuse_other_adapters(directory: Path) -> None:
    """Refuse a folder with an adapter of a form that is never read.

    Raises:
        InputError: there is one, or the settings or the weights of one are absent.
    """
    if (directory / ADAPTER).exists() and (directory / SETTINGS).exists():
        return
    for name, (message, remedy) in OF_OTHERS.items():
        if (directory / name).exists():
            raise InputError(message, where=directory / name, remedy=remedy)
    for here, absent in ((SETTINGS, ADAPTER), (ADAPTER, SETTINGS)):
        if (directory / here).exists():
            raise InputError(
                f"is of an adapter, and there is no {absent} beside it",
                where=directory / here,
                remedy=f"Copy {absent} there as well. For the base without its adapter, remove {here} from a "
                "copy. An adapter in other files can be merged by peft's merge_and_unload.",
            )


def base_folder(directory: Path, weights: tuple[str, ...]) -> Path:
    """Return the folder of an adapter's base: the adapter's own if the base's weights lie there too.

    Args:
        directory: the adapter's.
        weights: names of a base's files.

    Raises:
        InputError: the base is not a folder of this machine.
    """
    if any((directory / name).exists() for name in weights):
        return directory
    path = directory / SETTINGS
    named = read_json_object(path).get(BASE)
    if isinstance(named, str) and named:
        base = on_disk(Path(named), directory)  # An absolute path stays what it is.
        with read_errors(base):
            if base.is_dir():
                return base.resolve()
    raise InputError(
        f"{BASE} is {shown(named)}, which is not a folder here; nothing is downloaded",
        where=path,
        remedy=f"Put the path of the base's folder there, absolute or from {directory}, or copy the base's "
        f"files beside the adapter's. {FETCH}",
    )


def read_adapter_settings(path: Path) -> AdapterSettings:
    """Return the settings of an adapter.

    Raises:
        InputError: it is not LoRA, or a key needs something that the import does not support.
    """
    left = dict(read_json_object(path))

    def refuse(message: str, remedy: str = MERGE) -> NoReturn:
        raise InputError(f"is of an adapter that is not read: {message}", where=path, remedy=remedy)

    def number(value: Any, key: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            refuse(f"{key} is {shown(value)}; it must be a number above 0", "Copy the file again.")
        return value

    def flag(key: str) -> bool:
        value = left.pop(key, False)
        if value is not None and not isinstance(value, bool):
            refuse(f"{key} is {shown(value)}; it must be true or false", "Copy the file again.")
        return value is True

    def texts(key: str) -> tuple[str, ...]:
        given = left.pop(key, None) or []
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            refuse(f"{key} is {shown(given)}; it must be a list of names", "Copy the file again.")
        return tuple(given)

    def numbers(key: str) -> dict[str, Any]:
        given = left.pop(key, None) or {}
        if not isinstance(given, dict):
            refuse(f"{key} is {shown(given)}; it must be an object", "Copy the file again.")
        for pattern in given:
            if not _is_plain(pattern):
                refuse(f"{key} has the pattern {shown(pattern)}, which is too complex")
        return {pattern: number(value, f"{key}.{pattern}") for pattern, value in given.items()}

    if (kind := left.pop("peft_type", None)) != "LORA":
        refuse(f"peft_type is {shown(kind)}; LORA alone can be merged at the import")
    if (start := left.pop("init_lora_weights", True)) not in PLAIN_STARTS:
        refuse(
            f"init_lora_weights is {shown(start)}, which changes the base's own weights",
            "Save it with peft's save_pretrained(path_initial_model_for_weight_conversion=...), which makes "
            "a plain one of it. Or merge it with merge_and_unload.",
        )
    if (task := left.get("task_type")) is not None and task not in TASKS:
        refuse(f"task_type is {shown(task)}; supported are {', '.join(TASKS)}")
    mapping = left.get("auto_mapping")
    named_class = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    settings = AdapterSettings(
        where=path,
        rank=number(left.pop("r", 8), "r"),
        alpha=number(left.pop("lora_alpha", 8), "lora_alpha"),
        by_root=flag("use_rslora"),
        ranks=numbers("rank_pattern"),
        alphas=numbers("alpha_pattern"),
        parameters=texts("target_parameters"),
        tokens=_tokens(left.pop("trainable_token_indices", None), refuse),
        has_lengths=flag("use_dora"),
        keeps_tie=flag("ensure_weight_tying"),
        ending=CLASSES.get(str(task)),
        named_class=named_class if isinstance(named_class, str) and task is None else None,
    )
    # A value that is false, null or empty has no effect.
    if others := sorted(key for key, value in left.items() if key not in UNREAD and value):
        refuse(f"{others[0]} is {shown(left[others[0]])}, which the import does not do")
    return settings


def _is_plain(pattern: str) -> bool:
    """Whether a pattern is always matched quickly."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return (
        len(pattern) < 500
        and len(QUANTIFIER.findall(pattern)) <= MOST_QUANTIFIERS
        and AFTER_GROUP.search(pattern) is None
    )


def _tokens(given: Any, refuse: Any) -> dict[str, tuple[int, ...]]:
    listed = given if isinstance(given, dict) else {"": given} if given else {}
    for name, indices in listed.items():
        if not isinstance(indices, list) or not all(type(each) is int and each >= 0 for each in indices):
            refuse(f"trainable_token_indices{name and '.'}{name} is {shown(indices)}; it must list tokens")
        if len({*indices}) < len(indices):
            refuse(f"trainable_token_indices{name and '.'}{name} lists a token twice")
    return {str(name): tuple(indices) for name, indices in listed.items()}
