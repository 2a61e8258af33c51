/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which backend instead of one that is deaf (lib/deaf.h)? */
#pragma once

#include "balance.h"
#include "deaf.h"

#define HEARING_TRIES 16 /* by weight, with luck; then one slot after the other */
#define HEARING_STEPS 64

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
	__u32 at;
	__u32 found;
};

static long try_hearing(__u32 index, struct hearing *search)
{
	__u32 number;

	if (index >= HEARING_TRIES)
		search->at++;
	else
		search->at = search->client
				 ? spread(search->client + index + 1, search->service)
				 : bpf_get_prandom_u32();
	number = slot_at(search->base + search->at % search->count) & SLOT_NUMBER_MASK;
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
	bpf_loop(HEARING_TRIES + HEARING_STEPS, try_hearing, &search, 0);
	if (search.found)
		statistic(STATISTIC_PASSED_OVER);
	return search.found ?: number;
}
