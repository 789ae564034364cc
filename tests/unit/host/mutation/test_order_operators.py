# SPDX-License-Identifier: GPL-2.0-only
"""Mutation operators that move a statement out of a lock or behind a publication."""

import pytest

from fixtures.host.mutation.operators import changes

FRAME = "static int f(struct x *a)\n{\n%s\treturn 0;\n}\n"


def moved(body: list[str], *operators: str) -> list[list[str]]:
    """Return the lines of the body after each change that one of some operators makes of it."""
    source = (FRAME % "".join(f"\t{line}\n" for line in body)).encode()
    lines = range(3, 3 + len(body))
    return [
        [line.strip() for line in change.apply(source).decode().splitlines()[2:-2]]
        for change in changes(source, lines)
        if change.operator in operators
    ]


@pytest.mark.parametrize(
    ("lock", "unlock"),
    [
        ("spin_lock_bh(&a->lock);", "spin_unlock_bh(&a->lock);"),
        ("mutex_lock(&m);", "mutex_unlock(&m);"),
        ("rcu_read_lock();", "rcu_read_unlock();"),
    ],
)
def test_lock_is_taken_later_and_dropped_earlier(lock: str, unlock: str) -> None:
    body = [lock, "a->b = 1;", "a->c = 2;", unlock]
    assert moved(body, "lock-later") == [["a->b = 1;", lock, "a->c = 2;", unlock]]
    assert moved(body, "unlock-earlier") == [[lock, "a->b = 1;", unlock, "a->c = 2;"]]


@pytest.mark.parametrize(
    "statement", ["goto out;", "if (a) return 1;", "mutex_lock(&m);", "for_each(a, b)"]
)
def test_jump_or_other_lock_stays_under_lock(statement: str) -> None:
    body = ["spin_lock(&a->lock);", statement, "g(a);", statement, "spin_unlock(&a->lock);"]
    swapped = moved(body, "lock-later", "unlock-earlier")
    assert ["spin_lock(&a->lock);"] not in [lines[1:2] for lines in swapped]


@pytest.mark.parametrize(
    "publication",
    [
        "WRITE_ONCE(a->seen, true);",
        "rcu_assign_pointer(global, a);",
        "list_add_tail(&a->list, &all);",
        "complete_all(&a->done);",
        "if (rhashtable_insert_fast(&all, &a->node)) goto out;",
    ],
)
def test_statement_is_moved_behind_publication(publication: str) -> None:
    body = ["a->b = 1;", publication, "a->c = 2;"]
    assert moved(body, "late") == [[publication, "a->b = 1;", "a->c = 2;"]]


def test_statement_without_publication_is_not_moved() -> None:
    assert moved(["a->b = 1;", "g(a);", "list_del(&a->list);"], "late") == []


def test_comment_between_stays_where_it_is() -> None:
    body = ["a->b = 1;", "/* Readers see it now. */", "WRITE_ONCE(a->seen, true);"]
    assert moved(body, "late") == [[body[2], body[1], body[0]]]
