/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The two ends of a capture: the client's socket has reached its proxy, and the proxy
 * asks whom it wanted. And the proxy's own tunnels, so that packets of others do not
 * pass for theirs.
 */
#include "lib/captured.h"
#include "lib/sockops.h"
#include "lib/tunnel.h"

#define AF_INET6_     10
#define SOL_IP_	      0
#define SOL_IPV6_     41
#define ORIGINAL_DST  80 /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST */
#define TCP_CLOSE_    7
#define NOT_MORE_THAN 1 /* what a getsockopt program returns: let the answer out */

/* What conntrack would hold. */
static __always_inline void describe(struct captured *fresh,
				     const struct capture *capture,
				     const struct packet *packet)
{
	__u32 side = conntrack_key(packet, &fresh->connection);
	struct conntrack *entry = &fresh->entry;

	entry->revision = capture->revision;
	entry->ifindex[0] = side ? capture->ifindex[INGRESS] : capture->ifindex[EGRESS];
	entry->ifindex[1] = side ? capture->ifindex[EGRESS] : capture->ifindex[INGRESS];
	entry->identity[0] =
	    side ? capture->identity[INGRESS] : capture->identity[EGRESS];
	entry->identity[1] =
	    side ? capture->identity[EGRESS] : capture->identity[INGRESS];
	entry->rule[0] = capture->rule[0];
	entry->rule[1] = capture->rule[1];
	entry->service = capture->service;
	entry->service_port = capture->service_port;
	entry->originator = side;
	entry->tcp_flags = TCP_SYN | TCP_ACK;
	entry->last_seen = now();
	entry->transport = capture->outward ? TRANSPORT_GIVEN : TRANSPORT_MTLS;
	entry->dial = capture->dial;
}

/* The connection in its place, before the proxy can have accepted it: its last packet
 * of three is yet to come. */
static __noinline int take(struct capture *capture, struct packet *packet,
			   __u64 namespace)
{
	struct captured fresh = {};

	capture->key.namespace = namespace;
	capture->key.address = packet->source;
	capture->key.port = packet->source_port;
	packet->source = capture->source;
	packet->destination = capture->destination;
	packet->destination_port = capture->port;
	describe(&fresh, capture, packet);
	fresh.dialled = capture->dialled;
	fresh.dialled_port = capture->dialled_port;
	capture->state = CAPTURE_NONE;
	if (bpf_map_update_elem(&captured, &capture->key, &fresh, BPF_ANY))
		return tell_captured(capture, packet->source_port, DROP_CT_FULL);
	capture->state = CAPTURE_TAKEN;
	if (capture->outward) /* told when the proxy dials, or does not */
		return 0;
	statistic(STATISTIC_FORWARDED);
	statistic(STATISTIC_CAPTURED);
	if (capture->audit)
		statistic(STATISTIC_AUDITED);
	return tell_captured(capture, packet->source_port, DROP_NONE);
}

SEC("sockops") int reached(struct bpf_sock_ops *ops)
{
	struct packet packet = {};
	struct capture *capture;

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || !ops->sk)
		return OK;
	capture = bpf_sk_storage_get(&captures, ops->sk, NULL, 0);
	if (!capture || capture->state != CAPTURE_DIALLING)
		return OK;
	read_ends(ops, &packet);
	take(capture, &packet, bpf_get_netns_cookie(ops));
	/* A change that the sweep went by before this was there. */
	judge_captured(&capture->key);
	return OK;
}

static __always_inline bool is_outward(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	return sk && sk->mark == OUTWARD_MARK;
}

/* On the proxy's cgroup. */
SEC("sockops") int tunnel(struct bpf_sock_ops *ops)
{
	struct conntrack_key key;
	__u64 dialled_ns = bpf_ktime_get_ns();

	if (__builtin_bswap32(ops->remote_port) != TUNNEL_PORT && !is_outward(ops))
		return OK;
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		end_of(ops, &key);
		bpf_map_update_elem(&tunnels, &key, &dialled_ns, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
	} else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[1] == TCP_CLOSE_) {
		end_of(ops, &key);
		bpf_map_delete_elem(&tunnels, &key);
	}
	return OK;
}

/* Returns the length of the answer, a struct sockaddr_in or sockaddr_in6; 0 for none.
 */
static __always_inline int answer(struct bpf_sockopt *ctx, const union address *address,
				  __be16 port)
{
	__u8 *at = ctx->optval, *end = ctx->optval_end;
	__u32 *word = (__u32 *)at;

	if (at + 16 > end)
		return 0;
	*(__be16 *)(at + 2) = port;
	if (is_ipv4(address)) {
		*(__u16 *)at = AF_INET_;
		word[1] = address->word[3];
		word[2] = word[3] = 0;
		return 16;
	}
	if (at + 28 > end)
		return 0;
	*(__u16 *)at = AF_INET6_;
	word[1] = word[6] = 0;
	word[2] = address->word[0];
	word[3] = address->word[1];
	word[4] = address->word[2];
	word[5] = address->word[3];
	return 28;
}

/* On the proxy's cgroup: where did the client of this socket want to go? */
SEC("cgroup/getsockopt") int original_destination(struct bpf_sockopt *ctx)
{
	struct captured_key key = {};
	struct bpf_sock *socket = ctx->sk;
	const struct captured *known;
	int length;

	if ((ctx->level != SOL_IP_ && ctx->level != SOL_IPV6_) ||
	    ctx->optname != ORIGINAL_DST || !socket)
		return NOT_MORE_THAN;
	key.namespace = bpf_get_netns_cookie(ctx);
	key.port = socket->dst_port;
	if (ctx->level == SOL_IP_) {
		set_ipv4(&key.address, socket->dst_ip4);
	} else {
		key.address.word[0] = socket->dst_ip6[0];
		key.address.word[1] = socket->dst_ip6[1];
		key.address.word[2] = socket->dst_ip6[2];
		key.address.word[3] = socket->dst_ip6[3];
	}
	known = bpf_map_lookup_elem(&captured, &key);
	if (!known)
		return NOT_MORE_THAN;
	length = answer(ctx, &known->dialled, known->dialled_port);
	if (length) {
		/* Two stores: the kernel refuses one of both at once. */
		*(volatile __s32 *)&ctx->retval = 0;
		*(volatile __s32 *)&ctx->optlen = length;
	}
	return NOT_MORE_THAN;
}

char LICENSE[] SEC("license") = "GPL";
