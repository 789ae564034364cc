# SPDX-License-Identifier: GPL-2.0-only
"""Merging the runs of several report folders."""

from pathlib import Path

from fixtures.host.report.report_writer import write_all
from fixtures.host.report.run_merge import merge
from tests.unit.host.report import run_samples


def test_merge_relocates_artefacts_and_drops_duplicates(tmp_path: Path) -> None:
    contract = run_samples.contract(tmp_path)
    test = run_samples.result(artefacts=("artefacts/x/a.pcap",))
    write_all([run_samples.run(test, profile="debug")], tmp_path / "one" / "report", contract)
    write_all([run_samples.run(test)], tmp_path / "two", contract)
    sources = [tmp_path / "one" / "report", tmp_path / "two", tmp_path / "two"]
    runs = merge(sources, tmp_path / "all")
    assert [run.info.profile for run in runs] == ["base", "debug"]
    assert [run.tests[0].artefacts[0] for run in runs] == [
        "../two/artefacts/x/a.pcap",
        "../one/report/artefacts/x/a.pcap",
    ]
    assert merge(list(reversed(sources)), tmp_path / "all") == runs


def test_merge_drops_copies_of_a_run(tmp_path: Path) -> None:
    run = run_samples.run(run_samples.result(artefacts=("artefacts/x/a.pcap",)))
    for name in ("here", "there"):
        write_all([run], tmp_path / name)
    (found,) = merge([tmp_path / "here", tmp_path / "there"], tmp_path / "all")
    assert found.tests[0].artefacts == ("../here/artefacts/x/a.pcap",)
