/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Clients outside, and backends that are no pods of this host: endpoints that somebody
 * wrote, behind an address of the world, or of the host itself.
 *
 *   in   the service becomes the backend; the host's stack takes it, or forwards it
 *        under an address of the host (host/nat.py, by the packet's mark)
 *   out  the stack has turned the answer back to its client: the backend becomes the
 *        service
 *
 * Conntrack has client and backend, as if both had met without the host; so routes,
 * path MTU and free ports are the stack's to know. Only what the host itself serves is
 * judged, by its policy: else neither end is here.
 */
#pragma once

#include "host.h"
#include "outside.h"
#include "pod.h"

#define TO_STACK 1002 /* translated: nothing else is to be asked of it */

static __always_inline bool is_relaying(void)
{
	__u32 index = RUNTIME_RELAYING;
	__u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value && *value;
}

static __noinline int keep_relaying(void)
{
	__u32 index = RUNTIME_RELAYING, yes = 1;

	return is_relaying() ? 0 : bpf_map_update_elem(&runtime, &index, &yes, BPF_ANY);
}

/* To the stack, what is translated. */
static __noinline int relay(struct __sk_buff *skb)
{
	skb->mark |= MARK_RELAYED;
	return TO_STACK;
}

static __always_inline bool is_judged(const union address *backend)
{
	return is_tracking() && is_for_host(backend);
}

static __noinline int tell_relayed(struct __sk_buff *skb, const struct packet *packet,
				   const struct conntrack *entry, __u32 side)
{
	struct observation seen = {
	    .type = EVENT_VERDICT,
	    .direction = INGRESS,
	    .service = entry->service,
	    .service_port = entry->service_port,
	    .identity = {side ? entry->identity[1] : entry->identity[0],
			 side ? entry->identity[0] : entry->identity[1]},
	};

	statistic(STATISTIC_FORWARDED);
	emit(skb, packet, &seen);
	return 0;
}

/* Remember a connection whose packet has its backend as destination. */
static __noinline int begin_relay(struct __sk_buff *skb, const struct packet *packet,
				  const struct dialled_place *dialled)
{
	struct conntrack *entry, *fresh = blank_connection();
	__u32 current = revision();
	struct conntrack_key key;
	__u32 side = conntrack_key(packet, &key);
	struct peer from, to;

	if (!fresh)
		return 1; /* never: an array of one */
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (entry && entry->uplink == UPLINK_RELAYED &&
	    continues(entry, packet, side)) {
		if (is_judged(&packet->destination))
			return 0;
		entry->revision = current;
		return !conntrack_touch(entry, packet, side, skb->len);
	}
	resolve(&packet->source, &from);
	resolve(&packet->destination, &to);
	fresh->identity[0] = side ? to.identity : from.identity;
	fresh->identity[1] = side ? from.identity : to.identity;
	take_arrival(skb, dialled, fresh);
	begin(fresh, packet, side, current, skb->len);
	fresh->uplink = UPLINK_RELAYED;
	if (is_judged(&packet->destination))
		fresh->revision = 0; /* not yet */
	if (bpf_map_update_elem(&conntrack, &key, fresh, BPF_ANY) || keep_relaying())
		return 1;
	if (!fresh->revision)
		return 0;
	return tell_relayed(skb, packet, fresh, side);
}

/* The entry of what a backend sends to its client; NULL: nothing of ours. */
static __noinline struct conntrack *relayed_to(const struct packet *packet)
{
	struct conntrack_key key;
	__u32 side = conntrack_key(packet, &key);
	struct conntrack *entry = bpf_map_lookup_elem(&conntrack, &key);

	if (!entry || entry->uplink != UPLINK_RELAYED || entry->originator == side)
		return NULL;
	return entry;
}

/* An error on its way to a client: about what it sent to the backend, as the stack
 * thinks. */
static __noinline int relayed_error(struct __sk_buff *skb, const struct packet *error)
{
	struct place from = {}, to = {};
	struct packet quoted = {};
	const struct conntrack *entry;
	struct conntrack_key key;
	__u32 side;

	if (parse_quoted(skb, error, &quoted) ||
	    !equal(&quoted.source, &error->destination))
		return TCX_NEXT;
	side = conntrack_key(&quoted, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (!entry || entry->uplink != UPLINK_RELAYED || entry->originator != side)
		return TCX_NEXT;
	if (error->protocol == IPPROTO_ICMP && error->icmp_type == 5)
		return TC_ACT_SHOT; /* the service is nowhere but here */
	note_unreachable(error, &quoted, entry);
	from.address = quoted.destination;
	from.port = quoted.destination_port;
	to.address = entry->service_address;
	to.port = entry->service_port;
	return rewrite_error(skb, error, &quoted, &from, &to) ? TC_ACT_SHOT : TO_STACK;
}

/* What leaves for a client of a relayed connection; TCX_NEXT: nothing of ours. */
static __noinline int from_relay(struct __sk_buff *skb, __u32 offset)
{
	struct packet packet = {};
	struct conntrack *entry;

	pull_headers(skb);
	if (skb->protocol == htons(ETH_P_IP)	 ? parse_ipv4_at(skb, &packet, offset)
	    : skb->protocol == htons(ETH_P_IPV6) ? parse_ipv6_at(skb, &packet, offset)
						 : DROP_UNSUPPORTED_L2)
		return TCX_NEXT;
	if (packet.protocol != IPPROTO_TCP && packet.protocol != IPPROTO_UDP)
		return is_icmp_error(&packet) ? relayed_error(skb, &packet) : TCX_NEXT;
	entry = relayed_to(&packet);
	if (!entry)
		return TCX_NEXT;
	conntrack_touch(entry, &packet, !entry->originator, skb->len);
	if (closes(&packet))
		backend_closes(&packet, entry);
	return rewrite(skb, &packet, SOURCE, &entry->service_address,
		       entry->service_port)
		   ? TC_ACT_SHOT
		   : TO_STACK;
}
