"""Linking a device: both machines together, and everybody who stands in between."""

import pickle

import pytest

from peer.core import linking
from peer.core.keys import DeviceSecrets, open_device_name
from peer.core.linking import (
    EXPECTED,
    Admit,
    Compare,
    Done,
    ExistingDevice,
    Failed,
    Linked,
    NewDevice,
    Send,
    Stage,
    check_admission,
    draw_words,
)
from peer.core.linking_messages import Answer, Confirm, Hello, Reveal, Sealed
from peer.core.membership import open_account_keys
from protocol.codec import decode, encode
from protocol.errors import AccessDeniedError
from protocol.link_codes import LinkCode
from tests.peer.core.key_world import NOW_MS, RealAccount, Stream

CODE = LinkCode(7, ("abandon", "ability", "able"), None, None)


class Pair:
    """Two machines and the mailbox between them; ``tamper`` may replace a message by others."""

    def __init__(self, *, code=CODE, tamper=None, name="Phone"):
        self.account = RealAccount("anna")
        self.existing = ExistingDevice(
            CODE,
            self.account.state,
            self.account.keys,
            self.account.device,
            hpke=self.account.hpke,
            entropy=Stream("existing"),
        )
        self.device = DeviceSecrets.create(Stream("new device"))
        self.new = NewDevice(code, self.device, name, "Linux", entropy=Stream("new"))
        self.tamper = tamper or (lambda side, data: [data])
        self.seen: dict[str, list] = {"existing": [], "new": []}
        self.messages: list[tuple[str, bytes]] = []
        self.run("new", self.new.start())

    def run(self, side, commands):
        """Carry out what a side asks for, until both wait for a person or the coordinator."""
        queue = [(side, command) for command in commands]
        while queue:
            side, command = queue.pop(0)
            if not isinstance(command, Send):
                self.seen[side].append(command)
                continue
            self.messages.append((side, command.data))
            other, machine = ("existing", self.existing) if side == "new" else ("new", self.new)
            for data in self.tamper(side, command.data):
                queue += [(other, made) for made in machine.handle(data, NOW_MS)]

    def confirm(self, side="both"):
        for one in ("existing", "new") if side == "both" else (side,):
            self.run(one, getattr(self, one).confirm())

    def of(self, side, kind):
        return [command for command in self.seen[side] if isinstance(command, kind)]

    def admit(self):
        (admit,) = self.of("existing", Admit)
        self.account.append(admit.link)
        self.finish(admit)

    def finish(self, admit):
        commands = self.existing.admitted(
            self.account.state,
            user="anna",
            log_key=b"l" * 32,
            token_key=b"t" * 32,
            checkpoints=(),
            contacts=(),
            link=admit.link,
        )
        self.run("existing", commands)


def test_a_device_is_linked():
    pair = Pair()
    (there,) = pair.of("existing", Compare)
    (here,) = pair.of("new", Compare)
    assert there.digits == here.digits
    assert len(there.digits) == 6
    assert (there.name, there.platform) == ("Phone", "Linux")
    pair.confirm()
    pair.admit()
    assert pair.of("existing", Done)
    (linked,) = pair.of("new", Linked)
    check_admission(linked.admission, pair.account.state, pair.device.id)
    keys = open_account_keys(pair.account.state, pair.device, pair.account.hpke)
    assert keys.secrets == pair.account.keys.secrets
    assert open_device_name(pair.account.state.active_devices[pair.device.id], keys) == "Phone"


def test_the_order_in_which_people_confirm_does_not_matter():
    for order in (("existing", "new"), ("new", "existing")):
        pair = Pair()
        for side in order:
            pair.confirm(side)
        assert pair.of("existing", Admit)


def test_digits_may_be_typed_into_the_existing_device():
    pair = Pair()
    digits = pair.new.digits
    pair.run("existing", pair.existing.confirm(f" {digits[:3]} {digits[3:]} "))
    pair.confirm("new")
    assert pair.of("existing", Admit)


def test_other_digits_end_the_attempt_before_anything_of_the_account_left():
    """S78: the new device learns nothing until a person confirmed its digits on the existing one."""
    pair = Pair()
    before = len(pair.messages)
    wrong = f"{(int(pair.new.digits) + 1) % 10**6:06}"
    pair.run("existing", pair.existing.confirm(wrong))
    assert pair.of("existing", Failed)
    assert len(pair.messages) == before
    assert pair.existing.confirm() == ()
    assert pair.existing.handle(b"", NOW_MS) == ()


@pytest.mark.parametrize("side", ["existing", "new"])
def test_a_person_may_reject(side):
    pair = Pair()
    pair.run(side, getattr(pair, side).reject())
    assert pair.of(side, Failed)
    assert getattr(pair, side).stage is Stage.OVER


def test_nothing_is_asked_of_the_coordinator_before_both_people_confirmed():
    for side in ("existing", "new"):
        pair = Pair()
        pair.confirm(side)
        assert not pair.of("existing", Admit)


def test_a_wrong_code_burns_the_attempt_on_both_sides():
    """S77: one guess, and the existing device never answers again."""
    pair = Pair(code=LinkCode(7, ("abandon", "ability", "about"), None, None))
    assert pair.of("existing", Failed)
    assert not pair.of("new", Compare)
    again = NewDevice(CODE, pair.device, "Phone", "Linux", entropy=Stream("again"))
    (hello,) = again.start()
    assert isinstance(hello, Send)
    assert pair.existing.handle(hello.data, NOW_MS) == ()


def test_another_mailbox_is_another_code():
    pair = Pair(code=CODE._replace(number=8))
    assert pair.of("existing", Failed)


def test_a_stale_chain_is_answered_with_another_link():
    pair = Pair()
    pair.confirm()
    pair.account.add("Tablet")
    pair.run("existing", pair.existing.stale(pair.account.state, NOW_MS))
    admit = pair.of("existing", Admit)[-1]
    pair.account.append(admit.link)
    pair.finish(admit)
    (linked,) = pair.of("new", Linked)
    check_admission(linked.admission, pair.account.state, pair.device.id)


def test_the_coordinator_cannot_show_another_or_an_older_chain():
    """Rollback protection begins with the first link that a device hears of."""
    pair = Pair()
    pair.confirm()
    before = pair.account.state
    pair.admit()
    (linked,) = pair.of("new", Linked)
    for state in (before, RealAccount("mallory").state):
        with pytest.raises(AccessDeniedError):
            check_admission(linked.admission, state, pair.device.id)
    pair.account.revoke(pair.device)
    with pytest.raises(AccessDeniedError):
        check_admission(linked.admission, pair.account.state, pair.device.id)


# Somebody in between.


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("kind", ["flip", "drop last", "twice", "reflect", "garbage"])
def test_whatever_happens_to_a_message_the_devices_fail_and_nobody_is_let_in(index, kind):
    count = -1
    last: dict[str, bytes] = {}

    def tamper(side, data):
        nonlocal count
        count += 1
        mine = last.get("new" if side == "existing" else "existing", b"\x90")
        last[side] = data
        if count != index:
            return [data]
        return {
            "flip": [data[:-1] + bytes([data[-1] ^ 1])],
            "drop last": [data[:-1]],
            "twice": [data, data],
            "reflect": [mine],
            "garbage": [b"\xc1"],
        }[kind]

    pair = Pair(tamper=tamper)
    pair.confirm()
    admits = pair.of("existing", Admit)
    if admits:
        pair.account.append(admits[0].link)
        pair.finish(admits[0])
    complete = len(pair.of("new", Linked)) and kind == "twice"
    assert complete or pair.of("existing", Failed) or pair.of("new", Failed)
    if kind != "twice":
        assert not pair.of("new", Linked)


def man_in_the_middle(number, code):
    """Return the digits of both devices when somebody who knows the code speaks to each of them in the other's name."""
    account = RealAccount("anna")
    there = ExistingDevice(
        code, account.state, account.keys, account.device, hpke=account.hpke, entropy=Stream(f"there {number}")
    )
    here = NewDevice(code, DeviceSecrets.create(Stream("d")), "Phone", "Linux", entropy=Stream(f"here {number}"))
    false_new = NewDevice(code, DeviceSecrets.create(Stream("m")), "Phone", "Linux", entropy=Stream(f"m1 {number}"))
    false_there = ExistingDevice(
        code, account.state, account.keys, account.device, hpke=account.hpke, entropy=Stream(f"m2 {number}")
    )
    digits = []
    for existing, new in ((there, false_new), (false_there, here)):
        commands = new.start()
        side: ExistingDevice | NewDevice = existing
        while commands:
            sends = [command.data for command in commands if isinstance(command, Send)]
            commands = tuple(made for data in sends for made in side.handle(data, NOW_MS))
            side = new if side is existing else existing
        digits.append((existing.digits, new.digits))
    assert digits[0][0] == digits[0][1]
    assert digits[1][0] == digits[1][1]
    return digits[0][0], digits[1][0]


def test_a_coordinator_that_saw_the_code_shows_itself_by_the_digits():
    """S79 in small: the digits of two sessions are independent."""
    pairs = [man_in_the_middle(number, CODE) for number in range(15)]
    assert all(one != other for one, other in pairs)
    assert len({digits for pair in pairs for digits in pair}) == 30


def test_the_new_device_cannot_change_its_key_after_it_saw_the_other():
    """S79: without the commitment six digits can be ground."""
    account = RealAccount("anna")
    there = ExistingDevice(
        CODE, account.state, account.keys, account.device, hpke=account.hpke, entropy=Stream("there")
    )
    mallory = NewDevice(CODE, DeviceSecrets.create(Stream("m")), "Phone", "Linux", entropy=Stream("m"))
    (hello,) = mallory.start()
    assert isinstance(hello, Send)
    said: Hello = decode(hello.data, Hello, bytes_max=1000)
    (answer,) = there.handle(encode(Hello(1, said.spake, bytes(32))), NOW_MS)
    assert isinstance(answer, Send)
    (reveal,) = mallory.handle(answer.data, NOW_MS)
    assert isinstance(reveal, Send)
    assert isinstance(decode(reveal.data, Reveal, bytes_max=1000), Reveal)
    (failed,) = there.handle(reveal.data, NOW_MS)
    assert failed == Failed("the other device shows another key than it committed to")


def test_a_name_that_differs_from_the_one_shown_is_refused():
    pair = Pair()
    pair.new._name = "Anna's own laptop"
    pair.confirm()
    assert pair.of("existing", Failed)
    assert not pair.of("existing", Admit)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.OVER])
def test_every_stage_refuses_every_message_but_its_own(stage):
    """The table of stages is total: there is no message that a stage does not answer."""
    pair = Pair()
    machine = pair.existing if stage in (Stage.HELLO, Stage.REVEAL, Stage.INTRODUCTION, Stage.PERSON) else pair.new
    machine.stage = stage
    for message in (Hello(1, b"", b""), Answer(b"", b""), Reveal(b"", b""), Confirm(b""), Sealed(bytes(400))):
        if type(message) is not EXPECTED.get(stage):
            machine.stage = stage
            (failed,) = machine.handle(encode(message), NOW_MS)
            assert isinstance(failed, Failed)


def test_a_sealed_message_before_there_is_a_key_is_refused():
    account = RealAccount("anna")
    there = ExistingDevice(CODE, account.state, account.keys, account.device, hpke=account.hpke, entropy=Stream("e"))
    (failed,) = there.handle(encode(Sealed(bytes(400))), NOW_MS)
    assert isinstance(failed, Failed)


def test_drawn_words_are_words_of_the_list_and_differ():
    entropy = Stream("words")
    drawn = [draw_words(entropy) for _ in range(200)]
    assert len(set(drawn)) == 200
    assert all(linking.is_word(word) for words in drawn for word in words)
    assert not linking.is_word("abandonn")


def test_the_machines_show_nothing_and_cannot_be_pickled():
    pair = Pair()
    for machine in (pair.existing, pair.new):
        assert "not shown" in repr(machine)
        with pytest.raises(TypeError):
            pickle.dumps(machine)


def test_a_name_that_is_taken_is_refused_until_its_device_is_taken_out():
    account = RealAccount("anna")
    other = account.add("Phone")

    def introduce() -> list:
        there = ExistingDevice(
            CODE, account.state, account.keys, account.device, hpke=account.hpke, entropy=Stream("existing")
        )
        here = NewDevice(CODE, DeviceSecrets.create(Stream("d")), "Phone", "Linux", entropy=Stream("new"))
        said = list(here.start())
        while said:
            sends = [one.data for one in said if isinstance(one, Send)]
            answers = [made for data in sends for made in there.handle(data, NOW_MS)]
            if not any(isinstance(one, Send) for one in answers):
                return answers
            said = [made for one in answers if isinstance(one, Send) for made in here.handle(one.data, NOW_MS)]
        return []

    (failed,) = introduce()
    assert isinstance(failed, Failed)
    assert "has a device Phone already" in failed.reason
    account.revoke(other)
    assert any(isinstance(one, Compare) for one in introduce())
