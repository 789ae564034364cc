# SPDX-License-Identifier: GPL-2.0-only
"""``--affected`` in real pytest runs: order and selection, with and without workers."""

from collections.abc import Callable

import pytest

from fixtures.host.pytest_plugin import affected_mode
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from tests.unit.host.pytest_plugin.harness_fakes import NODEIDS, PLUGINS, Harness

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, harness: Harness) -> Run:
    """Function that runs pytest in this process."""
    assert harness.events == []
    return lambda *args: pytester.runpytest_inprocess(
        *PLUGINS, *args, "selftests", no_reraise_ctrlc=True
    )


@pytest.mark.parametrize("tests", [NODEIDS[::-1], NODEIDS[1:]], ids=["other-order", "only-one"])
def test_affected_tests_run_in_their_order(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch, tests: tuple[str, ...]
) -> None:
    order: list[str] = []
    harness.before_test = lambda item: order.append(item.nodeid)
    monkeypatch.setattr(affected_mode, "select", lambda *_: list(tests))
    run("--affected")
    assert order == list(tests)


def test_workers_run_affected_tests_only(
    harness: Harness, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(f"""
        from pathlib import Path
        import pytest
        from fixtures.host.pytest_plugin import affected_mode
        from tests.unit.host.pytest_plugin.harness_fakes import install_fakes
        harness = install_fakes(Path(__file__).parent, pytest.MonkeyPatch())
        affected_mode.select = lambda *_: {[*NODEIDS[::-1]]!r}
    """)
    (pytester.path / "selftests/test_other.py").write_text("def test_other(): pass\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    args = ("-n", "2", "--dist", "worksteal", "--affected", "selftests")
    result = pytester.runpytest_subprocess(*PLUGINS, *args)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 workers [[]2 items]"])
    assert len(harness.summary()["tests"]) == 2


def test_unaffected_run_ends_in_one_line(
    harness: Harness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def select(*_: object) -> list[str]:
        raise UserError("--affected: no test is affected")

    monkeypatch.setattr(affected_mode, "select", select)
    result = run("--affected")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["error: --affected: no test is affected"])
    assert harness.events == ["run directory made", "run directory removed"]


def test_context_passes_affected_tests_to_workers(harness: Harness) -> None:
    for affected in (None, ("b", "a")):
        harness.context = RunContext(**{**vars(harness.context), "affected": affected})
        assert RunContext.from_json(harness.context.to_json()).affected == affected
