"""Rotary positions of a GGUF model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from roots_compress.errors import InputError
from roots_compress.families.gguf.metadata import DIRECTORY, Metadata, shortest
from roots_compress.io.gguf_header import GgufTensor
from roots_compress.models.ops.attention import LongRopeScaling, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.version1 import plain_rope

FREQUENCIES = "rope_freqs.weight"
"""Factors that llama.cpp divides the frequencies by."""
PUBLISHED_FACTORS = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What every Llama from 3.1 on has; only the fifth number, `factor`, differs between them."""
YARN_DETAILS = {
    "attn_factor": 1, "yarn_ext_factor": 1, "yarn_attn_factor": 1, "yarn_beta_fast": 32, "yarn_beta_slow": 1
}  # fmt: skip
"""Finer settings of YaRN, and what they are where a file leaves them out."""
ROTARY_KEYS = frozenset(
    {
        "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type",
        "rope.scaling.factor", "rope.scaling.original_context_length",
        *(f"rope.scaling.{name}" for name in YARN_DETAILS),
    }
)  # fmt: skip
"""Keys of architectures with rotary positions, without the architecture's name before them."""
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
"""Factors of LongRoPE that llama.cpp divides the frequencies by."""
ATTENTION_FACTOR = "rope.scaling.attn_factor"
LONGROPE_TENSORS = (SHORT, LONG)
ON_COSINES = "rope.scaling.yarn_attn_factor"


def rope_of(metadata: Metadata, head_dim: int, tensors: tuple[str, ...], *, partial: bool = False) -> Rope:
    """Return the rotary positions that keys and tensors of factors say.

    Args:
        tensors: names of the tensors of factors that the architecture has.

    Raises:
        InputError: heads are rotated in part and may not be, or positions are scaled in a way that is not
            supported.
    """
    turned, longrope = metadata.number("rope.dimension_count", head_dim), LONG in tensors
    if turned != head_dim and not (partial or longrope):
        metadata.refuse(
            "rope.dimension_count", f"is {turned} of heads of {head_dim}; they must be rotated whole"
        )
    if turned > head_dim or turned % 2:
        metadata.refuse(
            "rope.dimension_count", f"is {turned}; heads of {head_dim} turn an even number at most"
        )
    theta = metadata.positive("rope.freq_base", 10000.0)
    rotary_dim = turned if turned != head_dim else None
    if longrope:
        return Rope(theta=theta, rotary_dim=rotary_dim, scaling=_longrope(metadata, turned))
    scaled = _scaling(metadata)
    if FREQUENCIES in metadata.model.tensors:
        factors = _factors_of_llama3(metadata.model.tensors[FREQUENCIES], theta, head_dim)
        if factors and scaled:
            _refuse_factors(FREQUENCIES, metadata.model.path, "are given besides rope.scaling")
        scaled = scaled or factors
    whole = plain_rope({"rope_type": "default", "rope_theta": theta, **scaled})
    return changed(whole, rotary_dim=rotary_dim)


def _longrope(metadata: Metadata, turned: int) -> LongRopeScaling | None:
    """Return the factors of LongRoPE; None where the file has none."""
    tensors = metadata.model.tensors
    for key in ("rope.scaling.factor", "rope.scale_linear"):
        if metadata.get(key) not in (None, 0, 1):
            metadata.refuse(key, f"is {metadata.get(key)!r:.100}, beside which ROOTS reads no LongRoPE")
    if metadata.get("rope.scaling.type") not in (None, "none", "longrope"):
        kind = metadata.get("rope.scaling.type")
        metadata.refuse("rope.scaling.type", f"is {kind!r:.100}, which ROOTS does not read from GGUF")
    given = [name for name in (SHORT, LONG) if name in tensors]
    _refuse_details(metadata, but=(ATTENTION_FACTOR,) if given else ())
    if not given:
        return None
    if len(given) < 2:
        _refuse_factors(given[0], metadata.model.path, "are given alone")
    short, long = (
        tuple(map(shortest, factors_in(name, tensors[name], turned // 2).tolist())) for name in given
    )
    context = metadata.number("context_length")
    return LongRopeScaling(
        short_factor=short,
        long_factor=long,
        original_max_position_embeddings=metadata.number("rope.scaling.original_context_length", context),
        attention_factor=metadata.positive(ATTENTION_FACTOR, 1.0),
    )


def _scaling(metadata: Metadata) -> dict[str, Any]:
    """Return what `rope.scaling` says: a factor without a type is linear, and 0 stands for none."""
    kind = metadata.get("rope.scaling.type")
    kind = "linear" if kind is None else kind
    if kind not in ("none", "linear", "yarn"):
        metadata.refuse("rope.scaling.type", f"is {kind!r:.100}, which ROOTS does not read from GGUF")
    factors = [metadata.get(key) for key in ("rope.scaling.factor", "rope.scale_linear")]
    factor = next((value for value in factors if value is not None), 0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        metadata.refuse("rope.scaling.factor", f"is {factor!r:.100}; it must be a number of at least 0")
    _refuse_details(metadata, factor=factor if kind == "yarn" else 0.0)
    context = metadata.number("context_length")
    original = metadata.number("rope.scaling.original_context_length", context)
    if kind == "none" or factor in (0, 1):
        return {}
    scaling = {"rope_type": kind, "factor": shortest(factor)}
    return scaling if kind == "linear" else {**scaling, "original_max_position_embeddings": original}


def _refuse_details(metadata: Metadata, *, but: tuple[str, ...] = (), factor: float = 0.0) -> None:
    """Refuse finer settings of YaRN that say something, but those that are read.

    The factor on cosines may be said where it is the usual one, which llama.cpp computes whatever is said.
    """
    usual = {ON_COSINES: 1 + 0.1 * math.log(factor)} if factor > 1 else {}
    for key, neutral in ((f"rope.scaling.{name}", neutral) for name, neutral in YARN_DETAILS.items()):
        value = metadata.get(key)
        if key in but or value in (None, neutral):
            continue
        if not isinstance(value, int | float) or not math.isclose(
            value, usual.get(key, neutral), rel_tol=1e-5
        ):
            metadata.refuse(key, f"is {value!r:.100}, which ROOTS does not read from GGUF")


def _factors_of_llama3(tensor: GgufTensor, theta: float, head_dim: int) -> dict[str, Any]:
    """Return the `llama3` scaling that these factors are of; an empty one where all of them are 1."""
    given = factors_in(FREQUENCIES, tensor, head_dim // 2)
    if np.all(given == 1):
        return {}
    factor = float(f"{given.max():.6g}")
    if not np.allclose(given, llama3_factors(factor, theta, head_dim), rtol=1e-5, atol=0):
        _refuse_factors(FREQUENCIES, tensor.file, "are not those of a published Llama")
    return {"rope_type": "llama3", "factor": factor, **PUBLISHED_FACTORS}


def factors_in(name: str, tensor: GgufTensor, count: int) -> NDArray[np.float64]:
    """Return so many factors of a tensor, all of them above 0."""
    if tensor.storage != "F32" or tensor.shape != (count,):
        _refuse_factors(name, tensor.file, f"are not {count} numbers of 32 bits")
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        given = np.frombuffer(file.read(tensor.size), dtype="<f4").astype(np.float64)
    if not np.isfinite(given).all() or given.min() <= 0:
        _refuse_factors(name, tensor.file, "are not all above 0")
    return given


def llama3_factors(factor: float, theta: float, head_dim: int) -> NDArray[np.float64]:
    """Return what Llama 3.1's scaling divides each frequency by: 1 for short waves, `factor` for long ones.

    Between a quarter of the original context and all of it, the reciprocal runs linearly in the frequency.
    """
    low, high = PUBLISHED_FACTORS["low_freq_factor"], PUBLISHED_FACTORS["high_freq_factor"]
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    turns = PUBLISHED_FACTORS["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _refuse_factors(name: str, where: Path, reason: str) -> NoReturn:
    raise InputError(f"the factors in {name!r} {reason}", where=where, remedy=DIRECTORY)
