/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Connections of pods: new ones, and those whose verdict is of yesterday, are judged,
 * remembered and told.
 */
#pragma once

#include "connection.h"
#include "names.h"
#include "translation.h"
#include "tunnel.h"

/* Parse whatever is IP; a reason, or DROP_NONE. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *packet,
				 __be16 protocol)
{
	if (likely(protocol == htons(ETH_P_IP)))
		return parse_ipv4(skb, packet);
	if (protocol == htons(ETH_P_IPV6))
		return parse_ipv6(skb, packet);
	return DROP_UNSUPPORTED_L2;
}

static __noinline int drop(struct __sk_buff *skb, const struct packet *packet,
			   struct observation *seen, int reason)
{
	__u32 ifindex = skb->ifindex;
	const struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);

	/* Dropped before anybody asked who: this side at least is known. */
	if (endpoint && !seen->identity[seen->direction == INGRESS])
		seen->identity[seen->direction == INGRESS] = endpoint->identity;
	statistic(reason);
	seen->type = EVENT_DROP;
	seen->reason = reason;
	emit(skb, packet, seen);
	return TC_ACT_SHOT;
}

/* Dropped for what the packet is, not for who talks to whom. */
static __noinline int refuse(struct __sk_buff *skb, const struct packet *packet,
			     __u32 direction, int reason)
{
	struct observation seen = {.direction = direction};

	return drop(skb, packet, &seen, reason);
}

static __always_inline bool is_service(const union address *address)
{
	struct frontend_key key = {};

	if (is_cluster_address(address))
		return true;
	key.address = *address; /* or another's, that nobody else has */
	return bpf_map_lookup_elem(&frontends, &key);
}

/* For the caller to do: the stack is short. */
#define DEPARTS 1001

/* To the interface of a pod, or to the host's stack; or DEPARTS. */
static __always_inline int deliver(const struct conntrack *entry, __u32 ifindex)
{
	if (entry->client_ifindex)
		return DEPARTS;
	return ifindex ? bpf_redirect_peer(ifindex, 0) : TC_ACT_OK;
}

/* A connection that conntrack does not know, or whose verdict is of yesterday.
 *
 * dialled  what its client outside has dialled, if it was a service; else NULL
 */
static __noinline int connection(struct __sk_buff *skb, struct packet *packet,
				 const struct endpoint *endpoint, __u32 direction,
				 const struct dialled_place *dialled)
{
	struct judgement *judgement = blank_judgement();
	struct observation seen = {.type = EVENT_VERDICT, .direction = direction};
	struct conntrack *entry, *fresh = blank_connection();
	struct conntrack_key key;
	__u32 current =
	    revision(); /* before any lookup: a change meanwhile judges again */
	__u32 side = conntrack_key(packet, &key);
	struct peer *mine, *theirs;
	bool mine_opened;
	int reason;

	if (!fresh || !judgement)
		return TC_ACT_SHOT; /* never: arrays of one */
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (entry &&
	    (!continues(entry, packet, side) || entry->transport == TRANSPORT_MTLS))
		entry = NULL;
	seen.is_reply = entry && entry->originator != side;
	mine_opened = (direction == EGRESS) != seen.is_reply;
	mine = &judgement->peer[mine_opened ? EGRESS : INGRESS];
	theirs = &judgement->peer[mine_opened ? INGRESS : EGRESS];
	peer_of(mine, endpoint, packet->family == 4);
	resolve(direction == EGRESS ? &packet->destination : &packet->source, theirs);
	ask_about(judgement, packet, seen.is_reply);
	judgement->transport = transport_of(packet, entry, &key);
	if (!entry && direction == EGRESS && !theirs->ifindex &&
	    is_service(&packet->destination))
		reason = DROP_NO_BACKEND;
	else
		reason = judge(judgement);
	note_judged(&seen, judgement, direction == EGRESS ? mine : theirs,
		    direction == EGRESS ? theirs : mine);
	if (!entry && dialled)
		take_arrival(skb, dialled, fresh);
	else if (!entry)
		take_translation(packet, direction == EGRESS ? endpoint->id : 0, fresh);
	seen.service = entry ? entry->service : fresh->service;
	seen.service_port = entry ? entry->service_port : fresh->service_port;
	seen.dial = entry ? entry->dial : fresh->dial;
	if (!reason && direction == EGRESS && asks_name(packet) &&
	    theirs->identity == IDENTITY_RESOLVER && !packet->passed) {
		audited(&seen, judgement, entry);
		note_question(&seen, current, endpoint->id);
		return ASKED;
	}
	if (reason) {
		if (!entry) /* the sweep closes the sockets of others */
			bpf_map_delete_elem(&conntrack, &key);
		else if (ends(packet, entry))
			return direction == EGRESS ? deliver(entry, theirs->ifindex)
						   : TC_ACT_OK;
		if (reason != DROP_NO_BACKEND)
			seen.direction = judgement->direction;
		return drop(skb, packet, &seen, reason);
	}
	if (entry) {
		if (audited(&seen, judgement, entry)) {
			statistic(STATISTIC_AUDITED);
			emit(skb, packet, &seen);
		}
		remember(entry, judgement, entry->originator);
		entry->revision = current;
		conntrack_touch(entry, packet, side, skb->len);
		return direction == EGRESS ? deliver(entry, theirs->ifindex)
					   : TC_ACT_OK;
	}
	remember(fresh, judgement, side);
	fresh->transport = judgement->transport;
	begin(fresh, packet, side, current, skb->len);
	if (bpf_map_update_elem(&conntrack, &key, fresh, BPF_ANY))
		return drop(skb, packet, &seen, DROP_CT_FULL);
	if (fresh->transport == TRANSPORT_TUNNEL) {
		statistic(STATISTIC_TUNNELS);
		return direction == EGRESS ? deliver(fresh, theirs->ifindex)
					   : TC_ACT_OK;
	}
	if (judgement->mode == MODE_PERMISSIVE)
		count_plaintext(judgement);
	statistic(STATISTIC_FORWARDED);
	if (audited(&seen, judgement, NULL))
		statistic(STATISTIC_AUDITED);
	emit(skb, packet, &seen);
	return direction == EGRESS ? deliver(fresh, theirs->ifindex) : TC_ACT_OK;
}
