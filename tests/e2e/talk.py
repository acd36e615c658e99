"""Somebody who talks in several rooms at once, and remembers what was said."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

from openmeet_appservice.dev.person import Person


@dataclass(slots=True)
class Talk:
    """Says one thing after the other in each room, as fast as Synapse takes it, until told to stop."""

    person: Person
    rooms: list[str]
    said: dict[str, list[str]] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _speaking: list[asyncio.Task[None]] = field(default_factory=list)
    _enough: bool = False

    def begin(self) -> None:
        """Begin to talk."""
        self._enough = False
        self._speaking = [asyncio.create_task(self._speak(room_id)) for room_id in self.rooms]

    async def end(self) -> None:
        """Say no more, and return when everything that was said is on Synapse."""
        self._enough = True
        await asyncio.gather(*self._speaking)
        self._speaking.clear()

    async def _speak(self, room_id: str) -> None:
        while not self._enough:
            text = f"number {next(self._numbers)}"
            event_id = await self.person.send_text(room_id, text)
            self.said.setdefault(room_id, []).append(text)
            self.event_ids.append(event_id)
