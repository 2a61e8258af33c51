/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Backends where nobody listens any more, as the kernel sees before anybody is told: a
 * listening socket of a pod was closed (its process was killed), or a connect was
 * refused.
 *
 * They are passed over for a moment, in which probes and the agent find out; sooner, if
 * somebody listens there again. It is a hint: who is alone is dialled all the same, and
 * where all are deaf the choice stands as it was made.
 */
#pragma once

#include "balance.h"
#include "policy.h"

#define DEAF_TIME     12 /* in units of 2^28 ns: 3 s */
#define HEARING_TRIES 16

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

static __always_inline bool is_deaf(__u32 number)
{
	const struct backend *backend = bpf_map_lookup_elem(&backends, &number);
	struct deaf_key key;
	__u32 *until;

	if (!backend)
		return 1;
	if (backend->protocol != IPPROTO_TCP)
		return 0;
	deaf_key(&backend->address, backend->port, &key);
	until = bpf_map_lookup_elem(&deaf, &key);
	return until && is_ahead(*until);
}

struct hearing {
	__u32 base;
	__u32 count;
	__u32 service;
	__u32 client; /* 0: by chance */
	__u32 found;
};

static long try_hearing(__u32 index, struct hearing *search)
{
	__u32 chance = search->client
			   ? spread(search->client + index + 1, search->service)
			   : bpf_get_prandom_u32();
	__u32 number =
	    slot_at(search->base + chance % search->count) & SLOT_NUMBER_MASK;

	if (!number || is_deaf(number))
		return 0;
	search->found = number;
	return 1;
}

/* The backend that was chosen; or, if it is deaf, another one by weight. */
static __noinline __u32 hearing(const struct frontend *frontend, __u32 number,
				__u32 client)
{
	struct hearing search = {
	    .base = frontend->base,
	    .count = frontend->count,
	    .service = frontend->service,
	    .client = frontend->algorithm == ALGORITHM_MAGLEV ||
			      frontend->algorithm == ALGORITHM_SOURCE_HASH
			  ? client | 1
			  : 0,
	};

	if (!search.count || !is_deaf(number))
		return number;
	bpf_loop(HEARING_TRIES, try_hearing, &search, 0);
	if (search.found)
		statistic(STATISTIC_PASSED_OVER);
	return search.found ?: number;
}

static __noinline int mark_deaf(const struct deaf_key *key)
{
	/* Tracepoints have no coarse clock. */
	__u32 zero = 0, until = (bpf_ktime_get_ns() >> 28) + DEAF_TIME;

	bpf_map_update_elem(&deaf, key, &until, BPF_ANY);
	return bpf_map_update_elem(&deaf_until, &zero, &until, BPF_ANY);
}
