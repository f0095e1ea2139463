"""Subjects with named parts, and the catalogue of all of them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.record.projection import PROJECTORS
from shared.log.catalog import CHANNELS, RESUME, REVOCATION, STAGES
from shared.log.channels import Channel
from shared.log.events.base import EventPayload, SignedEvent
from shared.log.events.certificates import OrphanNoted
from shared.log.events.commands import Ordered
from shared.log.roles import Role
from tests.fakes.memory_bus import matches
from tests.support import golden

PART = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


def parts_of(channel: Channel, data: st.DataObject) -> dict[str, str]:
    return {name: data.draw(PART) for name in channel.fields()}


@pytest.mark.parametrize("channel", CHANNELS.rows, ids=lambda row: row.address)
@given(data=st.data())
def test_a_subject_is_read_back_as_it_was_written(channel: Channel, data: st.DataObject) -> None:
    parts = parts_of(channel, data)
    subject = channel.subject(**parts)
    found = CHANNELS.match(subject)

    assert found is not None
    assert (found.channel, found.fields) == (channel, parts)
    assert matches(channel.wildcard(), subject)
    one = next(iter(parts))
    assert matches(channel.wildcard(**{one: parts[one]}), subject)


def test_no_subject_belongs_to_two_channels() -> None:
    for one, other in itertools.permutations(CHANNELS.rows, 2):
        example = one.subject(**dict.fromkeys(one.fields(), "x1"))
        assert other.match(example) is None, (one.address, other.address)


@given(st.text())
def test_any_text_is_a_subject_of_ours_or_none(text: str) -> None:
    for subject in (text, f"ops.{text}", f"enroll.{text}.request", f"ops.resume.{text}.ordered"):
        found = CHANNELS.match(subject)
        assert found is None or found.channel.subject(**found.fields) == subject


@pytest.mark.parametrize(
    "subject",
    ["", "ops", "ops.revoke.a.1.0", "ops.revoke.a.1.0.ordered.more", "ops.revoke..1.0.ordered",
     "ops.resume.t.c.1.ordered", "ops.resume.t.c.1-2-3.ordered", "cert.a.1", "elsewhere.a.b"],
)  # fmt: skip
def test_a_subject_of_another_form_is_none_of_ours(subject: str) -> None:
    assert CHANNELS.match(subject) is None


def test_a_part_that_is_missing_is_an_error_and_a_wildcard_none() -> None:
    with pytest.raises(KeyError):
        REVOCATION.subject(issuer="local", serial="01")
    assert REVOCATION.wildcard(issuer="local") == "ops.revoke.local.*.*.ordered"
    assert RESUME.wildcard(attempt=1) == "ops.resume.*.*.*.ordered"


def test_every_golden_event_stands_on_a_channel_of_its_kind() -> None:
    for subject, event in golden.EVENTS.values():
        found = CHANNELS.match(subject)
        assert found is not None, subject
        assert type(event) in found.channel.events


def test_what_the_auditor_projects_is_recorded() -> None:
    recorded = {row for row in CHANNELS.rows if Role.AUDIT in row.consumers}

    assert set(PROJECTORS) <= recorded


def test_each_stage_has_the_channel_of_its_name() -> None:
    assert all(row.address.endswith(f".{stage}") for stage, row in STAGES.items())


def test_every_kind_of_event_is_in_the_catalogue_and_signed_ones_name_their_request() -> None:
    def below(kind: type[EventPayload]) -> set[type[EventPayload]]:
        children = kind.__subclasses__()
        return {kind, *(each for child in children for each in below(child))}

    bare = [kind for kind in below(SignedEvent) if "request_sha256" not in kind.__struct_fields__]
    assert set(bare) == {SignedEvent, Ordered, OrphanNoted}
    leaves = {kind for kind in below(EventPayload) if not kind.__subclasses__()}
    assert leaves == {kind for row in CHANNELS.rows for kind in row.events}
