/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host as an endpoint: its policy towards the world, at its uplinks.
 *
 * The host's is what it made itself (no device brought it in) and what is addressed to
 * it. What it forwards is not, though it leaves under the host's address when it is
 * masqueraded: such a connection is remembered as forwarded, so that its answers, which
 * come to the host's address, are told from what is meant for the host.
 *
 * While no policy selects the host nothing of this runs: RUNTIME_TRACKING says so.
 * Exempt is what keeps the link alive: ARP (which is no IP), neighbour discovery, group
 * membership, and the exchange of a DHCP client.
 */
#pragma once

#include "connection.h"

#define DHCP_SERVER  67
#define DHCP_CLIENT  68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

static __always_inline bool is_tracking(void)
{
	__u32 index = RUNTIME_TRACKING;
	__u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value && *value;
}

/* Source: RFC 4890, 4.3.1 and 4.4.1, as Cilium has it. */
static __always_inline bool keeps_link(__u8 type)
{
	return (type >= 130 && type <= 137) || (type >= 141 && type <= 143) ||
	       type == 148 || type == 149 || (type >= 151 && type <= 153);
}

static __always_inline bool is_exempt(const struct packet *packet, __u32 direction)
{
	__be16 client = htons(packet->family == 4 ? DHCP_CLIENT : DHCP6_CLIENT);
	__be16 server = htons(packet->family == 4 ? DHCP_SERVER : DHCP6_SERVER);

	if (packet->protocol == PROTOCOL_ICMPV6)
		return keeps_link(packet->icmp_type);
	if (packet->protocol == IPPROTO_UDP)
		return direction == EGRESS ? packet->source_port == client &&
						 packet->destination_port == server
					   : packet->source_port == server &&
						 packet->destination_port == client;
	return packet->protocol == IPPROTO_IGMP;
}

static __noinline bool is_for_host(const union address *address)
{
	struct peer peer;

	if (is_multicast(address))
		return true;
	resolve(address, &peer);
	return is_hosts(&peer);
}

/* An ICMP error passes if it is about a connection that is there; and one that the host
 * sends as a router, about what was not addressed to it, is no business of its policy.
 */
static __noinline int host_error(struct __sk_buff *skb, const struct packet *error,
				 __u32 direction)
{
	struct packet quoted = {};
	struct conntrack_key key;
	struct conntrack *entry;

	if (parse_quoted(skb, error, &quoted))
		return DROP_ICMP_UNRELATED;
	conntrack_key(&quoted, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (entry && !expired(entry, quoted.protocol, now()) &&
	    equal(&quoted.source, &error->destination))
		return DROP_NONE;
	if (direction == EGRESS && !is_for_host(&quoted.destination))
		return DROP_NONE;
	return DROP_ICMP_UNRELATED;
}

/* What is forwarded under the host's address: its answers are not the host's. */
static __noinline int follow(struct __sk_buff *skb, const struct packet *packet)
{
	struct conntrack *fresh = blank_connection();
	struct conntrack_key key;
	__u32 side = conntrack_key(packet, &key);

	if (!fresh || !is_for_host(&packet->source))
		return 0;
	begin(fresh, packet, side, revision(), skb->len);
	fresh->uplink = UPLINK_FORWARDED;
	fresh->identity[0] = side ? IDENTITY_WORLD : IDENTITY_HOST;
	fresh->identity[1] = side ? IDENTITY_HOST : IDENTITY_WORLD;
	bpf_map_update_elem(&conntrack, &key, fresh, BPF_ANY);
	return 0;
}

/* An answer to somebody from outside whom the host let in, and forwards elsewhere. */
static __noinline bool is_published(const struct packet *packet)
{
	struct conntrack_key key;
	__u32 side = conntrack_key(packet, &key);
	struct conntrack *entry = bpf_map_lookup_elem(&conntrack, &key);

	return entry && entry->uplink && entry->uplink != UPLINK_FORWARDED &&
	       entry->originator != side && continues(entry, packet, side);
}

/* Judge what is the host's. `odd`: the packet is none that a connection can be made of
 * (an error, or malformed), and this is the reason unless all of its kind may pass. */
static __noinline int host_connection(struct __sk_buff *skb, struct packet *packet,
				      __u32 direction, int odd)
{
	struct judgement *judgement = blank_judgement();
	struct observation seen = {.type = EVENT_VERDICT, .direction = direction};
	struct conntrack *known, *entry, *fresh = blank_connection();
	struct conntrack_key key;
	__u32 current = revision(), side = conntrack_key(packet, &key);
	struct peer *mine, *theirs;
	bool mine_opened;
	int reason;

	if (!fresh || !judgement)
		return TC_ACT_SHOT; /* never: arrays of one */
	known = odd ? NULL : bpf_map_lookup_elem(&conntrack, &key);
	entry = known;
	if (entry &&
	    (entry->uplink == UPLINK_FORWARDED || !continues(entry, packet, side)))
		entry = NULL;
	seen.is_reply = entry && entry->originator != side;
	mine_opened = (direction == EGRESS) != seen.is_reply;
	mine = &judgement->peer[mine_opened ? EGRESS : INGRESS];
	theirs = &judgement->peer[mine_opened ? INGRESS : EGRESS];
	mine->identity = IDENTITY_HOST;
	resolve(direction == EGRESS ? &packet->destination : &packet->source, theirs);
	if (is_hosts(theirs)) /* link-local: a neighbour; or a lie */
		theirs->identity = IDENTITY_WORLD;
	ask_about(judgement, packet, seen.is_reply);
	if (direction == INGRESS && theirs->id) /* pods never come this way */
		reason = odd = DROP_INVALID_SOURCE_IP;
	else
		reason = judge(judgement);
	note_judged(&seen, judgement, direction == EGRESS ? mine : theirs,
		    direction == EGRESS ? theirs : mine);
	if (reason) {
		if (entry && ends(packet, entry))
			return TCX_NEXT;
		if (known && !entry && known->uplink != UPLINK_FORWARDED)
			bpf_map_delete_elem(&conntrack, &key);
		if (!odd)
			seen.direction = judgement->direction;
		statistic(odd ? odd : reason);
		seen.type = EVENT_DROP;
		seen.reason = odd ? odd : reason;
		emit(skb, packet, &seen);
		return TC_ACT_SHOT;
	}
	if (odd)
		return TCX_NEXT;
	if (audited(&seen, judgement, entry))
		statistic(STATISTIC_AUDITED);
	if (entry) {
		if (seen.type == EVENT_AUDIT || !entry->revision)
			emit(skb, packet, &seen);
		remember(entry, judgement, entry->originator);
		entry->revision = current;
		conntrack_touch(entry, packet, side, skb->len);
		return TCX_NEXT;
	}
	remember(fresh, judgement, side);
	begin(fresh, packet, side, current, skb->len);
	fresh->uplink = 1 + (direction == EGRESS ? side : !side);
	bpf_map_update_elem(&conntrack, &key, fresh, BPF_ANY);
	statistic(STATISTIC_FORWARDED);
	emit(skb, packet, &seen);
	return TCX_NEXT;
}

/* An open connection goes on: one lookup. What the host itself sends is never taken for
 * what it forwards, and the other way round only where it is an answer to somebody that
 * the host forwards in (a published port). */
static __always_inline bool goes_on(struct __sk_buff *skb, const struct packet *packet,
				    __u32 direction)
{
	bool passed_on = direction == EGRESS && skb->ingress_ifindex;
	struct conntrack_key key;
	struct conntrack *entry;
	__u32 side;

	side = conntrack_key(packet, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (!entry || !entry->uplink)
		return false;
	if (entry->uplink == UPLINK_FORWARDED) {
		if (direction == EGRESS ? !passed_on : opens(packet))
			return false;
	} else if (opens(packet) || entry->revision != revision()) {
		return false;
	}
	return conntrack_touch(entry, packet, side, skb->len);
}

__noinline int host_slow_path(struct __sk_buff *skb, struct packet *packet,
			      __u32 direction, int odd)
{
	bool passed_on = direction == EGRESS && skb->ingress_ifindex;

	if (!packet)
		return TC_ACT_SHOT;
	if (!passed_on && direction == INGRESS && !is_for_host(&packet->destination))
		return TCX_NEXT;
	if (passed_on) {
		if (odd || is_icmp_error(packet))
			return TCX_NEXT;
		if (!is_published(packet)) {
			follow(skb, packet);
			return TCX_NEXT;
		}
	}
	if (is_exempt(packet, direction))
		return TCX_NEXT;
	if (!odd && is_icmp_error(packet)) {
		odd = host_error(skb, packet, direction);
		if (!odd)
			return TCX_NEXT;
	}
	return host_connection(skb, packet, direction, odd);
}

/* The host's own policy. A frame with a VLAN tag is of the VLAN's device, and judged
 * there. `packet` is room for one; `offset`: where the network header begins. TCX_NEXT,
 * or how odd the packet is, for host_slow_path(). */
static __always_inline int host_fast_path(struct __sk_buff *skb, struct packet *packet,
					  __u32 direction, __u32 offset)
{
	int odd;

	if (likely(!is_tracking()))
		return TCX_NEXT;
	if (skb->vlan_present && skb->vlan_tci & 0xfff)
		return TCX_NEXT;
	if (skb->protocol != htons(ETH_P_IP) && skb->protocol != htons(ETH_P_IPV6))
		return TCX_NEXT;
	pull_headers(skb);
	__builtin_memset(packet, 0, sizeof(*packet));
	odd = skb->protocol == htons(ETH_P_IP) ? parse_ipv4_at(skb, packet, offset)
					       : parse_ipv6_at(skb, packet, offset);
	return likely(!odd) && goes_on(skb, packet, direction) ? TCX_NEXT : odd;
}

static __always_inline int host_policy(struct __sk_buff *skb, __u32 direction,
				       __u32 offset)
{
	struct packet packet;
	int odd = host_fast_path(skb, &packet, direction, offset);

	return odd == TCX_NEXT ? TCX_NEXT
			       : host_slow_path(skb, &packet, direction, odd);
}
