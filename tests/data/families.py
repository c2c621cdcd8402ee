"""The families of chat models: a tokenizer as theirs segments text, their control tokens, and their chat template.

The templates are ours, written to do what the published ones do: headers, BOS, line breaks, what is stripped, where the
system's message goes, how tools are shown. Each is read as Jinja with trimmed blocks, as Transformers reads them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

from small_tokenizers import _BACKENDS
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

LLAMA_3_1 = """
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content | trim %}
{%- set messages = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{%- if tools %}{{ 'Environment: ipython\n' }}{% endif %}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' + system + '<|eot_id|>' }}
{%- if tools %}
{%- set question = messages[0].content | trim %}
{%- set messages = messages[1:] %}
{{- '<|start_header_id|>user<|end_header_id|>\n\nAnswer with a call of one of these functions.\n\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=4) + '\n\n' }}{% endfor %}
{{- question + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content | tojson + '<|eot_id|>' }}
{%- elif message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson + '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""

GEMMA_3 = """
{{- bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\n\n' %}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{{- (first if loop.first else '') + message.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""

MISTRAL_2 = """
{{- bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\n\n' %}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '[INST] ' + (first if loop.first else '') + message.content + ' [/INST]' }}
{%- else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}
{%- endfor %}
"""

MISTRAL_3 = """
{{- bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\n\n' %}
{%- set messages = messages[1:] %}
{%- endif %}
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools and message == asked[-1] %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST] ' + (first if loop.last else '') + message.content + '[/INST]' }}
{%- elif message.tool_calls %}
{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('an id has 9 characters') }}{% endif %}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (']' + eos_token if loop.last else ', ') }}
{%- endfor %}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + message.content + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}
{%- endfor %}
"""

CALLS = """
{%- for call in message.tool_calls %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
"""
RESULT = """
{%- elif message.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
"""

QWEN_2_5 = """
{%- set system = 'You are Qwen.' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}
{{- '<|im_start|>system\n' + system }}
{%- if tools %}
{{- '\n\n# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}
{{- '\n</tools>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- for message in messages %}
{%- if message.role == 'user' or message.role == 'assistant' and not message.tool_calls %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant' + ('\n' + message.content if message.content else '') }}@CALLS@
{{- '<|im_end|>\n' }}@RESULT@
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
""".replace("@CALLS@", CALLS).replace("@RESULT@", RESULT)

QWEN_3 = """
{%- if messages[0].role == 'system' or tools %}
{{- '<|im_start|>system\n' + (messages[0].content + '\n\n' if messages[0].role == 'system' and tools else '') }}
{%- if tools %}
{{- '# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}
{{- '\n</tools>' }}
{%- else %}{{ messages[0].content }}{% endif %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- set last = namespace(asked=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set last.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{%- set thought, content = '', message.content %}
{%- if '</think>' in content %}
{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > last.asked and (loop.last or thought) %}
{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
{%- else %}{{ content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- ('\n' if content or not loop.first else '') + '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}@RESULT@
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
""".replace("@CALLS@", CALLS).replace("@RESULT@", RESULT)

PHI_3_5 = """
{%- for message in messages %}
{%- if message.content %}{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}
"""

PHI_4 = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}
"""

PHI_4_MINI = """
{%- for message in messages %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}
"""


class Family(NamedTuple):
    """How a family segments text, its template, BOS and end-of-text, its other controls, and tokens that are text."""

    tokenizer: str
    template: str
    bos: str | None
    eos: str
    controls: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    strips: bool = False


HEADERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
TOOL_TEXTS = ("<tool_call>", "</tool_call>")
TOOL_CONTROLS = ("[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
LLAMA_CONTROLS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
FAMILIES = {
    "chatml": Family("byte_level", CHATML, None, "<|im_end|>", HEADERS),
    "llama_3_1": Family("byte_level", LLAMA_3_1, "<|begin_of_text|>", "<|eot_id|>", LLAMA_CONTROLS, strips=True),
    "gemma_3": Family("gemma", GEMMA_3, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), strips=True),
    "mistral_2": Family("prefix_by_normalizer", MISTRAL_2, "<s>", "</s>", strips=True),
    "mistral_3": Family(
        "metaspace_first", MISTRAL_3, "<s>", "</s>", ("[INST]", "[/INST]", *TOOL_CONTROLS), strips=True
    ),
    "qwen_2_5": Family("byte_level", QWEN_2_5, None, "<|im_end|>", HEADERS, TOOL_TEXTS),
    "qwen_3": Family(
        "byte_level", QWEN_3, None, "<|im_end|>", HEADERS, (*TOOL_TEXTS, "<think>", "</think>"), strips=True
    ),
    "phi_3_5": Family(
        "prefix_by_normalizer", PHI_3_5, "<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    ),
    "phi_4": Family("byte_level", PHI_4, None, "<|im_end|>", (*HEADERS, "<|im_sep|>")),
    "phi_4_mini": Family(
        "byte_level",
        PHI_4_MINI,
        "<|endoftext|>",
        "<|endoftext|>",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
}


@cache
def _backend(kind: str) -> str:
    """A family's way to segment text, without control tokens. Gemma's is Llama 2's without the space before a text."""
    state = json.loads(_BACKENDS["prefix_by_normalizer" if kind == "gemma" else kind]())
    state["added_tokens"] = []
    if kind == "gemma":
        steps = state["normalizer"]["normalizers"], state["decoder"]["decoders"]
        state["normalizer"]["normalizers"] = [step for step in steps[0] if step["type"] != "Prepend"]
        state["decoder"]["decoders"] = [step for step in steps[1] if step["type"] != "Strip"]
    return json.dumps(state)


def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of a family, with its template; a new one each time."""
    family = FAMILIES[name]
    backend = Tokenizer.from_str(_backend(family.tokenizer))
    swallow = name == "phi_3_5"  # its controls take the white space behind them
    controls = dict.fromkeys([*family.controls, family.eos, *([family.bos] if family.bos else [])])
    backend.add_special_tokens([AddedToken(c, special=True, normalized=False, rstrip=swallow) for c in controls])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.texts])
    unknown = None if family.tokenizer == "byte_level" else "<unk>"
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos, pad_token=family.eos, unk_token=unknown
    )
    made.chat_template = family.template.strip("\n")
    return made
