# SPDX-License-Identifier: GPL-2.0-only
"""Invented results of mutation testing, coverage and benchmarks, as their commands write them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fixtures.host.bench import report_section as bench_section
from fixtures.host.coverage import report_section as coverage_section
from fixtures.host.model.bench_results import BenchResults
from fixtures.host.model.coverage_results import AddedLine, CoverageResults, Exclusion, LineState
from fixtures.host.model.mutation_results import MutantResult, MutantStatus, MutationResults
from fixtures.host.mutation import report_section as mutation_section
from fixtures.host.mutation.build_mutants_json import make_results
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.report.extra_sections import ReportSection, Section, SectionContent
from fixtures.host.report_command.section_registry import SECTIONS
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement

SERIES = "ab" * 32
"""The series of run_samples.info()."""
PLOT = b'<svg xmlns="http://www.w3.org/2000/svg" width="504" height="180"></svg>'


def mutant_with_result(
    name: str, fate: MutantStatus, survives: str = ""
) -> tuple[Mutant, MutantResult]:
    """Return a mutant and its result."""
    clauses = ("MM-1", "SN-2") if fate is MutantStatus.KILLED else ("SN-2",)
    mutant = Mutant(
        Path(f"{name}.patch"), f"{name} <is> wrong", "Why.", clauses, "own", 3, "base", survives
    )
    result = MutantResult(name, fate, ran=7, message="a & b")
    if fate is MutantStatus.KILLED:
        test = "selftests/lookup/test_a.py::test_found[ipv4]"
        result = replace(result, test=test, verdict="splat")
    return mutant, result


def some_mutants(series: str = SERIES) -> MutationResults:
    """Return two killed mutants, a survivor and an equivalent mutant."""
    return make_results(
        [
            mutant_with_result("caught", MutantStatus.KILLED),
            mutant_with_result("excused", MutantStatus.SURVIVED, "Both orders are right."),
            mutant_with_result("missed", MutantStatus.SURVIVED),
            mutant_with_result("also-caught", MutantStatus.KILLED),
        ],
        series,
    )


def some_lines(series: str = SERIES) -> CoverageResults:
    """Return four lines of code in two files; two of them ran."""
    return CoverageResults(
        {
            "net/a.c": [
                AddedLine(3, "int x;", LineState.NO_CODE),
                AddedLine(4, "\tif (bad && a < b)", LineState.REACHED, 7, "make", (7, 0)),
                AddedLine(
                    5, "\t\treturn -ENOMEM;" + " /* so long */" * 30, LineState.UNREACHED, 0, "make"
                ),
                AddedLine(9, "\treturn 0;", LineState.EXCLUDED, 0, "make", (), "never <called>"),
            ],
            "net/b.c": [AddedLine(1, "\tgo();", LineState.REACHED, 1, "run", (1,))],
        },
        [Exclusion("net/a.c", "gone", ("x",), "no longer true")],
        series,
    )


def some_measurements(series: str = SERIES) -> BenchResults:
    """Return measurements that meet one goal and miss another."""
    figures = [
        make_measurement("lookup", 1000.0, 1002.0, 1004.0, by="flow map"),
        make_measurement("lookup", 500.0, by="kfunc"),
        make_measurement("lookup", 1200.0, by="plain hash"),
    ]
    made = make_bench_results(figures)
    return BenchResults(**{**vars(made), "series": series})


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
