/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Conntrack: is this packet part of a connection that policy has let in, and is that
 * verdict still of today?
 *
 * One entry serves both directions: the sides are ordered, the sender's index tells who
 * is who. An entry that is stale, expired, or about to be reopened is no answer; the
 * packet then takes the slow path, which judges and renews it.
 */
#pragma once

#include "packet.h"

#define TIMEOUT_TCP	20117 /* 6 h, in units of 2^30 ns */
#define TIMEOUT_OTHER	56    /* 60 s */
#define TIMEOUT_CLOSING 9     /* 10 s */
/* Shorter than netfilter's 30 s: an address that it does not translate any more is the
 * host's. */
#define TIMEOUT_FORWARDED 25

/* Least recently used entries give way when full; their flows are judged anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack);
} conntrack SEC(".maps");

/* A new entry is put together here: the stack is short. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct conntrack);
} new_connection SEC(".maps");

static __always_inline struct conntrack *blank_connection(void)
{
	__u32 zero = 0;
	struct conntrack *entry = bpf_map_lookup_elem(&new_connection, &zero);

	if (entry)
		__builtin_memset(entry, 0, sizeof(*entry));
	return entry;
}

/* Returns the index of the sender's side. */
static __always_inline __u32 conntrack_key(const struct packet *packet,
					   struct conntrack_key *key)
{
	const union address *source = &packet->source,
			    *destination = &packet->destination;
	bool swap;

	if (source->half[0] != destination->half[0])
		swap = source->half[0] > destination->half[0];
	else if (source->half[1] != destination->half[1])
		swap = source->half[1] > destination->half[1];
	else
		swap = packet->source_port > packet->destination_port;
	key->protocol = packet->protocol;
	key->icmp_request = packet->icmp_request;
	key->pad[0] = key->pad[1] = 0;
	if (swap) {
		key->address[0] = *destination;
		key->address[1] = *source;
		key->port[0] = packet->destination_port;
		key->port[1] = packet->source_port;
		return 1;
	}
	key->address[0] = *source;
	key->address[1] = *destination;
	key->port[0] = packet->source_port;
	key->port[1] = packet->destination_port;
	return 0;
}

static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> 30;
}

static __always_inline __u32 revision(void)
{
	__u32 index = RUNTIME_REVISION;
	__u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value ? *value : 0;
}

static __always_inline bool expired(const struct conntrack *entry, __u8 protocol,
				    __u32 time)
{
	__u32 timeout = TIMEOUT_TCP;

	if (protocol != IPPROTO_TCP)
		timeout = entry->uplink == UPLINK_FORWARDED ? TIMEOUT_FORWARDED
							    : TIMEOUT_OTHER;
	else if (entry->tcp_flags & (TCP_FIN | TCP_RST))
		timeout = TIMEOUT_CLOSING;

	return time - entry->last_seen > timeout;
}

static __always_inline bool opens(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline __u32 tick(void)
{
	return bpf_jiffies64() >> 8;
}

/* Count the packet, unless the entry has expired. Reading the clock costs more than all
 * the rest, so a tick of jiffies (which is inlined) says when it is worth it; and both
 * CPUs of a connection share the cache line, so what has not changed is not written. */
static __always_inline bool conntrack_touch(struct conntrack *entry,
					    const struct packet *packet, __u32 side,
					    __u32 length)
{
	__u32 time;

	if (unlikely(entry->tick != tick())) {
		time = now();
		if (expired(entry, packet->protocol, time))
			return false;
		entry->last_seen = time;
		entry->tick = tick();
	}
	if (unlikely(packet->tcp_flags & ~entry->tcp_flags))
		entry->tcp_flags |= packet->tcp_flags;
	entry->packets[side & 1] += 1;
	entry->bytes[side & 1] += length;
	return true;
}
