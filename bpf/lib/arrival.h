/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Connections from outside to a service of the node: where they go, and how many are
 * open.
 *
 * A client sees the service, the pod sees the client. `arrivals` is keyed by what the
 * client sees, conntrack by what the pod sees; the entry there says what was dialled,
 * so that an answer leaves under that name. What it says of the client's packets is
 * borrowed for a tick of the clock (conntrack.h): then, and when policy or the state of
 * the connection moves on, it is looked up, and told how many there were meanwhile.
 *
 * An arrival counts as a connection from its second packet on: then somebody has
 * answered, and a flood of forged first packets counts for nothing. It is counted when
 * its key enters `arrived`, and counted down when it leaves that map, whoever takes it
 * out (a FIN, a reset, or the agent when conntrack has forgotten it): both happen once.
 */
#pragma once

#include "conntrack.h"
#include "deaf.h"
#include "load.h"
#include "nat.h"

/* Least recently used ones give way; a client of one sends its next packet anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct tuple); /* client, service */
	__type(value, struct arrival);
} arrivals SEC(".maps");

/* Full: the connection goes on, uncounted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct conntrack_key); /* client and backend */
	__type(value, __u32);		   /* number of the backend */
} arrived SEC(".maps");

#define BPF_NOEXIST_ 1

/* What a client outside has dialled. */
struct dialled_place {
	struct place place;
	__u32 service;
	__u32 pad;
};

static __noinline int arrival_opened(const struct conntrack_key *key, __u32 number)
{
	struct load *load = load_of(number);

	if (!load)
		return 0;
	if (bpf_map_update_elem(&arrived, key, &number, BPF_NOEXIST_)) {
		if (!bpf_map_lookup_elem(&arrived, key))
			statistic(STATISTIC_UNLOADED);
		return 0;
	}
	__sync_fetch_and_add(&load->active, 1);
	__sync_fetch_and_add(&load->total, 1);
	return 0;
}

/* A key stands for one backend, so that whoever deletes it has read its number. */
static __noinline int arrival_closed(const struct conntrack_key *key)
{
	__u32 *known = bpf_map_lookup_elem(&arrived, key), number;
	struct load *load;

	if (!known)
		return 0;
	number = *known;
	if (bpf_map_delete_elem(&arrived, key))
		return 0; /* another was first */
	load = load_of(number);
	if (load)
		__sync_fetch_and_add(&load->active, -1);
	return 0;
}

static __always_inline void take_arrival(struct __sk_buff *skb,
					 const struct dialled_place *dialled,
					 struct conntrack *entry)
{
	entry->service = dialled->service;
	entry->service_port = dialled->place.port;
	entry->service_address = dialled->place.address;
	entry->client_ifindex = skb->ifindex;
}

static __always_inline bool closes(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP &&
	       packet->tcp_flags & (TCP_FIN | TCP_RST);
}

/* Apart from its caller, for its key: the stack is short. */
static __noinline int arrival_answered(const struct packet *packet)
{
	struct conntrack_key key;

	conntrack_key(packet, &key);
	return arrival_closed(&key);
}

/* A backend's first word to a client that dialled it is a reset: nobody listens there.
 * What it says to packets that dial nobody, as a scan sends them, is about nobody. */
static __noinline int note_refusal(const struct packet *packet,
				   const struct conntrack *entry)
{
	struct deaf_key key;

	if (packet->protocol != IPPROTO_TCP ||
	    (packet->tcp_flags & (TCP_RST | TCP_ACK)) != (TCP_RST | TCP_ACK) ||
	    !(entry->tcp_flags & TCP_SYN) ||
	    (entry->originator ? entry->packets[0] : entry->packets[1]) != 1)
		return 0;
	deaf_key(&packet->source, packet->source_port, &key);
	return mark_deaf(&key);
}

/* Nobody is there, or he is not to be had; not "too big", which is about one packet. */
static __always_inline bool says_unreachable(const struct packet *error)
{
	if (error->protocol == IPPROTO_ICMP)
		return error->icmp_type == 3 && error->icmp_code != 4;
	return error->icmp_type == 1;
}

/* The same from a router, or from the backend's own firewall, on the way back to a
 * client outside that has dialled it and heard nothing yet. */
static __noinline int note_unreachable(const struct packet *error,
				       const struct packet *quoted,
				       const struct conntrack *entry)
{
	struct deaf_key key;

	if (!says_unreachable(error) || quoted->protocol != IPPROTO_TCP ||
	    !(entry->tcp_flags & TCP_SYN) ||
	    (entry->originator ? entry->packets[0] : entry->packets[1]))
		return 0;
	deaf_key(&quoted->destination, quoted->destination_port, &key);
	return mark_deaf(&key);
}

/* What ends a connection, from its backend, which conntrack has counted. */
static __always_inline void backend_closes(const struct packet *packet,
					   const struct conntrack *entry)
{
	note_refusal(packet, entry);
	arrival_answered(packet);
}

/* A pod's answer to a client outside. */
static __noinline int depart(struct __sk_buff *skb, const struct packet *packet,
			     const struct conntrack *entry)
{
	__u32 uplink = entry->client_ifindex;

	if (unlikely(closes(packet)))
		backend_closes(packet, entry);
	if (rewrite(skb, packet, SOURCE, &entry->service_address, entry->service_port))
		return TC_ACT_SHOT;
	return bpf_redirect_neigh(uplink, NULL, 0, 0);
}

/* The same, where the connection has just been judged. */
static __noinline int depart_judged(struct __sk_buff *skb, const struct packet *packet)
{
	struct conntrack_key key;
	const struct conntrack *entry;

	conntrack_key(packet, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	return entry ? depart(skb, packet, entry) : TC_ACT_SHOT;
}
