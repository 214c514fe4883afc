"""Chat formats and templates: rendered as transformers does, and harmless whatever a checkpoint holds."""

from __future__ import annotations

import re
import time

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from roots_compress.data.chat.formats import CHATML, ChatFormat, Turn
from roots_compress.data.chat.rendering import prompt_of, prompt_of_messages, question, rendered
from roots_compress.data.chat.sandbox import Template
from roots_compress.data.conversations import pack_conversations
from roots_compress.data.documents import Document, Span
from roots_compress.errors import InputError
from tests.tiny import tiny_tokenizer

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}"
    "{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = false %}{% set turns = messages %}{% endif %}{% for m in turns %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate') }}{% endif %}"
    "{% if loop.first and system %}{% set said = '<<SYS>>\n' ~ system ~ '\n<</SYS>>\n\n' ~ m.content %}"
    "{% else %}{% set said = m.content %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GENERATION = (
    "{%- set ns = namespace(count=0) -%}{%- for m in messages %}{%- set ns.count = ns.count + 1 %}"
    "{%- if m.role == 'assistant' %}{% generation %}A{{ ns.count }}: {{ m.content }}</s>{% endgeneration %}"
    "{%- else %}{{ m.role|upper }}: {{ m.content|tojson }} {% endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}A{{ ns.count + 1 }}: {% endif %}"
)
THINKS = (  # An answer is opened in a way that is gone once it is there.
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)
KNOWS_THE_DAY = (  # As SmolLM3's: a system turn with the day, and modes that nobody asks for.
    "{%- set mode = enable_thinking | default(false) and '/think' or '/no_think' %}"
    "{%- if messages[0].role == 'system' %}{%- set own = messages[0].content.rstrip() %}{%- endif %}"
    "{{- '<|im_start|>system\n' }}{%- if xml_tools %}{{- xml_tools | map('tojson') | join('\n') | indent }}"
    "{%- endif %}{{- 'Today: ' ~ strftime_now('%d %B %Y') ~ '\n' ~ mode ~ '\n' }}"
    "{{- own | default('') | safe }}"
    "{{- '<|im_end|>\n' }}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{%- elif m.role == 'assistant' %}"
    "{% generation %}{{- '<|im_start|>assistant\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{% endgeneration %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n' }}{%- endif %}"
)
DROPS_THOUGHTS = (  # As DeepSeek-R1's: an answer is opened by a thought, which turns do not keep.
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% set said = m['content'].split('</think>')[-1] %}{{ '<|Assistant|>' + said + '</s>' }}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
KEEPS_LAST_THOUGHT = (  # As Qwen3's: what the model thought is written after the last question only.
    "{%- set ns = namespace(last=0) %}{%- for m in messages[::-1] %}"
    "{%- if m.role == 'user' and not ns.last %}"
    "{%- set ns.last = messages|length - loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{%- set thought = '' %}{%- if '</think>' in m.content %}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1] %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.index > ns.last %}"
    "{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{%- endif %}"
    "{{- said + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
DAY = re.compile(r"(?<=Today: )\d\d [A-Z][a-z]+ \d{4}")
TEMPLATES = {
    "chatml": CHATML.template,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "gemma": GEMMA,
    "smollm2": DEFAULT_SYSTEM,
    "generation": GENERATION,
    "thinks": THINKS,
    "smollm3": KNOWS_THE_DAY,
    "r1": DROPS_THOUGHTS,
}

ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "llama2": " </s>", "gemma": "<end_of_turn>"}
ENDS |= {
    "smollm2": "<|im_end|>",
    "generation": "</s>",
    "thinks": "</assistant>",
    "smollm3": "<|im_end|>",
    "r1": "</s>",
}


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"x": 0}, unk_token="x")), bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = template
    return made


def tiny_chat_tokenizer(template: str) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.chat_template = template
    return made


def chat(*turns: tuple[str, str]) -> Document:
    return Document(tuple(Span(text, role == "assistant", role) for role, text in turns))


def scored(*documents: Document) -> list[str]:
    return [span.text for document in documents for span in document.spans if span.scored]


LITTLE = (
    "{{ messages | tojson(ensure_ascii=True) }}",
    "{{ messages | tojson(True) }}",
    "{{ messages | tojson(indent=2, separators=(',', ':'), sort_keys=true) }}",
    "{{ tools is none }}{% if documents is defined %}{{ documents is none }}{% endif %}",
    "{% set x = 0 %}{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% endgeneration %}{% endfor %}",
)


@pytest.mark.parametrize("template", LITTLE)
def test_what_templates_rarely_ask_is_rendered_as_transformers_does(template: str) -> None:
    messages = [{"role": "user", "content": 'ünï "x" 日'}, {"role": "assistant", "content": "a/b"}]
    theirs = tokenizer(template).apply_chat_template(messages, tokenize=False)
    assert Template(template).render(messages, {}, opens_answer=False) == theirs


TWO = (("user", "What is 2 + 2?"), ("assistant", '4, I "think".'), ("user", "And 3?"), ("assistant", "9"))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [False, True])
def test_templates_are_rendered_as_transformers_does(name: str, system: bool) -> None:
    turns = (("system", "Be brief."), *TWO) if system else TWO
    made, document = tokenizer(TEMPLATES[name]), chat(*turns)
    messages = [{"role": role, "content": text} for role, text in turns]
    if name == "gemma" and system:
        with pytest.raises(InputError, match="refuses a conversation: no system role"):
            list(rendered([document], made))
        return
    (found,) = rendered([document], made)
    want = str(made.apply_chat_template(messages, tokenize=False))
    assert DAY.sub("26 July 2024", want) == found.text
    assert [answer.strip() for answer in scored(found)] == [
        text + ENDS[name] for text in ('4, I "think".', "9")
    ]
    opening = str(made.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    assert prompt_of(document, len(turns) - 1, made) == DAY.sub("26 July 2024", opening)


@pytest.mark.parametrize("name", ["chatml", "gemma", "llama3"])
def test_messages_and_a_begun_answer_are_rendered_as_transformers_does(name: str) -> None:
    made = tokenizer(TEMPLATES[name])
    asked = [{"role": role, "content": text} for role, text in TWO[:3]]
    told = [{"role": "system", "content": "Be brief."}, *asked]
    read = asked if name == "gemma" else told  # That template takes no message of the system.
    opened = made.apply_chat_template(read, tokenize=False, add_generation_prompt=True)
    assert prompt_of_messages(told, made) == opened
    begun = {"role": "assistant", "content": "The number is"}
    going_on = made.apply_chat_template([*read, begun], tokenize=False, continue_final_message=True)
    assert prompt_of_messages([*told, begun], made, begun=True) == going_on


def flags(document: Document) -> list[tuple[str, bool]]:
    return [(letter, span.scored) for span in document.spans for letter in span.text]


def test_a_format_in_plain_fields_is_the_template_that_is_made_of_it() -> None:
    said = ChatFormat(
        {"system": Turn("", "\n"), "user": Turn("Q: ", "\n"), "assistant": Turn('"A": ', "\n")}, "--\n"
    )
    for own in (said, CHATML):
        document = Document(chat(("system", "s"), *TWO).spans, format=own)
        (plain,) = rendered([document], tokenizer(None))
        template = own.ending("</s>").template
        (found,) = rendered([Document(document.spans)], tokenizer(template))
        assert flags(found) == flags(plain)
        assert prompt_of(document, 2, tokenizer(None)) == prompt_of(
            Document(document.spans), 2, tokenizer(template)
        )


LONG = "{% set s = 'a' * 4000000 %}"
GROWS = "{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = STEP %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages.__class__.__mro__ }}", "the attribute '__class__' of list"),
        ("{{ messages[0]['__class__'] }}", "the attribute '__class__' of dict"),
        ("{{ ''.join.__self__ }}", "the attribute '__self__'"),
        ("{{ self._TemplateReference__context }}", "the attribute '_TemplateReference__context'"),
        ("{{ messages | attr('__class__') }}", "the filter 'attr'"),
        ("{{ messages.append(1) }}", "the attribute 'append' of list"),
        ("{{ '{0.__class__}'.format(messages) }}", "the attribute 'format' of str"),
        ("{{ '%99999s' % 1 }}", "the operator '%'"),
        ("{% include 'x' %}", "the statement 'include'"),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", "a recursive loop"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "the operator '**'"),
        ("{% for i in range(60000) %}{% for j in range(60000) %}{% endfor %}{% endfor %}", "rounds of loops"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "macros that call themselves"),
        ("{{ 'a' * 1000000000 }}", "characters of text in all"),
        (GROWS.replace("STEP", "ns.s ~ ns.s"), "characters of text in all"),
        (GROWS.replace("STEP", "ns.s + ns.s"), "characters of text in all"),
        (GROWS.replace("STEP", "ns.s.replace('b', ns.s)"), "characters of text in all"),
        (GROWS.replace("STEP", "[ns.s, ns.s] | join(ns.s)"), "characters of text in all"),
        (
            LONG + "{% for i in range(2000) %}{% if s.upper() == 'b' %}{% endif %}{% endfor %}",
            "characters of text",
        ),
        (LONG + "{% for i in range(90000) %}{% if 'b' in s %}{% endif %}{% endfor %}", "characters of text"),
        (LONG + "{% for i in range(90000) %}{% set x = s[1:] %}{% endfor %}", "characters of text"),
        (LONG + "{{ [s] * 1000 }}", "characters of text"),
        (LONG + "{{ s.split('a') | length }}", "characters of text"),
        (LONG + "{{ s | list | length }}", "characters of text"),
        (GROWS.replace("STEP", "[ns.s] + [[0] * 400000]"), "characters of text"),
        (GROWS.replace("STEP", "(ns.s, ns.s)"), "characters of text"),
        ("{{ strftime_now('%9999999d') }}", "a date in the form"),
        ("{{ ('ffff' * 1100) | int(0, 16) }}", "a number of too many digits"),
        ("{{ lipsum.__globals__ }}", "'lipsum' is undefined"),
        (GROWS.replace("STEP", "ns.s.join([ns.s, ns.s])"), "characters of text in all"),
        ("{{ ([1] | groupby('x'))[0].count }}", "the attribute 'count' of _GroupTuple"),
        ("{{ messages | tojson(indent=99) }}", "JSON indented by 99"),
        ("{{ messages | tojson(separators=(' ' * 20, ':')) }}", "JSON with long separators"),
        ("{% set ns = namespace(a=1) %}{{ 'x' ~ ns }}", "the text of a namespace"),
        (LONG + "{% for i in range(90000) %}{% if s is eq s %}{% endif %}{% endfor %}", "characters of text"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ range(90000) | map('string') | sort }}" * 3, "rounds of loops"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "its statements are too deeply nested"),
        ("{% if", "cannot be rendered"),
    ],
)
def test_what_a_template_may_not_ask_for_is_refused_by_name_and_at_once(template: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        list(rendered([chat(*TWO)], tokenizer(template)))
    assert said in caught.value.message
    assert "data.chat" in (caught.value.remedy or "")
    assert time.process_time() - began < 2  # Of the processor: the machine may be busy.


def test_what_templates_use_of_jinja_is_there() -> None:
    for used in (
        "{{ dict(a=1).a }}{{ '%s is %d' % ('a', 7 % 4) }}{{ messages[0].content[:3] | escape }}",
        "{% for role, all in messages[:1] | groupby('role') %}{{ role }}{{ all | length }}{% endfor %}",
        "{% if tools %}{{ tools | indent }}{% endif %}{{ {'a': [1, 'b']} }}{% set a, b = 1, 2 %}{{ a + b }}",
    ):
        made = tokenizer(used + CHATML.template)
        (found,) = rendered([chat(*TWO)], made)
        messages = [{"role": role, "content": text} for role, text in TWO]
        assert found.text == made.apply_chat_template(messages, tokenize=False)


def test_the_space_before_an_answer_is_the_answers_as_tokenizers_join_it_with_the_first_word() -> None:
    spaced = ChatFormat({role: Turn(f"{role}: ", "\n") for role in ("system", "user", "assistant")})
    foreign = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    foreign += "{% if add_generation_prompt %}assistant: {% endif %}"
    for document, made in (
        (Document(chat(*TWO).spans, format=spaced), tokenizer(None)),
        (chat(*TWO), tokenizer(foreign)),
    ):
        answers = scored(*rendered([document], made))
        assert [answer.split(",")[0].rstrip("</s>\n") for answer in answers] == [" 4", " 9"]
    assert prompt_of(Document(chat(*TWO).spans, format=spaced), 1, tokenizer(None)).endswith("\nassistant:")


def test_each_answer_is_a_text_of_its_own_where_earlier_ones_are_written_otherwise() -> None:
    made = tokenizer(KEEPS_LAST_THOUGHT)
    thought = "<think>\nwell\n</think>\n\n4"
    turns = (("user", "n?"), ("assistant", thought), ("user", "And 3?"), ("assistant", "n"))
    found = list(rendered([chat(*turns)], made))
    assert scored(*found) == [thought + "<|im_end|>", "<think>\n\n</think>\n\nn<|im_end|>"]
    for number, document in zip((2, 4), found, strict=True):
        messages = [{"role": role, "content": text} for role, text in turns[:number]]
        assert document.text + "\n" == made.apply_chat_template(messages, tokenize=False)
    assert len(list(rendered([chat(*turns[:2])], made))) == 1
    packed = pack_conversations([chat(*turns)] * 3, tiny_chat_tokenizer(KEEPS_LAST_THOUGHT), 256, seed=0)
    assert packed.conversations == 6


def test_answers_that_cannot_be_told_from_the_rest_are_refused() -> None:
    document = Document(chat(*TWO).spans, where="chats.jsonl:7")
    for each in ("messages | reverse %}{{ m.content }}", "messages %}{{ m.content | upper }}"):
        with pytest.raises(InputError, match="answers cannot be told from the rest") as caught:
            list(rendered([document], tokenizer("{% for m in " + each + "{% endfor %}")))
        assert caught.value.where == "chats.jsonl:7"


@pytest.mark.parametrize("said", ["a", "t>", "<", "<t", "4 <think> 4"])
@pytest.mark.parametrize("first", [(), (("user", "a"),)])
def test_an_answer_is_found_although_the_marks_hold_it_too(
    first: tuple[tuple[str, str], ...], said: str
) -> None:
    (found,) = rendered([chat(*first, ("assistant", said))], tokenizer(THINKS))
    assert scored(found) == [f"{said}</assistant>"]


def test_templates_for_special_purposes_alone_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "x"}
    assert question("hi", tokenizer) == "hi"
    tokenizer.chat_template = {"tool_use": "x", "rag": "y"}
    with pytest.raises(InputError, match="has chat templates for 'tool_use', 'rag', and none by default"):
        list(rendered([chat(*TWO[:2])], tokenizer))


def test_a_tokenizer_without_template_reads_chatml() -> None:
    (found,) = rendered([chat(*TWO[:2])], tiny_tokenizer())
    assert found.text.startswith("<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n4")
