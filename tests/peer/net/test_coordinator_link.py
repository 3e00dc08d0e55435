"""A link to a coordinator goes where it was told, shows nothing to a stranger, and ends only when it is cancelled."""

import asyncio
import contextlib

import pytest

from coordinator.keys import load_certificate
from peer.device import real_doors
from peer.net.coordinator_link import Address, CoordinatorLink, Identity, open_session
from peer.net.websocket import WebSocketDialer
from protocol import messages as m
from protocol.errors import SecurityError, UnavailableError, UserError
from protocol.ids import AccountId, DeviceId

IDENTITY = Identity(AccountId(b"a" * 32), DeviceId(b"b" * 32), bytes(32))


@contextlib.asynccontextmanager
async def server(answer, tls=None):
    """Serve an answer to whatever is asked; yields the port and what was asked."""
    asked = []

    async def serve(reader, writer):
        with contextlib.suppress(Exception):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listening:
        yield listening.sockets[0].getsockname()[1], asked


def found(location):
    return b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"


def link_to(url, pin=b"", on_notice=None):
    async def nothing(_):
        pass

    doors = real_doors()
    return CoordinatorLink(
        Address(url, pin, b"", b""),
        IDENTITY,
        dialer=doors.dialer,
        clock=doors.clock,
        entropy=doors.entropy,
        on_session=nothing,
        on_notice=on_notice or nothing,
    )


def test_a_redirect_is_not_followed():
    async def main():
        async with (
            server(b"HTTP/1.1 200 OK\r\n\r\n") as (inside, seen),
            server(found(b"ws://127.0.0.1:%d/admin" % inside)) as (port, asked),
        ):
            with pytest.raises(UnavailableError):
                await open_session(Address(f"ws://127.0.0.1:{port}", b"", b"", b""), WebSocketDialer())
            assert len(asked) == 1
            assert seen == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        found(b"ws://127.0.0.1:99999999/"),
        found(b"ws://[::1/"),
        found(b"http://127.0.0.1/"),
        found(b"/"),
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 503 No\r\nContent-Length: 99999999999\r\n\r\n",
        b"\x00\xff" * 100,
        b"",
    ],
)
def test_no_answer_ends_the_link(answer):
    async def main():
        async with server(answer) as (port, _):
            link = link_to(f"ws://127.0.0.1:{port}")
            task = asyncio.create_task(link.run())
            async with asyncio.timeout(10):
                while link.failures < 2:
                    assert not task.done()
                    link.retry_now()
                    await asyncio.sleep(0.01)
            assert link.refusal is None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["ws://127.0.0.1:99999999", "ws://[::1", "wss://"])
def test_an_address_that_cannot_be_one_is_an_error_of_ours(url):
    with pytest.raises((UnavailableError, UserError)):
        asyncio.run(open_session(Address(url, b"", b"", b""), WebSocketDialer()))


def test_what_was_not_foreseen_does_not_end_the_link(monkeypatch):
    async def main():
        link = link_to("ws://127.0.0.1:1")

        async def broken():
            raise LookupError("unforeseen")

        monkeypatch.setattr(link, "connect_once", broken)
        task = asyncio.create_task(link.run())
        async with asyncio.timeout(10):
            while link.failures < 2:
                assert not task.done()
                link.retry_now()
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_notice_that_cannot_be_handled_stops_no_other():
    async def main():
        handled = asyncio.Event()

        async def on_notice(notice):
            if notice == m.CloseMailbox(1):
                raise LookupError("unforeseen")
            handled.set()

        link = link_to("ws://127.0.0.1:1", on_notice=on_notice)

        class OneSession:
            notices: asyncio.Queue = asyncio.Queue()

        OneSession.notices.put_nowait(m.CloseMailbox(1))
        OneSession.notices.put_nowait(m.Ok())
        task = asyncio.create_task(link._hand_on(OneSession()))
        async with asyncio.timeout(10):
            await handled.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_server_with_another_certificate_is_asked_for_nothing(tmp_path):
    doors = real_doors()
    tls, _ = load_certificate(str(tmp_path), "127.0.0.1", doors.entropy, doors.clock.now_ms())

    async def main():
        async with server(found(b"/"), tls) as (port, asked):
            with pytest.raises(SecurityError):
                await open_session(Address(f"wss://127.0.0.1:{port}", b"\x11" * 32, b"", b""), WebSocketDialer())
            await asyncio.sleep(0.05)
            assert asked == []

    asyncio.run(main())
