# SPDX-License-Identifier: GPL-2.0-only
"""What an archive says of replaying its seeds, and that no recorded input can be changed unseen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.host.evidence import evidence_archive
from fixtures.host.evidence.cli import main
from fixtures.host.evidence.replay import obstacles, replay_lines
from fixtures.host.evidence.verify import DamagedArchive, verify
from fixtures.host.model.results import Run
from tests.unit.host.evidence import evidence_samples
from tests.unit.host.report import run_samples

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INPUTS: dict[str, Any] = {
    "suite": COMMIT,
    "delivered": {"root image": "a" * 64, "tests": "b" * 64, "kernel modules": "c" * 64},
    "packages": {"hypothesis": "6.1", "pyroute2": "0.9", "pytest": "8.3", "scapy": "2.6"},
    "tools": {"clang": "clang <14>", "gcc": "gcc 12"},
}
Info = dict[str, Any]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of a run that records all inputs."""
    report = evidence_samples.report(tmp_path / "full", **INPUTS)
    path = tmp_path / "full.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(path)]) == 0
    return path


def _repack(archive: Path, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Change one file of an archive; all checksums are computed again."""
    files = evidence_samples.files(archive)
    del files[evidence_archive.CHECKSUMS]
    files[name] = edit(files[name])
    archive.write_bytes(evidence_archive.pack(files))


def _edit_info(archive: Path, edit: Callable[[Info], None]) -> None:
    def change(content: bytes) -> bytes:
        values = json.loads(content)
        infos = [run["info"] for run in values.get("runs", [values])]
        for info in infos:
            edit(info)
        return json.dumps(values).encode()

    _repack(archive, "report/summary.json", change)


def test_complete_evidence_says_how_to_replay(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(archive)]) == 0
    assert f"replay of base: check out {COMMIT}, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda i: i.update(suite="f" * 40), "suite is not what report.html shows"),
        (lambda i: i.update(suite=f"{COMMIT}-dirty"), "suite is not what"),
        (lambda i: i.update(suite=""), "suite is not what"),
        (lambda i: i.update(suite="main"), "suite 'main' is no commit"),
        (lambda i: i["delivered"].update(tests="d" * 64), "sha256 of what the guest got is not"),
        (lambda i: i["delivered"].update({"root image": "d" * 64}), "sha256 of what the guest got"),
        (lambda i: i["delivered"].update({"kernel modules": "d" * 64}), "sha256 of what the guest"),
        (lambda i: i["delivered"].pop("tests"), "sha256 of what the guest got"),
        (lambda i: i["delivered"].update(more="d" * 64), "sha256 of what the guest got"),
        (lambda i: i["delivered"].update(tests="b" * 63), "delivered: 'tests' has no sha256"),
        (lambda i: i["packages"].update(scapy="2.5"), "Python packages is not what"),
        (lambda i: i["packages"].pop("scapy"), "Python packages is not what"),
        (lambda i: i["packages"].update(other="1"), "Python packages is not what"),
        (lambda i: i["packages"].update(scapy=""), "packages: a name or a version is empty"),
        (lambda i: i["tools"].update(clang="clang <15>"), "compilers of the tests is not what"),
        (lambda i: i.update(qemu_version="8.0"), "QEMU is not what"),
        (lambda i: i.update(python="3.12.0"), "Python is not what"),
        (lambda i: i["kernel"]["series"].update(sha256="0" * 64), "ledger.json: a run is missing"),
        (lambda i: i["kernel"].update(key="other1"), "ledger.json: a run is missing"),
    ],
)  # fmt: skip
def test_changed_input_is_named(archive: Path, edit: Callable[[Info], None], message: str) -> None:
    """Even if all checksums match the changed summary."""
    _edit_info(archive, edit)
    with pytest.raises(DamagedArchive, match=r"full\.tar\.zst: report/") as error:
        verify(archive)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [COMMIT, f"tests {'b' * 64}", "scapy 2.6"])
def test_changed_row_of_the_page_is_detected(archive: Path, value: str) -> None:
    def change(content: bytes) -> bytes:
        assert content.count(value.encode()) >= 1
        return content.replace(value.encode(), value[::-1].encode())

    _repack(archive, "report/report.html", change)
    with pytest.raises(DamagedArchive, match=r"is not what report\.html shows"):
        verify(archive)


@pytest.mark.parametrize("name", ["suite", "delivered", "packages", "tools"])
def test_input_of_a_wrong_type_is_damage(archive: Path, name: str) -> None:
    _edit_info(archive, lambda info: info.update({name: 7}))
    with pytest.raises(DamagedArchive, match="not a summary that this version can read"):
        verify(archive)


def _run(**more: Any) -> Run:
    tests = more.pop("tests", (run_samples.result(seed=7),))
    return run_samples.run(*tests, **{**INPUTS, "kernel": evidence_samples.KERNEL, **more})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"suite": ""}, "the suite's commit is not recorded"),
        ({"suite": f"{COMMIT}-dirty"}, "the suite had uncommitted changes"),
        ({"delivered": {}}, "not recorded: root image, tests, kernel modules"),
        ({"packages": {"pytest": "8"}}, "not recorded: hypothesis, pyroute2, scapy"),
        ({"qemu_version": ""}, "not recorded: QEMU"),
        ({"kernel": {}}, "the kernel's sources are not recorded"),
        ({"kernel": {"source": {"kind": "image"}}}, "the kernel was built elsewhere: only its"),
        (
            {"kernel": {"source": {"kind": "tree", "dirty": True}}},
            "the kernel tree had uncommitted",
        ),
        (
            {"kernel": {"source": {"kind": "tree", "dirty": False, "commit": None}}},
            "the kernel tree has no git",
        ),
        ({"tests": (run_samples.result(seed=None),)}, "1 of 1 tests have no seed"),
    ],
)
def test_what_is_missing_for_a_replay_is_named(changed: dict[str, Any], reason: str) -> None:
    assert obstacles(_run()) == []
    (found,) = obstacles(_run(**changed))
    assert found.startswith(reason)
    (line,) = replay_lines([_run(**changed)])
    assert line.startswith(f"no replay of base: {reason}")
