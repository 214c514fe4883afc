"""Every family that can be read and written, by its `model_type`."""

from __future__ import annotations

from roots_compress.families.albert import ALBERT
from roots_compress.families.bart import BART, MBART, PEGASUS
from roots_compress.families.base import Family
from roots_compress.families.bert import BERT
from roots_compress.families.cohere import COHERE, COHERE2
from roots_compress.families.deberta_v2 import DEBERTA_V2
from roots_compress.families.deepseek import DEEPSEEK_V2, DEEPSEEK_V3
from roots_compress.families.distilbert import DISTILBERT
from roots_compress.families.dots1 import DOTS1
from roots_compress.families.electra import ELECTRA
from roots_compress.families.ernie4_5 import ERNIE4_5, ERNIE4_5_MOE
from roots_compress.families.exaone4 import EXAONE4
from roots_compress.families.falcon import FALCON
from roots_compress.families.falcon_h1 import FALCON_H1
from roots_compress.families.gemma import GEMMA, GEMMA2, GEMMA3
from roots_compress.families.gemma4 import GEMMA4
from roots_compress.families.glm import GLM, GLM4, GLM4_MOE, GLM4_MOE_LITE
from roots_compress.families.gpt2 import GPT2, GPT_BIGCODE, GPTJ
from roots_compress.families.gpt_neo import GPT_NEO, GPT_NEOX
from roots_compress.families.gpt_oss import GPT_OSS
from roots_compress.families.granite import GRANITE, GRANITE_SWA
from roots_compress.families.granitemoe import GRANITEMOE, GRANITEMOEHYBRID, GRANITEMOESHARED
from roots_compress.families.hunyuan import HUNYUAN_V1_DENSE, HUNYUAN_V1_MOE
from roots_compress.families.lfm2 import LFM2, LFM2_MOE
from roots_compress.families.llama import ARCEE, HELIUM, LLAMA, SMOLLM3
from roots_compress.families.marian import M2M_100, MARIAN
from roots_compress.families.minicpm3 import MINICPM3
from roots_compress.families.mistral import MINISTRAL, MINISTRAL3, MISTRAL, MIXTRAL
from roots_compress.families.modernbert import MODERNBERT
from roots_compress.families.mpnet import MPNET
from roots_compress.families.nemotron import NEMOTRON
from roots_compress.families.nomic_bert import NOMIC_BERT
from roots_compress.families.olmo import OLMO2, OLMO3, OLMOE
from roots_compress.families.opt import OPT
from roots_compress.families.phi import PHI, PHI3
from roots_compress.families.qwen import QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE
from roots_compress.families.qwen3_5 import QWEN3_5, QWEN3_5_MOE, QWEN3_NEXT
from roots_compress.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from roots_compress.families.stablelm import STABLELM
from roots_compress.families.starcoder2 import STARCODER2
from roots_compress.families.t5 import MT5, T5

_FAMILIES = (
    LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GPT2, GEMMA2, GEMMA3, GEMMA4, PHI3, QWEN3_MOE, SMOLLM3,
    GRANITE, OLMO2, OLMO3, GRANITEMOEHYBRID, MINISTRAL, MINISTRAL3, HUNYUAN_V1_DENSE, EXAONE4, ARCEE,
    NEMOTRON, STARCODER2, GLM, GLM4, ERNIE4_5, HELIUM, GPT_NEOX, PHI, STABLELM, COHERE, COHERE2, GPTJ,
    GPT_NEO, GPT_BIGCODE, OPT, OLMOE, MIXTRAL, GRANITEMOE, LFM2, GPT_OSS, QWEN3_5, LFM2_MOE, FALCON,
    QWEN3_5_MOE, QWEN3_NEXT, QWEN2_MOE, FALCON_H1, GRANITE_SWA, GLM4_MOE, DOTS1, ERNIE4_5_MOE,
    HUNYUAN_V1_MOE, GRANITEMOESHARED, DEEPSEEK_V2, DEEPSEEK_V3, GLM4_MOE_LITE, MINICPM3, BERT,
    DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, MPNET, ELECTRA, ALBERT, MODERNBERT, DEBERTA_V2,
    NOMIC_BERT, T5, MT5, BART, MBART, PEGASUS, MARIAN, M2M_100,
)  # fmt: skip
"""In this order they are asked which can express a model."""

FAMILIES: dict[str, Family] = {family.model_type: family for family in _FAMILIES}
