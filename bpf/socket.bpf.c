/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Services, where sockets are made: connect and send to a service become connect and
 * send to one of its backends, and the socket is told that it talks to the service.
 *
 * No packet is ever rewritten. The programs sit at the root of the cgroup tree and mind
 * only sockets of the network namespaces they know, so that instances live side by
 * side.
 */
#include <linux/in.h>
#include "lib/balance.h"
#include "lib/capture.h"
#include "lib/freshness.h"

#define ECONNREFUSED   111
#define SOCK_STREAM    1
#define IPPROTO_MPTCP_ 262
#define ALLOW	       1
#define REFUSE	       0

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);   /* netns cookie */
	__type(value, __u32); /* endpoint id; 0 = the host */
} namespaces SEC(".maps");

#include "lib/listeners.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct reply_key);
	__type(value, struct reply);
} replies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct reply_key); /* of the service */
	__type(value, struct sender);
} senders SEC(".maps");

static __always_inline int refuse(void)
{
	statistic(STATISTIC_REFUSED);
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

/* A pod's loopback is its own. */
static __always_inline const struct frontend *find_frontend(struct frontend_key *key,
							    __u32 endpoint)
{
	const struct frontend *found = bpf_map_lookup_elem(&frontends, key);

	if (!found && !(endpoint && is_loopback(&key->address)))
		found = find_node_port(key);
	if (found)
		return found;
	/* An unknown port of another service address: its entry has no backends. */
	key->port = 0;
	key->protocol = 0;
	found = bpf_map_lookup_elem(&frontends, key);
	return found && found->flags && is_node(&key->address) ? NULL : found;
}

/* One socket, one backend, as long as the set stays; a turn or a load is asked once. */
static __always_inline __u32 pick_for_sender(const struct frontend *frontend,
					     const struct frontend_key *service,
					     __u64 cookie, __u32 client)
{
	struct reply_key key = {.cookie = cookie, .port = service->port};
	struct sender fresh = {.revision = frontend->revision};
	const struct sender *known;

	if (frontend->algorithm != ALGORITHM_ROUND_ROBIN &&
	    frontend->algorithm != ALGORITHM_LEAST_CONNECTIONS)
		return pick_slot(frontend, spread(cookie, frontend->service), client);
	key.address = service->address;
	known = bpf_map_lookup_elem(&senders, &key);
	if (known && known->revision == frontend->revision)
		return known->slot;
	fresh.slot = pick_slot(frontend, bpf_get_prandom_u32(), client);
	bpf_map_update_elem(&senders, &key, &fresh, BPF_ANY);
	return fresh.slot;
}

/* Tell the packet program of this CPU what the next packet was dialled as. */
static __always_inline void note_translation(const struct backend *backend,
					     const struct frontend *frontend,
					     const struct frontend_key *dialled,
					     __u32 endpoint, int dial)
{
	struct translation *last = translation_slot();

	if (!last)
		return;
	last->address = backend->address;
	last->port = backend->port;
	last->service_port = dialled->port;
	last->service = frontend->service;
	last->endpoint = endpoint;
	last->time = bpf_ktime_get_coarse_ns() >> 24;
	last->protocol = dialled->protocol;
	last->dial = dial;
}

/* A connected datagram socket sends later, perhaps from another CPU. */
static __always_inline void note_for_later(const struct backend *backend,
					   const struct frontend *frontend,
					   const struct frontend_key *dialled,
					   __u32 endpoint, int dial)
{
	struct dialled_key key = {.endpoint = endpoint, .protocol = dialled->protocol};
	struct dialled_service service = {
	    .service = frontend->service, .service_port = dialled->port, .dial = dial};

	key.address = backend->address;
	key.port = backend->port;
	bpf_map_update_elem(&dialled_services, &key, &service, BPF_ANY);
}

static __always_inline void remember_connected(struct bpf_sock_addr *ctx,
					       const struct frontend_key *service,
					       const struct backend *backend,
					       __u32 number, __be16 port)
{
	struct dialled *dialled;

	if (!ctx->sk)
		return;
	dialled =
	    bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!dialled)
		return;
	dialled->service_address = service->address;
	dialled->backend_address = backend->address;
	dialled->service_port = port;
	dialled->backend_port = backend->port;
	count_up(dialled, number);
}

/* A socket that dials a pod itself is no service's any more. */
static __always_inline void forget_connected(struct bpf_sock_addr *ctx)
{
	struct dialled *dialled;

	if (!ctx->sk)
		return;
	dialled = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
	if (!dialled)
		return;
	count_down(dialled);
	__builtin_memset(&dialled->backend_address, 0,
			 sizeof(dialled->backend_address));
}

static __always_inline void remember_sent(__u64 cookie,
					  const struct frontend_key *service,
					  const struct backend *backend, __be16 port)
{
	struct reply_key key = {.cookie = cookie};
	struct reply reply = {.port = port};

	key.address = backend->address;
	key.port = backend->port;
	reply.address = service->address;
	bpf_map_update_elem(&replies, &key, &reply, BPF_ANY);
}

static __always_inline int translate(struct bpf_sock_addr *ctx, bool ipv6,
				     bool connected)
{
	__u64 namespace = bpf_get_netns_cookie(ctx), cookie;
	__u32 *endpoint = bpf_map_lookup_elem(&namespaces, &namespace);
	__u32 protocol = ctx->protocol;
	const struct frontend *frontend;
	const struct backend *backend;
	struct frontend_key key = {};
	struct capture *captured = NULL;
	__be16 port = ctx->user_port;
	int dial = DIAL_FRESH;
	bool proxy = false; /* it dials services where a route of TCP leads to one */
	bool refused;
	__u32 number;

	if (!endpoint)
		return ALLOW;
	if (protocol == IPPROTO_MPTCP_)
		protocol = IPPROTO_TCP;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return ALLOW;
	get_address(ctx, ipv6, &key.address);
	key.port = port;
	key.protocol = protocol;
	frontend = find_frontend(&key, *endpoint);
	refused = frontend ? !frontend->count : is_cluster_address(&key.address);
	if (connected && mesh_in_use()) {
		proxy = is_proxy();
		if (proxy && !frontend && !refused)
			return ALLOW;
		forget_capture(ctx);
	}
	if (refused)
		return refuse();
	if (!frontend && connected) {
		forget_connected(ctx);
		key.port = port; /* find_frontend() asked for any */
		key.protocol = protocol;
		dial = watch_dial(*endpoint, &key);
		frontend = find_successor(*endpoint, dial, &key);
		dial |= DIAL_REDIRECTED;
	}
	if (!frontend) {
		if (connected && protocol == IPPROTO_TCP)
			captured = capture(ctx, *endpoint, &key.address, port);
		if (captured) {
			take_note(captured, dial & ~DIAL_REDIRECTED);
			if (refuses_speaker(captured, *endpoint))
				return REFUSE;
			to_proxy(ctx, ipv6, captured, &key, port);
		}
		return ALLOW;
	}
	cookie = connected ? 0 : bpf_get_socket_cookie(ctx);
	if (frontend->affinity_s) {
		struct affinity_key mine = {.client = *endpoint,
					    .service = frontend->service,
					    .port = port,
					    .protocol = protocol,
					    .ipv6 = ipv6 && !is_ipv4(&key.address)};

		number = pick_with_affinity(frontend, &mine, *endpoint);
	} else if (connected) {
		number = pick_slot(frontend, bpf_get_prandom_u32(), *endpoint);
	} else {
		number = pick_for_sender(frontend, &key, cookie, *endpoint);
	}
	number &= SLOT_NUMBER_MASK;
	if (connected && unlikely(some_are_deaf()))
		number = hearing(frontend, number, *endpoint);
	backend = number ? bpf_map_lookup_elem(&backends, &number) : NULL;
	if (!backend)
		return refuse();
	if (connected)
		remember_connected(ctx, &key, backend, number, port);
	else
		remember_sent(cookie, &key, backend, port);
	statistic(STATISTIC_TRANSLATED);
	if (connected && protocol == IPPROTO_TCP)
		captured = capture(ctx, *endpoint, &backend->address, backend->port);
	if (captured) {
		of_service(captured, &key, frontend->service, dial);
		if (!proxy && refuses_speaker(captured, *endpoint))
			return REFUSE;
		if (!proxy)
			route_requests(captured, &key);
		to_proxy(ctx, ipv6, captured, &key, port);
		return ALLOW;
	}
	if (connected && protocol == IPPROTO_UDP)
		note_for_later(backend, frontend, &key, *endpoint, dial);
	else
		note_translation(backend, frontend, &key, *endpoint, dial);
	set_address(ctx, ipv6, &backend->address, backend->port);
	return ALLOW;
}

/* Whom the socket is connected to is called by no other name. */
static __always_inline bool is_peer(struct bpf_sock_addr *ctx, bool ipv6)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk->dst_port != (__be16)ctx->user_port)
		return false;
	if (!ipv6)
		return sk->dst_ip4 == ctx->user_ip4;
	return sk->dst_ip6[0] == ctx->user_ip6[0] &&
	       sk->dst_ip6[1] == ctx->user_ip6[1] &&
	       sk->dst_ip6[2] == ctx->user_ip6[2] && sk->dst_ip6[3] == ctx->user_ip6[3];
}

/* The backend's answer carries the service's name. */
static __always_inline int restore(struct bpf_sock_addr *ctx, bool ipv6, bool received)
{
	struct dialled *dialled;
	struct reply_key key = {};
	struct reply *reply;

	get_address(ctx, ipv6, &key.address);
	key.port = ctx->user_port;
	if (ctx->sk) {
		dialled = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
		if (dialled && dialled->backend_port == key.port &&
		    equal(&dialled->backend_address, &key.address)) {
			set_address(ctx, ipv6, &dialled->service_address,
				    dialled->service_port);
			return ALLOW;
		}
	}
	if (!received || (ctx->sk && is_peer(ctx, ipv6)))
		return ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	reply = bpf_map_lookup_elem(&replies, &key);
	if (reply)
		set_address(ctx, ipv6, &reply->address, reply->port);
	return ALLOW;
}

SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx)
{
	return translate(ctx, false, true);
}

SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx)
{
	return translate(ctx, true, true);
}

SEC("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *ctx)
{
	return translate(ctx, false, false);
}

SEC("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *ctx)
{
	return translate(ctx, true, false);
}

SEC("cgroup/recvmsg4") int recvmsg4(struct bpf_sock_addr *ctx)
{
	return restore(ctx, false, true);
}

SEC("cgroup/recvmsg6") int recvmsg6(struct bpf_sock_addr *ctx)
{
	return restore(ctx, true, true);
}

SEC("cgroup/getpeername4") int getpeername4(struct bpf_sock_addr *ctx)
{
	return restore(ctx, false, false);
}

SEC("cgroup/getpeername6") int getpeername6(struct bpf_sock_addr *ctx)
{
	return restore(ctx, true, false);
}

SEC("cgroup/getsockname4") int getsockname4(struct bpf_sock_addr *ctx)
{
	own_name(ctx, false);
	return ALLOW;
}

SEC("cgroup/getsockname6") int getsockname6(struct bpf_sock_addr *ctx)
{
	own_name(ctx, true);
	return ALLOW;
}

/* The end of a connection, as its client sees it: reset, refused, timed out, or closed
 * by the other side, who has no more work with it. */
SEC("tp_btf/inet_sock_set_state") int socket_state(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int before = ctx[1], state = ctx[2];
	struct dialled *dialled;

	if (state == BPF_TCP_LISTEN || before == BPF_TCP_LISTEN)
		watch_listener(sk, before, state);
	if (state != BPF_TCP_CLOSE && state != BPF_TCP_CLOSE_WAIT)
		return 0;
	dialled = bpf_sk_storage_get(&sockets, (void *)ctx[0], NULL, 0);
	if (dialled) {
		if (before == BPF_TCP_SYN_SENT)
			watch_refusal(sk, dialled);
		count_down(dialled);
	}
	if (state == BPF_TCP_CLOSE && mesh_in_use())
		capture_over((void *)ctx[0]);
	return 0;
}

/* Closed by the client itself, or by its death; of UDP the only end there is. */
SEC("cgroup/sock_release") int sock_release(struct bpf_sock *sk)
{
	struct dialled *dialled = bpf_sk_storage_get(&sockets, sk, NULL, 0);

	if (dialled)
		count_down(dialled);
	return ALLOW;
}

char LICENSE[] SEC("license") = "GPL";
