"""Discovery: what is everything called?

Pure: a world and its EndpointSlices in, DNS records out. Source: the Kubernetes DNS
specification 1.1.0, with CoreDNS's choices where it leaves one: the name of an endpoint without
hostname is its address with dashes, an SRV question at the service's own name names all ports.

Theory of operation of ``ZonePlanner``. Each service has a fragment of records, a pure function
of the Service object and its slices; a fragment is built again when one of them is another
object. A PTR may come from several services (a pod behind two headless ones), so those are
merged; every other name belongs to one service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address

from sixfold.balancing.changes import changes
from sixfold.balancing.members import cluster_addresses
from sixfold.discovery import dns_sd
from sixfold.discovery.vouched import SpiffeIds
from sixfold.discovery.zone import (
    EXISTS,
    IPAddress,
    Owner,
    Rdata,
    RecordKey,
    Zone,
    ZoneDelta,
    ZoneSettings,
    dashed,
    owner_of,
    reverse_name,
    reverse_origins,
)
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config, PodRecords
from sixfold.model.endpoint import Endpoint
from sixfold.model.service import EndpointSlice, Service, SliceEndpoint
from sixfold.model.world import World

SCHEMA_VERSION = "1.1.0"

Slices = Mapping[str, tuple[EndpointSlice, ...]]
Records = dict[RecordKey, Rdata]
Growing = dict[RecordKey, dict[str, None]]  # rdata in the order of arrival, each once


@lru_cache(maxsize=4)
def zone_settings(config: Config) -> ZoneSettings:
    """The zones we are the authority for: the cluster domain and the reverses of our pools."""
    pools = (config.pod_ipv4, config.service_ipv4, config.pod_ipv6, config.service_ipv6)
    reverses = [origin for pool in pools for origin in reverse_origins(pool)]
    alias = (config.dns_sd_domain,) if config.dns_sd_domain else ()
    origins = (config.cluster_domain.lower(), *alias, *dict.fromkeys(reverses))
    return ZoneSettings(origins, config.dns_ttl_s, pods_insecure=config.dns_pods == "insecure")


def plan_zone(world: World, slices: Slices) -> Zone:
    """All records of a world, from nothing."""
    return ZonePlanner().plan(world, slices)


def service_records(service: Service, slices: Sequence[EndpointSlice], domain: str) -> Zone:
    """Records of one service (Kubernetes DNS 2.3 and 2.4)."""
    if "." in service.metadata.name:  # a host of a ServiceEntry: no name of the cluster
        return {}
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}".lower()
    if service.spec.type == "ExternalName":
        return {RecordKey(name, "CNAME"): (f"{alias_of(service)}.",)}
    if service.spec.headless:
        return _headless_records(service, name, slices)
    records: Growing = {}
    addresses = cluster_addresses(service)
    for address in addresses:
        _add(records, name, _address_type(address), str(address))
        _add(records, reverse_name(address), "PTR", f"{name}.")
    for port in service.spec.ports if addresses else ():
        rdata = f"0 100 {port.port} {name}."
        _add(records, name, "SRV", rdata)
        if port.name:
            _add(records, f"_{port.name}._{port.protocol}.{name}".lower(), "SRV", rdata)
    return _grown(records)


def alias_of(service: Service) -> str:
    """What a service of type ExternalName stands for; lower case, no final dot."""
    return service.spec.external_name.rstrip(".").lower()


def alias_owner(service: Service, domain: str) -> Owner | None:
    """Whose name it is that a service of type ExternalName stands for, if it is one of ours."""
    return owner_of(alias_of(service), (domain.lower(),))


def _headless_records(service: Service, name: str, slices: Sequence[EndpointSlice]) -> Records:
    """Ready endpoints only; without any the name does not exist."""
    unready = service.spec.publish_not_ready_addresses
    records: Growing = {}
    targets: dict[tuple[str, str, int], dict[str, None]] = {}  # port name, protocol, number
    for slice_ in slices:
        for endpoint in slice_.endpoints:
            if slice_.address_type == "FQDN" or not (endpoint.conditions.ready or unready):
                continue
            for address in map(ip_address, endpoint.addresses):
                host = _endpoint_name(endpoint, address, name)
                _add(records, name, _address_type(address), str(address))
                _add(records, host, _address_type(address), str(address))
                _add(records, reverse_name(address), "PTR", f"{host}.")
                for port in slice_.ports:
                    key = (port.name or "", port.protocol, port.port or 0)
                    targets.setdefault(key, {})[host] = None
    per_port: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for (port_name, protocol, number), hosts in targets.items():
        per_port.setdefault((port_name, protocol), []).extend((number, host) for host in hosts)
    for (port_name, protocol), members in per_port.items():
        weight = max(1, 100 // len(members))
        for number, host in members:
            rdata = f"0 {weight} {number} {host}."
            _add(records, name, "SRV", rdata)
            if port_name:
                _add(records, f"_{port_name}._{protocol}.{name}".lower(), "SRV", rdata)
    return _grown(records)


def _endpoint_name(endpoint: SliceEndpoint, address: IPAddress, service_name: str) -> str:
    return f"{endpoint.hostname or dashed(address)}.{service_name}".lower()


def _address_type(address: IPAddress) -> str:
    return "A" if address.version == 4 else "AAAA"


def _add(records: Growing, name: str, type_: str, rdata: str) -> None:
    records.setdefault(RecordKey(name, type_), {})[rdata] = None


def _grown(records: Growing) -> Records:
    return {key: tuple(rdata) for key, rdata in records.items()}


def _fixed_records(domain: str) -> Records:
    """Records that stand whatever the world is (Kubernetes DNS 2.2, and the zone's own server)."""
    return {
        RecordKey(domain, "NS"): (f"ns.dns.{domain}.",),
        RecordKey(f"ns.dns.{domain}", "A"): (str(RESOLVER_IPV4),),
        RecordKey(f"ns.dns.{domain}", "AAAA"): (str(RESOLVER_IPV6),),
        RecordKey(f"dns-version.{domain}", "TXT"): (f'"{SCHEMA_VERSION}"',),
        RecordKey(f"svc.{domain}", EXISTS): (),
        RecordKey(f"pod.{domain}", EXISTS): (),
    }


class ZonePlanner:
    """Plans records world after world; the cost follows the change (see the module's head)."""

    def __init__(self) -> None:
        self._pods: PodRecords = "disabled"
        self._domain = ""
        self._alias = ""  # of DNS-SD; "" is none
        self._namespaces: frozenset[str] = frozenset()
        self._services: Mapping[str, Service] = {}
        self._slices: Slices = {}
        self._endpoints: Mapping[str, Endpoint] = {}
        self._fragments: dict[str, Zone] = {}
        self._pointers: dict[RecordKey, dict[str, Rdata]] = {}  # PTR, by fragment
        self._records: Records = {}
        self._touched: set[RecordKey] = set()  # since take_delta()
        self._changed = False
        self._published: Zone = {}

    def plan(self, world: World, slices: Slices) -> Zone:
        """All records of this world; the same object as long as nothing changes."""
        self._pods = world.config.dns_pods
        self._take_domain(world.config.cluster_domain.lower(), world.config.dns_sd_domain)
        self._take_namespaces(frozenset(world.namespaces))
        self._take_services(world.services, slices, SpiffeIds(world))
        if self._pods == "verified":
            self._take_pods(world.endpoints)
        if self._changed:
            self._published = self._records.copy()
            self._changed = False
        return self._published

    def take_delta(self) -> ZoneDelta:
        """What the plans since the last call have changed."""
        touched, self._touched = self._touched, set()
        put = {key: self._records[key] for key in touched if key in self._records}
        return ZoneDelta(put, frozenset(touched - put.keys()))

    def _take_services(
        self, services: Mapping[str, Service], slices: Slices, ids: SpiffeIds
    ) -> None:
        gone, changed = changes(self._services, services)
        sliced_gone, sliced = changes(self._slices, slices)
        self._services, self._slices = services, slices
        for key in gone:
            self._replace(key, {})
        for key in {*changed, *sliced, *sliced_gone} & services.keys():
            mine = slices.get(key, ())
            records = service_records(services[key], mine, self._domain)
            if self._alias:
                records = {
                    **records,
                    **dns_sd.service_records(services[key], mine, self._alias, ids),
                }
            self._replace(key, records)

    def _take_domain(self, domain: str, alias: str) -> None:
        if domain != self._domain:
            assert not self._domain, "the cluster domain is fixed for the life of an instance"
            self._domain, self._alias = domain, alias
            browsed = dns_sd.domain_records(alias, domain) if alias else {}
            self._replace("", {**_fixed_records(domain), **browsed})

    def _take_namespaces(self, namespaces: frozenset[str]) -> None:
        for name in self._namespaces - namespaces:
            self._replace(name, {})
        for name in namespaces - self._namespaces:
            kinds = ("svc",) if self._pods == "disabled" else ("svc", "pod")
            nodes = (f"{name}.{kind}.{self._domain}" for kind in kinds)
            self._replace(name, {RecordKey(node, EXISTS): () for node in nodes})
        self._namespaces = namespaces

    def _take_pods(self, endpoints: Mapping[str, Endpoint]) -> None:
        """``192-0-2-1.ns.pod``, for pods that are there (CoreDNS ``pods verified``)."""
        gone, changed = changes(self._endpoints, endpoints)
        self._endpoints = endpoints
        for key in gone:
            self._replace(f"pod {key}", {})
        for key in changed:
            endpoint = endpoints[key]
            parent = f"{endpoint.namespace}.pod.{self._domain}"
            self._replace(
                f"pod {key}",
                {
                    RecordKey(f"{dashed(a)}.{parent}", _address_type(a)): (str(a),)
                    for a in endpoint.addresses
                },
            )

    def _replace(self, fragment: str, new: Zone) -> None:
        """Put one fragment in the place of its predecessor."""
        old = self._fragments.pop(fragment, {})
        if new:
            self._fragments[fragment] = new
        for key in old.keys() - new.keys():
            self._put(key, self._merged(fragment, key, None))
        for key, rdata in new.items():
            if old.get(key) != rdata:
                self._put(key, self._merged(fragment, key, rdata))

    def _merged(self, fragment: str, key: RecordKey, rdata: Rdata | None) -> Rdata | None:
        if key.type != "PTR":
            return rdata
        shares = self._pointers.setdefault(key, {})
        shares.pop(fragment, None)
        if rdata is not None:
            shares[fragment] = rdata
        if not shares:
            del self._pointers[key]
            return None
        return _union(shares.values())

    def _put(self, key: RecordKey, rdata: Rdata | None) -> None:
        self._changed = True
        self._touched.add(key)
        if rdata is None:
            self._records.pop(key, None)
        else:
            self._records[key] = rdata


def _union(shares: Iterable[Rdata]) -> Rdata:
    return tuple(sorted({text for share in shares for text in share}))
