# SPDX-License-Identifier: GPL-2.0-only
"""Sample mutants, results and source hashes."""

from dataclasses import replace
from pathlib import Path

from fixtures.host.model.mutation_results import MutantResult, MutantStatus
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.mutation.result_cache import SourceHashes

SOURCES = SourceHashes("common", {"selftests/lookup/t.py": "a", "selftests/lookup/u.py": "a"})
KILLED = MutantResult(
    "a-bug",
    MutantStatus.KILLED,
    test="selftests/lookup/t.py::t[a|b]",
    verdict="splat",
    ran=3,
    splat="BUG",
)
CONFIRMED = replace(KILLED, sound=True)
SURVIVED = MutantResult("b-bug", MutantStatus.SURVIVED, ran=400)


def make_mutant(folder: Path, name: str = "a-bug", survives: str = "") -> Mutant:
    """Write a patch file and return its mutant."""
    path = folder / f"{name}.patch"
    path.write_text(name)
    return Mutant(path, "wrong | so", "Text.", ("FM-4",), "own", 3, "base", survives)
