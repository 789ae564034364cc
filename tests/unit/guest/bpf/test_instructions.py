# SPDX-License-Identifier: GPL-2.0-only
"""BPF instructions in both byte orders; the bytes are those that clang writes."""

import pytest

from fixtures.guest.bpf import instructions
from fixtures.guest.bpf.instructions import Instruction

LOAD_MAP = Instruction(instructions.LOAD_IMM64, 1, instructions.PSEUDO_MAP_FD, 0, 0x12345678)
STORE = Instruction(instructions.STORE_IMM64, destination=10, offset=-8)


@pytest.mark.parametrize(
    ("byteorder", "expected"),
    [("little", "1811000078563412 7a0af8ff00000000"), ("big", "1811000012345678 7aa0fff800000000")],
)
def test_instructions_are_encoded_and_decoded(byteorder: str, expected: str) -> None:
    program = instructions.encode(LOAD_MAP, STORE, byteorder=byteorder)
    assert program == bytes.fromhex(expected)
    assert list(instructions.decode(program, byteorder)) == [LOAD_MAP, STORE]


def test_map_load_takes_two_slots() -> None:
    assert len(instructions.load_map(1, 3)) == 16


def test_program_ends_with_its_value() -> None:
    first, last = instructions.decode(instructions.return_value(2))
    assert (first.code, first.immediate) == (instructions.MOVE_IMM, 2)
    assert last.code == instructions.EXIT
