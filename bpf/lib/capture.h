/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Capture: a pod dials a pod, and is sent to its proxy instead, which takes the
 * connection through a tunnel.
 *
 * Both sides' policy is asked first, as for a packet. What it denies is not captured:
 * its first packet is dropped, and told.
 */
#pragma once

#include "balance.h"
#include "captured.h"
#include "sockaddr.h"

#define EPERM 1

static __always_inline bool is_proxy(void)
{
	__u32 low = RUNTIME_PROXY, high = RUNTIME_PROXY_HIGH;
	const __u32 *lower = bpf_map_lookup_elem(&runtime, &low);
	const __u32 *upper = bpf_map_lookup_elem(&runtime, &high);

	return lower && upper &&
	       bpf_get_current_cgroup_id() == ((__u64)*upper << 32 | *lower);
}

/* To the world: by the proxy if a rule wants it to look. */
static __noinline bool judge_outward(struct judgement *judgement,
				     const struct port_mode *mine,
				     const union address *destination)
{
	const struct endpoint *client = bpf_map_lookup_elem(&endpoints, &mine->ifindex);

	if (!client || !mine->looks_out)
		return false;
	peer_of(&judgement->peer[EGRESS], client, is_ipv4(destination));
	resolve(destination, &judgement->peer[INGRESS]);
	judgement->transport = TRANSPORT_OUTWARD;
	return judgement->peer[INGRESS].identity == IDENTITY_WORLD &&
	       !judge(judgement) && judgement->by_proxy;
}

static __always_inline bool judge_dial(struct judgement *judgement, __u32 endpoint,
				       const union address *destination,
				       bool *looked_into)
{
	const struct port_mode *mine = mode_of(endpoint, 0), *theirs;
	const struct endpoint *client, *server;

	if (!mine)
		return false;
	server = bpf_map_lookup_elem(&addresses, destination);
	if (!server)
		return judge_outward(judgement, mine, destination);
	if (server->id == endpoint)
		return false;
	theirs = mode_of(server->id, judgement->port);
	if (!theirs || theirs->mode == MODE_DISABLED ||
	    judgement->port == htons(TUNNEL_PORT))
		return false;
	*looked_into = theirs->looked_into;
	client = bpf_map_lookup_elem(&endpoints, &mine->ifindex);
	if (!client)
		return false;
	peer_of(&judgement->peer[EGRESS], client, is_ipv4(destination));
	peer_of(&judgement->peer[INGRESS], server, is_ipv4(destination));
	return !judge(judgement);
}

static __always_inline void note_dial(struct capture *capture,
				      const struct judgement *judgement)
{
	const struct peer *client = &judgement->peer[EGRESS],
			  *server = &judgement->peer[INGRESS];

	capture->ifindex[EGRESS] = client->ifindex;
	capture->ifindex[INGRESS] = server->ifindex;
	capture->identity[EGRESS] = client->identity;
	capture->identity[INGRESS] = server->identity;
	capture->rule[0] = judgement->rule[0];
	capture->rule[1] = judgement->rule[1];
	capture->audit = judgement->audit;
	capture->audit_direction = judgement->audit_direction;
}

/* The socket dials again. */
static __always_inline void forget_capture(struct bpf_sock_addr *ctx)
{
	struct capture *last;

	if (!ctx->sk)
		return;
	last = bpf_sk_storage_get(&captures, ctx->sk, NULL, 0);
	if (last && last->state == CAPTURE_DIALLING)
		last->state = CAPTURE_NONE;
}

/* NULL: it goes as it is. */
static __noinline struct capture *capture(struct bpf_sock_addr *ctx, __u32 endpoint,
					  const union address *destination, __be16 port)
{
	struct judgement judgement = {
	    .protocol = IPPROTO_TCP, .port = port, .transport = TRANSPORT_MTLS};
	__u32 current = revision(); /* before any lookup, as for a packet */
	const struct endpoint *client;
	struct capture *fresh;
	bool looked_into = false;

	if (!ctx->sk || !judge_dial(&judgement, endpoint, destination, &looked_into))
		return NULL;
	client = bpf_map_lookup_elem(&endpoints, &judgement.peer[EGRESS].ifindex);
	fresh =
	    bpf_sk_storage_get(&captures, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!client || !fresh)
		return NULL;
	fresh->source = is_ipv4(destination) ? client->ipv4 : client->ipv6;
	fresh->destination = *destination;
	fresh->port = port;
	fresh->dialled = *destination;
	fresh->dialled_port = port;
	fresh->outward = judgement.transport == TRANSPORT_OUTWARD;
	fresh->proxy_port = fresh->outward ? htons(OUTWARD_PORT)
			    : looked_into  ? htons(HTTP_PORT)
					   : htons(OUTBOUND_PORT);
	fresh->service = fresh->service_port = fresh->dial = 0;
	fresh->revision = current;
	note_dial(fresh, &judgement);
	fresh->state = CAPTURE_DIALLING;
	return fresh;
}

/* A proxy shows its pod's certificate: for processes that it is for. */
static __noinline bool may_speak(__u32 endpoint)
{
	const struct speakers *named = bpf_map_lookup_elem(&speakers, &endpoint);
	const struct task_struct *task;
	__u32 user, group;

	if (!named)
		return true;
	task = bpf_get_current_task_btf();
	user = task->cred->euid.val;
	group = task->cred->egid.val;
	for (__u32 i = 0; i < SPEAKERS_MAX && i < named->count; i++)
		if ((named->user[i] == user || named->user[i] == ANYBODY) &&
		    (named->group[i] == group || named->group[i] == ANYBODY))
			return true;
	return false;
}

/* Told, and as if it had not been captured. The world is shown no certificate. */
static __noinline bool refuses_speaker(struct capture *capture, __u32 endpoint)
{
	if (!capture || capture->outward || may_speak(endpoint))
		return false;
	tell_captured(capture, 0, DROP_NOT_ATTESTED);
	capture->state = CAPTURE_NONE;
	bpf_set_retval(-EPERM);
	return true;
}

static __always_inline void of_service(struct capture *capture,
				       const struct frontend_key *service, __u32 number,
				       int dial)
{
	capture->service = number;
	capture->service_port = service->port;
	capture->dial = dial;
}

/* A service was dialled; if it is routed, the proxy picks where each request, or the
 * connection, goes on to.
 */
static __always_inline void route_requests(struct capture *capture,
					   const struct frontend_key *service)
{
	const __u8 *by =
	    capture->outward ? NULL : bpf_map_lookup_elem(&routed, service);

	if (!by)
		return;
	capture->dialled = service->address;
	capture->dialled_port = service->port;
	capture->proxy_port = htons(*by == ROUTED_BY_NAME ? NAMED_PORT : HTTP_PORT);
}

/* To the proxy, on the pod's own loopback; getpeername tells what was dialled. */
static __always_inline void to_proxy(struct bpf_sock_addr *ctx, bool ipv6,
				     const struct capture *capture,
				     const struct frontend_key *dialled_key,
				     __be16 dialled_port)
{
	struct dialled *dialled;
	union address proxy = {};

	if (is_ipv4(&dialled_key->address))
		set_ipv4(&proxy, htonl(0x7f000001));
	else
		proxy.word[3] = htonl(1);
	dialled =
	    bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (dialled) {
		dialled->service_address = dialled_key->address;
		dialled->service_port = dialled_port;
		dialled->backend_address = proxy;
		dialled->backend_port = capture->proxy_port;
	}
	set_address(ctx, ipv6, &proxy, capture->proxy_port);
}

/* What the dial of an address said of it goes with the connection, not with a packet.
 */
static __always_inline void take_note(struct capture *capture, __u8 dial)
{
	struct translation *note = dial ? translation_slot() : NULL;

	if (!note)
		return;
	capture->service = note->service;
	capture->service_port = note->service_port;
	capture->dial = dial;
	note->service = 0;
}

/* A captured socket stands on the loopback; its owner takes it for the pod's. */
static __always_inline void own_name(struct bpf_sock_addr *ctx, bool ipv6)
{
	const struct capture *capture;

	if (!ctx->sk)
		return;
	capture = bpf_sk_storage_get(&captures, ctx->sk, NULL, 0);
	if (capture && capture->state)
		set_address(ctx, ipv6, &capture->source, ctx->user_port);
}

/* The kernel counted what passed on the way to the proxy; a FIN that came is a byte. */
static __always_inline void count_captured(struct captured *known,
					   const struct tcp_sock *tcp)
{
	struct conntrack *entry = &known->entry;
	__u64 sent = tcp->bytes_sent - tcp->bytes_retrans;
	bool second = entry->originator & 1;

	entry->packets[0] = second ? tcp->segs_in : tcp->segs_out;
	entry->packets[1] = second ? tcp->segs_out : tcp->segs_in;
	entry->bytes[0] = second ? tcp->bytes_received : sent;
	entry->bytes[1] = second ? sent : tcp->bytes_received;
}

/* The client's socket is closed: conntrack keeps how it ended, for a while, as of
 * something that no packet belongs to. */
static __always_inline void capture_over(void *socket)
{
	struct capture *over = bpf_sk_storage_get(&captures, socket, NULL, 0);
	const struct tcp_sock *tcp;
	struct captured *known;
	__u32 state;

	if (!over)
		return;
	state = __sync_lock_test_and_set(&over->state, CAPTURE_NONE);
	tcp = state ? bpf_skc_to_tcp_sock(socket) : NULL;
	if (!tcp)
		return;
	if (state == CAPTURE_DIALLING) {
		if (tcp->inet_conn.icsk_inet.sk.sk_err)
			tell_captured(over, tcp->inet_conn.icsk_inet.inet_sport,
				      DROP_PROXY_AWAY);
		return;
	}
	known = bpf_map_lookup_elem(&captured, &over->key);
	if (!known)
		return;
	if (over->outward) { /* the proxy's own connection is in conntrack */
		bpf_map_delete_elem(&captured, &over->key);
		return;
	}
	count_captured(known, tcp);
	known->entry.tcp_flags |= TCP_FIN;
	known->entry.last_seen = bpf_ktime_get_ns() >> 30; /* as now() has it */
	known->entry.revision = 0;
	bpf_map_update_elem(&conntrack, &known->connection, &known->entry, BPF_ANY);
	bpf_map_delete_elem(&captured, &over->key);
}
