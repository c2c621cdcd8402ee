"""Python that uses a saved model by Transformers, and PEFT where it is an adapter, and by nothing of pegbox."""

from __future__ import annotations

import json
from collections.abc import Sequence

TOLD = 'told = json.loads(Path("receipt.json").read_text(encoding="utf-8"))["task"]'
READS_TOLD = "import json\nfrom pathlib import Path\n\n"


def _load(head: str, *, adapter: bool, torch: bool = True, told: bool = False, labels: str = "") -> str:
    """The lines that import, load the model and its tokenizer, and where it is wanted what training found out.

    `labels`: what of that names the outputs of a new head: by their number an adapter's head is made.
    """
    name = f"{'AutoPeftModelFor' if adapter else 'AutoModelFor'}{head}"
    more = f', num_labels=len(told["{labels}"])' if adapter and labels else ""
    imports = (
        *(["import torch"] if torch else []),
        *([f"from peft import {name}"] if adapter else []),
        f"from transformers import {'' if adapter else f'{name}, '}AutoTokenizer",
    )
    return (
        (READS_TOLD if told or more else "")
        + "\n".join(imports)
        + "\n\n"
        + (f"{TOLD}\n" if told or more else "")
        + f'model = {name}.from_pretrained("model"{more}).eval()\n'
        + 'tokenizer = AutoTokenizer.from_pretrained("model")\n'
    )


# from the head's outputs to answers, as pegbox has it
CLASSIFICATION = """
shares = torch.softmax(outputs / told["temperature"], dim=-1).tolist()
for share, label in sorted(zip(shares, told["labels"]), reverse=True):
    print(f"{share:.3f} {label}")
"""
MULTILABEL = """
shares = torch.sigmoid(outputs).tolist()
print([label for label, share, least in zip(told["labels"], shares, told["thresholds"]) if share >= least])
"""
REGRESSION = """
# the model was trained on numbers of mean 0 and deviation 1
for name, output, deviation, mean in zip(names, outputs.tolist(), deviations, means):
    print(name, output * deviation + mean)
"""
SCALES = {
    True: 'names, deviations, means = told["targets"], told["deviation"], told["mean"]\n',
    False: "names = model.config.id2label.values()\n"
    "deviations, means = model.config.target_deviation, model.config.target_mean\n",
}
OF_TEXTS = {"classification": CLASSIFICATION, "multilabel": MULTILABEL, "regression": REGRESSION}
COUNTED = {"classification": "labels", "multilabel": "labels", "regression": "targets"}
PAIR = """text, text_pair = "...", "..."
# a tokenizer that has no token to put between two texts gets them as one
parted = tokenizer.num_special_tokens_to_add(pair=True) != tokenizer.num_special_tokens_to_add(pair=False)
texts = (text, text_pair) if parted else (f"{text}\\n\\n{text_pair}",)
inputs = tokenizer(*texts, return_tensors="pt")
"""


def whole_text(kind: str, *, pairs: bool, adapter: bool) -> str:
    """Of a task that says something of a whole text, or of a pair of them."""
    head = _load("SequenceClassification", adapter=adapter, told=kind != "regression", labels=COUNTED[kind])
    scales = SCALES[adapter] if kind == "regression" else ""
    inputs = PAIR if pairs else 'inputs = tokenizer("...", return_tensors="pt")\n'
    return (
        f"{head}{scales}{inputs}with torch.no_grad():\n    outputs = model(**inputs).logits[0]{OF_TEXTS[kind]}".rstrip()
    )


WORDS = """words = ["...", "..."]
inputs = tokenizer(" ".join(words), return_tensors="pt", return_offsets_mapping=True)
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    best = model(**inputs).logits[0].argmax(-1).tolist()
begin = 0
for word in words:
    end = begin + len(word)
    # the tokens of this word alone; its tag stands at the {which}
    own = [at for at, (a, b) in enumerate(places) if begin - 1 <= a < end and begin < b <= end + 1]
    print(word, {name}[best[own[{at}]]])
    begin = end + 1
"""


def words(*, last: bool, adapter: bool) -> str:
    """Of words and their tags."""
    head = _load("TokenClassification", adapter=adapter, labels="labels")
    name = 'told["labels"]' if adapter else "model.config.id2label"
    return head + WORDS.format(which="last" if last else "first", name=name, at=-1 if last else 0).rstrip()


MASK = """text = f"... {tokenizer.mask_token} ..."
inputs = tokenizer(text, return_tensors="pt")
place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
with torch.no_grad():
    shares = torch.softmax(model(**inputs).logits[0, place], dim=-1)
for share, token in zip(*shares.topk(5)):
    print(f"{share:.3f} {tokenizer.decode(token)}")
"""
ADAPTED = """import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForMaskedLM, AutoTokenizer

base = AutoModelForMaskedLM.from_pretrained(PeftConfig.from_pretrained("model").base_model_name_or_path)
tokenizer = AutoTokenizer.from_pretrained("model")
if len(tokenizer) > base.config.vocab_size:
    base.resize_token_embeddings(len(tokenizer))
model = PeftModel.from_pretrained(base, "model").eval()
"""


def mask(*, adapter: bool) -> str:
    """Of a masked token."""
    return ((ADAPTED if adapter else _load("MaskedLM", adapter=False)) + MASK).rstrip()


VECTORS = """inputs = tokenizer("...", return_tensors="pt")
with torch.no_grad():
    tokens = model(**inputs).last_hidden_state[0]
print({pooled}.tolist())
# sentence-transformers loads the folder, too: SentenceTransformer("model").encode(["..."])
"""
POOLED = {"mean": "tokens.mean(0)", "cls": "tokens[0]", "last": "tokens[-1]"}


def vector(pooling: str, *, adapter: bool) -> str:
    """Of a text's vector."""
    load = _load("FeatureExtraction", adapter=True) if adapter else _load("", adapter=False)
    return (load.replace("AutoModelFor", "AutoModel") + VECTORS.format(pooled=POOLED[pooling])).rstrip()


def sequence(text: str, *, adapter: bool) -> str:
    """Of a text made from another; `text`: the source, as Python writes it."""
    return (
        f"{_load('Seq2SeqLM', adapter=adapter, torch=False).replace(*SETTINGS)}"
        "# says how many beams there are, and where an answer begins and ends\n"
        'settings = GenerationConfig.from_pretrained("model")\n'
        f'inputs = tokenizer({text}, return_tensors="pt")\n'
        "output = model.generate(**inputs, generation_config=settings)\n"
        "print(tokenizer.decode(output[0], skip_special_tokens=True))"
    )


SETTINGS = ("AutoTokenizer\n", "AutoTokenizer, GenerationConfig\n")


PARTS = """

def ids(text):
    # behind a line break, which is cut off again: so the tokenizer puts nothing before it
    line_break = tokenizer("\\n", add_special_tokens=False)["input_ids"]
    return tokenizer("\\n" + text, add_special_tokens=False)["input_ids"][len(line_break) :]


prefix, suffix = "...", "..."
token = tokenizer.get_vocab()
whole = [{parts}]
inputs = tokenizer.pad({{"input_ids": [whole]}}, return_tensors="pt")"""


def hole(parts: Sequence[str], lead: str, opening: Sequence[int], *, as_text: bool) -> str:
    """The lines that make inputs of what stands between two texts, whose places among the `parts` are in braces.

    `lead`: what stands before a prefix; `opening`: the tokens in front; `as_text`: the tokenizer finds the parts by itself.
    """
    if as_text:
        whole = json.dumps("".join(parts), ensure_ascii=False)
        return f'prefix, suffix = "...", "..."\ninputs = tokenizer(f{whole}, return_tensors="pt")'
    told = {"{prefix}": f"*ids({json.dumps(lead) + ' + ' if lead else ''}prefix)", "{suffix}": "*ids(suffix)"}
    listed = [*map(str, opening), *(told.get(part, f"token[{json.dumps(part, ensure_ascii=False)}]") for part in parts)]
    return PARTS.format(parts=", ".join(listed))


def generator(inputs: str, *, max_new_tokens: int | None, adapter: bool) -> str:
    """Of a text that goes on; `inputs`: the lines that make them."""
    load = _load("CausalLM", adapter=adapter, torch=False).replace(*SETTINGS)
    return (
        f"{load}"
        "# says at which token an answer ends\n"
        f'settings = GenerationConfig.from_pretrained("model", do_sample=False, max_new_tokens={max_new_tokens})\n'
        f"{inputs}\n"
        "output = model.generate(**inputs, generation_config=settings)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'
    )
