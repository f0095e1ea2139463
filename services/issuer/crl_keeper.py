"""Keeps the CRLs of local CAs complete and fresh, together with the keepers of other issuers.

Theory of operation. A CRL consists of the previous one and of all changes of status on the log
since, less the entries that may leave (`crl_book.py`). The keeper that appends the head with a
number first has published that CRL; the others read that head and continue from it, so that an
entry that one of them left out stays out. See docs/decisions/0009.

Each CA has a complete CRL and, if configured, partitions (`shared/ca/partitions.py`). Each is a
series of its own. The keeper remembers the entries of the newest one that it has read or published,
so that a revocation costs neither reading nor parsing it again. One pass over the changes on the
log serves the complete CRL and all partitions. Calls that arrive during a publication share the
next one.

When a certificate ends is in the change of its status. For changes of earlier releases it is in
the certificate's record; the records are read in portions, a portion at each look.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

import structlog

from services.issuer.connectors.connector import CrlAuthority, CrlSigner
from services.issuer.crl import CrlHead, RevokedEntry, read_entries, write_entry
from services.issuer.crl_book import NEVER, CrlBook, StatusChange
from services.issuer.settings import Settings
from shared.bus.core import Bus
from shared.bus.log import Log, append_first, read_authentic
from shared.bus.series import Series, SeriesTooLongError, number_of
from shared.ca.crls import CHUNK_BYTES, crl_heads, read_crl
from shared.ca.partitions import Partition
from shared.log.envelope import Message, Stored, UnreadableEventError
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    CrlPublished,
)
from shared.log.streams import CERTS
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    crl_chunk,
    crl_head,
    serial_token,
)
from shared.runtime.live import Live
from shared.runtime.periodic import every

_log = structlog.get_logger()
_LOOK_SECONDS = 60.0
_RETRY_SECONDS = 2.0
_RECORDS: Final = 500  # records of certificates that are read at each look
# After so many forged heads in a row, use a random CRL number, which nobody can have occupied.
_NEXT_NUMBERS: Final = 16
_RANDOM_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class _Target:
    """A CA, and the issuer and settings by which its CRLs are published."""

    issuer: str
    authority: CrlAuthority
    ca: CrlSigner

    @property
    def partitions(self) -> tuple[Partition, ...]:
        return self.ca.ceilings.partitioning.partitions

    def points(self, partition: Partition | None) -> tuple[str, ...]:
        if partition is None:
            return ()
        return self.ca.ceilings.partitioning.points(self.ca.pin, partition)


@dataclass(slots=True)
class _Shelf:
    """What is known of a CA's CRLs; `ends` are the ends of certificates by serial number."""

    books: dict[Partition | None, CrlBook] = field(default_factory=dict)
    ends: dict[bytes, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_publication: asyncio.Task[int] | None = None


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest head, when it was published (Unix seconds), and the number that follows it.

    `hidden` says that forged heads hide it: then it may not be the newest.
    """

    head: CrlPublished | None
    listed_at: int
    number: int
    hidden: bool


@dataclass
class CrlKeeper:
    """Keeps every CA's CRLs complete and fresh. `clock` returns Unix seconds."""

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _shelves: dict[tuple[str, str], _Shelf] = field(default_factory=dict)

    def look_now(self) -> None:
        """Check now instead of after the usual pause: there may be a new CA."""
        self._asked.set()

    async def run(self) -> None:
        """Check every CRL periodically; a CA without one gets its first."""
        await every(_LOOK_SECONDS, self.look, name="crl", wake=self._asked, retry=_RETRY_SECONDS)

    async def look(self) -> None:
        """Publish each CRL that is missing, past half of its validity, or lacks a change.

        It lacks one only if its issuer was stopped, or did not have the partition configured yet.
        """
        targets = [
            _Target(issuer, authority, ca)
            for issuer, connector in self.live.current.issuers.items()
            if (authority := connector.crls) is not None
            for ca in authority.active
        ]
        for target in targets:
            shelf = self._shelf(target)
            async with shelf.lock:
                await self._open(target, shelf)
                await self._advance(target, shelf)
                for partition in (None, *target.partitions):
                    newest = await self._newest(target, partition)
                    is_complete = shelf.books[partition].is_complete(newest.head)
                    if newest.hidden or not is_complete or self._is_due(newest.head):
                        await self._publish(target, shelf, partition, changed_only=True)
            await self._read_ends(target, shelf)
        kept = {(target.issuer, target.ca.pin) for target in targets}
        for key in self._shelves.keys() - kept:
            del self._shelves[key]

    async def publish(self, issuer: str, authority: CrlAuthority, ca: CrlSigner) -> int:
        """Publish CRLs that contain every revocation on the log; return the complete one's number.

        Of the partitions only those are published that have changed.
        """
        target = _Target(issuer, authority, ca)
        shelf = self._shelf(target)
        if shelf.next_publication is None:
            shelf.next_publication = asyncio.create_task(self._publish_next(target, shelf))
            shelf.next_publication.add_done_callback(_retrieved)
        return await asyncio.shield(shelf.next_publication)

    async def _publish_next(self, target: _Target, shelf: _Shelf) -> int:
        async with shelf.lock:
            shelf.next_publication = None
            await self._open(target, shelf)
            number = await self._publish(target, shelf, None, changed_only=False)
            for partition in target.partitions:
                book = shelf.books[partition]
                if not book.is_complete(book.head) or self._is_due(book.head):
                    await self._publish(target, shelf, partition, changed_only=True)
            return number

    def _is_due(self, head: CrlPublished | None) -> bool:
        return head is None or self.clock() > (head.this_update + head.next_update) / 2

    def _shelf(self, target: _Target) -> _Shelf:
        return self._shelves.setdefault((target.issuer, target.ca.pin), _Shelf())

    async def _open(self, target: _Target, shelf: _Shelf) -> None:
        """Read the CRLs that are not known yet; forget those that are no longer configured.

        All are read first, so that one pass over the changes on the log is enough for all of them.
        """
        wanted = (None, *target.partitions)
        for partition in shelf.books.keys() - set(wanted):
            del shelf.books[partition]
        for partition in wanted:
            if partition not in shelf.books:
                newest = await self._newest(target, partition)
                await self._book(target, shelf, partition, newest)

    async def _publish(
        self, target: _Target, shelf: _Shelf, partition: Partition | None, *, changed_only: bool
    ) -> int:
        """Publish the complete CRL or a partition; return the number of the newest one.

        With `changed_only` a CRL that is complete and not due is not published again.
        """
        skipped = taken = 0
        while True:
            newest = await self._newest(target, partition)
            book = await self._book(target, shelf, partition, newest)
            await self._advance(target, shelf)
            head = newest.head if not newest.hidden else None
            is_current = book.is_complete(head) and not self._is_due(head)
            if changed_only and head is not None and is_current:
                return head.number
            number = newest.number + skipped
            if await self._publish_as(target, shelf, book, number):
                if head is not None:
                    return number
                # Another issuer may have published a first CRL too; the later may hold less: check.
                changed_only, skipped = True, 0
                continue
            if (await self._newest(target, partition)).head == newest.head:
                # No trusted issuer published it: a forgery occupies the number.
                taken += 1
                skipped += 1 if taken < _NEXT_NUMBERS else secrets.randbits(_RANDOM_BITS)

    async def _publish_as(self, target: _Target, shelf: _Shelf, book: CrlBook, number: int) -> bool:
        """Sign the CRL in a book under a number; return False if the number is taken."""
        now, partition = int(self.clock()), book.partition
        about = CrlHead(number, now, now + target.authority.crl_validity)
        book.drop_expired(shelf.ends)
        der = target.ca.sign_crl(about, book.entries, target.points(partition))
        head = CrlPublished(
            issuer=target.issuer,
            ca_spki_sha256=target.ca.pin,
            number=number,
            this_update=about.this_update,
            next_update=about.next_update,
            chunks=-(-len(der) // CHUNK_BYTES),
            sha256=hashlib.sha256(der).hexdigest(),
            position=book.position,
            partitions=partition.count if partition is not None else 0,
            partition=partition.number if partition is not None else 0,
        )
        if not await self._append(head, der, partition):
            return False
        book.published(head)
        name, entries = partition.name if partition is not None else "", len(book.entries)
        _log.info(
            "crl_published", issuer=target.issuer, number=number, partition=name, entries=entries
        )
        return True

    async def _append(self, head: CrlPublished, der: bytes, partition: Partition | None) -> bool:
        """Append the chunks, then the head that makes them count; False if another was first."""
        for index in range(head.chunks):
            piece = der[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            subject = crl_chunk(head.issuer, head.sha256, index)
            await append_first(self.bus, subject, Message(piece, {}))
        name = partition.name if partition is not None else ""
        subject = crl_head(head.issuer, head.ca_spki_sha256, head.number, name)
        return await Log(self.bus, self.live.current.signer).append(subject, head)

    async def _newest(self, target: _Target, partition: Partition | None) -> _Newest:
        """Return the newest head, and the number that follows it.

        Numbers must also grow after all CRLs of a CA have left the log, and when forged heads hide
        the newest. In that case the newest that can be found is continued under a higher number,
        because revocation must not stop.
        """
        now, trusted = int(self.clock()), self.live.current.trusted_issuers
        heads = crl_heads(self.bus, target.issuer, target.ca.chain[0], trusted, partition)
        try:
            entry, hidden = await heads.newest(), False
        except SeriesTooLongError as error:
            _log.error("crl_rebuilt", issuer=target.issuer, detail=str(error))
            entry, hidden = await heads.hidden(), True
        if entry is None:
            return _Newest(None, 0, self._high_number() if hidden else now, hidden)
        head = entry.event
        listed_at = min(head.this_update, entry.stored.seconds)  # an issuer's clock may be fast
        number = self._high_number() if hidden else head.number + 1
        return _Newest(head, listed_at, number, hidden)

    def _high_number(self) -> int:
        """Return a number above all before; in milliseconds, because numbers must not decrease."""
        begun = int(self.clock() * 1000)
        return (begun << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)

    async def _book(
        self, target: _Target, shelf: _Shelf, partition: Partition | None, newest: _Newest
    ) -> CrlBook:
        """Return the book of the newest CRL, read from the log unless it is the known one."""
        book, head = shelf.books.get(partition), newest.head
        if book is not None and book.head == head:
            book.listed_at = newest.listed_at
            return book
        if head is None:
            book = CrlBook(partition)
        else:
            try:
                der = (await read_crl(self.bus, head, target.ca.chain[0])).der
                book = CrlBook(partition, head, read_entries(der), head.position, newest.listed_at)
            except UnreadableEventError:
                if not newest.hidden:
                    raise
                book = CrlBook(partition)
        shelf.books[partition] = book
        return book

    async def _advance(self, target: _Target, shelf: _Shelf) -> None:
        """Apply the changes on the log to all books that do not have them yet."""
        wildcard, books = certificate_status(target.issuer, "*", "*"), shelf.books.values()
        position = min(book.position for book in books)
        while stored := await self.bus.get_next_or_leader(CERTS, wildcard, position + 1):
            position = stored.sequence
            change = await self._change(target, shelf, stored)
            for book in books:
                if book.position < position:
                    book.position = position
                    if change is not None:
                        book.apply(change)

    async def _change(self, target: _Target, shelf: _Shelf, stored: Stored) -> StatusChange | None:
        """Return what a message changes, None if nothing: it is forged, or about another CA."""
        trusted = self.live.current.trusted_issuers
        event = read_authentic(CertificateStatusChanged, stored, trusted, "revoked")
        if event is None or event.ca_spki_sha256 != target.ca.pin:
            return None
        end, key, serial = event.not_after, event.spki_sha256, bytes.fromhex(event.serial)
        if not key and target.partitions:
            record = await self._record(target, serial)
            end, key = (record.not_after, record.spki_sha256) if record is not None else (0, "")
        if end:
            shelf.ends[serial] = end
        if not event.revoked:
            return StatusChange(serial, b"", key)
        entry = write_entry(RevokedEntry(serial, event.revoked_at, event.reason))
        was_listed = 0 < end < stored.seconds and await self._was_listed(target, event, stored)
        return StatusChange(serial, entry, key, was_listed)

    async def _was_listed(
        self, target: _Target, event: CertificateStatusChanged, stored: Stored
    ) -> bool:
        """Return whether the certificate was revoked before this change of its status."""
        if number_of(stored.subject) == 0:
            return False
        wildcard = certificate_status(target.issuer, event.serial, "*")
        trusted, revoked = self.live.current.trusted_issuers, False
        kind = CertificateStatusChanged
        try:
            async for entry in Series(self.bus, CERTS, wildcard, kind, trusted, "revoked").all():
                if entry.stored.sequence >= stored.sequence:
                    return revoked
                revoked = entry.event.revoked
        except SeriesTooLongError:
            return False
        return revoked

    async def _read_ends(self, target: _Target, shelf: _Shelf) -> None:
        """Forget ends that no CRL needs; read some that are needed."""
        listed = set(chain.from_iterable(book.entries for book in shelf.books.values()))
        for serial in shelf.ends.keys() - listed:
            del shelf.ends[serial]
        unknown = (s for s in listed if s not in shelf.ends)
        for serial in list(islice(unknown, _RECORDS)):
            record = await self._record(target, serial)
            shelf.ends[serial] = record.not_after if record is not None else NEVER

    async def _record(self, target: _Target, serial: bytes) -> CertificateRecorded | None:
        """Return the record of one of the CA's certificates, None if it has no authentic one."""
        place = certificate_issued(target.issuer, serial_token(serial))
        stored = await self.bus.get_last_or_leader(CERTS, place)
        if stored is None:
            return None
        trusted = self.live.current.trusted_issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        is_own = record is not None and record.ca_spki_sha256 == target.ca.pin
        return record if is_own else None


def _retrieved(publication: asyncio.Task[int]) -> None:
    """Retrieve the exception of a publication whose callers have all gone."""
    if not publication.cancelled():
        publication.exception()
