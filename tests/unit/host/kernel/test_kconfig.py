# SPDX-License-Identifier: GPL-2.0-only
"""Kernel configuration: it satisfies all fragments, or the symbol and fragment are named."""

from pathlib import Path

import pytest

from fixtures.host.kernel import kconfig
from fixtures.host.kernel.kconfig import Fragment
from fixtures.host.util.errors import UserError


class FakeMake:
    """A fake kconfig with a few symbols; drops every symbol that contains ``refuses``."""

    def __init__(self, folder: Path, refuses: str = "") -> None:
        self.config = folder / ".config"
        self.refuses = refuses
        self.calls: list[str] = []

    def __call__(self, target: str, /) -> None:
        self.calls.append(target)
        if target == "tinyconfig":
            self.config.write_text("CONFIG_LAZY=y\n# CONFIG_NET is not set\nCONFIG_TINY=y\n")
        elif self.refuses:
            lines = self.config.read_text().splitlines()
            accepted = [line for line in lines if self.refuses not in line]
            self.config.write_text("\n".join(accepted) + "\n")


def test_fragments_override_tinyconfig_in_order(tmp_path: Path) -> None:
    make = FakeMake(tmp_path)
    fragments = [
        Fragment("a", "CONFIG_NET=m\nCONFIG_TINY=n\n"),
        Fragment("b", "CONFIG_NET=y\nCONFIG_LAZY=y\n"),
    ]
    kconfig.configure(tmp_path, fragments, "state", make)
    assert kconfig.parse_symbols(make.config.read_text()) == {
        "CONFIG_NET": "y",
        "CONFIG_TINY": "n",
        "CONFIG_LAZY": "y",
    }


def test_fragment_symbol_is_moved_to_end_for_choices(
    tmp_path: Path,
) -> None:
    make = FakeMake(tmp_path)
    kconfig.configure(tmp_path, [Fragment("a", "CONFIG_LAZY=y\n")], "state", make)
    assert make.config.read_text().splitlines()[-1] == "CONFIG_LAZY=y"


def test_unsatisfied_symbols_are_named_with_fragment(tmp_path: Path) -> None:
    make = FakeMake(tmp_path, refuses="_X")
    fragments = [Fragment("a.config", "CONFIG_XA=y\n"), Fragment("b.config", "CONFIG_XB=m\n")]
    with pytest.raises(UserError) as caught:
        kconfig.configure(tmp_path, fragments, "state", make)
    assert "CONFIG_XA=y of a.config (it is n)" in str(caught.value)
    assert "CONFIG_XB=m of b.config (it is n)" in str(caught.value)
    assert not make.config.exists(), "tuxmake would build with it"


def test_unchanged_configuration_runs_no_make(tmp_path: Path) -> None:
    make = FakeMake(tmp_path)
    fragments = [Fragment("a", "CONFIG_NET=y\n")]
    kconfig.configure(tmp_path, fragments, "state", make)
    kconfig.configure(tmp_path, fragments, "state", make)
    assert make.calls == ["tinyconfig", "olddefconfig"]
    kconfig.configure(tmp_path, fragments, "another compiler", make)
    assert len(make.calls) == 4


def test_interrupted_configuration_leaves_no_config(tmp_path: Path) -> None:
    def interrupted(target: str, /) -> None:
        (tmp_path / ".config").write_text("CONFIG_HALF=y\n")
        if target == "olddefconfig":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kconfig.configure(tmp_path, [], "state", interrupted)
    assert not (tmp_path / ".config").exists()


@pytest.mark.parametrize(
    ("wanted", "result", "unsatisfied"),
    [
        ("CONFIG_A=y", "CONFIG_A=y", 0),
        ("CONFIG_A=y", "CONFIG_A=m", 1),
        ("CONFIG_A=n", "", 0),
        ("# CONFIG_A is not set", "CONFIG_A=y", 1),
        ('CONFIG_A="text"', 'CONFIG_A="text"', 0),
        ("CONFIG_A=17", "CONFIG_A=15", 1),
    ],
)
def test_symbol_needs_equal_value(wanted: str, result: str, unsatisfied: int) -> None:
    assert len(kconfig.unsatisfied_symbols([Fragment("f", wanted)], result)) == unsatisfied


def test_malformed_line_is_located(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_text("# good\nCONFIG_A=y\nCONFIG_B = y\n")
    with pytest.raises(UserError, match=r"a\.config, line 3"):
        kconfig.load_fragments(tmp_path, ["a.config"])


def test_initial_configuration_replaces_tinyconfig(tmp_path: Path) -> None:
    make = FakeMake(tmp_path)
    fragments = [Fragment("a", "CONFIG_NET=y\n")]
    kconfig.configure(tmp_path, fragments, "state", make, initial="CONFIG_NET=m\nCONFIG_B=m\n")
    found = kconfig.parse_symbols(make.config.read_text())
    assert found == {"CONFIG_NET": "y", "CONFIG_B": "m"}
    kconfig.configure(tmp_path, fragments, "state", make, initial="CONFIG_NET=m\nCONFIG_B=m\n")
    assert make.calls == ["olddefconfig"]
    kconfig.configure(tmp_path, fragments, "state", make, initial="CONFIG_NET=m\n")
    assert "CONFIG_B" not in make.config.read_text()


def test_modules_that_no_fragment_names_are_left_out() -> None:
    text = 'CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=y\nCONFIG_D="m"\n# CONFIG_E is not set\nCONFIG_F=m\n'
    kept = [Fragment("one", "CONFIG_A=y\nCONFIG_E=m\n"), Fragment("two", "CONFIG_F=n\n")]
    assert kconfig.parse_symbols(kconfig.without_other_modules(text, kept)) == {
        "CONFIG_A": "m",
        "CONFIG_B": "n",
        "CONFIG_C": "y",
        "CONFIG_D": '"m"',
        "CONFIG_E": "n",
        "CONFIG_F": "n",
    }
