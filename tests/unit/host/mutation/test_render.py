# SPDX-License-Identifier: GPL-2.0-only
"""Reports of a mutation run: mutants.json, mutants.md and mutants.html."""

import json
from pathlib import Path

from fixtures.host.mutation import render
from tests.unit.host.mutation.mutation_samples import KILLED, SURVIVED, make_mutant


def test_survivors_come_first(tmp_path: Path) -> None:
    results = [(make_mutant(tmp_path), KILLED), (make_mutant(tmp_path, "b-bug"), SURVIVED)]
    render.write(results, tmp_path / "report", "ab" * 32)
    written = json.loads((tmp_path / "report/mutants.json").read_text())
    assert [entry["name"] for entry in written["bugs"]] == ["b-bug", "a-bug"]
    html = (tmp_path / "report/mutants.html").read_text()
    assert "1 of 2" in html
    assert html.index("b-bug") < html.index("a-bug")
    table = (tmp_path / "report/mutants.md").read_text().splitlines()
    assert len({row.replace("\\|", "").count("|") for row in table}) == 1
