"""A coordinator that lost its newest part says so, appends nothing, and takes the same positions back."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest

from protocol import messages as m
from protocol.chains import EnrolDevice, Role
from protocol.codec import decode
from protocol.entries import parse_entry
from protocol.history import ItemKind, LogItem, SignedCheckpoint, VoidReason, VoidRecord, sign_checkpoint
from tests.builders import Author, hash_of, segment
from tests.coordinator.client import device, new_user
from tests.coordinator.conftest import World, run
from tests.protocol.chain_world import TestAccount, TestFolder, fixed


class Story:
    """A folder with a history, of which the server then forgets the newest part."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alice, self.bob = TestAccount("alice"), TestAccount("bob")
        self.folder = TestFolder(self.alice)
        self.a = Author(self.folder, self.alice.device, 1)
        self.items: tuple[LogItem, ...] = ()
        self.head: SignedCheckpoint
        self.early = self.a.entry("early")
        self.waiting = self.a.entry("waiting", pins=[segment("never").segment.id])
        self.late = self.a.entry("late")
        self.gone = self.a.entry("gone", pins=[segment("never").segment.id])
        self.instead = self.a.entry("instead", replaces=[hash_of(self.gone)])

    async def before(self) -> None:
        """What stays: the folder and one entry."""
        async with self.world.running() as server:
            client = await new_user(server.url, self.alice, self.world.user_token)
            await new_user(server.url, self.bob, self.world.user_token)
            await client.create(self.folder.links[0])
            await client.register(self.folder.id, [self.early])

    async def lost(self) -> None:
        """What is lost: an entry that waits, ordered ones, a void record, a new member."""
        async with self.world.running() as server:
            client = await device(server.url, self.alice)
            await client.register(self.folder.id, [self.waiting, self.late, self.gone, self.instead])
            self.folder.share(self.bob, Role.WRITER)
            await client.ask(m.AppendControlLink(self.folder.id, self.folder.links[-1]))
            self.folder.append(EnrolDevice(self.bob.device.id, 1, 2), by=self.bob)
            other = await device(server.url, self.bob)
            await other.ask(m.AppendControlLink(self.folder.id, self.folder.links[-1]))
            await other.register(self.folder.id, [Author(self.folder, self.bob.device, 2).entry("bobs")])
            pulled = await client.pull(self.folder.id)
            self.items, self.head = pulled.items, pulled.checkpoint

    async def rolled_back(self) -> None:
        """Keep a copy of the data directory, go on, then put the copy back."""
        await self.before()
        saved = self.world.path + ".saved"
        shutil.copytree(self.world.path, saved)
        await self.lost()
        shutil.rmtree(self.world.path)
        shutil.copytree(saved, self.world.path)


def test_nothing_is_appended_until_the_log_is_back(world):
    async def main():
        story = Story(world)
        await story.rolled_back()
        folder, head = story.folder.id, story.head
        async with world.running() as server:
            client = await device(server.url, story.alice)
            more = story.a.entry("more")
            assert await client.refused(m.RegisterEntries(folder, head, (more,))) == "behind"
            # Once it knows, it refuses those too who know less.
            assert await client.refused(m.RegisterEntries(folder, None, (more,))) == "behind"
            link = TestFolder(story.alice)
            link.append(link.epoch_op())
            assert await client.refused(m.AppendControlLink(folder, link.links[-1])) == "behind"
            assert await client.refused(m.PinSegments(folder, (segment("s"),))) == "behind"
            position = (await client.pull(folder)).checkpoint.checkpoint.position
            assert position == 2
            await client.ask(m.RepushLog(story.items[position:], head))
            await client.ask(m.RepushLog(story.items, head))  # twice is no matter
            assert (await client.pull(folder)).items == story.items
            back = (await client.pull(folder)).checkpoint.checkpoint
            assert (back.position, back.chain, back.control_head) == (
                head.checkpoint.position,
                head.checkpoint.chain,
                head.checkpoint.control_head,
            )
            # What was registered and unordered comes again, in its place of the device's chain.
            states = await client.register(folder, [story.waiting, story.late, story.gone, story.instead, more], head)
            assert [s.refused for s in states.states] == [""] * 5
            assert [bool(s.position) for s in states.states] == [False, True, True, True, True]
            assert [s.void for s in states.states] == [None, None, VoidReason.REPLACED, None, None]
            assert states.own_seq == 6
            again = await client.register(folder, [story.a.entry("again")])
            assert again.states[0].position == head.checkpoint.position + 2
            other = await device(server.url, story.bob)
            assert (await other.pull(folder)).items[: len(story.items)] == story.items

    run(main)


def test_a_lost_registration_does_not_stop_its_device(world):
    """The device goes on with the entry after the lost ones; the coordinator asks for what is missing by 'gap'."""

    async def main():
        story = Story(world)
        await story.rolled_back()
        folder, head = story.folder.id, story.head
        async with world.running() as server:
            client = await device(server.url, story.alice)
            await client.register(folder, [])
            assert await client.refused(m.RegisterEntries(folder, head, ())) == "behind"
            await client.ask(m.RepushLog(story.items, head))
            more = story.a.entry("more")
            assert (await client.register(folder, [more])).states[0].refused == "gap"
            answer = await client.register(folder, [story.waiting, story.gone, more])
            assert [s.refused for s in answer.states] == ["", "", ""]
            assert answer.own_seq == parse_entry(more).header.seq

    run(main)


def test_a_device_that_was_put_back_too_cannot_write_beside_what_comes_back(world):
    """It does not know any more what it wrote, nor does the coordinator of that which others do not have."""

    async def main():
        story = Story(world)
        await story.rolled_back()
        folder, head, early = story.folder.id, story.head, hash_of(story.early)
        twin = story.a.entry("twin", seq=2, previous=early, keep=False)
        other = story.a.entry("other", seq=3, previous=hash_of(story.waiting), keep=False)
        async with world.running() as server:
            client = await device(server.url, story.alice)
            await client.register(folder, [])
            assert await client.refused(m.RegisterEntries(folder, head, ())) == "behind"
            await client.ask(m.RepushLog(story.items, head))
            newest = parse_entry(story.instead)
            assert await client.ask(m.GetOwnSeq(folder, 1), m.OwnSeq) == m.OwnSeq(newest.header.seq, newest.hash)
            assert (await client.register(folder, [twin])).states[0].refused == "chain"
            assert [s.refused for s in (await client.register(folder, [story.waiting, other])).states] == ["", "chain"]
            answer = await client.register(folder, [story.late, story.gone])
            assert [s.refused for s in answer.states] == ["", ""]
            assert answer.own_seq == parse_entry(story.gone).header.seq
            assert (await client.pull(folder)).items == story.items

    run(main)


def test_what_a_device_that_was_put_back_too_wrote_before_the_log_came_back_makes_room_for_that(world):
    async def main():
        story = Story(world)
        folder, early = story.folder.id, hash_of(story.early)
        never = [segment("never").segment.id]
        twin = story.a.entry("twin", seq=2, previous=early, keep=False, pins=never)
        other = story.a.entry("other", seq=3, previous=hash_of(twin), keep=False, pins=never)
        await story.rolled_back()
        head = story.head
        async with world.running() as server:
            client = await device(server.url, story.alice)
            assert [s.refused for s in (await client.register(folder, [twin, other])).states] == ["", ""]
            assert await client.refused(m.RegisterEntries(folder, head, ())) == "behind"
            await client.ask(m.RepushLog(story.items, head))
            items = (await client.pull(folder)).items
            assert items[: len(story.items)] == story.items
            voids: list[VoidRecord] = [
                decode(item.data, VoidRecord, bytes_max=1 << 20) for item in items[len(story.items) :]
            ]
            assert {void.entry for void in voids} == {hash_of(twin), hash_of(other)}
            assert {void.reason for void in voids} == {VoidReason.AUTHOR_REMOVED}
            states = (await client.register(folder, [twin, story.waiting, story.late, story.gone])).states
            assert [(s.refused, s.void) for s in states] == [
                ("", VoidReason.AUTHOR_REMOVED),
                ("", None),
                ("", None),
                ("", VoidReason.REPLACED),
            ]

    run(main)


def test_a_long_log_comes_back_in_parts(world):
    async def main():
        story = Story(world)
        await story.rolled_back()
        async with world.running() as server:
            client = await device(server.url, story.alice)
            for item in story.items[2:-1]:
                await client.ask(m.RepushLog((item,), story.head))
                assert (await client.pull(story.folder.id)).checkpoint.checkpoint.position == 2
            await client.ask(m.RepushLog(story.items[-1:], story.head))
            assert (await client.pull(story.folder.id)).items == story.items

    run(main)


@pytest.mark.parametrize("how", ["a gap", "another time", "another order", "too few", "forged checkpoint"])
def test_only_what_was_signed_is_taken_back(world, how):
    async def main():
        story = Story(world)
        await story.rolled_back()
        items, head = list(story.items[2:]), story.head
        if how == "a gap":
            del items[1]
        elif how == "another time":
            items[1] = msgspec.structs.replace(items[1], time_ms=items[1].time_ms + 1)
        elif how == "another order":
            one, two = items[0], items[1]
            items[:2] = [
                msgspec.structs.replace(two, position=one.position),
                msgspec.structs.replace(one, position=two.position),
            ]
        elif how == "too few":
            head = msgspec.structs.replace(
                head, checkpoint=msgspec.structs.replace(head.checkpoint, position=len(story.items) - 1)
            )
        else:
            head = sign_checkpoint(head.checkpoint, fixed("another server"))
        async with world.running() as server:
            client = await device(server.url, story.alice)
            codes = {"a gap": "protocol", "too few": "bad_signature", "forged checkpoint": "bad_signature"}
            assert await client.refused(m.RepushLog(tuple(items), head)) == codes.get(how, "fork")
            assert (await client.pull(story.folder.id)).checkpoint.checkpoint.position == 2

    run(main)


def test_a_folder_that_was_lost_as_a_whole_comes_back_under_its_pseudonym(world):
    async def main():
        alice = TestAccount("alice")
        folder = TestFolder(alice)
        async with world.running() as server:
            await new_user(server.url, alice, world.user_token)
        saved = world.path + ".saved"
        shutil.copytree(world.path, saved)
        async with world.running() as server:
            client = await device(server.url, alice)
            made = await client.create(folder.links[0])
            await client.register(folder.id, [Author(folder, alice.device, 1).entry("x")])
            pulled = await client.pull(folder.id)
        shutil.rmtree(world.path)
        shutil.copytree(saved, world.path)
        async with world.running() as server:
            client = await device(server.url, alice)
            assert await client.refused(m.RegisterEntries(folder.id, pulled.checkpoint, ())) == "behind"
            await client.ask(m.RepushLog(pulled.items, pulled.checkpoint))
            listed = await client.ask(m.ListFolders(b""), m.Folders)
            assert [f.pseudonym for f in listed.folders] == [made.pseudonym]
            assert (await client.pull(folder.id)).items == pulled.items

    run(main)


def test_a_coordinator_that_went_on_without_its_past_has_forked_and_says_so(world):
    async def main():
        story = Story(world)
        await story.rolled_back()
        async with world.running() as server:
            client = await device(server.url, story.alice)
            branch = Author(TestFolder(story.alice), story.alice.device, 1)
            branch.seq, branch.previous = 1, hash_of(story.early)
            for i in range(len(story.items)):
                states = await client.register(story.folder.id, [branch.entry(f"branch{i}")])
                assert states.states[0].position == i + 3
            assert await client.refused(m.RegisterEntries(story.folder.id, story.head, ())) == "fork"

    run(main)


def test_a_checkpoint_of_another_server_is_refused(world):
    async def main():
        story = Story(world)
        await story.rolled_back()
        async with world.running() as server:
            client = await device(server.url, story.alice)
            forged = sign_checkpoint(story.head.checkpoint, fixed("another server"))
            assert await client.refused(m.RegisterEntries(story.folder.id, forged, ())) == "bad_signature"
            assert (await client.register(story.folder.id, [])).own_seq == 1

    run(main)


def test_nothing_is_kept_of_what_a_healthy_folder_or_a_stranger_is_sent(world):
    async def main():
        alice, mallory = TestAccount("alice"), TestAccount("mallory")
        folder = TestFolder(alice)
        async with world.running() as server:
            client = await new_user(server.url, alice, world.user_token)
            stranger = await new_user(server.url, mallory, world.user_token)
            made = (await client.create(folder.links[0])).checkpoint
            junk = LogItem(2, ItemKind.VOID, 0, b"")
            assert await stranger.refused(m.RepushLog((junk,), made)) == "access_denied"
            assert await client.refused(m.RepushLog((junk,), made)) == "protocol"
            below = tuple(msgspec.structs.replace(junk, position=position) for position in range(-9, 0))
            assert await client.refused(m.RepushLog(below, made)) == "protocol"
            await client.ask(m.RepushLog((msgspec.structs.replace(junk, position=1),), made))
            assert await client.refused(m.RepushLog((junk,) * 257, made)) == "limit"
            assert server.coordinator.staging.size == 0

    run(main)


def test_a_session_that_ends_leaves_nothing_staged(world):
    async def main():
        story = Story(world)
        await story.rolled_back()
        async with world.running() as server:
            client = await device(server.url, story.alice)
            await client.ask(m.RepushLog(story.items[2:3], story.head))
            assert server.coordinator.staging.size > 0
            await client.close()
            for _ in range(1000):
                if not server.coordinator.staging.size:
                    break
                await asyncio.sleep(0.01)
            assert server.coordinator.staging.size == 0

    run(main)
