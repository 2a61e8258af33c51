/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Into the node: a packet from outside to one of its services becomes one to a pod.
 *
 * Of a connection that is there and judged it takes a look at its line; where another
 * has that, a lookup of `arrivals`; once a tick, and when the packet says something
 * new, a second, of conntrack. All else chooses, judges and remembers.
 */
#pragma once

#include "line.h"
#include "reject.h"
#include "relay.h"

/* What becomes of a packet; above them are drop reasons. */
enum arrival_verdict {
	NOT_OURS = 1,
	NEW_ARRIVAL, /* its destination is its backend now */
	UNSURE,	     /* it is of an arrival that is known, and to be looked at */
	GONE,	     /* its connection is over: its client is told */
};

struct arriving {
	struct dialled_place dialled;
	struct arrival fresh;
	struct tuple tuple; /* client, service */
};

/* An arrival is put together here: the stack is short. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arriving);
} new_arrival SEC(".maps");

static __always_inline void aim(struct packet *packet, const struct arrival *arrival)
{
	packet->destination = arrival->backend;
	packet->destination_port = arrival->port;
}

/* The packet's destination becomes that place, and the other way round. */
static __always_inline void exchange(struct packet *packet, struct place *place)
{
	struct place kept = {.port = packet->destination_port};

	kept.address = packet->destination;
	packet->destination = place->address;
	packet->destination_port = place->port;
	*place = kept;
}

static __always_inline bool is_of(const struct conntrack *entry,
				  const struct place *dialled)
{
	return entry->service_port == dialled->port &&
	       equal(&entry->service_address, &dialled->address);
}

/* Into the pod, or on to the host's stack; the packet says what was dialled. */
static __noinline int enter(struct __sk_buff *skb, const struct packet *packet,
			    const struct arrival *arrival, __u32 ifindex)
{
	if (rewrite(skb, packet, DESTINATION, &arrival->backend, arrival->port))
		return TC_ACT_SHOT;
	return likely(ifindex) ? bpf_redirect_peer(ifindex, 0) : relay(skb);
}

/* Counted from the second packet on, down when either side ends it. */
static __always_inline void count_arrival(const struct packet *packet,
					  struct arrival *arrival,
					  const struct conntrack_key *key)
{
	if (unlikely(closes(packet))) {
		arrival->flags |= ARRIVAL_COUNTED;
		arrival_closed(key);
	} else if (unlikely(!(arrival->flags & ARRIVAL_COUNTED))) {
		arrival->flags |= ARRIVAL_COUNTED;
		arrival_opened(key, arrival->number);
	}
}

/* Conntrack is told what it has not seen, and lends what it says for a tick. */
static __always_inline void settle(struct arrival *arrival, struct conntrack *entry,
				   __u32 side)
{
	entry->packets[side & 1] += arrival->packets;
	entry->bytes[side & 1] += arrival->bytes;
	arrival->packets = arrival->bytes = 0;
	arrival->tcp_flags = entry->tcp_flags & ~(TCP_SYN | TCP_FIN | TCP_RST);
	arrival->ifindex = entry->ifindex[!(side & 1)];
	arrival->client_ifindex = entry->client_ifindex;
	arrival->tick = entry->tick;
	arrival->revision = entry->revision;
}

/* Looks at the entry of conntrack. UNSURE: nothing has changed. */
static __noinline int catch_up(struct __sk_buff *skb, struct packet *packet,
			       struct arrival *arrival)
{
	struct place dialled = {.port = packet->destination_port};
	struct conntrack *entry;
	struct conntrack_key key;
	__u32 side;

	if (unlikely(opens(packet)))
		return UNSURE;
	dialled.address = packet->destination;
	aim(packet, arrival);
	side = conntrack_key(packet, &key);
	exchange(packet, &dialled);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (unlikely(!entry) || unlikely(entry->revision != revision()) ||
	    unlikely(entry->service_port != packet->destination_port) ||
	    unlikely(!equal(&entry->service_address, &packet->destination)) ||
	    !conntrack_touch(entry, packet, side, skb->len))
		return UNSURE;
	entry->client_ifindex = skb->ifindex;
	count_arrival(packet, arrival, &key);
	leave_line(&packet->tuple); /* what it has counted is settled with the rest */
	settle(arrival, entry, side);
	keep_line(&packet->tuple, arrival);
	return enter(skb, packet, arrival, arrival->ifindex);
}

/* A packet of an arrival that has no line. UNSURE: nothing has changed. */
static __noinline int go_on_slowly(struct __sk_buff *skb, struct packet *packet,
				   struct arrival *arrival)
{
	if (unlikely(arrival->revision != revision() || arrival->tick != tick() ||
		     arrival->client_ifindex != skb->ifindex ||
		     packet->tcp_flags & ~arrival->tcp_flags))
		return catch_up(skb, packet, arrival);
	arrival->packets += 1;
	arrival->bytes += skb->len;
	keep_line(&packet->tuple, arrival);
	return enter(skb, packet, arrival, arrival->ifindex);
}

/* A packet of a connection that is there, and judged. NOT_OURS or UNSURE: it is not,
 * and nothing has changed. */
static __always_inline int go_on(struct __sk_buff *skb, struct packet *packet)
{
	struct arrival_line *line = line_of(&packet->tuple);
	struct arrival *arrival;
	__u32 version, ifindex;
	int failed;

	if (!line)
		return NOT_OURS; /* never: of an array */
	version = *(volatile __u32 *)&line->version;
	if (!is_in(&packet->tuple, line) || line->revision != revision() ||
	    line->tick != tick() || line->client_ifindex != skb->ifindex ||
	    packet->tcp_flags & ~line->tcp_flags || version & 1) {
		arrival = bpf_map_lookup_elem(&arrivals, &packet->tuple);
		return arrival ? go_on_slowly(skb, packet, arrival) : NOT_OURS;
	}
	line->packets += 1;
	line->bytes += skb->len;
	ifindex = line->ifindex;
	failed = rewrite(skb, packet, DESTINATION, &line->backend, line->port);
	asm volatile("" ::: "memory");
	if (unlikely(failed || line->version != version))
		return TC_ACT_SHOT;
	return likely(ifindex) ? bpf_redirect_peer(ifindex, 0) : relay(skb);
}

static __noinline int refuse_arrival(struct __sk_buff *skb, const struct packet *packet,
				     __u32 service, int reason)
{
	struct observation seen = {
	    .direction = INGRESS,
	    .service = service,
	    .service_port = packet->destination_port,
	    .identity = {0, IDENTITY_HOST},
	};
	struct peer client;

	resolve(&packet->source, &client);
	seen.identity[0] = client.identity;
	return drop(skb, packet, &seen, reason);
}

/* A new connection to a frontend: to whom? */
static __noinline int choose(struct packet *packet, const struct frontend *frontend,
			     struct arriving *arriving)
{
	const struct backend *backend;
	int i;

	if (frontend->flags & FRONTEND_RANGES && !in_range(frontend, &packet->source))
		return DROP_SOURCE_RANGE;
	if (!frontend->count)
		return DROP_NO_BACKEND;
	for (i = 0; i < TRIES; i++) {
		__u32 number = pick_outside(frontend, packet);

		if (unlikely(some_are_deaf()))
			number =
			    hearing(frontend, number, client_outside(frontend, packet));
		backend = number ? bpf_map_lookup_elem(&backends, &number) : NULL;
		if (!backend)
			return DROP_NO_BACKEND;
		arriving->fresh.flags =
		    bpf_map_lookup_elem(&addresses, &backend->address)
			? 0
			: ARRIVAL_RELAYED;
		arriving->fresh.number = number;
		arriving->fresh.backend = backend->address;
		arriving->fresh.port = backend->port;
		aim(packet, &arriving->fresh);
		if (!is_taken(packet, &arriving->dialled)) {
			statistic(STATISTIC_TRANSLATED);
			return NEW_ARRIVAL;
		}
		packet->destination = arriving->dialled.place.address;
		packet->destination_port = arriving->dialled.place.port;
	}
	return DROP_NO_NAT_MAPPING;
}

/* The backend of an arrival has gone: its connection ends here. */
static __noinline int forget_arrival(const struct packet *packet,
				     const struct arrival *arrival)
{
	struct conntrack_key key;
	struct packet there = *packet;

	bpf_map_delete_elem(&arrivals, &packet->tuple);
	aim(&there, arrival);
	conntrack_key(&there, &key);
	bpf_map_delete_elem(&conntrack, &key);
	return arrival_closed(&key);
}

/* Whether a connection that is there has this packet, too. */
static __noinline int covers(const struct packet *packet, const struct place *dialled)
{
	struct conntrack_key key;
	const struct conntrack *entry;
	__u32 side = conntrack_key(packet, &key);

	entry = bpf_map_lookup_elem(&conntrack, &key);
	return entry && is_of(entry, dialled) && continues(entry, packet, side);
}

/* Whose is a packet that no judged connection has? */
static __noinline int place_arrival(struct packet *packet, struct arriving *arriving,
				    bool unsure)
{
	const struct arrival *known =
	    unsure ? bpf_map_lookup_elem(&arrivals, &arriving->tuple) : NULL;
	const struct frontend *frontend = dialled_frontend(packet);
	bool goes_on = packet->protocol == IPPROTO_TCP && !opens(packet);

	arriving->dialled.place.address = packet->destination;
	arriving->dialled.place.port = packet->destination_port;
	arriving->dialled.service = frontend ? frontend->service : 0;
	if (known && !(known->flags & ARRIVAL_RELAYED) &&
	    !bpf_map_lookup_elem(&addresses, &known->backend)) {
		forget_arrival(packet, known);
		if (goes_on)
			return GONE;
		known = NULL;
	}
	if (known) {
		arriving->fresh = *known;
		aim(packet, known);
		if (goes_on || covers(packet, &arriving->dialled.place))
			return NEW_ARRIVAL;
		packet->destination = arriving->dialled.place.address;
		packet->destination_port = arriving->dialled.place.port;
	}
	if (!frontend)
		return NOT_OURS;
	__builtin_memset(&arriving->fresh, 0, sizeof(arriving->fresh));
	if (goes_on && frontend->count && !is_consistent(frontend))
		return is_node(&packet->destination) ? NOT_OURS : GONE;
	return choose(packet, frontend, arriving);
}

/* The same for a backend that is no pod here. TCX_NEXT: the host's policy is asked. */
static __noinline int arrive_elsewhere(struct __sk_buff *skb, struct packet *packet,
				       struct arriving *arriving)
{
	bool judged = is_judged(&packet->destination);
	int verdict;

	if (begin_relay(skb, packet, &arriving->dialled) ||
	    bpf_map_update_elem(&arrivals, &arriving->tuple, &arriving->fresh, BPF_ANY))
		return TC_ACT_SHOT;
	exchange(packet, &arriving->dialled.place);
	verdict = enter(skb, packet, &arriving->fresh, 0);
	return judged && verdict == TO_STACK ? TCX_NEXT : verdict;
}

/* Everything but the next packet of an open connection. */
__global int arrive(struct __sk_buff *skb, struct packet *packet, bool unsure)
{
	__u32 zero = 0;
	struct arriving *arriving = bpf_map_lookup_elem(&new_arrival, &zero);
	const struct endpoint *endpoint;
	int verdict;

	if (!arriving || !packet)
		return TC_ACT_SHOT; /* never */
	arriving->tuple = packet->tuple;
	leave_line(&arriving->tuple);
	verdict = place_arrival(packet, arriving, unsure);
	if (verdict == NOT_OURS)
		return TCX_NEXT;
	if (verdict > GONE)
		refuse_arrival(skb, packet, arriving->dialled.service, verdict);
	if (verdict == GONE || verdict == DROP_NO_BACKEND)
		return reject(skb, packet);
	if (verdict != NEW_ARRIVAL)
		return TC_ACT_SHOT;
	if (arriving->fresh.flags & ARRIVAL_RELAYED)
		return arrive_elsewhere(skb, packet, arriving);
	endpoint = bpf_map_lookup_elem(&addresses, &packet->destination);
	if (!endpoint)
		return TC_ACT_SHOT;
	verdict = connection(skb, packet, endpoint, INGRESS, &arriving->dialled);
	if (verdict != TC_ACT_OK ||
	    bpf_map_update_elem(&arrivals, &arriving->tuple, &arriving->fresh, BPF_ANY))
		return TC_ACT_SHOT;
	exchange(packet, &arriving->dialled.place);
	return enter(skb, packet, &arriving->fresh, endpoint->ifindex);
}
