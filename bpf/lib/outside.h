/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Services of the node, as outside knows them: which backend gets this connection?
 */
#pragma once

#include "arrival.h"
#include "hearing.h"

#define TRIES 4 /* for a backend to which this client has no other connection */

/* Who may dial a service from outside. Full: apply() refuses before it writes. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_range);
	__type(value, __u8);
} source_ranges SEC(".maps");

static __always_inline bool in_range(const struct frontend *frontend,
				     const union address *client)
{
	struct source_range key = {.prefixlen = 160, .service = frontend->service};

	key.address = *client;
	return bpf_map_lookup_elem(&source_ranges, &key);
}

/* What the packet's destination is to the outside; NULL: nothing of ours. */
static __noinline const struct frontend *dialled_frontend(const struct packet *packet)
{
	struct frontend_key key = {.port = packet->destination_port,
				   .protocol = packet->protocol};
	const struct frontend *found;

	key.address = packet->destination;
	found = bpf_map_lookup_elem(&frontends, &key);
	if (!found && !is_loopback(&key.address))
		found = find_node_port(&key);
	if (!found) {
		key.port = 0;
		key.protocol = 0;
		found = bpf_map_lookup_elem(&frontends, &key);
		if (found && found->flags && is_node(&key.address))
			found = NULL; /* its other ports are the host's */
	}
	return found && found->flags & FRONTEND_OUTSIDE ? found : NULL;
}

static __always_inline bool is_announced(const union address *address)
{
	struct frontend_key key = {};
	const struct frontend *found;

	key.address = *address;
	found = bpf_map_lookup_elem(&frontends, &key);
	return found && found->flags & FRONTEND_ANNOUNCED;
}

static __always_inline bool is_consistent(const struct frontend *frontend)
{
	return frontend->algorithm == ALGORITHM_MAGLEV ||
	       frontend->algorithm == ALGORITHM_SOURCE_HASH;
}

static __always_inline __u32 client_outside(const struct frontend *frontend,
					    const struct packet *packet)
{
	bool whole = frontend->algorithm == ALGORITHM_MAGLEV && !frontend->affinity_s;

	return client_number(&packet->source, whole ? packet->source_port : 0);
}

/* Number of a backend, 0 if there is none. */
static __noinline __u32 pick_outside(const struct frontend *frontend,
				     const struct packet *packet)
{
	__u32 number;
	struct affinity_key mine = {.service = frontend->service,
				    .port = packet->destination_port,
				    .protocol = packet->protocol,
				    .ipv6 = packet->family == 6};
	__u32 client = client_outside(frontend, packet);

	mine.address = packet->source;
	number = frontend->affinity_s
		     ? pick_with_affinity(frontend, &mine, client)
		     : pick_slot(frontend, bpf_get_prandom_u32(), client);
	return number & SLOT_NUMBER_MASK;
}

/* Whether the client has another connection to this backend from the very same port, by
 * another address of a service: the pod could not tell them apart. */
static __noinline int is_taken(const struct packet *packet,
			       const struct dialled_place *dialled)
{
	struct conntrack_key key;
	const struct conntrack *entry;

	conntrack_key(packet, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	return entry && !expired(entry, packet->protocol, now()) &&
	       !(entry->tcp_flags & (TCP_FIN | TCP_RST)) &&
	       !(entry->client_ifindex && entry->service_port == dialled->place.port &&
		 equal(&entry->service_address, &dialled->place.address));
}
