/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Judged again: an open connection whose verdict is of yesterday, without a packet of
 * it.
 *
 * What is still allowed is renewed under its new rule, so that it goes on as before.
 * What is not is told as a flow, and left in `severed`: whose sockets the agent then
 * closes. Its conntrack entry stays until that is done, so that the resets of those
 * sockets may pass.
 */
#pragma once

#include "conntrack.h"
#include "event.h"

/* Full: the connection is cut all the same, but its sockets find out by themselves. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack);
} severed SEC(".maps");

static __always_inline void report(const struct conntrack *entry, struct packet *packet,
				   const struct judgement *judgement)
{
	bool cut = judgement->reason;
	struct observation seen = {
	    .type = cut ? EVENT_CUT : EVENT_AUDIT,
	    .reason = cut ? judgement->reason : judgement->audit,
	    .direction = cut ? judgement->direction : judgement->audit_direction,
	    .identity = {judgement->peer[EGRESS].identity,
			 judgement->peer[INGRESS].identity},
	    .rule = {judgement->rule[0], judgement->rule[1]},
	    .service = entry->service,
	    .service_port = entry->service_port,
	    .transport = entry->transport,
	};

	packet->icmp_type = packet->icmp_request;
	tell(packet, &seen,
	     judgement->peer[EGRESS].ifindex ? judgement->peer[EGRESS].ifindex
					     : judgement->peer[INGRESS].ifindex,
	     0);
}

/* Not cut: it is over, or one of its ends moved away. */
static __always_inline bool is_over(const struct conntrack_key *key,
				    const struct conntrack *entry,
				    const struct judgement *judgement)
{
	__u32 originator = entry->originator & 1;

	return (entry->transport != TRANSPORT_MTLS &&
		entry->transport != TRANSPORT_GIVEN &&
		expired(entry, key->protocol, now())) ||
	       (originator ? entry->ifindex[1] : entry->ifindex[0]) !=
		   judgement->peer[EGRESS].ifindex ||
	       (originator ? entry->ifindex[0] : entry->ifindex[1]) !=
		   judgement->peer[INGRESS].ifindex;
}

/* One side is the host's, the other is outside, whatever its address is called. */
static __always_inline void at_uplink(struct judgement *judgement, bool host_opened)
{
	struct peer *host = &judgement->peer[host_opened ? EGRESS : INGRESS],
		    *other = &judgement->peer[host_opened ? INGRESS : EGRESS];

	host->identity = IDENTITY_HOST;
	if (is_hosts(other))
		other->identity = IDENTITY_WORLD;
}

/* Whether it is over. */
static __noinline bool judge_entry(const struct conntrack_key *key,
				   struct conntrack *entry)
{
	struct judgement judgement = {.protocol = key->protocol,
				      .transport = entry->transport};
	struct packet packet = {.protocol = key->protocol,
				.icmp_request = key->icmp_request};
	__u32 current = revision(); /* before any lookup, as for a packet */
	bool swapped;

	if (!entry->revision || entry->revision == current)
		return false;
	if (entry->transport == TRANSPORT_TUNNEL) { /* what is in it has its own */
		entry->revision = current;
		return false;
	}
	swapped = entry->originator & 1;
	packet.source = swapped ? key->address[1] : key->address[0];
	packet.destination = swapped ? key->address[0] : key->address[1];
	packet.source_port = swapped ? key->port[1] : key->port[0];
	packet.destination_port = swapped ? key->port[0] : key->port[1];
	resolve(&packet.source, &judgement.peer[EGRESS]);
	resolve(&packet.destination, &judgement.peer[INGRESS]);
	if (entry->uplink == UPLINK_FORWARDED || /* its pod has an entry of its own */
	    (entry->uplink == UPLINK_RELAYED && !is_hosts(&judgement.peer[INGRESS]))) {
		entry->revision = current;
		return false;
	}
	if (entry->uplink == UPLINK_RELAYED)
		at_uplink(&judgement, false);
	else if (entry->uplink)
		at_uplink(&judgement, swapped == (entry->uplink != UPLINK_HOST));
	if (is_over(key, entry, &judgement))
		return true;
	judgement.port =
	    key->icmp_request ? htons(key->icmp_request) : packet.destination_port;
	if (judge(&judgement)) {
		entry->revision = 0; /* once */
		if (!(entry->tcp_flags & (TCP_FIN | TCP_RST))) {
			statistic(STATISTIC_CUT);
			report(entry, &packet, &judgement);
			bpf_map_update_elem(&severed, key, entry, BPF_ANY);
		}
		return false;
	}
	if (judgement.audit && (entry->rule[0] != judgement.rule[0] ||
				entry->rule[1] != judgement.rule[1])) {
		statistic(STATISTIC_AUDITED);
		report(entry, &packet, &judgement);
	}
	entry->identity[0] = judgement.peer[swapped ? INGRESS : EGRESS].identity;
	entry->identity[1] = judgement.peer[swapped ? EGRESS : INGRESS].identity;
	entry->rule[0] = judgement.rule[0];
	entry->rule[1] = judgement.rule[1];
	entry->revision = current;
	return false;
}

static __noinline int judge_again(const struct conntrack_key *key)
{
	struct conntrack *entry = bpf_map_lookup_elem(&conntrack, key);

	if (entry && judge_entry(key, entry))
		bpf_map_delete_elem(&conntrack, key);
	return 0;
}
