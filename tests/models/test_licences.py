"""The licence of a model is what the model states, with the place where it was read; else it is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_gguf import tiny_llama, write_gguf

from pegbox.errors import RecipeError
from pegbox.models import gguf
from pegbox.models.licences import licence_of
from pegbox.models.packages import CARRIED
from pegbox.models.sources import ModelFolder

README = "README.md of the model"


def card(folder: Path, text: str | bytes) -> ModelFolder:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "README.md").write_bytes(data)
    return ModelFolder("someone/tiny", folder, "hub cache")


@pytest.mark.parametrize("name", CARRIED)
def test_a_model_from_a_package_has_the_licence_of_the_table(tmp_path: Path, name: str) -> None:
    found = licence_of(ModelFolder(name, tmp_path, str(CARRIED[name])))
    assert found == {"id": "apache-2.0", "source": str(CARRIED[name])}
    assert licence_of(ModelFolder(name, tmp_path, "hub cache")) is None  # another copy speaks for itself


@pytest.mark.parametrize(
    ("block", "stated"),
    [
        ("license: apache-2.0", {"id": "apache-2.0"}),
        ("language: en\nlicense: MIT\ntags: [x]", {"id": "mit"}),
        ("license:\n- mit", {"id": "mit"}),
        ("license: [apache-2.0, mit]", {"id": "apache-2.0, mit"}),
        (
            "license: other\nlicense_name: qwen-research\nlicense_link: https://a.example/LICENSE",
            {"id": "other", "name": "qwen-research", "link": "https://a.example/LICENSE"},
        ),
        ("license: other\nlicense_name: 7", {"id": "other"}),
        ("license: 'two\n\n  lines'", {"id": "two lines"}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_model_card_states_it(tmp_path: Path, block: str, stated: dict[str, str], end: str) -> None:
    text = f"---\n{block}\n---\n# A model\n---\nlicense: not-this\n---\n".replace("\n", end)
    assert licence_of(card(tmp_path, text)) == stated | {"source": README}
    assert licence_of(card(tmp_path, "\ufeff" + text)) == stated | {"source": README}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# A model\nlicense: mit\n",
        "# A model\n---\nlicense: mit\n---\n",
        "---\nlicense: mit\n",
        "---\nlanguage: en\n---\n",
        "---\nlicense: unknown\n---\n",
        "---\nlicense: ''\n---\n",
        "---\nlicense: {name: mit}\n---\n",
        "---\nlicense: [1, 2]\n---\n",
        "---\nlicense: []\n---\n",
        "---\nlicense_name: mine\n---\n",
        "---\n- license: mit\n---\n",
        "---\nlicense: [mit\n---\n",
        "---\nlicense: mit\nmade: 2024-13-40\n---\n",
        "---\nlicense: !!python/object/apply:os.getcwd []\n---\n",
        f"---\nlicense: {'x' * 300}\n---\n",
        "---\nlicense: " + "[" * 5000 + "\n---\n",
        b"---\nlicense: mit\nby: \xff\n---\n",
    ],
)
def test_a_card_that_does_not_say_it_or_cannot_be_read_leaves_it_unknown(tmp_path: Path, text: str | bytes) -> None:
    assert licence_of(card(tmp_path, text)) is None


def test_a_folder_without_a_card_leaves_it_unknown(tmp_path: Path) -> None:
    assert licence_of(ModelFolder(str(tmp_path), tmp_path, "folder")) is None


@pytest.mark.parametrize(
    ("metadata", "stated"),
    [
        ({"general.license": "Apache-2.0"}, {"id": "apache-2.0"}),
        (
            {"general.license": "other", "general.license.name": "ours", "general.license.link": "https://a.example"},
            {"id": "other", "name": "ours", "link": "https://a.example"},
        ),
        ({}, None),
        ({"general.license": "unknown"}, None),
    ],
)
def test_a_gguf_file_states_it(tmp_path: Path, metadata: dict[str, str], stated: dict[str, str] | None) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny_llama(), metadata=metadata)
    card(tmp_path, "---\nlicense: mit\n---\n")  # of another model, for all that is known
    found = licence_of(ModelFolder(str(file), tmp_path, "GGUF file"))
    assert found == (stated and stated | {"source": "general.license of the GGUF file"})


def test_a_gguf_file_that_cannot_be_read_today_leaves_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny_llama(), metadata={"general.license": "mit"})

    def missing(where: str) -> None:
        raise RecipeError("reading GGUF needs the package gguf", where=where)

    monkeypatch.setattr(gguf, "require_package", missing)
    assert licence_of(ModelFolder(str(file), tmp_path, "GGUF file")) is None


def test_a_runs_model_has_the_licence_that_its_receipt_tells(tmp_path: Path) -> None:
    """Else it would be lost: the model of a run has no card beside its weights."""
    told = {"id": "apache-2.0", "source": "README.md of the model"}
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "model").mkdir()
    for licence in (told, None):
        (tmp_path / "receipt.json").write_text(json.dumps({"model": {"licence": licence}}))
        assert licence_of(ModelFolder("runs/first", tmp_path / "model", "run")) == licence
