/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Refused system calls: a pod's process asked for what it has no capability for.
 *
 * The kernel's own tracepoint of capability checks, not one of system calls: what needs
 * no capability never comes here, unless all system calls are traced. It only tells;
 * the kernel has refused already.
 */
#include "lib/kernel.h"
#include "lib/statistics.h"

#define SECOND_NS      1000000000ULL
#define TOLD_MAX       8 /* of one kind, in a second */
#define TS_COMPAT      2
#define CAP_SYS_ADMIN  21
#define AF_UNIX	       1
#define EROFS	       30
#define ESRCH	       3
#define NEW_NAMESPACES 0x7e020080ULL /* CLONE_NEW* */
#define NEW_USER       0x10000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct confinement);
} confinement SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32); /* its number, + CALL_COMPAT */
	__type(value, struct system_call_known);
} system_calls SEC(".maps");

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
	const struct system_call_known *known =
	    bpf_map_lookup_elem(&system_calls, &call);

	if (capability == CAP_SYS_ADMIN && is_clone(call))
		return !wants_namespaces(call, regs);
	return known && known->in_passing >> (capability & 63) & 1;
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

/* Where the caller has the path of what it wants; NULL when it names none. */
static const void *path_of(__u32 call, const struct pt_regs *regs)
{
	const struct system_call_known *known =
	    bpf_map_lookup_elem(&system_calls, &call);
	__u16 family;

	if (!known)
		return NULL;
	if (known->path == PATH_FIRST)
		return (void *)regs->di;
	if (known->path == PATH_SECOND)
		return (void *)regs->si;
	if (known->path == PATH_IN_ADDRESS &&
	    !bpf_probe_read_user(&family, sizeof(family), (void *)regs->si) &&
	    family == AF_UNIX)
		return (void *)regs->si + sizeof(family);
	return NULL;
}

static __noinline int tell(struct refusal_event *event, const struct refusal_key *key,
			   const void *path)
{
	event->pod = key->pod;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	event->capability = key->capability;
	event->system_call = key->system_call;
	event->path[0] = 0;
	if (path)
		bpf_probe_read_user_str(event->path, sizeof(event->path), path);
	bpf_get_current_comm(event->command, sizeof(event->command));
	return 0;
}

static __u32 reason_of(__u16 met)
{
	if (met == MET_READ_ONLY)
		return DROP_READ_ONLY;
	return met == MET_NO_PROCESS ? DROP_NO_PROCESS : DROP_CAPABILITY_DENIED;
}

static __always_inline int refuse(const struct refusal_key *key,
				  const struct pt_regs *regs)
{
	__u64 now_ns = bpf_ktime_get_ns();
	__s64 untold = take_turn(key, now_ns);
	struct refusal_event *event = NULL;

	if (untold < 0 && is_clone(key->system_call))
		return 0;
	statistic(reason_of(key->capability));
	if (untold >= 0)
		event = bpf_ringbuf_reserve(&refusals, sizeof(*event), 0);
	if (!event) {
		statistic(STATISTIC_REFUSALS_UNTOLD);
		return 0;
	}
	event->time_ns = now_ns;
	event->untold = untold;
	tell(event, key, path_of(key->system_call, regs));
	bpf_ringbuf_submit(event, 1 /* BPF_RB_NO_WAKEUP */);
	return 0;
}

/* Of a pod's process; 0: of any other. */
static __u64 current_pod(void)
{
	const struct confinement *confined;
	__u32 zero = 0;

	confined = bpf_map_lookup_elem(&confinement, &zero);
	if (!confined || !confined->pods ||
	    bpf_get_current_ancestor_cgroup_id(confined->level) != confined->pods)
		return 0;
	return bpf_get_current_ancestor_cgroup_id(confined->level + 1);
}

/* Memory is asked for all the time, and ends at the first look-up. */
SEC("tp_btf/cap_capable") int refused(__u64 *ctx)
{
	const struct task_struct *task;
	const struct pt_regs *regs;
	struct refusal_key key = {};
	int result = ctx[4];
	__s32 call;

	if (!result)
		return 0;
	task = bpf_get_current_task_btf();
	regs = bpf_task_pt_regs((void *)task);
	call = current_call(task, regs);
	if (call < 0 || is_question(call, ctx[3], regs))
		return 0;
	key.pod = current_pod();
	key.capability = ctx[3];
	key.system_call = call;
	return key.pod ? refuse(&key, regs) : 0;
}

/* Only where the operator asks for it: every system call of the machine comes here when
 * it ends. What meets a read-only file system, or no process, asks for no capability.
 */
SEC("tp_btf/sys_exit") int met_nothing(__u64 *ctx)
{
	const struct system_call_known *known;
	const struct task_struct *task;
	const struct pt_regs *regs;
	struct refusal_key key = {};
	__s64 result = ctx[1];
	__u32 call;

	if (result != -EROFS && result != -ESRCH)
		return 0;
	key.pod = current_pod();
	if (!key.pod)
		return 0;
	task = bpf_get_current_task_btf();
	regs = bpf_task_pt_regs((void *)task);
	call = current_call(task, regs);
	known = bpf_map_lookup_elem(&system_calls, &call);
	if (!known || !(result == -EROFS ? known->changes : known->of_process))
		return 0;
	key.capability = result == -EROFS ? MET_READ_ONLY : MET_NO_PROCESS;
	key.system_call = call;
	return refuse(&key, regs);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
