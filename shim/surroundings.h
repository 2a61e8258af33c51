/* Surroundings: what of the host a container sees, and what of that it may change.
 *
 * There are no images: the host's files are the container's, to read. Written are /tmp,
 * /var/tmp and its working directory alone, for root too, who could write himself out
 * of his pod otherwise. It has its own processes, devices that are nobody's, and a /run
 * of its own, where the host's sockets are not. Where what is ours on the host would be
 * are decoys.
 */
#pragma once

#include "report.h"

#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define HIDDEN_MAX 8
#define DECOYS_MAX 128

/* Only CAP_SYS_PTRACE may follow it, which no container has: the kernel's own check
 * tells that somebody tried (bpf/refusal.bpf.c). Whoever has it comes to a program's
 * file: below that is nothing.
 */
#define DECOY "/proc/1/exe"

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#define ATTR_RDONLY	 1
#define WHOLE_TREE	 0x8000 /* AT_RECURSIVE */
#define FOR_DATA	 (MS_NOSUID | MS_NODEV)
#define FOR_DATA_NO_EXEC (FOR_DATA | MS_NOEXEC)

struct attributes { /* struct mount_attr */
	unsigned long long set, clear, propagation, userns;
};

static const char *const WRITABLE[] = {"/tmp", "/var/tmp"};
static const char *const DEVICES[] = {"null",	"zero",	   "full",
				      "random", "urandom", "tty"};
static const char *const OF_THE_HOST[] = {"/proc/sys", "/proc/sysrq-trigger",
					  "/proc/irq", "/proc/bus", "/proc/fs"};

static int set_read_only(const char *path, unsigned int flags, int read_only)
{
	struct attributes wanted = {.set = read_only ? ATTR_RDONLY : 0,
				    .clear = read_only ? 0 : ATTR_RDONLY};

	return syscall(SYS_mount_setattr, -1, path, flags, &wanted, sizeof(wanted));
}

/* A mount of its own, to be told apart; whether there is such a directory. */
static int set_apart(const char *path)
{
	int done = mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0;

	errno = 0;
	return done;
}

/* Mounts below those that may be written stay as they become here. */
static void make_read_only(const char *workdir)
{
	int apart[3];
	const char *paths[3] = {WRITABLE[0], WRITABLE[1], workdir};

	for (int i = 0; i < 3; i++)
		apart[i] = paths[i] && strcmp(paths[i], "/") && set_apart(paths[i]);
	need(set_read_only("/", WHOLE_TREE, 1), "make read-only", "/");
	for (int i = 0; i < 3; i++)
		if (apart[i])
			need(set_read_only(paths[i], 0, 0), "make writable", paths[i]);
}

static void hide(const char *path)
{
	need(mount("tmpfs", path, "tmpfs", FOR_DATA_NO_EXEC, "mode=0555,size=64k"),
	     "hide", path);
}

/* mkdir -p */
static void make_directories(const char *path)
{
	char part[4096];

	snprintf(part, sizeof(part), "%s", path);
	for (char *at = part + 1; *at; at++)
		if (*at == '/') {
			*at = '\0';
			mkdir(part, 0755);
			*at = '/';
		}
	mkdir(part, 0755);
	errno = 0;
}

static void bind_open(int fd, const char *target)
{
	char source[64];

	snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
	need(mount(source, target, NULL, MS_BIND, NULL), "bind", target);
	close(fd);
}

/* An empty /run but for one directory of the host's, where the Workload API is. */
static void cover_run(const char *kept)
{
	int fd =
	    kept && !strncmp(kept, "/run/", 5) ? open(kept, O_PATH | O_CLOEXEC) : -1;

	errno = 0;
	need(mount("tmpfs", "/run", "tmpfs", FOR_DATA, "mode=0755,size=64m"), "cover",
	     "/run");
	need(mkdir("/run/lock", 01777), "make", "/run/lock");
	if (fd < 0)
		return;
	make_directories(kept);
	bind_open(fd, kept);
}

static void cover_devices(void)
{
	int fds[sizeof(DEVICES) / sizeof(DEVICES[0])];
	char path[64];

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		snprintf(path, sizeof(path), "/dev/%s", DEVICES[i]);
		fds[i] = open(path, O_PATH | O_CLOEXEC);
		need(fds[i], "open", path);
	}
	need(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755,size=64k"), "cover",
	     "/dev");
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		snprintf(path, sizeof(path), "/dev/%s", DEVICES[i]);
		need(mknod(path, S_IFREG | 0666, 0), "make", path);
		bind_open(fds[i], path);
	}
	need(mkdir("/dev/pts", 0755), "make", "/dev/pts");
	need(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		   "newinstance,ptmxmode=0666,mode=0620"),
	     "mount", "/dev/pts");
	need(mkdir("/dev/shm", 01777), "make", "/dev/shm");
	need(mount("tmpfs", "/dev/shm", "tmpfs", FOR_DATA_NO_EXEC, "mode=1777"),
	     "mount", "/dev/shm");
	need(symlink("pts/ptmx", "/dev/ptmx"), "make", "/dev/ptmx");
	need(symlink("/proc/self/fd", "/dev/fd"), "make", "/dev/fd");
	need(symlink("/proc/self/fd/0", "/dev/stdin"), "make", "/dev/stdin");
	need(symlink("/proc/self/fd/1", "/dev/stdout"), "make", "/dev/stdout");
	need(symlink("/proc/self/fd/2", "/dev/stderr"), "make", "/dev/stderr");
}

/* In what is covered or hidden, as long as that may be written. */
static void place_decoy(const char *path)
{
	char above[4096];
	char *slash;

	snprintf(above, sizeof(above), "%s", path);
	slash = strrchr(above, '/');
	if (slash && slash != above) {
		*slash = '\0';
		make_directories(above);
	}
	need(symlink(DECOY, path), "place", path);
}

/* The container's own processes; knobs of the host's kernel are not to be turned. */
static void mount_processes(void)
{
	need(mount("proc", "/proc", "proc", FOR_DATA_NO_EXEC, NULL), "mount", "/proc");
	for (size_t i = 0; i < sizeof(OF_THE_HOST) / sizeof(OF_THE_HOST[0]); i++)
		if (set_apart(OF_THE_HOST[i]))
			need(set_read_only(OF_THE_HOST[i], WHOLE_TREE, 1),
			     "make read-only", OF_THE_HOST[i]);
}

/* Whether who has the other end of this pipe is gone. */
static int is_alone(int end)
{
	struct pollfd watched = {.fd = end};

	return poll(&watched, 1, 0) > 0;
}

/* The first process of the container's own numbers: reaps orphans, and does nothing
 * else. It dies with the shim, and with it all of them. It keeps what root may do, so
 * that none in the container may look through its eyes.
 */
static pid_t start_init(const int alive[2])
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	close(alive[0]);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "init", 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (is_alone(alive[1]))
		_exit(0);
	syscall(SYS_close_range, 0, ~0U, 0);
	signal(SIGCHLD, SIG_IGN); /* they are reaped by the kernel */
	for (;;)
		pause();
}

/* Whether a person is at the terminal, and we are who they talk to. */
static int in_foreground(void)
{
	int yes = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();

	errno = 0;
	return yes;
}

/* In the command: a process group of its own, so that a shell can tell which it is. */
static void take_terminal(void)
{
	signal(SIGTTOU, SIG_IGN);
	need(setpgid(0, 0), "make", "process group");
	need(tcsetpgrp(STDIN_FILENO, getpid()), "take", "the terminal");
}

/* Wait for the command in the container as if we were it: its end is ours. What the
 * terminal sends reaches it by itself.
 */
static _Noreturn void stand_for(pid_t child, int foreground)
{
	sigset_t all;
	int number, status = 0;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		if (waitpid(child, &status, WNOHANG | WUNTRACED) == child) {
			if (foreground)
				tcsetpgrp(STDIN_FILENO, getpgrp());
			if (!WIFSTOPPED(status))
				break;
			raise(SIGSTOP);
			if (foreground)
				tcsetpgrp(STDIN_FILENO, child);
			kill(child, SIGCONT);
		}
		number = sigwaitinfo(&all, NULL);
		if (number != SIGCHLD && number != SIGCONT && number > 0)
			kill(child, number);
	}
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	number = WTERMSIG(status);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* no core of ours */
	signal(number, SIG_DFL);
	kill(getpid(), number);
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	_exit(128 + number);
}
