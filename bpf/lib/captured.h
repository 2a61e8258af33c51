/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Captured: connections of pods that their proxy carries through a tunnel.
 *
 * Nobody sees packets of such a connection, so it does not stand in conntrack, where a
 * packet could pass for one of it; and least recently used ones must not be forgotten,
 * for nothing would judge them anew. When it is over, conntrack is told how it ended.
 */
#pragma once

#include "again.h"
#include "kernel.h"

enum capture_state {
	CAPTURE_NONE = 0,
	CAPTURE_DIALLING = 1, /* towards the proxy */
	CAPTURE_TAKEN = 2,    /* by the proxy: it is in `captured` */
};

/* Of a client's socket, from its connect on. */
struct capture {
	struct captured_key key;
	union address source; /* the pod's own */
	union address destination;
	union address dialled; /* what the proxy is told */
	__be16 dialled_port;
	__be16 proxy_port; /* of its listener */
	__be16 port;
	__be16 service_port;
	__u32 service;
	__u32 state; /* enum capture_state */
	__u32 revision;
	__u32 ifindex[2]; /* these by direction */
	__u32 identity[2];
	__u32 rule[2];
	__u8 audit;
	__u8 audit_direction;
	__u8 dial;    /* enum dial */
	__u8 outward; /* to the world: the proxy dials it itself, as a connection */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct capture);
} captures SEC(".maps");

/* Full: what is not here the proxy refuses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct captured_key);
	__type(value, struct captured);
} captured SEC(".maps");

/* Told as if its packets had been seen. */
static __noinline int tell_captured(const struct capture *capture, __be16 source_port,
				    __u8 reason)
{
	struct packet packet = {.protocol = IPPROTO_TCP,
				.tcp_flags = TCP_SYN,
				.source_port = source_port,
				.destination_port = capture->port};
	struct observation seen = {
	    .type = reason	     ? EVENT_DROP
		    : capture->audit ? EVENT_AUDIT
				     : EVENT_VERDICT,
	    .reason = reason ?: capture->audit,
	    .direction = reason ? EGRESS : capture->audit_direction,
	    .identity = {capture->identity[EGRESS], capture->identity[INGRESS]},
	    .rule = {capture->rule[0], capture->rule[1]},
	    .service = capture->service,
	    .service_port = capture->service_port,
	    .dial = capture->dial,
	    .transport = capture->outward ? TRANSPORT_OUTWARD : TRANSPORT_MTLS,
	};

	packet.source = capture->source;
	packet.destination = capture->destination;
	if (reason)
		statistic(reason);
	tell(&packet, &seen, capture->ifindex[EGRESS], 0);
	return 0;
}

static __noinline int judge_captured(const struct captured_key *key)
{
	struct captured *known = bpf_map_lookup_elem(&captured, key);

	if (!known || !judge_entry(&known->connection, &known->entry))
		return 0;
	/* One of its ends moved away: nothing that would have to be told. */
	known->entry.revision = 0;
	bpf_map_update_elem(&severed, &known->connection, &known->entry, BPF_ANY);
	return 0;
}
