"""Rates: how fast one connection may talk, and how often an address or account may try something (security 4.4)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from typing import Final

KEYS_MAX: Final = 100_000
_SITE_BITS: Final = 64


def site_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64, since whoever has one address has all of these."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv4Address):
            return str(ip)
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, _SITE_BITS), strict=False))
    return address


class Pace:
    """Tells a reader how long to wait, so that messages come at a rate with a burst; nothing is refused."""

    def __init__(self, per_s: float, burst: int, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = float(burst)
        self._at = now_s

    def take(self, now_s: float) -> float:
        """Count one message and return how many seconds to wait before the next is read."""
        self._left = min(self._burst, self._left + (now_s - self._at) * self._per_s) - 1
        self._at = now_s
        return 0.0 if self._left >= 0 else -self._left / self._per_s


class Attempts:
    """Counts attempts by key within a sliding time; memory is bounded by forgetting the longest silent keys."""

    def __init__(self, most: int, within_s: float) -> None:
        self._most = most
        self._within_s = within_s
        self._times: OrderedDict[bytes, list[float]] = OrderedDict()

    def are_spent(self, key: bytes, now_s: float) -> bool:
        """Tell whether this key has no attempt left just now."""
        times = [at for at in self._times.get(key, ()) if now_s - at < self._within_s]
        if times:
            self._times[key] = times
        else:
            self._times.pop(key, None)
        return len(times) >= self._most

    def count(self, key: bytes, now_s: float) -> None:
        """Count an attempt."""
        times = self._times.setdefault(key, [])
        times.append(now_s)
        del times[: -self._most]
        self._times.move_to_end(key)
        if len(self._times) > KEYS_MAX:
            self._times.popitem(last=False)

    def forgive(self, key: bytes) -> None:
        """Forget the attempts of a key."""
        self._times.pop(key, None)
