# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of seeded bugs, what is told of them, and when all is well."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.host.model.mutation_results import BOOT, Fate, Result
from fixtures.host.mutation import render
from fixtures.host.mutation.cli import is_well, line, main
from fixtures.host.mutation.json_format import seeded
from fixtures.host.mutation.mutant import Mutant
from fixtures.host.mutation.result_cache import Results, Sources, sources
from fixtures.host.mutation.scheduler import Court
from fixtures.host.util.process_group import Processes


def mutant(folder: Path, name: str = "a-bug", survives: str = "") -> Mutant:
    path = folder / f"{name}.patch"
    path.write_text(name)
    return Mutant(path, "wrong | so", "Text.", ("FM-4",), "own", 3, "base", survives)


STATE = Sources("the rest", {"selftests/lookup/t.py": "a", "selftests/lookup/u.py": "a"})
KILLED = Result(
    "a-bug", Fate.KILLED, test="selftests/lookup/t.py::t[a|b]", verdict="splat", ran=3, splat="BUG"
)
SOUND = replace(KILLED, sound=True)
SURVIVED = Result("b-bug", Fate.SURVIVED, ran=400)


def test_fate_is_found_again_under_the_same_tests(tmp_path: Path) -> None:
    bug = mutant(tmp_path)
    Results(tmp_path / "kept", STATE).keep(bug, KILLED)
    assert Results(tmp_path / "kept", STATE).find(bug) == KILLED
    other = Sources("another profile", STATE.tests)
    assert Results(tmp_path / "kept", other).find(bug) is None


@pytest.mark.parametrize(
    ("fate", "test", "changed", "found"),
    [
        (Fate.KILLED, "selftests/lookup/t.py::t", "selftests/lookup/t.py", False),
        (Fate.KILLED, "selftests/lookup/t.py::t", "selftests/lookup/u.py", True),
        (Fate.KILLED, "selftests/lookup/t.py::t", "selftests/new/v.py", True),
        (Fate.KILLED, BOOT, "selftests/lookup/t.py", True),
        (Fate.SURVIVED, "", "selftests/lookup/u.py", False),
        (Fate.SURVIVED, "", "selftests/new/v.py", False),
    ],
)
def test_fate_rests_on_the_test_that_failed_or_on_all(
    tmp_path: Path, fate: Fate, test: str, changed: str, found: bool
) -> None:
    bug, result = mutant(tmp_path), Result("a-bug", fate, test=test)
    Results(tmp_path / "kept", STATE).keep(bug, result)
    later = Sources(STATE.common, {**STATE.tests, changed: "b"})
    assert Results(tmp_path / "kept", later).find(bug) == (result if found else None)


def test_files_of_tests_are_those_that_pytest_collects() -> None:
    found = sources("a hash")
    assert "selftests/lookup/test_hit.py" in found.tests
    assert "selftests/races/interleavings.py" not in found.tests
    assert found.common != sources("of others").common


def test_all_that_is_kept_can_be_read_whatever_the_tests_were(tmp_path: Path) -> None:
    Results(tmp_path / "kept", STATE).keep(mutant(tmp_path), KILLED)
    other = Results(tmp_path / "kept", Sources("other tests", {}))
    other.keep(mutant(tmp_path, "b-bug"), SURVIVED)
    (tmp_path / "kept/broken.json").write_text("{")
    assert sorted(result.name for result in other.every()) == ["a-bug", "b-bug"]


def test_changed_patch_is_tried_again(tmp_path: Path) -> None:
    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    kept.keep(bug, KILLED)
    bug.path.write_text("changed")
    assert kept.find(bug) is None


@pytest.mark.parametrize("fate", [Fate.UNBUILT, Fate.UNRUN])
def test_what_was_not_run_is_not_kept(tmp_path: Path, fate: Fate) -> None:
    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    kept.keep(bug, Result("a-bug", fate))
    assert kept.find(bug) is None


def test_survivor_is_well_with_a_reason_only(tmp_path: Path) -> None:
    assert is_well(mutant(tmp_path), KILLED)
    assert not is_well(mutant(tmp_path), SURVIVED)
    assert is_well(mutant(tmp_path, survives="Equal."), SURVIVED)
    for fate in (Fate.UNBUILT, Fate.UNRUN):
        assert not is_well(mutant(tmp_path, survives="Equal."), Result("a-bug", fate))
    assert line(mutant(tmp_path), SURVIVED).startswith("NOT OK survived")


def test_what_a_program_has_made_need_not_compile(tmp_path: Path) -> None:
    unbuilt = Result("a-bug", Fate.UNBUILT, message="x.c:7: error: expected expression")
    made = replace(mutant(tmp_path), kind="mechanical swap")
    assert is_well(made, unbuilt)
    told = seeded([(made, unbuilt), (mutant(tmp_path), KILLED)], "ab" * 32)
    assert told.well
    assert told.headline.endswith("1 did not compile")
    assert not seeded([(mutant(tmp_path), unbuilt)], "ab" * 32).well


def test_survivors_come_first_on_the_page(tmp_path: Path) -> None:
    bugs = [(mutant(tmp_path), KILLED), (mutant(tmp_path, "b-bug"), SURVIVED)]
    render.write(bugs, tmp_path / "report", "ab" * 32)
    told = json.loads((tmp_path / "report/mutants.json").read_text())
    assert [entry["name"] for entry in told["bugs"]] == ["b-bug", "a-bug"]
    html = (tmp_path / "report/mutants.html").read_text()
    assert "1 of 2" in html
    assert html.index("b-bug") < html.index("a-bug")
    table = (tmp_path / "report/mutants.md").read_text().splitlines()
    assert len({row.replace("\\|", "").count("|") for row in table}) == 1


def test_known_fates_are_not_tried_again(tmp_path: Path) -> None:
    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    kept.keep(bug, SOUND)
    assert list(Court(kept, tmp_path / "report", 1).tried([bug])) == [(bug, SOUND)]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """All bugs are noticed; what is looked at on the right kernel passes, and is noted here."""
    asked: list[list[str]] = []

    def passing(_profile: str, tests: list[str], *_: object) -> set[str]:
        asked.append(tests)
        return set(tests)

    def attempt(bug: Mutant, *_: object) -> Result:
        return replace(KILLED, name=bug.name, test=f"t[{bug.name}]")

    monkeypatch.setattr("fixtures.host.mutation.mutant_run.passing", passing)
    monkeypatch.setattr("fixtures.host.mutation.mutant_run.attempt", attempt)
    return asked


@pytest.mark.parametrize("jobs", [1, 3])
def test_right_kernel_is_asked_about_many_tests_at_once(
    tmp_path: Path, looks: list[list[str]], jobs: int
) -> None:
    bugs = [mutant(tmp_path, f"bug-{number}") for number in range(20)]
    kept = Results(tmp_path / "kept", STATE)
    judged = list(Court(kept, tmp_path / "report", jobs).tried(bugs))
    assert sorted(bug.name for bug, _ in judged) == sorted(bug.name for bug in bugs)
    assert all(result.fate is Fate.KILLED and result.sound for _, result in judged)
    assert len(looks) == 2
    asked = [test for look in looks for test in look]
    assert sorted(asked) == sorted(f"t[{bug.name}]" for bug in bugs)


def test_what_is_noticed_is_told_before_it_is_confirmed(
    tmp_path: Path, looks: list[list[str]]
) -> None:
    told = []

    def noticed(bug: Mutant, result: Result) -> None:
        told.append(line(bug, result))
        assert not looks

    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    ((_, result),) = Court(kept, tmp_path / "report", 1, noticed=noticed).tried([bug])
    assert [text.split()[:2] for text in told] == [["noticed", "a-bug:"]]
    assert line(bug, result).split()[:2] == ["killed", "a-bug:"]


def test_a_killer_is_asked_about_once(tmp_path: Path, looks: list[list[str]]) -> None:
    bug = mutant(tmp_path)
    court = Court(Results(tmp_path / "kept", STATE), tmp_path / "report", 1, again=True)
    assert list(court.tried([bug])) == list(court.tried([bug]))
    assert looks == [["t[a-bug]"]]


def test_what_was_not_confirmed_is_confirmed_by_the_next_run(
    tmp_path: Path, looks: list[list[str]]
) -> None:
    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    kept.keep(bug, KILLED)
    assert list(Court(kept, tmp_path / "report", 1).tried([bug])) == [(bug, SOUND)]
    assert kept.find(bug) == SOUND
    assert looks == [[KILLED.test]]


def test_killer_that_fails_on_the_right_kernel_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.host.mutation.mutant_run.attempt", lambda *_: KILLED)
    monkeypatch.setattr("fixtures.host.mutation.mutant_run.passing", lambda *_: set())
    bug = mutant(tmp_path)
    kept = Results(tmp_path / "kept", STATE)
    ((_, result),) = Court(kept, tmp_path / "report", 1).tried([bug])
    assert result.fate is Fate.UNRUN
    assert "does not pass on the right kernel" in result.message
    assert kept.find(bug) is None


def test_stopped_processes_run_nothing_more(tmp_path: Path) -> None:
    processes = Processes()
    assert processes.run(["echo", "yes"], tmp_path).stdout == "yes\n"
    processes.stop()
    with pytest.raises(InterruptedError):
        processes.run(["echo", "no"], tmp_path)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--mechanical", "0"], "--mechanical 0"),
        (["--mechanical", "9-2"], "--mechanical 9-2"),
        (["--mechanical", "few"], "--mechanical few"),
        (["--folder", "nowhere"], "no patches"),
        (["--only", "nothing-like-it"], "--only nothing-like-it"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1
