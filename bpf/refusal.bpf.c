/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Refused system calls: a pod's process asked for what it has no capability for.
 *
 * The kernel's own tracepoint of capability checks, not one of system calls: what needs
 * no capability never comes here. It only tells; the kernel has refused already.
 */
#include "lib/kernel.h"
#include "lib/statistics.h"

#define SECOND_NS      1000000000ULL
#define TOLD_MAX       8 /* of one kind, in a second */
#define TS_COMPAT      2
#define CAP_SYS_ADMIN  21
#define NEW_NAMESPACES 0x7e020080ULL /* CLONE_NEW* */
#define NEW_USER       0x10000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct confinement);
} confinement SEC(".maps");

/* Capabilities that a system call asks for without wanting what they are for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32); /* its number, + CALL_COMPAT */
	__type(value, __u64);
} questions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct refusal_key);
	__type(value, struct refusal_told);
} refusals_told SEC(".maps");

/* Not the ring of flows: a flood here must not push them out. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} refusals SEC(".maps");

static bool is_clone(__u32 call)
{
	return call == CALL_CLONE || call == CALL_CLONE3 || call == CALL_COMPAT_CLONE ||
	       call == CALL_COMPAT_CLONE3;
}

/* New namespaces and the memory of a child need the same capability: its flags tell.
 * Namespaces of a new user need none.
 */
static bool wants_namespaces(__u32 call, const struct pt_regs *regs)
{
	__u64 flags = call & CALL_COMPAT ? regs->bx : regs->di;

	if ((call & ~CALL_COMPAT) == CALL_CLONE3 &&
	    bpf_probe_read_user(&flags, sizeof(flags), (void *)flags))
		return false;
	return flags & NEW_NAMESPACES && !(flags & NEW_USER);
}

static bool is_question(__u32 call, __u32 capability, const struct pt_regs *regs)
{
	const __u64 *asked = bpf_map_lookup_elem(&questions, &call);

	if (capability == CAP_SYS_ADMIN && is_clone(call))
		return !wants_namespaces(call, regs);
	return asked && *asked >> (capability & 63) & 1;
}

/* What the process is about; a fault is no system call. */
static __s32 current_call(const struct task_struct *task, const struct pt_regs *regs)
{
	__s64 number = regs->orig_ax;

	if (number < 0)
		return -1;
	number &= CALL_COMPAT - 1;
	return task->thread_info.status & TS_COMPAT ? number | CALL_COMPAT : number;
}

/* How many like it were not told before it; -1: nor is this one. Of a clone that is
 * refused its memory is asked for, too, piece by piece: it has one turn, uncounted.
 */
static __s64 take_turn(const struct refusal_key *key, __u64 now_ns)
{
	struct refusal_told first = {.since_ns = now_ns, .told = 1}, *known;
	bool many = !is_clone(key->system_call);
	__u32 untold;

	known = bpf_map_lookup_elem(&refusals_told, key);
	if (!known) {
		bpf_map_update_elem(&refusals_told, key, &first, BPF_ANY);
		return 0;
	}
	if (now_ns - known->since_ns >= SECOND_NS) {
		known->since_ns = now_ns;
		known->told = 0;
	}
	if (known->told >= (many ? TOLD_MAX : 1)) {
		known->untold += many;
		return -1;
	}
	known->told += 1;
	untold = known->untold;
	known->untold = 0;
	return untold;
}

static __noinline int tell(struct refusal_event *event, const struct refusal_key *key)
{
	event->pod = key->pod;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	event->capability = key->capability;
	event->system_call = key->system_call;
	event->pad = 0;
	bpf_get_current_comm(event->command, sizeof(event->command));
	return 0;
}

static __always_inline int refuse(const struct refusal_key *key)
{
	__u64 now_ns = bpf_ktime_get_ns();
	__s64 untold = take_turn(key, now_ns);
	struct refusal_event *event = NULL;

	if (untold < 0 && is_clone(key->system_call))
		return 0;
	statistic(DROP_CAPABILITY_DENIED);
	if (untold >= 0)
		event = bpf_ringbuf_reserve(&refusals, sizeof(*event), 0);
	if (!event) {
		statistic(STATISTIC_REFUSALS_UNTOLD);
		return 0;
	}
	event->time_ns = now_ns;
	event->untold = untold;
	tell(event, key);
	bpf_ringbuf_submit(event, 1 /* BPF_RB_NO_WAKEUP */);
	return 0;
}

/* Memory is asked for all the time, and ends at the first look-up. */
SEC("tp_btf/cap_capable") int refused(__u64 *ctx)
{
	const struct task_struct *task;
	const struct pt_regs *regs;
	const struct confinement *confined;
	struct refusal_key key = {};
	int result = ctx[4];
	__u32 zero = 0;
	__s32 call;

	if (!result)
		return 0;
	task = bpf_get_current_task_btf();
	regs = bpf_task_pt_regs((void *)task);
	call = current_call(task, regs);
	if (call < 0 || is_question(call, ctx[3], regs))
		return 0;
	confined = bpf_map_lookup_elem(&confinement, &zero);
	if (!confined || !confined->pods ||
	    bpf_get_current_ancestor_cgroup_id(confined->level) != confined->pods)
		return 0;
	key.pod = bpf_get_current_ancestor_cgroup_id(confined->level + 1);
	key.capability = ctx[3];
	key.system_call = call;
	return refuse(&key);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
