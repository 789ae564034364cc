# SPDX-License-Identifier: GPL-2.0-only
"""Race matrix: every pair of the contract's actors has a test or a reason, in docs/races.md too."""

from itertools import combinations_with_replacement
from pathlib import Path

from selftests.races.actors import (
    ACTORS,
    ALLOWED_OUTCOMES,
    ALLOWED_OUTCOMES_AGAINST,
    EXCLUDED_PAIRS,
    covered_pairs,
)

ROOT = Path(__file__).resolve().parents[3]


def _matrix() -> str:
    """Return the table that docs/races.md must contain."""
    names, tested = list(ACTORS), set(covered_pairs())
    lines = ["| | " + " | ".join(str(number) for number in range(1, len(names) + 1)) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for number, other in enumerate(names, start=1):
        cells = ["●" if (one, other) in tested else "○" for one in names[:number]]
        cells += [""] * (len(names) - number)
        lines.append(f"| {number} `{other}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_actor_pairs_are_tested_or_excluded_with_reason() -> None:
    """Every pair is either tested or excluded with a reason."""
    all_pairs = list(combinations_with_replacement(ACTORS, 2))
    assert sorted(covered_pairs() + list(EXCLUDED_PAIRS)) == sorted(all_pairs)
    assert all(EXCLUDED_PAIRS.values())


def test_outcome_tables_name_existing_actors_only() -> None:
    """The tables of outcomes and of excluded pairs name existing actors only."""
    named_actors = {
        *ALLOWED_OUTCOMES,
        *(name for pair in (*ALLOWED_OUTCOMES_AGAINST, *EXCLUDED_PAIRS) for name in pair),
    }
    assert named_actors <= set(ACTORS)


def test_races_document_contains_matrix() -> None:
    """docs/races.md contains the matrix that follows from the actors."""
    assert _matrix() in (ROOT / "docs/races.md").read_text(), f"docs/races.md lacks\n{_matrix()}"
