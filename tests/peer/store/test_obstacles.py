"""Why items could not be placed, for processes that only report: just what was found last, and written only where it changed."""

import sqlite3

from peer.store.obstacles import obstacle, put_obstacles
from peer.store.schema import SCHEMA
from protocol.ids import NodeId

ONE, TWO = NodeId(bytes(15) + b"1"), NodeId(bytes(15) + b"2")


def test_just_what_was_found_last_is_known():
    with sqlite3.connect(":memory:") as db:
        db.executescript(SCHEMA)
        put_obstacles(db, 1, {ONE: "name", TWO: "disk_full"})
        put_obstacles(db, 2, {ONE: "locked"})
        assert [obstacle(db, 1, id) for id in (ONE, TWO)] == ["name", "disk_full"]
        put_obstacles(db, 1, {TWO: "name"})
        assert [obstacle(db, 1, id) for id in (ONE, TWO)] == ["", "name"]
        assert obstacle(db, 2, ONE) == "locked"


def test_what_is_known_already_is_not_written_again():
    with sqlite3.connect(":memory:") as db:
        db.executescript(SCHEMA)
        put_obstacles(db, 1, {ONE: "name"})
        before = db.total_changes
        put_obstacles(db, 1, {ONE: "name"})
        assert db.total_changes == before
