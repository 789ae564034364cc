# SPDX-License-Identifier: GPL-2.0-only
"""Every pair of the contract's actors has a test or a reason, and the document says which."""

from itertools import combinations_with_replacement
from pathlib import Path

from selftests.races.actors import ACTORS, AGAINST, ANSWERS, ELSEWHERE, pairs

ROOT = Path(__file__).resolve().parents[3]


def _matrix() -> str:
    """The table of docs/races.md."""
    names, tested = list(ACTORS), set(pairs())
    lines = ["| | " + " | ".join(str(number) for number in range(1, len(names) + 1)) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for number, other in enumerate(names, start=1):
        cells = ["●" if (one, other) in tested else "○" for one in names[:number]]
        cells += [""] * (len(names) - number)
        lines.append(f"| {number} `{other}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_every_pair_has_a_test_or_a_reason() -> None:
    every = list(combinations_with_replacement(ACTORS, 2))
    assert sorted(pairs() + list(ELSEWHERE)) == sorted(every)
    assert all(ELSEWHERE.values())


def test_answers_are_of_actors_that_there_are() -> None:
    named = {*ANSWERS, *(name for pair in (*AGAINST, *ELSEWHERE) for name in pair)}
    assert named <= set(ACTORS)


def test_document_has_the_matrix() -> None:
    assert _matrix() in (ROOT / "docs/races.md").read_text(), f"docs/races.md lacks\n{_matrix()}"
