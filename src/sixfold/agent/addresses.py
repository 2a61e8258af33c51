"""The address ledger: four pools whose leases are on disk before an address is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress, IPNetwork
from sixfold.routing.ipam import Lease, Pool
from sixfold.store import Database


class Addresses:
    """Pods lease by uid, services by ``service namespace/name``."""

    def __init__(self, database: Database, config: Config) -> None:
        self._database = database
        self.config = config
        self._load()

    def _load(self) -> None:
        rows = self._database.connection.execute("SELECT address, owner, freed_at FROM addresses")
        kept = [(ip_address(address), owner, freed_at) for address, owner, freed_at in rows]
        config = self.config
        grace_s = config.ip_reuse_grace_s
        self._pods = _pools("pod", (config.pod_ipv4, config.pod_ipv6), grace_s, kept)
        self._services = _pools(
            "service", (config.service_ipv4, config.service_ipv6), grace_s, kept
        )
        self._held: dict[str, list[IPAddress]] = {}
        for address, owner, freed_at in kept:
            if freed_at is None:
                self._held.setdefault(owner, []).append(address)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What comes to nothing on disk comes to nothing here: all is read anew."""
        with self._database.transaction():
            self._database.on_rollback(self._load)
            yield

    def allocate_pod(self, uid: str, now_s: float) -> tuple[IPv4Address, IPv6Address]:
        """The pod's two addresses; asked again, the same. ExhaustedError when a pool is empty."""
        held: dict[int, IPAddress] = {it.version: it for it in self._held.get(uid, [])}
        with self._transaction():  # half of a pod's addresses is of no use to it
            for version in {4, 6} - held.keys():
                held[version] = self._keep(self._pods[version].allocate(uid, now_s))
        ipv4, ipv6 = held[4], held[6]
        assert isinstance(ipv4, IPv4Address)
        assert isinstance(ipv6, IPv6Address)
        return ipv4, ipv6

    def allocate_service(self, family: str, owner: str, now_s: float) -> IPAddress:
        """A cluster address of a family ("IPv4", "IPv6")."""
        with self._transaction():
            pool = self._services[4 if family == "IPv4" else 6]
            return self._keep(pool.allocate(owner, now_s))

    def claim_service(self, address: IPAddress, owner: str, now_s: float) -> None:
        """Take this very address, unless the owner has it already. Raises AddressError."""
        if address not in self._held.get(owner, []):
            with self._transaction():
                self._keep(self._services[address.version].claim(address, owner, now_s))

    def of_services(self, address: IPAddress) -> bool:
        """Whether it is in the range of cluster addresses."""
        return address in (self.config.service_ipv4, self.config.service_ipv6)[address.version == 6]

    def release_service(self, address: IPAddress, owner: str, now_s: float) -> None:
        """Let one cluster address rest, if it is this owner's."""
        if address in self._held.get(owner, []):
            with self._transaction():
                self._held[owner].remove(address)
                if lease := self._services[address.version].release(address, now_s):
                    self._write(lease)

    def release(self, owner: str, now_s: float) -> None:
        """Let all addresses of an owner rest."""
        if owner not in self._held:
            return
        with self._transaction():
            for address in self._held.pop(owner):
                for pools in (self._pods, self._services):
                    if lease := pools[address.version].release(address, now_s):
                        self._write(lease)

    def release_all_but(self, owners: Iterable[str], now_s: float) -> None:
        """Release what a crash left behind: leases of owners that no object speaks for."""
        for owner in set(self._held) - set(owners):
            self.release(owner, now_s)

    def _keep(self, lease: Lease) -> IPAddress:
        self._write(lease)
        self._held.setdefault(lease.owner, []).append(lease.address)
        return lease.address

    def _write(self, lease: Lease) -> None:
        self._database.connection.execute(
            "REPLACE INTO addresses VALUES (?, ?, ?)",
            (str(lease.address), lease.owner, lease.freed_at),
        )


def _pools(
    kind: str,
    networks: Iterable[IPNetwork],
    grace_s: float,
    kept: Iterable[tuple[IPAddress, str, float | None]],
) -> dict[int, Pool]:
    leases = [Lease(kind, address, owner, freed_at) for address, owner, freed_at in kept]
    return {network.version: Pool(kind, network, grace_s, leases) for network in networks}
