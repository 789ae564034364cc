# SPDX-License-Identifier: GPL-2.0-only
"""Clauses and sentences parsed from a contract."""

import pytest

from fixtures.host.model.contract_clauses import (
    Sentence,
    enclosing,
    id_ranges,
    parse,
    sort_key,
    with_unknown,
)
from fixtures.host.util.paths import CONTRACT
from tests.unit.host.report import run_samples

WHOLE = parse(run_samples.CONTRACT)
NUMBERED = parse(run_samples.NUMBERED_CONTRACT)


def test_clause_without_numbers_is_one_sentence() -> None:
    assert [(sentence.id, sentence.group) for sentence in WHOLE] == [
        ("MM-1", "modular map types"),
        ("MM-2", "modular map types"),
        ("SN-1", "snoop"),
        ("SN-2", "snoop"),
    ]
    assert WHOLE[1].text == "Refused: a type out of range and a slot that is taken."
    assert {sentence.title for sentence in WHOLE} == {""}


def test_numbered_sentences_are_read_with_title_and_notes() -> None:
    assert list(NUMBERED) == [
        Sentence("FM-1.1", "the map", "Creation", "A first claim over two lines."),
        Sentence("FM-1.2", "the map", "Creation", "A second claim."),
        Sentence("FM-2.1", "the map", "Cost", "Is low.", "A reason. Open: not measured yet."),
        Sentence("FM-2.2", "the map", "Cost", "Is bounded. Proved by: a document.",
                 "A reason. Open: not measured yet."),
        Sentence("FM-3", "the map", "", "One sentence."),
    ]  # fmt: skip


def test_exemption_is_of_the_sentence_or_of_its_clause() -> None:
    reasons = [sentence.exemption for sentence in NUMBERED]
    assert reasons == ["", "", "Open: not measured yet.", "Proved by: a document.", ""]
    assert [sentence.proved_by_other_means for sentence in NUMBERED].count(True) == 1


def test_sentences_named_by_tests_only_come_last() -> None:
    names = ["FM-1.2", "FM-1.10", "FM-1.9", "V0-10", "V0-2"]
    ids = [sentence.id for sentence in with_unknown(NUMBERED, names)]
    assert ids[len(NUMBERED) :] == ["FM-1.9", "FM-1.10", "V0-2", "V0-10"]


def test_sentence_is_in_its_clause_and_group() -> None:
    assert enclosing("SN-6.2") == {"SN-6.2", "SN-6", "SN"}
    assert enclosing("V0-3") == {"V0-3", "V0"}
    assert sort_key("SN-6.2") == ("SN", 6, 2)
    assert sort_key("odd") == ("odd", 0, 0)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["V0-1", "MM-1", "MM-2", "MM-3", "MM-10", "FM-9", "FM-10", "odd", "<b>-x"],
         "V0-1, MM-1..3, MM-10, FM-9..10, odd, <b>-x"),
        (["SN-6.1", "SN-6.2", "SN-6.4", "SN-7.1"], "SN-6.1..2, SN-6.4, SN-7.1"),
        (["SN-1.1", "SN-1.2", "SN-2.1", "SN-3.1"], "SN-1..2, SN-3.1"),
        ([], ""),
    ],
    ids=["clauses", "sentences", "whole-clauses", "none"],
)  # fmt: skip
def test_consecutive_ids_become_ranges(names: list[str], text: str) -> None:
    known = [*names, "SN-6.3", "SN-7.2", "SN-3.2"]
    assert id_ranges(names, known) == text


def test_contract_numbers_its_sentences_in_order() -> None:
    sentences = parse(CONTRACT.read_text(encoding="utf-8"))
    clauses: dict[str, list[str]] = {}
    for sentence in sentences:
        assert sentence.text
        if sentence.title:
            clauses.setdefault(sentence.clause, []).append(sentence.id)
    assert len(clauses) > 30
    for clause, found in clauses.items():
        assert found == [f"{clause}.{number}" for number in range(1, len(found) + 1)]
