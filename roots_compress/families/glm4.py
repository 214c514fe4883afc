"""GLM-4-0414: GLM-4 with norms after its blocks too."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import BOTH
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.glm import NAMES, VARIANTS, read_glm, write_glm

POST_NORMS = {"self_attn_post_norm": "post_self_attn_layernorm", "mlp_post_norm": "post_mlp_layernorm"}
READ = partial(read_glm, norms=BOTH)
RULES = partial(decoder_rules, names={**NAMES, **POST_NORMS}, paired=True)
FAMILY = Family("glm4", "Glm4ForCausalLM", READ, write_glm, RULES, variants=VARIANTS)
