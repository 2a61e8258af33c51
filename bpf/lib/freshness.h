/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Freshness: does who dials an address itself know it from an answer that still holds?
 *
 * Addresses of pods that names lead to (headless services) are known here, also for a
 * while after they are out of the names. The responder notes when a pod was last
 * answered; the connect hook compares, and counts. Nothing is refused for it. Service
 * addresses are stable, so nobody minds how long they are kept.
 *
 * A pod that asks for it is led from a retired address to who serves now, as by a
 * service: such a headless service has frontends at addresses of its number, which
 * balancing/successors.py plans. Policy judges the connection that comes of it.
 */
#pragma once

#include "policy.h"

#define FRESHNESS_GRACE_NS 1000000000ULL
#define LATE_TTLS	   3
/* Where a service's successors are, by its number: 240.0.0.0/4 and 100::/64, which are
 * nobody's. balancing/successors.py has the same. */
#define SUCCESSORS_IPV4 0xf0000000
#define SUCCESSORS_IPV6 0x01000000

/* host/freshness.py leaves out what does not fit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union address);
	__type(value, struct named_address);
} named_addresses SEC(".maps");

/* When a pod was last given addresses of a service. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pod_owner);
	__type(value, __u64); /* monotonic, in ns */
} lookups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pod_owner);
	__type(value, struct dials);
} dials SEC(".maps");

/* Pods whose dials of retired addresses are redirected, by endpoint id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} redirected_pods SEC(".maps");

static __always_inline void note_lookup(__u32 endpoint, __u32 owner)
{
	struct pod_owner key = {.endpoint = endpoint, .owner = owner};
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&lookups, &key, &now, BPF_ANY);
}

/* The latest answer with this address; 0: none that is remembered. Of which service. */
static __always_inline __u64 last_lookup(__u32 endpoint,
					 const struct named_address *named,
					 __u32 *owner)
{
	struct pod_owner key = {.endpoint = endpoint};
	__u64 last = 0, *time;
	int i;

#pragma unroll
	for (i = 0; i < NAMED_OWNERS; i++) {
		key.owner = named->owners[i];
		if (!key.owner)
			break;
		time = bpf_map_lookup_elem(&lookups, &key);
		if (time && *time > last) {
			last = *time;
			*owner = key.owner;
		}
	}
	return last;
}

static __always_inline struct dials *dials_of(__u32 endpoint, __u32 owner, __u64 now)
{
	struct pod_owner key = {.endpoint = endpoint, .owner = owner};
	struct dials fresh = {.since = now}, *known;

	known = bpf_map_lookup_elem(&dials, &key);
	if (known)
		return known;
	bpf_map_update_elem(&dials, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&dials, &key);
}

/* A pod knows its own address from nobody's answer. */
static __always_inline bool is_own(__u32 endpoint, const union address *address)
{
	const struct endpoint *holder = bpf_map_lookup_elem(&addresses, address);

	return holder && holder->id == endpoint;
}

/* A pod dials an address itself: enum dial. The connection's first packet is told, and
 * with it which service the address is, or was, of. */
static __noinline int watch_dial(__u32 endpoint, const struct frontend_key *dialled)
{
	const struct named_address *named;
	__u64 now, last, age, ttl;
	struct translation *note;
	struct dials *dials;
	int dial = DIAL_FRESH;
	__u32 owner = 0;

	if (!dialled || !endpoint)
		return dial;
	named = bpf_map_lookup_elem(&named_addresses, &dialled->address);
	if (!named || is_own(endpoint, &dialled->address))
		return dial;
	now = bpf_ktime_get_ns();
	ttl = named->ttl_ns;
	last = last_lookup(endpoint, named, &owner);
	dials = dials_of(endpoint, named->owners[0], now);
	if (!dials)
		return dial;
	dials->connections += 1;
	age = last && now > last ? now - last : 0;
	if (age > dials->longest_ns)
		dials->longest_ns = age;
	if (named->retired && now > named->retired + ttl + FRESHNESS_GRACE_NS) {
		dials->retired += 1;
		dials->address = dialled->address;
		dial = DIAL_RETIRED;
	} else if (!last) {
		dials->unasked += 1;
		dial = DIAL_NO_LOOKUP;
	} else if (age > ttl + FRESHNESS_GRACE_NS) {
		dials->expired += 1;
		if (age >= LATE_TTLS * ttl)
			dials->late += 1;
		dial = DIAL_EXPIRED;
	}
	note = translation_slot();
	if (!note || dial == DIAL_FRESH)
		return dial;
	note->address = dialled->address;
	note->port = note->service_port = dialled->port;
	note->service = named->owners[0];
	note->endpoint = endpoint;
	note->time = bpf_ktime_get_coarse_ns() >> 24;
	note->protocol = dialled->protocol;
	note->dial = dial;
	return dial;
}

/* Who serves now what this pod knew the address by: NULL, where it is not to be
 * redirected. Another pod may still have the address, and be on its way out, or not
 * ready: then only once no answer had it for longer than its TTL. */
static __always_inline const struct frontend *
find_successor(__u32 endpoint, int dial, const struct frontend_key *dialled)
{
	struct frontend_key key = {.port = dialled->port,
				   .protocol = dialled->protocol};
	const struct named_address *named;
	const struct frontend *found;
	struct dials *dials;
	__u32 owner = 0;

	if (!bpf_map_lookup_elem(&redirected_pods, &endpoint))
		return NULL;
	named = bpf_map_lookup_elem(&named_addresses, &dialled->address);
	if (!named || !named->retired || is_own(endpoint, &dialled->address))
		return NULL;
	if (dial != DIAL_RETIRED && bpf_map_lookup_elem(&addresses, &dialled->address))
		return NULL;
	if (!last_lookup(endpoint, named, &owner))
		return NULL;
	if (is_ipv4(&dialled->address)) {
		set_ipv4(&key.address, htonl(SUCCESSORS_IPV4 | owner));
	} else {
		key.address.word[0] = htonl(SUCCESSORS_IPV6);
		key.address.word[3] = htonl(owner);
	}
	found = bpf_map_lookup_elem(&frontends, &key);
	if (!found || !found->count)
		return NULL;
	dials = dials_of(endpoint, named->owners[0], bpf_ktime_get_ns());
	if (dials)
		dials->redirected += 1;
	return found;
}
