# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that is built twice: what is compared, what is said, what is left."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel import cli, reproducibility
from fixtures.host.kernel.build_options import KernelOptions
from fixtures.host.util.progress import Quiet

Build = Callable[[Path], object]

ASKED = (vm_profile.load("base"), KernelOptions(), Quiet())


def fill(folder: Path) -> None:
    """What a build leaves, in short."""
    (folder / "modules/lib").mkdir(parents=True)
    (folder / "bzImage").write_bytes(b"image")
    (folder / "modules/lib/nf_flow_table.ko").write_bytes(b"module")
    for name in reproducibility.OF_THE_BUILD:
        (folder / name).write_text(str(folder))


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Build]:
    """What is done to the second build after it; nothing in a good one."""
    after: list[Build] = []

    def provide_kernel(*asked: object) -> SimpleNamespace:
        place = asked[3] if len(asked) > 3 else tmp_path / "cache"
        assert isinstance(place, Path)
        folder = place / "kernels/key"
        fill(folder)
        for change in after if len(asked) > 3 else ():
            change(folder)
        return SimpleNamespace(directory=folder)

    monkeypatch.setattr(reproducibility, "provide_kernel", provide_kernel)
    monkeypatch.setattr(reproducibility, "KEPT", tmp_path / "build/second")
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    return after


@pytest.mark.usefixtures("second")
def test_same_builds_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--twice"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "cache/kernels/key"),
        "built twice: 2 files, 0 MiB, all the same",
    ]
    assert list((tmp_path / "cache/second").iterdir()) == []
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda folder: (folder / "bzImage").write_bytes(b"imagf"), "bzImage"),
        (lambda folder: (folder / "bzImage").unlink(), "bzImage"),
        (lambda folder: (folder / "modules/new.ko").write_bytes(b""), "modules/new.ko"),
    ],
    ids=["one byte", "missing", "added"],
)
def test_a_difference_is_named_and_kept(
    tmp_path: Path,
    second: list[Build],
    change: Build,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    second.append(change)
    assert cli.main(["--twice"]) == 1
    kept = tmp_path / "build/second"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"differs: {name}",
        f"built twice: 1 of 2 files differ; the second kernel is in {kept}",
    ]
    assert (kept / "modules/lib/nf_flow_table.ko").is_file()
    assert list((tmp_path / "cache/second").iterdir()) == []


def test_a_second_difference_takes_the_place_of_the_first(
    tmp_path: Path, second: list[Build]
) -> None:
    (tmp_path / "build/second/old").mkdir(parents=True)
    second.append(lambda folder: (folder / "bzImage").unlink())
    assert reproducibility.compare_builds(*ASKED).different == ("bzImage",)
    assert not (tmp_path / "build/second/old").exists()


@pytest.mark.parametrize("option", ["--kernel-image", "--kernel-modules"])
def test_a_kernel_that_was_given_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--twice", option, "there"]) == 2
    assert "--twice: a kernel that was given" in capsys.readouterr().err
