"""Who may have which address? One pool of one family, for pods or for services.

Pure: values in, values out; the clock is an argument (seconds since the epoch, since leases
outlive reboots). The store keeps the leases; a pool is rebuilt from them.

Theory of operation. An address is fresh (no lease, ever), in use (a lease), or resting (a
lease that was freed). A freed address rests for ``grace_s``, so that no connection, cache or
log line meant for its last owner meets the next one. Allocation takes the longest resting
address whose grace is over, else the lowest fresh one. So the leases number at most as many
as were ever held at once within one grace period, even in a /64. The cursor over fresh
addresses only moves forward, and resting ones stand in the order in which they were freed:
nothing is ever searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sixfold.errors import SixfoldError
from sixfold.model.datapath import IPAddress, IPNetwork

NETWORK, HOST = 0, 1  # offsets that are never handed out; IPv4's broadcast is the third


class AddressError(SixfoldError):
    """This very address cannot be had."""


class ExhaustedError(SixfoldError):
    """Nothing can be handed out now; ``retry_s`` says when, None if somebody must go first."""

    def __init__(self, message: str, *, retry_s: float | None) -> None:
        self.retry_s = retry_s
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Lease:
    """One address and its owner; ``freed_at`` (seconds since the epoch) once it rests."""

    kind: str  # "pod" or "service"
    address: IPAddress
    owner: str  # pod: "namespace/pod" or its uid; service: "namespace/name"
    freed_at: float | None = None


class Pool:
    """The addresses of one kind and family."""

    def __init__(
        self, kind: str, network: IPNetwork, grace_s: float, leases: Iterable[Lease] = ()
    ) -> None:
        """``leases``: all that were kept; those of another kind or network are left alone."""
        self.kind = kind
        self.network = network
        self.grace_s = grace_s
        self._first = int(network.network_address)
        last = network.num_addresses - 1
        self._reserved = {NETWORK, HOST} | ({last} if network.version == 4 else set())
        self._end = network.num_addresses
        self._cursor = 0
        self._held: dict[IPAddress, str] = {}
        self._resting: dict[IPAddress, Lease] = {}  # in order of freed_at
        mine = [it for it in leases if it.kind == kind and self._contains(it.address)]
        for lease in sorted(mine, key=lambda lease: lease.freed_at or 0.0):
            if lease.freed_at is None:
                self._held[lease.address] = lease.owner
            else:
                self._resting[lease.address] = lease

    @property
    def size(self) -> int:
        """How many addresses can be held at once."""
        return max(0, self._end - len(self._reserved))

    @property
    def held(self) -> int:
        return len(self._held)

    def leases(self) -> Iterator[Lease]:
        """Everything that the store must keep."""
        for address, owner in self._held.items():
            yield Lease(self.kind, address, owner)
        yield from self._resting.values()

    def owner(self, address: IPAddress) -> str | None:
        """Who holds the address now."""
        return self._held.get(address)

    def allocate(self, owner: str, now_s: float) -> Lease:
        """Any address; ExhaustedError when all are held or resting."""
        address = self._rested(now_s) or self._fresh()
        if address is None:
            raise self._exhausted(now_s)
        return self._hold(address, owner)

    def claim(self, address: IPAddress, owner: str, now_s: float) -> Lease:
        """This address; again by its owner, or by its last owner during the grace, is fine."""
        if not self._contains(address):
            raise AddressError(
                f"{self.kind} address {address}: not in the pool {self.network}; "
                "give one of the pool, or none"
            )
        if int(address) - self._first in self._reserved:
            raise AddressError(
                f"{self.kind} address {address}: reserved in {self.network} (network, host or "
                "broadcast); give another, or none"
            )
        holder = self._held.get(address, owner)
        if holder != owner:
            raise AddressError(
                f"{self.kind} address {address}: held by {holder}; give another, or none"
            )
        resting = self._resting.get(address)
        if resting and resting.owner != owner and (rest_s := self._rest_s(resting, now_s)) > 0:
            raise AddressError(
                f"{self.kind} address {address}: was {resting.owner}'s until a moment ago, free "
                f"in {rest_s:.0f} s; give another, or wait"
            )
        return self._hold(address, owner)

    def release(self, address: IPAddress, now_s: float) -> Lease | None:
        """Let the address rest; the lease to keep, or None when nobody held it."""
        owner = self._held.pop(address, None)
        if owner is None:
            return None
        lease = Lease(self.kind, address, owner, now_s)
        self._resting[address] = lease
        return lease

    def _contains(self, address: IPAddress) -> bool:
        return address.version == self.network.version and address in self.network

    def _hold(self, address: IPAddress, owner: str) -> Lease:
        self._resting.pop(address, None)
        self._held[address] = owner
        return Lease(self.kind, address, owner)

    def _rest_s(self, lease: Lease, now_s: float) -> float:
        """Seconds of rest left. A clock that was set back must not prolong it."""
        assert lease.freed_at is not None
        return min(lease.freed_at + self.grace_s - now_s, self.grace_s)

    def _rested(self, now_s: float) -> IPAddress | None:
        oldest = next(iter(self._resting.values()), None)
        if oldest is None or self._rest_s(oldest, now_s) > 0:
            return None
        return oldest.address

    def _fresh(self) -> IPAddress | None:
        """The lowest address that never had a lease; each is looked at once in a lifetime."""
        while self._cursor < self._end:
            offset, address = self._cursor, self.network[self._cursor]
            taken = address in self._held or address in self._resting
            if offset not in self._reserved and not taken:
                return address  # the cursor stays: a caller that holds it moves us on
            self._cursor += 1
        return None

    def _exhausted(self, now_s: float) -> ExhaustedError:
        head = f"{self.kind} pool {self.network}: all {self.size} addresses are"
        if not self._resting:
            message = f"{head} in use; delete something, or give a bigger pool"
            return ExhaustedError(message, retry_s=None)
        retry_s = self._rest_s(next(iter(self._resting.values())), now_s)
        return ExhaustedError(
            f"{head} in use or resting ({len(self._resting)} until reuse is safe), the next is "
            f"free in {retry_s:.0f} s; wait, or give a bigger pool",
            retry_s=retry_s,
        )
