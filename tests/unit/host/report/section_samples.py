# SPDX-License-Identifier: GPL-2.0-only
"""Invented results of mutation testing, coverage and benchmarks, as their commands write them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fixtures.host.bench import report_section as bench_section
from fixtures.host.coverage import report_section as coverage_section
from fixtures.host.model.bench_results import Bench
from fixtures.host.model.coverage_results import Added, Coverage, Reason, State
from fixtures.host.model.mutation_results import Fate, Result, Seeded
from fixtures.host.mutation import report_section as mutation_section
from fixtures.host.mutation.json_format import seeded
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.report.extra_sections import ReportSection, Section, SectionContent
from fixtures.host.report_command.sections import SECTIONS
from tests.unit.host.bench.bench_samples import bench, figure

SERIES = "ab" * 32
"""The series of run_samples.info()."""
PLOT = b'<svg xmlns="http://www.w3.org/2000/svg" width="504" height="180"></svg>'


def mutant_with_result(name: str, fate: Fate, survives: str = "") -> tuple[Mutant, Result]:
    """Return a mutant and its result."""
    clauses = ("MM-1", "SN-2") if fate is Fate.KILLED else ("SN-2",)
    mutant = Mutant(
        Path(f"{name}.patch"), f"{name} <is> wrong", "Why.", clauses, "own", 3, "base", survives
    )
    result = Result(name, fate, ran=7, message="a & b")
    if fate is Fate.KILLED:
        test = "selftests/lookup/test_a.py::test_found[ipv4]"
        result = replace(result, test=test, verdict="splat")
    return mutant, result


def some_mutants(series: str = SERIES) -> Seeded:
    """Return two killed mutants, a survivor and an equivalent mutant."""
    return seeded(
        [
            mutant_with_result("caught", Fate.KILLED),
            mutant_with_result("excused", Fate.SURVIVED, "Both orders are right."),
            mutant_with_result("missed", Fate.SURVIVED),
            mutant_with_result("also-caught", Fate.KILLED),
        ],
        series,
    )


def some_lines(series: str = SERIES) -> Coverage:
    """Return four lines of code in two files; two of them ran."""
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


def some_measurements(series: str = SERIES) -> Bench:
    """Return measurements that meet one goal and miss another."""
    figures = [
        figure("lookup", 1000.0, 1002.0, 1004.0, by="flow map"),
        figure("lookup", 500.0, by="kfunc"),
        figure("lookup", 900.0, by="plain hash"),
    ]
    made = bench(figures)
    return Bench(**{**vars(made), "series": series})


def mutation(series: str = SERIES) -> SectionContent:
    """Return the content of the mutation section."""
    return mutation_section.content_of(some_mutants(series))


def coverage(series: str = SERIES) -> SectionContent:
    """Return the content of the coverage section."""
    return coverage_section.content_of(some_lines(series))


def benchmarks(series: str = SERIES) -> SectionContent:
    """Return the content of the benchmark section."""
    return bench_section.content_of(some_measurements(series), {"lookup.svg": PLOT})


def filled(*contents: SectionContent | None) -> tuple[Section, ...]:
    """Return the registered sections with contents, in their order."""
    pairs: Iterable[tuple[ReportSection, SectionContent | None]]
    pairs = zip(SECTIONS, contents, strict=True)
    return tuple(Section(each.anchor, each.title, each.command, it) for each, it in pairs)


ABSENT = filled(None, None, None)
"""All sections without results."""


def everything(series: str = SERIES) -> tuple[Section, ...]:
    """Return all sections with results."""
    return filled(mutation(series), coverage(series), benchmarks(series))


def write(sections: Iterable[Section], folder: Path) -> Path:
    """Write the files of the sections, as the commands do, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, content in (section.content.files if section.content else {}).items():
            (folder / name).write_bytes(content)
    return folder
