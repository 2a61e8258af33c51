/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The kernel's structs, as far as they are looked at; libbpf fits the offsets in. */
#pragma once

#include "bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net {
	__u64 net_cookie;
	struct {
		int sysctl_tcp_rmem[3];
	} ipv4;
};

struct sock_common {
	__u16 skc_num;
	volatile __u8 skc_state;
	unsigned long skc_flags;
	struct {
		struct net *net;
	} skc_net;
	struct {
		__s64 counter;
	} skc_cookie;
};

enum sock_flags {
	SOCK_ZEROCOPY = 26, /* somewhere else in other kernels */
};

struct sock {
	struct sock_common __sk_common;
	int sk_rcvlowat;
	int sk_err;
	struct {
		struct {
			int counter;
		} rmem_alloc;
	} sk_backlog;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const void *icsk_ulp_ops;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq, snd_una, copied_seq, rcv_nxt;
	__u32 segs_in, segs_out;
	__u64 bytes_received, bytes_sent, bytes_retrans;
};
struct thread_info {
	__u32 status;
};

struct cred {
	struct {
		__u32 val;
	} euid, egid;
};

struct task_struct {
	struct thread_info thread_info;
	const struct cred *cred;
};

struct pt_regs {
	unsigned long bx, di, si, orig_ax;
};
#pragma clang attribute pop
