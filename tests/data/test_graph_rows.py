"""A knowledge graph becomes the same rows however it is written, and nothing of it is lost without a word."""

from __future__ import annotations

import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import rdflib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdflib import RDF, RDFS, BNode, Literal, URIRef

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, Remark, read
from pegbox.data.sources.graph_names import words_of
from pegbox.errors import DataError, RecipeError
from pegbox.recipe.sources import GraphSource

EX = rdflib.Namespace("http://example.org/ns#")
FORMATS = {"ttl": "turtle", "nt": "nt", "jsonld": "json-ld"}
CITIES = """
@prefix ex: <http://example.org/ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix schema: <https://schema.org/> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
ex:Berlin a ex:CapitalCity ; rdfs:label "Berlin"@en, "Berlino"@it ; ex:capitalOf ex:Germany ;
  ex:populationTotal 3645000 ; ex:area "8.9E2"^^xsd:double ; ex:twinTown ex:Paris, ex:LosAngeles ;
  rdfs:comment "Berlin is the capital."@en, "Berlin ist die Hauptstadt."@de ;
  ex:townHall [ a schema:PostalAddress ; schema:streetAddress "Rathausstr. 15" ; schema:postalCode "10178" ] ;
  ex:mayor [ schema:name "Ann Lee" ; schema:birthDate "1972-09-15"^^xsd:date ] ;
  ex:changed "2020-01-02T10:00:00"^^xsd:dateTime .
ex:LosAngeles rdfs:label "L.A." .
"""


def written(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(path)


def rows_of(path: str, **asked: Any) -> list[Row | MalformedRow]:
    return list(read([GraphSource(path=path, **asked)]))


def values_of(path: str, **asked: Any) -> list[Any]:
    return [row.values if isinstance(row, Row) else row.why for row in rows_of(path, **asked)]


def answers(path: str, **asked: Any) -> dict[str, str]:
    return {row.values["prompt"]: row.values["completion"] for row in rows_of(path, **asked) if isinstance(row, Row)}


def in_all_formats(folder: Path, graph: rdflib.Graph) -> dict[str, str]:
    return {
        ending: written(folder, f"facts.{ending}", graph.serialize(format=format)) for ending, format in FORMATS.items()
    }


# ---- what the rows say -----------------------------------------------------------------------------------------------


def test_questions_and_their_answers_read_like_a_persons(tmp_path: Path) -> None:
    assert answers(written(tmp_path, "a.ttl", CITIES)) == {
        "What is the area of Berlin?": "890",
        "What is Berlin capital of?": "Germany",
        "What is the changed of Berlin?": "2020-01-02 10:00:00",
        "What is the mayor of Berlin?": "Ann Lee",
        "What is the population total of Berlin?": "3645000",
        "What is the town hall of Berlin?": "postal code 10178, street address Rathausstr. 15",
        "What is the twin town of Berlin?": "L.A., Paris",
        "What kind of thing is Berlin?": "Capital City",
        "How is Berlin described?": "Berlin is the capital.",
        "What is the birth date of Ann Lee?": "1972-09-15",
    }


def test_facts_are_texts_one_for_each(tmp_path: Path) -> None:
    texts = [row["text"] for row in values_of(written(tmp_path, "a.ttl", CITIES), rows="facts")]
    assert "The twin town of Berlin is L.A.." in texts
    assert "The twin town of Berlin is Paris." in texts
    assert "Berlin is capital of Germany." in texts


def test_each_row_names_its_subject_and_predicate(tmp_path: Path) -> None:
    row = next(row for row in values_of(written(tmp_path, "a.ttl", CITIES)) if row["completion"] == "Germany")
    assert (row["subject"], row["predicate"]) == (str(EX.Berlin), str(EX.capitalOf))


@pytest.mark.parametrize(
    ("language", "name", "described"),
    [
        ("en", "Berlin", "Berlin is the capital."),
        ("it", "Berlino", "Berlin ist die Hauptstadt."),
        ("DE", "Berlin", "Berlin ist die Hauptstadt."),
    ],
)
def test_names_and_texts_are_in_the_language_asked_for_where_there_is_one(
    tmp_path: Path, language: str, name: str, described: str
) -> None:
    said = answers(written(tmp_path, "a.ttl", CITIES), language=language)
    assert said[f"How is {name} described?"] == described


def test_a_language_stands_for_its_kinds_and_none_is_better_than_another(tmp_path: Path) -> None:
    graph = rdflib.Graph()
    for number, labels in enumerate(
        [[("a", "en-GB"), ("b", None)], [("c", None), ("d", "fr")], [("e", "fr"), ("f", "sv")]]
    ):
        graph.add((EX[f"n{number}"], EX.size, Literal(number)))
        for text, language in labels:
            graph.add((EX[f"n{number}"], RDFS.label, Literal(text, language)))
    path = written(tmp_path, "a.ttl", graph.serialize(format="turtle"))
    assert list(answers(path)) == [f"What is the size of {name}?" for name in "ace"]


@pytest.mark.parametrize(
    ("local", "words"),
    [
        ("capitalOf", "capital of"),
        ("NewYork", "New York"),
        ("hasHTMLPage", "has HTML page"),
        ("new_york", "new york"),
        ("Caf%C3%A9", "Café"),
        ("P31", "P31"),
        ("isbn13Number", "isbn13 number"),
    ],
)
def test_a_local_name_is_taken_apart_into_words(local: str, words: str) -> None:
    assert words_of(local) == words


def test_answers_that_hold_commas_are_kept_apart(tmp_path: Path) -> None:
    graph = rdflib.Graph()
    graph.add((EX.a, EX.motto, Literal("one, two")))
    graph.add((EX.a, EX.motto, Literal("three")))
    path = written(tmp_path, "a.ttl", graph.serialize(format="turtle"))
    assert answers(path) == {"What is the motto of a?": "one, two; three"}


# ---- templates -------------------------------------------------------------------------------------------------------


def question(prompt: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": "{object}"}


@pytest.mark.parametrize("key", ["capitalOf", "ex:capitalOf", str(EX.capitalOf)])
def test_a_template_is_found_by_each_name_of_its_predicate(tmp_path: Path, key: str) -> None:
    template = {"prompt": "{subject} {{is}} {predicate}?", "completion": "of {object}"}
    said = answers(written(tmp_path, "a.ttl", CITIES), templates={key: template})
    assert said["Berlin {is} capital of?"] == "of Germany"
    assert said["What is the area of Berlin?"] == "890"


def test_the_more_exact_name_decides(tmp_path: Path) -> None:
    keys = ["*", "populationTotal", "ex:populationTotal", str(EX.populationTotal)]
    for number in range(1, len(keys) + 1):
        templates = {key: question(f"{{subject}} by {key}?") for key in keys[:number]}
        said = answers(written(tmp_path, "a.ttl", CITIES), templates=dict(reversed(templates.items())))
        assert said[f"Berlin by {keys[number - 1]}?"]
    assert said["Ann Lee by *?"] == "1972-09-15"


def test_null_leaves_facts_out_and_they_are_counted(tmp_path: Path) -> None:
    told: list[Remark] = []
    source = GraphSource(path=written(tmp_path, "a.ttl", CITIES), templates={"*": None, "twinTown": question("Twins?")})
    rows = list(read([source], told))
    assert [row.values["completion"] for row in rows if isinstance(row, Row)] == ["L.A., Paris"]
    graph = rdflib.Graph().parse(data=CITIES, format="turtle")
    labels = 4  # rdfs:label and schema:name
    assert f"{len(graph) - labels - 2} facts are left out: their template is null" in [
        remark.message for remark in told
    ]
    assert f"{labels} facts are left out: they only name things" in [remark.message for remark in told]


def test_names_become_rows_where_a_template_asks_for_them(tmp_path: Path) -> None:
    said = answers(written(tmp_path, "a.ttl", CITIES), templates={"label": question("Name {subject}!")})
    assert said["Name Berlin!"] == "Berlin"


def test_a_template_that_no_fact_has_is_an_error_with_a_did_you_mean(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"templates.capitolOf.*\n.*did you mean 'capitalOf'"):
        rows_of(written(tmp_path, "a.ttl", CITIES), templates={"capitolOf": None})


# ---- however it is written -------------------------------------------------------------------------------------------


def test_every_way_to_write_a_graph_gives_the_same_rows(tmp_path: Path) -> None:
    files = in_all_formats(tmp_path, rdflib.Graph().parse(data=CITIES, format="turtle"))
    first, second, third = (values_of(path) for path in files.values())
    assert len(first) == 10
    assert first == second == third


def test_things_without_an_address_come_in_an_order_of_their_own(tmp_path: Path) -> None:
    """Blank nodes are called anew by each program that writes them."""
    fact = '_:{node} <http://schema.org/name> "{name}" .\n_:{node} <http://a/size> "1" .\n'
    names = [("a", "b"), ("b", "a")]
    said = [
        values_of(
            written(tmp_path, f"{node}.nt", fact.format(node=node, name="Ann") + fact.format(node=other, name="Bo"))
        )
        for node, other in names
    ]
    assert said[0] == said[1]
    assert [row["subject"] for row in said[0]] == ["Ann", "Bo"]


IRIS = st.sampled_from([EX.a, EX.b, EX.NewYork, URIRef("urn:x:c"), URIRef("http://example.org/d/")])
PREDICATES = st.sampled_from([EX.p, EX.partOf, RDFS.label, RDF.type, RDFS.comment])
BLANKS = st.sampled_from([BNode("x"), BNode("y")])
LITERALS = st.one_of(
    st.builds(Literal, st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=5)),
    st.builds(Literal, st.sampled_from(["p", "q"]), st.sampled_from(["en", "de", "en-gb"])),
    st.builds(Literal, st.integers(-99, 99)),
    st.just(Literal("2020-01-02", datatype=URIRef("http://www.w3.org/2001/XMLSchema#date"))),
)
FACTS = st.lists(st.tuples(IRIS | BLANKS, PREDICATES, IRIS | BLANKS | LITERALS), max_size=12)


def graph_of(facts: list[Any]) -> rdflib.Graph:
    graph = rdflib.Graph()
    for fact in facts:
        graph.add(fact)
    return graph


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FACTS.filter(bool), st.sampled_from(["questions", "facts"]))
def test_any_graph_gives_the_same_rows_however_it_is_written(tmp_path: Path, facts: list[Any], rows: str) -> None:
    said = [values_of(path, rows=rows) for path in in_all_formats(tmp_path, graph_of(facts)).values()]
    assert said[0] == said[1] == said[2]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([EX.a, EX.b]), st.sampled_from([EX.p, EX.q]), st.integers(0, 9)), min_size=1))
def test_questions_hold_what_rdflib_says_and_no_two_are_alike(tmp_path: Path, facts: list[Any]) -> None:
    graph = graph_of([(subject, predicate, Literal(value)) for subject, predicate, value in facts])
    wanted = {
        f"What is the {predicate[-1]} of {subject[-1]}?": ", ".join(sorted(map(str, graph.objects(subject, predicate))))
        for subject, predicate in sorted(graph.subject_predicates())
    }
    path = written(tmp_path, "facts.ttl", graph.serialize(format="turtle"))
    assert answers(path) == wanted
    assert len(rows_of(path)) == len(wanted)


# ---- nothing is lost in silence --------------------------------------------------------------------------------------


def test_a_value_that_is_not_of_its_datatype_is_malformed_and_what_leads_nowhere_is_counted(tmp_path: Path) -> None:
    graph = """@prefix ex: <http://example.org/ns#> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
    ex:a ex:deep [ ex:x [ ex:y 1 ] ] , 2 ; ex:size "abc"^^xsd:integer ; ex:empty [] . [] ex:z 3 ."""
    told: list[Remark] = []
    path = written(tmp_path, "a.ttl", graph)
    assert list(read([GraphSource(path=path)], told)) == [
        MalformedRow(f"{path}:1", "'size' of 'a' holds 'abc', which is no integer")
    ]
    assert [remark.message.partition(":")[0] for remark in told] == ["5 facts are left out"]  # deep twice, empty, y, z


def test_a_value_that_is_not_of_its_datatype_is_told_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = '<http://a/b> <http://a/c> "x"^^<http://www.w3.org/2001/XMLSchema#date> .\n'
    for name, text in {"a.nt": line, "a.ttl": line}.items():
        (row,) = rows_of(written(tmp_path, name, text))
        assert isinstance(row, MalformedRow)
    assert caplog.records == []


def test_what_a_graph_says_of_itself_makes_no_rows_and_is_counted(tmp_path: Path) -> None:
    graph = """@prefix ex: <http://example.org/ns#> . @prefix owl: <http://www.w3.org/2002/07/owl#> .
    ex:Dog a owl:Class ; owl:disjointWith ex:Cat . ex:rex a ex:Dog, owl:NamedIndividual ."""
    told: list[Remark] = []
    rows = list(read([GraphSource(path=written(tmp_path, "a.ttl", graph))], told))
    assert [row.values["completion"] for row in rows if isinstance(row, Row)] == ["Dog"]
    assert [remark.message for remark in told] == ["3 facts are left out: they say how the graph is written"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FACTS)
def test_every_fact_of_a_thing_is_told_or_counted(tmp_path: Path, facts: list[Any]) -> None:
    things = [fact for fact in facts if isinstance(fact[0], URIRef) and not isinstance(fact[2], BNode)]
    graph = graph_of([*things, (EX.a, EX.q, Literal(1))])
    told: list[Remark] = []
    rows = list(read([GraphSource(path=written(tmp_path, "a.ttl", graph.serialize(format="turtle")))], told))
    left = {remark.message.partition(": ")[2]: int(remark.message.split()[0]) for remark in told}
    assert all(isinstance(row, Row) for row in rows)
    pairs = sorted((row.values["subject"], row.values["predicate"]) for row in rows if isinstance(row, Row))
    wanted = {(str(subject), str(predicate)) for subject, predicate in graph.subject_predicates()}
    assert pairs == sorted(pair for pair in wanted if pair[1] != str(RDFS.label))
    assert left.get("they only name things", 0) == len(list(graph.triples((None, RDFS.label, None))))


# ---- N-Triples, line by line -----------------------------------------------------------------------------------------


def test_the_place_of_a_row_is_its_line_in_n_triples(tmp_path: Path) -> None:
    lines = [
        "# a comment",
        "",
        *(f'<http://a/{name}> <http://a/p> "{name}" .' for name in "cba"),
        '<http://a/c> <http://a/p> "d" .',
    ]
    path = written(tmp_path, "a.nt", "\n".join(lines))
    assert {row.where: row.values["completion"] for row in rows_of(path) if isinstance(row, Row)} == {
        f"{path}:5": "a",
        f"{path}:4": "b",
        f"{path}:3": "c, d",
    }
    assert sorted(row.where for row in rows_of(path, rows="facts")) == [f"{path}:{line}" for line in (3, 4, 5, 6)]


@pytest.mark.parametrize(
    "line",
    [
        b"<http://a/b> <http://a/c> .",
        b'<http://a/b> "c" <http://a/d> .',
        b'<http://a/b> <http://a/c> "d"',
        b'<http://a/b> <http://a/c> "\\uD83D" .',
        b"hello",
        b'<http://a/b> <http://a/c> "\xe2\x82" .',
    ],
)
def test_a_faulty_line_is_one_malformed_row(tmp_path: Path, line: bytes) -> None:
    good = '<http://a/b> <http://a/c> "é" .\n'.encode()
    path = written(tmp_path, "a.nt", good + line + b"\n" + good)
    first, second = rows_of(path)
    assert isinstance(first, MalformedRow)
    assert first.where == f"{path}:2"
    assert isinstance(second, Row)


def test_a_compressed_graph_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.nt.gz", gzip.compress(b'<http://a/b> <http://a/c> "d" .\n'))
    assert answers(path) == {"What is the c of b?": "d"}
    assert [row.where for row in read([path]) if isinstance(row, Row)] == [f"{path}:1"]  # by its name alone


# ---- files that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.ttl", "<http://a/b> <http://a/c> .", "a.ttl:1"),
        ("a.ttl", "@prefix ex: <http://a/> .\nex:a ex:b no:c .\n", "a.ttl:2"),
        ("a.ttl", "[" * 20_000, "a.ttl"),
        ("a.ttl", '<http://a/b> <http://a/c> "\\uD83D" .', "a.ttl"),
        ("a.jsonld", '{"@context": {},\n', "a.jsonld:"),
        ("a.jsonld", '{"@context": {"a": {"@id": 5}}, "a": 1}', "a.jsonld"),
        ("a.jsonld", '{"a": NaN}', "a.jsonld:1"),
        ("a.jsonld", "{}", "a.jsonld"),
        ("a.nt", "# nothing\n", "a.nt"),
        ("a.nt", "", "a.nt"),
        ("a.rdf", "<rdf/>", "a.rdf"),
    ],
)
def test_a_file_that_is_no_graph_is_refused_by_its_place(tmp_path: Path, name: str, text: str, where: str) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(DataError) as refused:
        rows = rows_of(path)
        assert not rows, rows
    assert str(refused.value).startswith(str(tmp_path / where))
    assert refused.value.cure


def test_a_graph_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data file"):
        rows_of(str(tmp_path / "gone.ttl"))


@pytest.mark.parametrize(
    "document",
    [
        {"@context": "https://schema.org", "name": "a"},
        {"@context": [{"a": "http://a/b"}, "other.jsonld"], "a": 1},
        {"@context": {"@import": "http://localhost:9/c"}, "a": 1},
        {"@context": {"a": {"@id": "http://a/b", "@context": "http://localhost:9/c"}}, "a": {"c": 1}},
        [{"@context": {"a": "http://a/b"}, "a": {"@context": "http://localhost:9/c", "d": 1}}],
    ],
)
def test_no_context_is_fetched(tmp_path: Path, document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*asked: Any) -> None:
        raise AssertionError(f"a connection to {asked}")

    monkeypatch.setattr(socket.socket, "connect", opened)
    with pytest.raises(DataError, match="@context is an address"):
        rows_of(written(tmp_path, "a.jsonld", json.dumps(document)))


def test_relative_addresses_do_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    said = [values_of(written(tmp_path, name, "<#a> <#size> 1 .")) for name in ("a.ttl", "deeper/b.ttl")]
    assert said[0] == said[1]
    assert said[0][0]["prompt"] == "What is the size of a?"


def test_without_the_extra_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdflib", None)
    with pytest.raises(RecipeError, match=r"pip install 'pegbox\[rdf\]'"):
        rows_of(written(tmp_path, "a.ttl", CITIES))
