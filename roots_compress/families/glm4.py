"""GLM-4-0414: GLM-4 with norms after its blocks too."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import each_sublayer
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.glm import NAMES, VARIANTS, read_glm, write_glm
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec

POST_NORMS = {"self_attn_post_norm": "post_self_attn_layernorm", "mlp_post_norm": "post_mlp_layernorm"}


def _read(switches: Switches) -> ModelSpec:
    return each_sublayer(read_glm(switches), lambda each: changed(each, post_norm=each.pre_norm))


RULES = partial(decoder_rules, names={**NAMES, **POST_NORMS}, paired=True)
FAMILY = Family("glm4", "Glm4ForCausalLM", _read, write_glm, RULES, variants=VARIANTS)
