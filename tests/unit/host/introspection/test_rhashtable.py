# SPDX-License-Identifier: GPL-2.0-only
"""Walking rhashtables in fake memory."""

import struct
from collections.abc import Callable, Sequence

import pytest
from drgn import Architecture, Object, Platform, Program, Type, TypeMember

from fixtures.host.introspection.rhashtable import CorruptTable, walk_rhashtable

BASE = 0x10000
LOCKED = 1
END = 0x7FF | 1  # nulls marker at the end of a chain: any odd number
TABLE, OLD, NEW = BASE, BASE + 0x100, BASE + 0x200
NODES = [BASE + 0x1000 + 0x20 * number for number in range(8)]


class Memory:
    """Memory with the fields of the kernel's structures that a walk reads."""

    def __init__(self) -> None:
        self.data = bytearray(0x2000)
        self.prog = Program(Platform(Architecture.X86_64))
        self.prog.add_memory_segment(
            BASE,
            len(self.data),
            lambda _address, count, offset, _physical: bytes(self.data[offset : offset + count]),
        )
        self._types: dict[str, Type] = {}
        self.prog.register_type_finder("test", self._find, enable_index=0)
        number = self.prog.int_type("unsigned int", 4, False)
        word = self.prog.int_type("unsigned long", 8, False)
        self._struct("rhash_head", 8, next=(0, self._pointer("rhash_head")))
        self._struct(
            "bucket_table",
            16,
            size=(0, lambda: number),
            nest=(4, lambda: number),
            future_tbl=(8, self._pointer("bucket_table")),
            buckets=(16, lambda: self.prog.array_type(word)),
        )
        self._struct("rhashtable", 8, tbl=(0, self._pointer("bucket_table")))
        self.word(TABLE, OLD)

    def _find(self, _prog: object, _kinds: object, name: str, _file: object) -> Type | None:
        return self._types.get(name)

    def _pointer(self, name: str) -> Callable[[], Type]:
        return lambda: self.prog.pointer_type(self._types[name])

    def _struct(self, name: str, length: int, **members: tuple[int, Callable[[], Type]]) -> None:
        """Define a structure; each member has its offset in bytes and a function for its type."""
        self._types[name] = self.prog.struct_type(
            name,
            length,
            [
                TypeMember(lambda made=made: Object(self.prog, made()), member, 8 * offset)
                for member, (offset, made) in members.items()
            ],
        )

    def word(self, address: int, value: int) -> None:
        struct.pack_into("<Q", self.data, address - BASE, value)

    def buckets(self, at: int, heads: Sequence[int], *, nest: int = 0, future: int = 0) -> None:
        struct.pack_into(
            f"<IIQ{len(heads)}Q", self.data, at - BASE, len(heads), nest, future, *heads
        )

    def walk(self) -> list[int]:
        table = Object(self.prog, "struct rhashtable", address=TABLE)
        return [node.value_() for node, _ in walk_rhashtable(table)]


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_walk_of_empty_table_yields_nothing(memory: Memory) -> None:
    memory.buckets(OLD, [0, 0, LOCKED, 0])
    assert memory.walk() == []


def test_walk_follows_locked_and_unlocked_chains(memory: Memory) -> None:
    memory.buckets(OLD, [NODES[0] | LOCKED, 0, NODES[2], 0])
    memory.word(NODES[0], NODES[1])
    memory.word(NODES[1], END)
    memory.word(NODES[2], END)
    assert memory.walk() == NODES[:3]


def test_walk_yields_bucket_of_each_node(memory: Memory) -> None:
    memory.buckets(OLD, [NODES[0], 0, NODES[2]])
    memory.word(NODES[0], NODES[1])
    memory.word(NODES[1], END)
    memory.word(NODES[2], END)
    table = Object(memory.prog, "struct rhashtable", address=TABLE)
    assert [bucket for _, bucket in walk_rhashtable(table)] == [OLD + 16, OLD + 16, OLD + 32]


def test_node_moved_by_resize_is_yielded_once(memory: Memory) -> None:
    memory.buckets(OLD, [NODES[0], NODES[1]], future=NEW)
    memory.buckets(NEW, [NODES[1], 0, NODES[2], 0])
    for node in NODES[:3]:
        memory.word(node, END)
    assert memory.walk() == NODES[:3]


def test_looping_chain_raises(memory: Memory) -> None:
    memory.buckets(OLD, [NODES[0]])
    memory.word(NODES[0], NODES[1])
    memory.word(NODES[1], NODES[0])
    with pytest.raises(CorruptTable, match="loops"):
        memory.walk()


def test_nested_table_raises(memory: Memory) -> None:
    memory.buckets(OLD, [0], nest=9)
    with pytest.raises(CorruptTable, match="nested"):
        memory.walk()
