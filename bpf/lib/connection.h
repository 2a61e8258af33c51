/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Connections: is this packet of the one that conntrack has, or of a new one; and what
 * is remembered of either?
 */
#pragma once

#include "arrival.h"
#include "event.h"

#define RELATED_OUTSIDE 1

/* An ICMP error passes iff it is about a connection that is there, and is addressed to
 * the side that sent the packet it quotes. A pod may only complain about what it got.
 */
static __noinline int related(struct __sk_buff *skb, const struct packet *error,
			      __u32 direction, __u32 *ifindex)
{
	struct place from, to;
	struct packet quoted = {};
	struct conntrack_key key;
	struct conntrack *entry;
	__u32 side;

	if (error->icmp_type == 5 && error->protocol == IPPROTO_ICMP)
		return DROP_ICMP_UNRELATED;
	if (parse_quoted(skb, error, &quoted))
		return DROP_ICMP_UNRELATED;
	if (!equal(&quoted.source, &error->destination) ||
	    (direction == EGRESS && !equal(&quoted.destination, &error->source)))
		return DROP_ICMP_UNRELATED;
	side = conntrack_key(&quoted, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (!entry || expired(entry, quoted.protocol, now()))
		return DROP_ICMP_UNRELATED;
	*ifindex = entry->ifindex[side & 1];
	if (!entry->client_ifindex || direction == INGRESS)
		return DROP_NONE;
	from.address = quoted.destination;
	from.port = quoted.destination_port;
	to.address = entry->service_address;
	to.port = entry->service_port;
	if (rewrite_error(skb, error, &quoted, &from, &to))
		return DROP_INVALID_PACKET;
	*ifindex = entry->client_ifindex;
	return -RELATED_OUTSIDE;
}

/* Does the entry cover the packet, or is this a new connection in its clothes? */
static __always_inline bool continues(const struct conntrack *entry,
				      const struct packet *packet, __u32 side)
{
	if (expired(entry, packet->protocol, now()))
		return false;
	return !opens(packet) ||
	       (entry->originator == side && !(entry->tcp_flags & (TCP_FIN | TCP_RST)));
}

/* The reset that the kernel sends when the agent closes a socket (see sweep.bpf.c): so
 * that the other side learns of it, too. It carries nothing but a timestamp. */
static __always_inline bool ends(const struct packet *packet,
				 const struct conntrack *entry)
{
	return !entry->revision && packet->protocol == IPPROTO_TCP &&
	       packet->tcp_flags & TCP_RST &&
	       packet->end <= packet->transport + TCP_LENGTH + 12;
}

/* Select values, not places: the stack takes no variable index. */
static __always_inline void remember(struct conntrack *entry,
				     const struct judgement *judgement, __u32 source)
{
	const struct peer *from = &judgement->peer[EGRESS],
			  *to = &judgement->peer[INGRESS];

	entry->ifindex[0] = source ? to->ifindex : from->ifindex;
	entry->ifindex[1] = source ? from->ifindex : to->ifindex;
	entry->identity[0] = source ? to->identity : from->identity;
	entry->identity[1] = source ? from->identity : to->identity;
	entry->rule[0] = judgement->rule[0];
	entry->rule[1] = judgement->rule[1];
}

/* What is judged: the port is that of the side that was dialled. */
static __always_inline void ask_about(struct judgement *judgement,
				      const struct packet *packet, bool is_reply)
{
	judgement->protocol = packet->protocol;
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == PROTOCOL_ICMPV6)
		judgement->port = htons(packet->icmp_request);
	else
		judgement->port =
		    is_reply ? packet->source_port : packet->destination_port;
}

/* Who the packet is from and to, and which rules decided. */
static __always_inline void note_judged(struct observation *seen,
					const struct judgement *judgement,
					const struct peer *source,
					const struct peer *destination)
{
	seen->identity[0] = source->identity;
	seen->identity[1] = destination->identity;
	seen->rule[0] = judgement->rule[0];
	seen->rule[1] = judgement->rule[1];
}

/* Told once per rule: an open connection may come to be allowed by an audit only. */
static __always_inline bool audited(struct observation *seen,
				    const struct judgement *judgement,
				    const struct conntrack *known)
{
	if (!judgement->audit || (known && known->rule[0] == judgement->rule[0] &&
				  known->rule[1] == judgement->rule[1]))
		return false;
	seen->type = EVENT_AUDIT;
	seen->reason = judgement->audit;
	seen->direction = judgement->audit_direction;
	return true;
}

/* The first packet of a new entry. */
static __always_inline void begin(struct conntrack *fresh, const struct packet *packet,
				  __u32 side, __u32 current, __u32 length)
{
	fresh->revision = current;
	fresh->originator = side;
	fresh->last_seen = now();
	fresh->tick = tick();
	fresh->tcp_flags = packet->tcp_flags;
	fresh->packets[0] = !side;
	fresh->packets[1] = !!side;
	fresh->bytes[0] = side ? 0 : length;
	fresh->bytes[1] = side ? length : 0;
}
