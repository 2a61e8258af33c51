/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which backend, and how many connections has each?
 *
 * A frontend owns a run of slots; a slot names a backend. How a slot is chosen is the
 * frontend's algorithm: src/sixfold/balancing/pick.py answers the same question, and
 * tests/twin/test_balancing.py holds the two equal.
 *
 * A connection is counted from its connect until either side closes it, whatever way
 * that happens. Who ends it takes the number out of the socket with one exchange, so
 * that it is counted down once, however many ends there are.
 */
#pragma once

#include "load.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct slot_line);
} slots SEC(".maps");

/* Whose turn it is, by the line in which a run begins. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u32);
} turns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* Where clients of services with session affinity were last sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/* Goes away with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dialled);
} sockets SEC(".maps");

/* The same input has the same answer, as long as the set stays. */
static __always_inline __u32 spread(__u64 what, __u32 service)
{
	__u64 hash = (what ^ ((__u64)service << 32)) * 0x9e3779b97f4a7c15ULL;

	return hash >> 32;
}

/* A client outside has no number: its address is one, with the port that tells its
 * connections apart, or 0. */
static __always_inline __u32 client_number(const union address *client, __be16 port)
{
	__u64 mixed = client->half[0] * 0x9e3779b97f4a7c15ULL;

	return spread(mixed ^ client->half[1] ^ ntohs(port), 0);
}

static __always_inline __u32 slot_at(__u32 index)
{
	__u32 number = index / SLOTS_PER_LINE;
	const struct slot_line *line = bpf_map_lookup_elem(&slots, &number);

	return line ? line->slot[index % SLOTS_PER_LINE] : 0;
}

static __always_inline __u32 next_turn(__u32 base)
{
	__u32 line = base / SLOTS_PER_LINE;
	__u32 *turn = bpf_map_lookup_elem(&turns, &line);

	return turn ? __sync_fetch_and_add(turn, 1) : 0;
}

/* With one connection more, who has less of them for its weight? The first, if equal.
 */
static __always_inline __u32 less_loaded(__u32 first, __u32 second)
{
	const struct load *a = load_of(first & SLOT_NUMBER_MASK);
	const struct load *b = load_of(second & SLOT_NUMBER_MASK);

	if (!a || !b)
		return first;
	return (b->active + 1) * (first >> SLOT_NUMBER_BITS) <
		       (a->active + 1) * (second >> SLOT_NUMBER_BITS)
		   ? second
		   : first;
}

/* The frontend has slots. ``chance`` is drawn anew for each connection, ``client`` is
 * the same for one pod. */
static __always_inline __u32 pick_slot(const struct frontend *frontend, __u32 chance,
				       __u32 client)
{
	__u32 count = frontend->count, at, other;

	switch (frontend->algorithm) {
	case ALGORITHM_ROUND_ROBIN:
		chance = next_turn(frontend->base);
		break;
	case ALGORITHM_MAGLEV:
	case ALGORITHM_SOURCE_HASH:
		chance = spread(client, frontend->service);
		break;
	}
	at = chance % count;
	if (frontend->algorithm != ALGORITHM_LEAST_CONNECTIONS || count < 2)
		return slot_at(frontend->base + at);
	other = bpf_get_prandom_u32() % (count - 1);
	other += other >= at;
	return less_loaded(slot_at(frontend->base + at),
			   slot_at(frontend->base + other));
}

/* Looks for a backend among the slots of a frontend. */
struct search {
	__u32 at;
	__u32 number;
	__u32 found; /* its slot; 0: not there */
};

static long compare_slot(__u32 index, struct search *search)
{
	__u32 slot = slot_at(search->at + index);

	if ((slot & SLOT_NUMBER_MASK) != search->number)
		return 0;
	search->found = slot;
	return 1;
}

/* The slots changed since the client was sent there: is its backend still one of them?
 */
static __always_inline __u32 find_slot(const struct frontend *frontend, __u32 slot)
{
	struct search search = {
	    .at = frontend->base + (frontend->members ? frontend->count : 0),
	    .number = slot & SLOT_NUMBER_MASK,
	};

	bpf_loop(frontend->members ?: frontend->count, compare_slot, &search, 0);
	return search.found;
}

/* A client's slot, as long as it comes back in time and its backend stays. */
static __always_inline __u32 pick_with_affinity(const struct frontend *frontend,
						const struct affinity_key *key,
						__u32 client)
{
	__u32 now_s = bpf_ktime_get_coarse_ns() / 1000000000;
	struct affinity *known = bpf_map_lookup_elem(&affinities, key);
	struct affinity fresh = {.revision = frontend->revision, .last_s = now_s};

	if (known && now_s - known->last_s < frontend->affinity_s) {
		fresh.slot = known->slot;
		if (known->revision != frontend->revision)
			fresh.slot = find_slot(frontend, known->slot);
		if (fresh.slot) {
			known->slot = fresh.slot;
			known->revision = fresh.revision;
			known->last_s = now_s;
			return fresh.slot;
		}
	}
	fresh.slot = pick_slot(frontend, bpf_get_prandom_u32(), client);
	bpf_map_update_elem(&affinities, key, &fresh, BPF_ANY);
	return fresh.slot;
}

static __always_inline void count_down(struct dialled *dialled)
{
	__u32 number = __sync_lock_test_and_set(&dialled->counted, 0);
	struct load *load = number ? load_of(number) : NULL;

	if (load)
		__sync_fetch_and_add(&load->active, -1);
}

static __always_inline void count_up(struct dialled *dialled, __u32 number)
{
	struct load *load = load_of(number);

	count_down(dialled); /* a socket that dials again has left the last one */
	if (!load)
		return;
	__sync_fetch_and_add(&load->active, 1);
	__sync_fetch_and_add(&load->total, 1);
	number = __sync_lock_test_and_set(&dialled->counted, number);
	/* Two threads connected one datagram socket at once: one of them is left. */
	load = number ? load_of(number) : NULL;
	if (load)
		__sync_fetch_and_add(&load->active, -1);
}
