/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Tunnels: TCP of the proxy to another pod's tunnel port, or to the world; and
 * plaintext that came past them.
 */
#pragma once

#include "conntrack.h"
#include "policy.h"

/* Sockets of the proxy, from their first packet to their end. Full: what is not here is
 * not the proxy's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct conntrack_key);
	__type(value, __u64); /* when it was dialled */
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct plaintext_key);
	__type(value, struct plaintext);
} plaintexts SEC(".maps");

/* Is this packet of the proxy? Who looks like it is not it. */
static __noinline int transport_of_new(const struct packet *packet,
				       const struct conntrack_key *key)
{
	if (packet->protocol != IPPROTO_TCP || !mesh_in_use() ||
	    !bpf_map_lookup_elem(&tunnels, key))
		return TRANSPORT_PLAIN;
	return packet->destination_port == htons(TUNNEL_PORT) ||
		       packet->source_port == htons(TUNNEL_PORT)
		   ? TRANSPORT_TUNNEL
		   : TRANSPORT_OUTWARD;
}

static __always_inline __u8 transport_of(const struct packet *packet,
					 const struct conntrack *entry,
					 const struct conntrack_key *key)
{
	return entry ? entry->transport : transport_of_new(packet, key);
}

/* A new connection that only a permissive port has let in. */
static __noinline int count_plaintext(const struct judgement *judgement)
{
	struct plaintext_key key = {.client = judgement->peer[EGRESS].id,
				    .server = judgement->peer[INGRESS].id,
				    .port = judgement->port};
	struct plaintext fresh = {}, *known;

	statistic(STATISTIC_PLAINTEXT);
	known = bpf_map_lookup_elem(&plaintexts, &key);
	if (!known) {
		bpf_map_update_elem(&plaintexts, &key, &fresh, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&plaintexts, &key);
	}
	if (known) {
		__sync_fetch_and_add(&known->connections, 1);
		known->last_ns = bpf_ktime_get_ns();
	}
	return 0;
}
