/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Backends where nobody listens any more, as the kernel sees before anybody is told: a
 * listening socket of a pod was closed (its process was killed), or a connect was
 * refused, of a socket of this host or of a client outside.
 *
 * They are passed over for a moment, in which probes and the agent find out; sooner, if
 * somebody listens there again. It is a hint: who is alone is dialled all the same, and
 * where all are deaf the choice stands as it was made.
 */
#pragma once

#include "policy.h"

#define DEAF_TIME 12 /* in units of 2^28 ns: 3 s */

/* Least recently used ones give way: they are dialled again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct deaf_key);
	__type(value, __u32); /* until when; monotonic, in units of 2^28 ns */
} deaf SEC(".maps");

/* Until when anybody is: asked before all else. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} deaf_until SEC(".maps");

static __always_inline __u32 time_28(void)
{
	return bpf_ktime_get_coarse_ns() >> 28;
}

static __always_inline bool is_ahead(__u32 until)
{
	return (__s32)(until - time_28()) > 0;
}

/* Whether anybody is deaf, or was a moment ago. */
static __always_inline bool some_are_deaf(void)
{
	__u32 zero = 0;
	__u32 *until = bpf_map_lookup_elem(&deaf_until, &zero);

	return until && *until && is_ahead(*until);
}

static __always_inline void deaf_key(const union address *address, __be16 port,
				     struct deaf_key *key)
{
	const struct endpoint *endpoint = bpf_map_lookup_elem(&addresses, address);

	__builtin_memset(key, 0, sizeof(*key));
	key->port = port;
	if (endpoint)
		key->endpoint = endpoint->id;
	else
		key->address = *address;
}

static __noinline int mark_deaf(const struct deaf_key *key)
{
	/* Tracepoints have no coarse clock. */
	__u32 zero = 0, until = (bpf_ktime_get_ns() >> 28) + DEAF_TIME;

	bpf_map_update_elem(&deaf, key, &until, BPF_ANY);
	return bpf_map_update_elem(&deaf_until, &zero, &until, BPF_ANY);
}
