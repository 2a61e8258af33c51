/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What bpf_helpers.h would give: map declarations and the helpers in use, by number. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <linux/stddef.h>

#define SEC(name)	  __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
/* linux/stddef.h has a weaker one. */
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline	__attribute__((noinline, unused))
/* Verified once, by itself, whoever calls it: what it returns may be anything. */
#define __global    __attribute__((noinline))
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define htons(x)    __builtin_bswap16(x)
#define ntohs(x)    __builtin_bswap16(x)
#define htonl(x)    __builtin_bswap32(x)
#define ntohl(x)    __builtin_bswap32(x)

#define __ksym SEC(".ksyms")
extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym;
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

/* Verdicts of a TCX program; pkt_cls.h pulls in too much. */
#define TC_ACT_OK   0
#define TC_ACT_SHOT 2
#define TCX_NEXT    -1

#define EINVAL 22

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static long (*const bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from,
					 __u32 length, __u64 flags) = (void *)9;
static long (*const bpf_l3_csum_replace)(void *skb, __u32 offset, __u64 from, __u64 to,
					 __u64 size) = (void *)10;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to,
					__u32 length) = (void *)26;
static long (*const bpf_l4_csum_replace)(void *skb, __u32 offset, __u64 from, __u64 to,
					 __u64 flags) = (void *)11;
static __s64 (*const bpf_csum_diff)(const void *from, __u32 from_size, const void *to,
				    __u32 to_size, __u32 seed) = (void *)28;
static long (*const bpf_skb_change_tail)(void *skb, __u32 length,
					 __u64 flags) = (void *)38;
static long (*const bpf_skb_adjust_room)(void *skb, __s32 difference, __u32 mode,
					 __u64 flags) = (void *)50;
static long (*const bpf_skb_pull_data)(void *skb, __u32 length) = (void *)39;
static __s64 (*const bpf_csum_update)(void *skb, __u32 difference) = (void *)40;
static __u64 (*const bpf_get_socket_cookie)(void *ctx) = (void *)46;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value,
					 __u64 flags) = (void *)107;
static long (*const bpf_sock_ops_cb_flags_set)(void *ops, int flags) = (void *)59;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*const bpf_get_current_uid_gid)(void) = (void *)15;
static long (*const bpf_get_current_comm)(void *to, __u32 size) = (void *)16;
static __u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*const bpf_probe_read_user)(void *to, __u32 size,
					 const void *from) = (void *)112;
static long (*const bpf_probe_read_user_str)(void *to, __u32 size,
					     const void *from) = (void *)114;
static __u64 (*const bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static void *(*const bpf_get_current_task_btf)(void) = (void *)158;
static void *(*const bpf_task_pt_regs)(void *task) = (void *)175;
static long (*const bpf_sock_hash_update)(void *ctx, void *map, void *key,
					  __u64 flags) = (void *)70;
static long (*const bpf_msg_redirect_hash)(void *msg, void *map, void *key,
					   __u64 flags) = (void *)71;
static long (*const bpf_seq_write)(void *seq, const void *from,
				   __u32 length) = (void *)127;
static void *(*const bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static __u64 (*const bpf_jiffies64)(void) = (void *)118;
static __u64 (*const bpf_get_netns_cookie)(void *ctx) = (void *)122;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size,
					  __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)132;
static long (*const bpf_redirect_neigh)(__u32 ifindex, void *neighbour, int size,
					__u64 flags) = (void *)152;
static long (*const bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static __u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*const bpf_loop)(__u32 times, void *callback, void *context,
			      __u64 flags) = (void *)181;
static int (*const bpf_set_retval)(int retval) = (void *)187;
