/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host's uplinks: what comes in from the world, and what leaves for it.
 *
 * Not every packet here is ours to judge, and we are not alone on these devices: what
 * passes goes on to whoever is attached behind us (TCX_NEXT), never past them.
 *
 *   in   services of the node, as outside knows them; then the host's own policy
 *   out  the host's own policy
 *
 * A packet to a service is translated here and goes straight into the pod, under its
 * client's own address; the pod's answer is turned back where it leaves the pod
 * (from_endpoint), and goes straight to the device on which its client is.
 */
#include "lib/host.h"
#include "lib/outside.h"
#include "lib/pod.h"
#include "lib/reset.h"
#include "lib/vicinity.h"

#define PACKET_HOST 0

/* What becomes of a packet; above them are drop reasons. */
enum arrival_verdict {
	NOT_OURS = 1,
	NEW_ARRIVAL, /* its destination is its backend now */
	UNSURE,	     /* it is of an arrival that is known, and to be looked at */
	GONE,	     /* its connection is over: its client is told */
};

/* Whether any service is to be had from outside; if not, nothing of this runs. */
static __always_inline bool is_served(void)
{
	__u32 index = RUNTIME_OUTSIDE;
	__u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value && *value;
}

struct arriving {
	struct dialled_place dialled;
	struct arrival fresh;
	struct conntrack_key key; /* of client and service */
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

/* Into the pod; the packet says what was dialled. */
static __always_inline int enter(struct __sk_buff *skb, const struct packet *packet,
				 const struct place *pod, __u32 ifindex)
{
	if (rewrite(skb, packet, DESTINATION, pod))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(ifindex, 0);
}

/* Counted from the second packet on, down when either side ends it. */
static __always_inline void count_arrival(const struct packet *packet,
					  struct arrival *arrival,
					  const struct conntrack_key *key)
{
	if (unlikely(closes(packet))) {
		arrival->counted = 1;
		arrival_closed(key);
	} else if (unlikely(!arrival->counted)) {
		arrival->counted = 1;
		arrival_opened(key, arrival->number);
	}
}

/* A packet of a connection that is there, and judged: no more than two lookups. Else
 * NOT_OURS or UNSURE, and nothing has changed. Apart from its caller: the stack is
 * short.
 */
static __noinline int go_on(struct __sk_buff *skb, struct packet *packet)
{
	struct place dialled = {.port = packet->destination_port};
	struct arrival *arrival;
	struct conntrack *entry;
	struct conntrack_key key;
	__u32 side, ifindex;

	conntrack_key(packet, &key);
	arrival = bpf_map_lookup_elem(&arrivals, &key);
	if (!arrival)
		return NOT_OURS;
	if (unlikely(opens(packet)))
		return UNSURE;
	dialled.address = packet->destination;
	aim(packet, arrival);
	side = conntrack_key(packet, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (unlikely(!entry) || unlikely(entry->revision != revision()) ||
	    unlikely(!is_of(entry, &dialled)) ||
	    !conntrack_touch(entry, packet, side, skb->len)) {
		exchange(packet, &dialled);
		return UNSURE;
	}
	ifindex = entry->ifindex[!(side & 1)];
	if (unlikely(entry->client_ifindex != skb->ifindex))
		entry->client_ifindex = skb->ifindex;
	count_arrival(packet, arrival, &key);
	exchange(packet, &dialled);
	return enter(skb, packet, &dialled, ifindex);
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

		backend = number ? bpf_map_lookup_elem(&backends, &number) : NULL;
		if (!backend || !bpf_map_lookup_elem(&addresses, &backend->address))
			return DROP_NO_BACKEND;
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

	conntrack_key(&there, &key);
	bpf_map_delete_elem(&arrivals, &key);
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
	    unsure ? bpf_map_lookup_elem(&arrivals, &arriving->key) : NULL;
	const struct frontend *frontend = dialled_frontend(packet);
	bool goes_on = packet->protocol == IPPROTO_TCP && !opens(packet);

	arriving->dialled.place.address = packet->destination;
	arriving->dialled.place.port = packet->destination_port;
	arriving->dialled.service = frontend ? frontend->service : 0;
	if (known && !bpf_map_lookup_elem(&addresses, &known->backend)) {
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
	arriving->fresh.counted = 0;
	if (goes_on && frontend->count && !is_consistent(frontend))
		return is_node(&packet->destination) ? NOT_OURS : GONE;
	return choose(packet, frontend, arriving);
}

/* Everything but the next packet of an open connection. */
static __noinline int arrive(struct __sk_buff *skb, struct packet *packet, bool unsure)
{
	__u32 zero = 0;
	struct arriving *arriving = bpf_map_lookup_elem(&new_arrival, &zero);
	const struct endpoint *endpoint;
	int verdict;

	if (!arriving)
		return TC_ACT_SHOT; /* never: an array of one */
	conntrack_key(packet, &arriving->key);
	verdict = place_arrival(packet, arriving, unsure);
	if (verdict == NOT_OURS)
		return TCX_NEXT;
	if (verdict > GONE)
		refuse_arrival(skb, packet, arriving->dialled.service, verdict);
	if (verdict == GONE || verdict == DROP_NO_BACKEND)
		return reset(skb, packet);
	if (verdict != NEW_ARRIVAL)
		return TC_ACT_SHOT;
	endpoint = bpf_map_lookup_elem(&addresses, &packet->destination);
	if (!endpoint)
		return TC_ACT_SHOT;
	verdict = connection(skb, packet, endpoint, INGRESS, &arriving->dialled);
	if (verdict != TC_ACT_OK ||
	    bpf_map_update_elem(&arrivals, &arriving->key, &arriving->fresh, BPF_ANY))
		return TC_ACT_SHOT;
	exchange(packet, &arriving->dialled.place);
	return enter(skb, packet, &arriving->dialled.place, endpoint->ifindex);
}

/* An error about what a pod has sent to a client outside. */
static __noinline int error_arrives(struct __sk_buff *skb, const struct packet *error)
{
	struct place from = {}, to = {};
	const struct endpoint *endpoint;
	const struct arrival *arrival;
	struct packet quoted = {};
	struct conntrack_key key;

	if ((error->icmp_type == 5 && error->protocol == IPPROTO_ICMP) ||
	    parse_quoted(skb, error, &quoted) ||
	    !equal(&quoted.source, &error->destination))
		return TCX_NEXT;
	conntrack_key(&quoted, &key);
	arrival = bpf_map_lookup_elem(&arrivals, &key);
	endpoint = arrival ? bpf_map_lookup_elem(&addresses, &arrival->backend) : NULL;
	if (!arrival || !endpoint)
		return TCX_NEXT;
	from.address = quoted.source;
	from.port = quoted.source_port;
	to.address = arrival->backend;
	to.port = arrival->port;
	if (rewrite_error(skb, error, &quoted, &from, &to))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* What is for us, and in one piece enough to be looked at. */
static __always_inline int receive(struct __sk_buff *skb, struct packet *packet)
{
	struct ethhdr *ethernet;
	int reason, verdict;

	pull_headers(skb);
	ethernet = packet_at(skb, 0);
	/* Devices without Ethernet have something else there. */
	if ((void *)(ethernet + 1) > packet_end(skb) || skb->vlan_present ||
	    ethernet->h_proto != skb->protocol)
		return TCX_NEXT;
	if (unlikely(ethernet->h_proto == htons(ETH_P_ARP)))
		return asked_by_arp(skb);
	reason = parse(skb, packet, ethernet->h_proto);
	if (unlikely(reason))
		return packet->family && is_announced(&packet->destination)
			   ? refuse(skb, packet, INGRESS, reason)
			   : TCX_NEXT;
	if (unlikely(is_neighbour_discovery(packet)))
		return asked_by_neighbour(skb, packet);
	if (skb->pkt_type != PACKET_HOST)
		return TCX_NEXT;
	if (unlikely(packet->protocol != IPPROTO_TCP &&
		     packet->protocol != IPPROTO_UDP))
		return is_icmp_error(packet) ? error_arrives(skb, packet)
					     : echo_arrives(skb, packet);
	verdict = go_on(skb, packet);
	if (likely(verdict != NOT_OURS && verdict != UNSURE))
		return verdict;
	return arrive(skb, packet, verdict == UNSURE);
}

/* Each has a packet of its own, and is apart: the stack is short. */
static __noinline int to_services(struct __sk_buff *skb)
{
	struct packet packet = {};

	return receive(skb, &packet);
}

static __noinline int to_host(struct __sk_buff *skb)
{
	return host_policy(skb, INGRESS, ETH_LENGTH);
}

SEC("tc") int from_uplink(struct __sk_buff *skb)
{
	int verdict = is_served() ? to_services(skb) : TCX_NEXT;

	return verdict == TCX_NEXT ? to_host(skb) : verdict;
}

SEC("tc") int to_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, ETH_LENGTH);
}

/* The same where frames have no Ethernet header: tunnels. Services are not served
 * there.
 */
SEC("tc") int from_bare_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, INGRESS, 0);
}

SEC("tc") int to_bare_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, 0);
}

char LICENSE[] SEC("license") = "GPL";
