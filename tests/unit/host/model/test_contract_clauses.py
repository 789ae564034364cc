# SPDX-License-Identifier: GPL-2.0-only
"""Clauses parsed from the contract."""

from fixtures.host.model.contract_clauses import parse, with_unknown
from tests.unit.host.report import run_samples

CLAUSES = parse(run_samples.CONTRACT)


def test_clauses_are_read_from_the_contract() -> None:
    assert [(clause.id, clause.group) for clause in CLAUSES] == [
        ("MM-1", "modular map types"),
        ("MM-2", "modular map types"),
        ("SN-1", "snoop"),
        ("SN-2", "snoop"),
    ]
    assert CLAUSES[1].text == "Refused: a type out of range and a slot that is taken."


def test_clauses_named_by_tests_only_come_last() -> None:
    ids = [clause.id for clause in with_unknown(CLAUSES, ["SN-1", "V0-10", "V0-2"])]
    assert ids[-2:] == ["V0-2", "V0-10"]
