/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* After a change: judge open connections at once, not only on their next packet.
 *
 * The agent runs `sweep` (BPF_PROG_RUN) with the keys of connections whose verdict is
 * of yesterday, instead of a packet. What is still allowed is renewed under its new
 * rule, so that its next packet takes the fast path. What is not is told as a flow, and
 * left in `severed`: whose sockets the agent then closes. Its conntrack entry stays
 * until that is done, so that the resets of those sockets may pass.
 */
#include "lib/accelerated.h"
#include "lib/again.h"
#include "lib/arrival.h"
#include "lib/captured.h"

#define KEYS_MAX     64 /* in one run: what a page holds */
#define RELEASE_TIME 4	/* in units of 2^30 ns */

/* What nobody may carry any more leaves the map that leads from socket to socket. */
static __always_inline void part(const struct conntrack_key *key)
{
	const struct conntrack *entry = bpf_map_lookup_elem(&conntrack, key);
	struct end_key end = {};

	if (!entry || entry->revision || !(entry->carried[0] | entry->carried[1]))
		return;
	end.connection = *key;
	bpf_map_delete_elem(&accelerated, &end);
	end.side = 1;
	bpf_map_delete_elem(&accelerated, &end);
}

/* A socket into whose queue nobody puts anything past packets any more, and who has
 * read all that there was: nothing is lost with its place in the map. */
static __always_inline void let_go(const struct conntrack_key *key, __u32 side,
				   __u64 address, __u64 cookie)
{
	const struct sock *socket = socket_at(address);
	struct end_key end = {.side = side};

	if (!address || (__u64)socket->__sk_common.skc_cookie.counter != cookie ||
	    socket->sk_backlog.rmem_alloc.counter)
		return;
	end.connection = *key;
	bpf_map_delete_elem(&accelerated, &end);
}

/* A write that was judged before the connection left for packets is through by now. */
static __noinline int release_again(const struct conntrack_key *key)
{
	const struct conntrack *entry = bpf_map_lookup_elem(&conntrack, key);
	const struct pair *pair = bpf_map_lookup_elem(&pairs, key);

	if (!entry || !pair || !pair->left || now() - pair->left < RELEASE_TIME ||
	    entry->carried[0] != CARRIED_NO_MORE ||
	    entry->carried[1] != CARRIED_NO_MORE)
		return 0;
	let_go(key, 0, pair->socket[0], pair->cookie[0]);
	let_go(key, 1, pair->socket[1], pair->cookie[1]);
	return 0;
}

/* A connection from outside that is over, though nobody has said so. */
static __noinline int reap_again(const struct conntrack_key *key)
{
	const struct conntrack *entry = bpf_map_lookup_elem(&conntrack, key);

	if (entry && !expired(entry, key->protocol, now()))
		return 0;
	return arrival_closed(key);
}

static long judge_one(__u32 index, struct __sk_buff **skb)
{
	struct conntrack_key key;

	if (bpf_skb_load_bytes(*skb, ETH_LENGTH + index * sizeof(key), &key,
			       sizeof(key)))
		return 1;
	judge_again(&key);
	part(&key);
	return 0;
}

SEC("tc") int sweep(struct __sk_buff *skb)
{
	bpf_loop(KEYS_MAX, judge_one, &skb, 0);
	return TC_ACT_OK;
}

static long judge_one_captured(__u32 index, struct __sk_buff **skb)
{
	struct captured_key key;

	if (bpf_skb_load_bytes(*skb, ETH_LENGTH + index * sizeof(key), &key,
			       sizeof(key)))
		return 1;
	judge_captured(&key);
	return 0;
}

SEC("tc") int sweep_captured(struct __sk_buff *skb)
{
	bpf_loop(KEYS_MAX, judge_one_captured, &skb, 0);
	return TC_ACT_OK;
}

static long reap_one(__u32 index, struct __sk_buff **skb)
{
	struct conntrack_key key;

	if (bpf_skb_load_bytes(*skb, ETH_LENGTH + index * sizeof(key), &key,
			       sizeof(key)))
		return 1;
	reap_again(&key);
	return 0;
}

SEC("tc") int reap(struct __sk_buff *skb)
{
	bpf_loop(KEYS_MAX, reap_one, &skb, 0);
	return TC_ACT_OK;
}

static long release_one(__u32 index, struct __sk_buff **skb)
{
	struct conntrack_key key;

	if (bpf_skb_load_bytes(*skb, ETH_LENGTH + index * sizeof(key), &key,
			       sizeof(key)))
		return 1;
	release_again(&key);
	return 0;
}

SEC("tc") int release(struct __sk_buff *skb)
{
	bpf_loop(KEYS_MAX, release_one, &skb, 0);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
