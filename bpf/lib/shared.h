/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Maps that both the packet and the socket programs use. All maps are pinned by name,
 * so that both objects, and every later load, open the same ones.
 */
#pragma once

#include "statistics.h"

/* Index: enum runtime_index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} runtime SEC(".maps");

/* Full: apply() refuses before it writes. All at once there: ten thousand
 * services come in a moment.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* IPv4, IPv6 */
	__type(key, __u32);
	__type(value, struct service_network);
} service_networks SEC(".maps");

/* Full: the same. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
} ipcache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct translation);
} last_translation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct dialled_key);
	__type(value, struct dialled_service);
} dialled_services SEC(".maps");

static __always_inline struct translation *translation_slot(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&last_translation, &zero);
}

static __always_inline bool equal(const union address *a, const union address *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

static __always_inline bool is_ipv4(const union address *a)
{
	return !a->half[0] && a->word[2] == htonl(0xffff);
}

/* In halves, as it is compared: a load that needs two stores waits for both. */
static __always_inline void set_ipv4(union address *a, __be32 ipv4)
{
	a->half[0] = 0;
	a->half[1] = (__u64)ipv4 << 32 | htonl(0xffff);
}

static __always_inline bool is_loopback(const union address *a)
{
	if (is_ipv4(a))
		return (a->word[3] & htonl(0xff000000)) == htonl(0x7f000000);
	return !a->half[0] && !a->word[2] && a->word[3] == htonl(1);
}

static __always_inline bool is_link_local(const union address *address)
{
	return (address->word[0] & htonl(0xffc00000)) == htonl(0xfe800000);
}

/* Nobody but services has such an address, whether one has it now or not. */
static __always_inline bool is_cluster_address(const union address *address)
{
	__u32 family = !is_ipv4(address);
	const struct service_network *all =
	    bpf_map_lookup_elem(&service_networks, &family);

	return all && all->mask.half[0] &&
	       (address->half[0] & all->mask.half[0]) == all->network.half[0] &&
	       (address->half[1] & all->mask.half[1]) == all->network.half[1];
}

/* An address of the host, which others can route to. */
static __always_inline bool is_node(const union address *address)
{
	struct ipcache_key key = {.prefixlen = 128};
	const struct ipcache_entry *entry;

	if (is_link_local(address))
		return false; /* all of them count as the host's, wherever they are */
	key.address = *address;
	entry = bpf_map_lookup_elem(&ipcache, &key);
	return entry && entry->identity == IDENTITY_HOST;
}

/* A port of the node, whichever its address. */
static __always_inline const struct frontend *
find_node_port(const struct frontend_key *dialled)
{
	struct frontend_key key = {.port = dialled->port,
				   .protocol = dialled->protocol};
	const struct frontend *found;
	__u32 port = ntohs(dialled->port);

	if (port < NODE_PORT_FIRST || port > NODE_PORT_LAST)
		return NULL;
	if (is_ipv4(&dialled->address))
		set_ipv4(&key.address, 0);
	found = bpf_map_lookup_elem(&frontends, &key);
	return found && is_node(&dialled->address) ? found : NULL;
}
