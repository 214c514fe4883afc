"""How llama.cpp cuts text into words before byte-level merges, by a GGUF file's `tokenizer.ggml.pre`.

Each name stands for patterns that are applied one after the other, each within the pieces that the ones
before it left: what a pattern matches becomes a piece, and so does what lies between two matches. The
patterns are those of llama.cpp itself, with case folded for ASCII letters only, as it does. Left out are
names whose rules are no patterns (`kimi-k2`, `afmoe`, `tiny_aya`).
"""

from __future__ import annotations

from dataclasses import dataclass

ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
"""English endings, such as those of "it's" and "we'll"."""
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
"""White space: up to the last end of a line, or all but the last before a word."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
NUMBER, THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
UPPER, LOWER = r"((?=[\p{L}])([^a-z]))", r"((?=[\p{L}])([^A-Z]))"
"""A letter that is not a small, or not a capital, letter of ASCII."""


def _cl100k(number: str, word: str = WORD, punctuation: str = PUNCTUATION) -> str:
    return "|".join((ENDINGS, word, number, punctuation, LINES))


def _by_case(number: str, ending: str) -> str:
    """Return a pattern that also cuts before a capital letter within a word."""
    begin = r"[^\r\n\p{L}\p{N}]?"
    words = (f"{begin}{UPPER}*{LOWER}+{ending}", f"{begin}{UPPER}+{LOWER}*{ending}")
    return "|".join((*words, number, r" ?[^\s\p{L}\p{N}]+[\r\n/]*", LINES))


LLAMA3, QWEN2 = (_cl100k(THREE_DIGITS),), (_cl100k(NUMBER),)
DIGITS = (NUMBER, GPT2)
CASED = (
    r"[[\p{Lu}\p{Ll}\p{Lt}]&&["
    "\u0001-\u055f\u10a0-\u10c5\u13a0-\u13fd\u1c90-\u2184\u2c00-\u2cf3\ua640-\ua78e\uab70-\uff5a"
    "\U00010400-\U000104fb\U00010c80-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]]"
)
"""Letters that have a case, in the scripts that DeepSeek's first tokenizers list."""
CHINESE, CHINESE_JAPANESE = (
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
)
DEEPSEEK3 = (
    THREE_DIGITS,
    CHINESE_JAPANESE,
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + LINES,
)
BLOOM = r" ?[^(\s|.,!?" "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


@dataclass(frozen=True)
class Rules:
    """What a `tokenizer.ggml.pre` says of a tokenizer of bytes."""

    splits: tuple[str, ...]
    ignore_merges: bool = False
    """Whether a word that is a token stays one, whatever the merges make of its parts."""
    add_bos: bool = False
    """Whether a text is opened with BOS where the file does not say."""


def _rules() -> dict[str, Rules]:
    plain: dict[tuple[str, ...], tuple[str, ...]] = {
        ("default",): (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
        ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum"): (GPT2,),
        ("mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"): (GPT2,),
        (
            "starcoder",
            "refact",
            "command-r",
            "smollm",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ): DIGITS,
        ("dbrx", "smaug-bpe", "chatglm-bpe"): LLAMA3,
        (
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
        ): QWEN2,
        ("grok-2",): QWEN2,
        ("qwen35",): (
            _cl100k(NUMBER, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
        ),
        ("deepseek-llm",): (
            r"[\r\n]",
            rf"\s?{CASED}+",
            r"\s?[!-/:-~" "\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            CHINESE,
            r"\p{N}+",
        ),
        ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CHINESE, NUMBER),
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): DEEPSEEK3,
        ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
        ("poro-chat", "bloom", "gpt3-finnish"): (BLOOM,),
        ("viking",): (BLOOM, NUMBER),
        ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): (_by_case(THREE_DIGITS, f"{ENDINGS}?"),),
        ("superbpe",): (r"\p{N}+", "(?=([0-9]{3})+(?![0-9]))"),
        ("bailingmoe", "bailingmoe2", "llada-moe"): (
            "|".join(
                (
                    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
                    WORD,
                    NUMBER,
                    PUNCTUATION,
                    r"\s*[\r\n]|\s+(?!\S)|\s+",
                )
            ),
        ),
        ("seed-coder",): (_cl100k(NUMBER, WORD, r" ?[^\s\p{L}\p{N}\r\n]+"),),
    }
    rules = {name: Rules(splits) for names, splits in plain.items() for name in names}
    opened = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
    rules |= {name: Rules(LLAMA3, ignore_merges=True, add_bos=True) for name in opened}
    rules |= {name: Rules(LLAMA3, ignore_merges=True) for name in ("glm4", "glm5")}
    rules["tekken"] = Rules((_by_case(NUMBER, ""),), ignore_merges=True, add_bos=True)
    rules["minicpm5"] = Rules((THREE_DIGITS, _cl100k(r"\p{N}+")), ignore_merges=True)
    return rules


RULES = _rules()
