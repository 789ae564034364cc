# SPDX-License-Identifier: GPL-2.0-only
"""Plots: which files are drawn, their content, and reproducibility."""

from pathlib import Path

import pytest

from fixtures.host.bench import plots
from tests.unit.host.bench.bench_samples import make_bench_results, make_measurement

pytest.importorskip("matplotlib", reason="only the tox environments bench and unit have it")

_RUN = make_bench_results(
    [
        make_measurement("lookup", 1.0, 2.0, by="flow map"),
        make_measurement("lookup", 2.0, by="kfunc"),
        make_measurement("add", 900.0, tables=0),
        make_measurement("add", 874.0, tables=0, profile="unpatched"),
        make_measurement("dump at size", 3500.0, flows=1000),
        make_measurement("dump at size", 3100.0, flows=10000),
    ]
)


def test_each_kind_of_measurement_has_a_plot(tmp_path: Path) -> None:
    drawn = [path.name for path in plots.draw(_RUN, tmp_path)]
    assert drawn == ["lookup-counting.svg", "add.svg", "size.svg"]
    assert "unpatched" in (tmp_path / "add.svg").read_text()


def test_plots_are_reproducible(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        plots.draw(_RUN, folder)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
