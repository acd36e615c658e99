"""Importing a file of desired state: one item of a batch on each line, done by the very same code.

Some lines make a transaction, with the note of how far the file was done: killed anywhere, the next run goes
on behind the last transaction. A line that is refused is undone to its last bit and stops no other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from pydantic import Field
from sqlalchemy import Connection

from openmeet_appservice.domain.adoption import former_alias
from openmeet_appservice.domain.direct import JOINER
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import ApiError, FieldError, Invalid, InvalidName, TooLarge
from openmeet_appservice.provisioning.direct import Direct
from openmeet_appservice.provisioning.entities import Entities
from openmeet_appservice.provisioning.items import Item, ItemWriter, Terms, pointed
from openmeet_appservice.provisioning.kinds import EVENTS, GROUPS
from openmeet_appservice.provisioning.members import Members
from openmeet_appservice.provisioning.parts import Parts, check_as_of
from openmeet_appservice.provisioning.states import entity_etag, members_etag, user_etag
from openmeet_appservice.provisioning.texts import Moment
from openmeet_appservice.provisioning.users import Users
from openmeet_appservice.store import adoption, entities, imports, users
from openmeet_appservice.store.imports import Progress, Refused
from openmeet_appservice.store.inside import Inside, at_once
from openmeet_appservice.store.wakeups import notify
from openmeet_appservice.web.problems import api_error
from openmeet_appservice.web.routes import Caller, Response, Route, Scope
from openmeet_appservice.web.validation import parse_body

MAX_LINE: Final = 8 * 1024 * 1024
"""The longest line in bytes: as much as a request may have."""

LINES: Final = 100
BYTES: Final = 256 * 1024
"""How many lines one transaction does at most, and after how many bytes it takes no more."""

OUTCOMES: Final = ("created", "changed", "unchanged", "archived", "superseded", "refused")

_CALLER: Final = Caller(Scope.ADMIN, None, "import", "import")
_ENTITIES: Final = {"event": EntityKind.EVENT, "group": EntityKind.GROUP}


class ImportLine(Item):
    """One line of the file."""

    tenant: str | None = Field(default=None, description="Whose it is; absent: as the command says.")
    as_of: Moment | None = Field(default=None, description="When it was read; absent: as the command says.")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read.

    Attributes
    ----------
    path
        The file.
    tenant
        Whose the lines are that name no tenant, None where all must.
    as_of
        When the lines were read that do not say, in milliseconds since the epoch.
    confirmed
        Whether many people may be removed at once.
    """

    path: Path
    tenant: str | None = None
    as_of: int | None = None
    confirmed: bool = False

    def digest(self) -> str:
        """Return what names the file and this way to read it; with another one it is begun anew."""
        with self.path.open("rb") as file:
            hashed = hashlib.file_digest(file, "sha256")
        hashed.update(repr((self.tenant and key(self.tenant), self.as_of, self.confirmed)).encode())
        return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some lines (None: too long), the number of the first, and where in the file the next one begins."""

    first: int
    lines: tuple[bytes | None, ...]
    end: int


async def import_file(
    parts: Parts,
    reading: Reading,
    digest: str,
    on_progress: Callable[[Progress], None],
    pause: Callable[[], Awaitable[None]],
) -> Progress:
    """Import what is not done yet of the file; return how all of it came out.

    What was refused stands in `store.imports` until `store.imports.forget`.

    Parameters
    ----------
    on_progress, pause
        Called after each transaction; the second waits until the next one may begin.

    Raises
    ------
    DatabaseUnavailable
        It went away. What was done is remembered.
    OSError
        The file cannot be read.
    """
    progress = await parts.database.read(imports.get, digest)
    with reading.path.open("rb") as file:
        file.seek(progress.bytes)
        for chunk in _chunks(file, progress.line + 1):
            progress = await parts.database.write(_import_chunk, parts, reading, digest, progress, chunk)
            on_progress(progress)
            await pause()
    return progress


def _chunks(file: IO[bytes], first: int) -> Iterator[_Chunk]:
    lines: list[bytes | None] = []
    size = 0
    while line := file.readline(MAX_LINE + 1):
        complete = len(line) <= MAX_LINE or line.endswith(b"\n")
        lines.append(line if complete else None)
        size += len(line)
        while not complete:
            rest = file.readline(MAX_LINE)
            complete = rest.endswith(b"\n") or not rest
        if len(lines) == LINES or size >= BYTES:
            yield _Chunk(first, tuple(lines), file.tell())
            first += len(lines)
            lines, size = [], 0
    if lines:
        yield _Chunk(first, tuple(lines), file.tell())


def _import_chunk(
    connection: Connection, parts: Parts, reading: Reading, digest: str, before: Progress, chunk: _Chunk
) -> Progress:
    inside = replace(parts, database=Inside(connection))
    writer = ItemWriter(_routes(inside))
    counts = Counter(before.counts)
    refused = []
    for number, line in enumerate(chunk.lines, chunk.first):
        if line is not None and not line.strip():
            continue
        kind, outcome = _import_line(connection, inside, writer, reading, line, number)
        if isinstance(outcome, ApiError):
            refused.append(Refused(number, outcome.code, _words(outcome)))
            outcome = "refused"
        counts[f"{kind} {outcome}"] += 1
    progress = Progress(chunk.first + len(chunk.lines) - 1, chunk.end, dict(counts))
    imports.advance(connection, digest, progress, refused, now=parts.now())
    notify(connection, "reconcile")
    return progress


def _import_line(
    connection: Connection,
    parts: Parts,
    writer: ItemWriter,
    reading: Reading,
    line: bytes | None,
    number: int,
) -> tuple[str, str | ApiError]:
    """Do one line; return its kind, and what came of it."""
    kind = "unreadable"
    savepoint = connection.begin_nested()
    try:
        if line is None:
            raise TooLarge(f"A line has at most {MAX_LINE} bytes.")
        item = parse_body(ImportLine, line)
        kind = item.kind
        terms = _terms(parts, reading, item, number)
        before = _standing(connection, terms.tenant, item)
        answer = at_once(writer.perform(item, terms))
        outcome = _outcome(item, answer, before, _standing(connection, terms.tenant, item))
        if outcome == "created":
            _expect_former_room(connection, parts, terms.tenant, item)
    except (ApiError, InvalidName) as error:
        savepoint.rollback()
        return kind, api_error(error)
    savepoint.commit()
    return kind, outcome


def _routes(parts: Parts) -> Iterable[Route]:
    for kind in (EVENTS, GROUPS):
        yield from Entities(parts, kind).routes()
        yield from Members(parts, kind).routes()
    yield from Users(parts).routes()
    yield from Direct(parts).routes()


def _terms(parts: Parts, reading: Reading, item: ImportLine, number: int) -> Terms:
    tenant = item.tenant or reading.tenant
    if tenant is None:
        fault = FieldError("/tenant", "required", "Name a tenant, here or with --tenant.")
        raise Invalid(errors=[fault])
    as_of = reading.as_of if item.as_of is None else check_as_of(item.as_of, parts.now())
    return Terms(tenant, _CALLER, f"line-{number}", as_of=as_of, confirmed=reading.confirmed)


def _standing(connection: Connection, tenant_id: str, item: Item) -> str | None:
    """Return what changes when the item changes anything, None where there is no such thing yet."""
    tenant = key(tenant_id)
    if item.kind == "user":
        user = users.find(connection, tenant, item.slug)
        return None if user is None or user.placeholder else user_etag(user)
    kind = EntityKind(item.kind.partition("_")[0])
    slug = JOINER.join(sorted(item.slug.split(JOINER), key=key)) if kind is EntityKind.DIRECT else item.slug
    found = entities.find(connection, tenant, kind, slug)
    if found is None or found.archived_at is not None:
        return None
    return f"{entity_etag(found)} {members_etag(found)}"


def _outcome(item: Item, answer: Response, before: str | None, after: str | None) -> str:
    if getattr(answer.body, "superseded", False):
        return "superseded"
    if before == after:
        return "unchanged"
    if item.op == "delete":
        return "archived"
    return "created" if before is None else "changed"


def _expect_former_room(connection: Connection, parts: Parts, tenant_id: str, item: Item) -> None:
    """Keep a second room from being made where OpenMeet's former service made one already."""
    kind = _ENTITIES.get(item.kind)
    if kind is None:
        return
    alias = former_alias(kind, item.slug, tenant_id, parts.aliases.server)
    if alias is not None:
        adoption.expect_room(connection, key(tenant_id), kind, item.slug, alias)


def _words(error: ApiError) -> str:
    faults = [f"{one.pointer} {one.detail}" for one in pointed(error)]
    return " ".join([error.detail, *faults])
