"""Who may do what, decided on arguments alone."""

import msgspec
import pytest

from protocol import limits
from protocol.errors import AccessDeniedError, KinfolderError, SecurityError, UnavailableError
from protocol.grants import ChunkRef, Operation, grant_device, sign_body
from protocol.ids import ChunkId, StorageNodeId
from protocol.signing import public_key
from storage_node.core import custody as custody_module
from storage_node.core.custody import REMEMBERED_MS, UNHEARD_S, Custody
from tests.storage_node.conftest import FOLDER, OTHER_FOLDER, TOKEN_SEED, Device

NODE = StorageNodeId(b"n" * 32)
NOW = 1_800_000_000_000
REFS = [ChunkRef(ChunkId(b"c" * 32), 1000)]
SKEW = limits.CLOCK_SKEW_S_MAX * 1000


@pytest.fixture
def custody():
    made = Custody(NODE)
    made.token_key = public_key(TOKEN_SEED)
    made.hear()
    return made


def request(device=None, operation=Operation.PUT, refs=REFS, nodes=(NODE,), grant=None, **changes):
    device = device or Device()
    grant = msgspec.structs.replace(device.grant(not_before_ms=NOW, expires_ms=NOW + 600_000), **grant or {})
    statement = device.statement(grant, operation, nodes, refs, **({"time_ms": NOW} | changes))
    return grant, sign_body(grant, device.token_seed), sign_body(statement, device.seed)


def admit(custody, operation=Operation.PUT, now=NOW, now_s=0.0, **options):
    _, grant, statement = request(operation=options.pop("asked", operation), **options)
    return custody.admit(grant, statement, operation, now_ms=now, now_s=now_s)


def test_a_good_request_goes_on(custody):
    admitted = admit(custody)
    assert admitted.pseudonym == FOLDER
    assert admitted.device == grant_device(admitted.grant)


REFUSED = {
    "the statement is for another operation": {"operation": Operation.GET, "asked": Operation.PUT},
    "the statement is for no operation": {"asked": Operation(0)},
    "the statement is for two operations": {"asked": Operation.PUT | Operation.GET},
    "the grant does not allow it": {"grant": {"operations": Operation.GET}},
    "the statement is for another node": {"nodes": (b"m" * 32,)},
    "the statement is for too many nodes": {"nodes": (NODE,) * 17},
    "the statement is for no chunk": {"count": 0},
    "the statement is for too many chunks": {"count": limits.BATCH_CHUNKS_MAX + 1},
    "the statement is for too many bytes": {"bytes": limits.BATCH_BYTES_MAX + 1},
    "the statement is for fewer than no bytes": {"bytes": -1},
    "the grant is over": {"now": NOW + 600_000 + SKEW + 1},
    "the grant has not begun": {"now": NOW - SKEW - 1},
    "the grant lives too long": {"grant": {"expires_ms": NOW + 3_600_000}},
    "the grant has an id of another length": {"grant": {"id": b"x"}},
    "the grant has a pseudonym of another length": {"grant": {"pseudonym": b"x"}},
    "the root has another length": {"root": b"x"},
    "the grant is signed by somebody else": {"device": Device(token_seed=bytes(32))},
    "more bytes than the grant has": {"grant": {"bytes_max": 999}},
    "more chunks than the grant has": {"grant": {"chunks_max": 0}},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_everything_else_is_refused(custody, options):
    """S42, S45."""
    with pytest.raises(SecurityError):
        admit(custody, **options)


def test_a_statement_under_another_grant_is_refused(custody):
    device = Device()
    shown, other = (device.grant(not_before_ms=NOW, expires_ms=NOW + 600_000) for _ in range(2))
    statement = device.statement(other, Operation.PUT, [NODE], REFS, time_ms=NOW)
    with pytest.raises(AccessDeniedError):
        custody.admit(
            sign_body(shown, TOKEN_SEED), sign_body(statement, device.seed), Operation.PUT, now_ms=NOW, now_s=0.0
        )


def test_a_stolen_grant_is_of_no_use_without_the_devices_key(custody):
    """S42: the statement must be signed by the device that the grant names."""
    _, grant, _ = request()
    thief = Device(seed=b"t" * 32)
    stolen = Device().grant()
    statement = sign_body(thief.statement(stolen, Operation.PUT, [NODE], REFS), thief.seed)
    with pytest.raises(SecurityError):
        custody.admit(grant, statement, Operation.PUT, now_ms=NOW, now_s=0.0)


def test_a_grants_maxima_count_over_all_requests_and_for_each_operation(custody):
    device = Device()
    grant = device.grant(not_before_ms=NOW, expires_ms=NOW + 600_000, bytes_max=2500, chunks_max=100)

    def ask(operation):
        statement = device.statement(grant, operation, [NODE], REFS, time_ms=NOW)
        return custody.admit(
            sign_body(grant, TOKEN_SEED), sign_body(statement, device.seed), operation, now_ms=NOW, now_s=0.0
        )

    ask(Operation.PUT)
    second = ask(Operation.PUT)
    with pytest.raises(AccessDeniedError):
        ask(Operation.PUT)
    got = ask(Operation.GET)
    custody.charge(got, 2500, 0)
    with pytest.raises(AccessDeniedError):
        custody.charge(got, 1, 0)
    custody.give_back(second, 1000, 1)
    ask(Operation.PUT)
    with pytest.raises(AccessDeniedError):
        ask(Operation.PUT)


def test_what_was_spent_is_forgotten_when_the_grant_is_over_and_not_before(custody):
    device = Device()
    grant = device.grant(not_before_ms=NOW, expires_ms=NOW + 600_000, chunks_max=1)

    def ask(now):
        statement = device.statement(grant, Operation.PUT, [NODE], REFS, time_ms=now)
        custody.admit(
            sign_body(grant, TOKEN_SEED), sign_body(statement, device.seed), Operation.PUT, now_ms=now, now_s=0.0
        )

    ask(NOW)
    for later in (1, 300_000, 600_000, 600_000 + SKEW):
        admit(custody, now=NOW + 1)
        with pytest.raises(AccessDeniedError):
            ask(NOW + later)
    admit(custody, now=NOW + 600_001 + SKEW, grant={"expires_ms": NOW + 610_000}, time_ms=NOW + 600_000)
    assert grant.id not in custody._spent


def test_there_is_a_bound_on_grants_alive(custody, monkeypatch):
    monkeypatch.setattr(custody_module, "GRANTS_LIVE_MAX", 3)
    for _ in range(3):
        admit(custody)
    with pytest.raises(UnavailableError):
        admit(custody)


def test_the_revoked_are_refused_for_that_folder_as_long_as_a_grant_can_live(custody):
    device = Device()
    pair = (grant_device(device.grant()), FOLDER)
    custody.revoke((pair,), NOW)
    with pytest.raises(AccessDeniedError):
        admit(custody)
    admit(custody, device=Device(pseudonym=OTHER_FOLDER))
    admit(custody, device=Device(seed=b"o" * 32))
    end = NOW + REMEMBERED_MS
    late = {"not_before_ms": end - 1000, "expires_ms": end + 1000}
    with pytest.raises(AccessDeniedError):
        admit(custody, now=end, grant=late, time_ms=end)
    admit(custody, now=end + 1, grant=late, time_ms=end)


def test_revocations_are_a_bounded_memory(custody):
    for step in range(5):
        pairs = tuple((i.to_bytes(32, "big"), FOLDER) for i in range(step * 1000, step * 1000 + 1000))
        custody.revoke(pairs, NOW + step * (REMEMBERED_MS + 1))
    assert len(custody._revoked) <= 3000


def test_without_the_coordinator_only_young_grants_are_honoured(custody):
    """Security 3.11: 30 s after the link broke, grants older than 60 s are refused; a new link ends that."""
    old, young = {"not_before_ms": NOW - 61_000}, {"not_before_ms": NOW - 59_000}
    custody.miss(100.0)
    custody.miss(200.0)
    admit(custody, now_s=100.0 + UNHEARD_S, grant=old)
    with pytest.raises(AccessDeniedError):
        admit(custody, now_s=100.1 + UNHEARD_S, grant=old)
    admit(custody, now_s=100.1 + UNHEARD_S, grant=young)
    custody.hear()
    admit(custody, now_s=1000.0, grant=old)


def test_before_the_first_login_nothing_is_honoured():
    with pytest.raises(UnavailableError):
        admit(Custody(NODE))


def test_every_refusal_is_ours(custody):
    for operation in Operation:
        with pytest.raises(KinfolderError):
            admit(custody, operation=operation, nodes=())


def test_a_node_that_goes_out_of_service_takes_nothing_new_and_in_the_end_does_nothing(custody):
    custody.is_leaving = True
    with pytest.raises(UnavailableError):
        admit(custody)
    admit(custody, Operation.GET)
    admit(custody, Operation.HAVE)
    custody.is_retired = True
    for operation in Operation:
        with pytest.raises(UnavailableError):
            admit(custody, operation)
