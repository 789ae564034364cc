# SPDX-License-Identifier: GPL-2.0-only
"""Seeded bugs, coverage and cost of the invented series, as their commands would write them."""

from dataclasses import replace
from pathlib import Path

from fixtures.host.coverage.classify import Added, Coverage, State
from fixtures.host.coverage.exclusions import Reason
from fixtures.host.model.bench_results import Bench
from fixtures.host.model.mutation_results import Fate, Result
from fixtures.host.mutation.json_format import Seeded, seeded
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.report.extra_sections import Besides
from tests.unit.host.bench.bench_samples import bench, figure

SERIES = "ab" * 32
"""The one of fake.info()."""
PLOT = b'<svg xmlns="http://www.w3.org/2000/svg" width="504" height="180"></svg>'


def tried(name: str, fate: Fate, survives: str = "") -> tuple[Mutant, Result]:
    """A bug and its fate."""
    clauses = ("MM-1", "SN-2") if fate is Fate.KILLED else ("SN-2",)
    mutant = Mutant(
        Path(f"{name}.patch"), f"{name} <is> wrong", "Why.", clauses, "own", 3, "base", survives
    )
    result = Result(name, fate, ran=7, message="a & b")
    if fate is Fate.KILLED:
        by = "selftests/lookup/test_a.py::test_found[ipv4]"
        result = replace(result, test=by, verdict="splat")
    return mutant, result


def some_bugs(series: str = SERIES) -> Seeded:
    """Two that are noticed, one that is not, and one that nothing can notice."""
    return seeded(
        [
            tried("caught", Fate.KILLED),
            tried("excused", Fate.SURVIVED, "Both orders are right."),
            tried("missed", Fate.SURVIVED),
            tried("also-caught", Fate.KILLED),
        ],
        series,
    )


def some_lines(series: str = SERIES) -> Coverage:
    """Four lines of code in two files, of which two run."""
    return Coverage(
        {
            "net/a.c": [
                Added(3, "int x;", State.NO_CODE),
                Added(4, "\tif (bad && a < b)", State.REACHED, 7, "make", (7, 0)),
                Added(5, "\t\treturn -ENOMEM;" + " /* so long */" * 30, State.UNREACHED, 0, "make"),
                Added(9, "\treturn 0;", State.REASONED, 0, "make", (), "never <called>"),
            ],
            "net/b.c": [Added(1, "\tgo();", State.REACHED, 1, "run", (1,))],
        },
        [Reason("net/a.c", "gone", ("x",), "no longer true")],
        series,
    )


def some_cost(series: str = SERIES) -> Bench:
    """One goal that is met and one that is not."""
    figures = [
        figure("lookup", 1000.0, 1002.0, 1004.0, by="flow map"),
        figure("lookup", 500.0, by="kfunc"),
        figure("lookup", 900.0, by="plain hash"),
    ]
    made = bench(figures)
    return Bench(**{**vars(made), "series": series})


def everything(series: str = SERIES) -> Besides:
    """All three."""
    return Besides(
        some_bugs(series), some_lines(series), some_cost(series), (("lookup.svg", PLOT),)
    )


def write(beside: Besides, folder: Path) -> Path:
    """Write the files as if the commands had, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in beside.files().items():
        (folder / name).write_bytes(content)
    return folder
