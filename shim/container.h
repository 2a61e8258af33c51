/* Container: how a process gets the surroundings of a container, then becomes it.
 *
 * The order matters. The process is born in its cgroup, which carries the socket
 * programs; the user comes late, because all before needs root; the death signal comes
 * after the user, because a change of user clears it.
 */
#pragma once

#include "surroundings.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* From <sched.h>, which cannot be had together with <linux/sched.h>. */
int setns(int fd, int type);
int unshare(int flags);

#define BINDS_MAX  8
#define GROUPS_MAX 64

struct container {
	const char *state, *log, *cgroup, *shims; /* directories; log is a file */
	const char *netns;
	const char *hostname, *workdir;
	const char *etc; /* directory below state that lies over /etc; or NULL */
	const char *binds[BINDS_MAX]; /* "SOURCE:TARGET" */
	int bind_count;
	const char
	    *hidden[HIDDEN_MAX]; /* directories of the host's that show nothing */
	int hidden_count;
	const char *decoys[DECOYS_MAX]; /* in them, in /run or in /dev */
	int decoy_count;
	const char *kept; /* directory below /run that stays; or NULL */
	pid_t pid;	  /* enter: whose namespaces to join */
	unsigned long long start;
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS_MAX];
	int group_count;
	int no_new_privs;
	char **argv;
};

/* What root may do in a container: containerd's default set without CAP_MKNOD (there is
 * no device cgroup here). Without CAP_SYS_ADMIN no way leads to another namespace, and
 * without CAP_NET_ADMIN none around the pod's own interface.
 */
static const int CAPABILITIES[] = {
    CAP_CHOWN,	    CAP_DAC_OVERRIDE, CAP_FOWNER,  CAP_FSETID,		 CAP_KILL,
    CAP_SETGID,	    CAP_SETUID,	      CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_NET_RAW,
    CAP_SYS_CHROOT, CAP_AUDIT_WRITE,  CAP_SETFCAP,
};

static int kept(int capability)
{
	for (size_t i = 0; i < sizeof(CAPABILITIES) / sizeof(CAPABILITIES[0]); i++)
		if (CAPABILITIES[i] == capability)
			return 1;
	return 0;
}

static pid_t clone_into(int cgroup)
{
	struct clone_args arguments = {
	    .flags = CLONE_INTO_CGROUP,
	    .exit_signal = SIGCHLD,
	    .cgroup = cgroup,
	};

	return syscall(SYS_clone3, &arguments, sizeof(arguments));
}

/* In the child: say that it lives. In the parent: hear it, or that it never did. */
static int born(pid_t pid, int life[2])
{
	char byte = '.';
	int alive;

	if (pid == 0)
		alive = write(life[1], &byte, 1) == 1;
	close(life[1]);
	if (pid != 0)
		alive = read(life[0], &byte, 1) == 1;
	close(life[0]);
	return alive;
}

/* fork(), and the child is born in the cgroup. Moving there costs 20 ms: the kernel
 * waits until no process anywhere is in the midst of a fork. But (tried on 6.18) a
 * child that is cloned into another cgroup is killed at birth unless both cgroups have
 * had as many writes to their cgroup.kill; then it has to move after all.
 */
static pid_t fork_into(const char *cgroup)
{
	int life[2], fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t pid;

	need(fd, "open cgroup", cgroup);
	need(pipe2(life, O_CLOEXEC), "open", "pipe");
	pid = clone_into(fd);
	need(pid, "fork into cgroup", cgroup);
	close(fd);
	if (born(pid, life))
		return pid;
	waitpid(pid, NULL, 0);
	pid = fork();
	need(pid, "fork for cgroup", cgroup);
	if (pid == 0)
		need(control(cgroup, "cgroup.procs", "0"), "join cgroup", cgroup);
	return pid;
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version =
						      _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!kept(cap))
			need(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "drop",
			     "capabilities");
	need(syscall(SYS_capget, &header, sets), "read", "capabilities");
	sets[0].inheritable = sets[1].inheritable = 0;
	need(syscall(SYS_capset, &header, sets), "drop", "capabilities");
}

/* An empty session keyring: that of the agent holds who knows what. */
static void leave_keys(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
		need(errno == ENOSYS ? 0 : -1, "leave", "session keyring");
	errno = 0;
}

static void become_user(const struct container *c)
{
	leave_keys();
	drop_capabilities();
	need(setgroups(c->group_count, c->groups), "set", "groups");
	need(setresgid(c->gid, c->gid, c->gid), "set", "gid");
	need(setresuid(c->uid, c->uid, c->uid), "set", "uid");
	if (c->no_new_privs)
		need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set", "no_new_privs");
}

static void bind_file(const char *pair)
{
	const char *colon = strchr(pair, ':');
	char source[4096];

	if (!colon || colon - pair >= (long)sizeof(source)) {
		errno = EINVAL;
		die(EXIT_SETUP, "bind", pair);
	}
	memcpy(source, pair, colon - pair);
	source[colon - pair] = '\0';
	need(mount(source, colon + 1, NULL, MS_BIND, NULL), "bind", pair);
}

static void join_network(const char *netns)
{
	int fd = open(netns, O_RDONLY | O_CLOEXEC);
	unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	need(fd, "open", netns);
	need(setns(fd, CLONE_NEWNET), "setns", netns);
	close(fd);
	need(unshare(CLONE_NEWNS), "unshare", "mounts");
	/* Slave: an unmount on the host reaches us, so that we pin nobody's namespace.
	 */
	need(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "make slave", "/");
	/* Shows the pod's own interfaces, and hides cgroups and pinned programs. */
	need(mount("sysfs", "/sys", "sysfs", flags, NULL), "mount", "/sys");
}

/* /etc becomes one of our own, read-only, so that what is bound there stays: when the
 * host renames a new file over /etc/resolv.conf, as DHCP clients and resolved do, the
 * kernel drops every mount on the old one in all namespaces. `layer`, in the state
 * directory, holds an empty file for each; without overlayfs the binds go on the host's
 * files.
 */
static void cover_etc(const char *layer)
{
	char options[64];

	snprintf(options, sizeof(options), "lowerdir=%s:/etc", layer);
	if (mount("overlay", "/etc", "overlay", MS_RDONLY, options) < 0)
		errno = 0;
}

static void make_namespaces(const struct container *c)
{
	join_network(c->netns);
	if (c->etc)
		cover_etc(c->etc);
	for (int i = 0; i < c->bind_count; i++)
		bind_file(c->binds[i]);
	make_read_only(c->workdir);
	for (int i = 0; i < c->hidden_count; i++)
		hide(c->hidden[i]);
	cover_run(c->kept);
	cover_devices();
	for (int i = 0; i < c->decoy_count; i++)
		place_decoy(c->decoys[i]);
	for (int i = 0; i < c->hidden_count; i++)
		need(set_read_only(c->hidden[i], 0, 1), "make read-only", c->hidden[i]);
	need(set_read_only("/dev", 0, 1), "make read-only", "/dev");
	mount_processes();
	need(unshare(CLONE_NEWUTS), "unshare", "host name");
	if (c->hostname)
		need(sethostname(c->hostname, strlen(c->hostname)), "set host name",
		     c->hostname);
}

/* All of the target's namespaces at once, and of no other process that got its pid. */
static void join_namespaces(const struct container *c)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%d", c->pid);
	fd = syscall(SYS_pidfd_open, c->pid, 0);
	need(fd, "enter process", name);
	if (c->start && start_time(c->pid) != c->start) {
		errno = ESRCH;
		die(EXIT_SETUP, "enter process", name);
	}
	need(setns(fd, CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID),
	     "enter process", name);
	close(fd);
}

/* By system call: libc keeps two signals to itself, and what posix_spawn (make, among
 * others) starts inherits them ignored. */
static void default_signals(void)
{
	static const unsigned long action[4], none; /* all zero: SIG_DFL */

	for (int number = 1; number < NSIG;
	     number++) /* two cannot be changed: EINVAL */
		syscall(SYS_rt_sigaction, number, action, NULL, sizeof(none));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

static _Noreturn void run_command(const struct container *c)
{
	umask(022);
	need(chdir(c->workdir), "change directory to", c->workdir);
	need(syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */), "close",
	     "descriptors");
	execvp(c->argv[0], c->argv);
	die(errno == ENOENT || errno == ENOTDIR ? EXIT_NO_COMMAND : EXIT_NO_EXEC,
	    "exec", c->argv[0]);
}
