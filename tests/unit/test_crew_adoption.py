"""Results go to whoever wants them last, though an old connection's end is heard late."""

from __future__ import annotations

from pathlib import Path

from dq.executor.frames import Adopt, Results
from tests.unit.crewroom import Guest, Hand, open_room


def test_a_client_that_is_back_before_its_old_connection_has_ended_is_told(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        function = room.function()
        hand, old = Hand(room, function, 0), Guest(room)
        [step] = old.submits(function, 1)
        new = Guest(room)
        new.says(Adopt([step], []))
        room.turn()
        hand.finishes(hand.claims()[0])
        room.supervisor.clients.gone(old.client)
        room.supervisor.committer.settle()
        assert [row[0] for message in new.hears(Results) for row in message.rows] == [step]
