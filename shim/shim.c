/* Shim: the parent of one container, and its way in.
 *
 *	shim run --state DIR --log FILE --cgroup DIR --shims DIR [options] -- COMMAND...
 *	shim enter --pid PID --start TICKS --cgroup DIR [options] -- COMMAND...
 *
 * "run" returns when the command runs (or could not), and leaves the shim behind: it
 * outlives whoever started it, writes what the container prints to a CRI log, reaps,
 * and when the command ends kills what is left in its cgroup. Below the state directory
 * it writes, each file whole or not at all:
 *
 *	shim	"PID TICKS": this process and its start time
 *	pid	"PID TICKS": the container's first process
 *	started	seconds since the epoch; once the command was executed
 *	status	"CODE SIGNAL ERRNO SECONDS MESSAGE": last of all. ERRNO and MESSAGE tell
 *		the step that kept the command from starting; 0 when it did start.
 *
 * "enter" becomes the command inside a running container: same terminal, same exit.
 * The environment, in both, is the one given: nothing is added.
 */
#define _GNU_SOURCE

#include "container.h"
#include "log.h"
#include "options.h"

#include <poll.h>
#include <sys/signalfd.h>

#define DRAIN_MS 2000 /* for what a dying tree still has in its pipes */

struct supervisor {
	struct log log;
	struct stream streams[2];
	int signals; /* signalfd: SIGCHLD */
	pid_t main, init;
	int alive[2]; /* closed when we are dead */
	int ended, wait_status;
};

static struct supervisor supervisor; /* static: untouched buffers cost no memory */

/* The OOM killer may have been told to spare the agent; workloads are not spared. Only
 * a raise is always allowed, so a positive score stays.
 */
static void forget_oom_score(void)
{
	char score[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);

	need(fd, "read", "oom_score_adj");
	need(read(fd, score, sizeof(score) - 1), "read", "oom_score_adj");
	close(fd);
	if (score[0] == '-')
		need(control("/proc/self", "oom_score_adj", "0"), "set",
		     "oom_score_adj");
}

/* Becomes the container. `out`: the write ends of its streams. */
static _Noreturn void container(const struct container *c, const int alive[2],
				const int out[2])
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	need(null, "open", "/dev/null");
	close(alive[0]);
	need(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "hide", "the shim's file");
	default_signals();
	need(setsid(), "start", "session");
	forget_oom_score();
	make_namespaces(c);
	need(dup2(null, STDIN_FILENO), "open", "stdin");
	need(dup2(out[0], STDOUT_FILENO), "open", "stdout");
	need(dup2(out[1], STDERR_FILENO), "open", "stderr");
	become_user(c);
	need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "set", "death signal");
	if (is_alone(alive[1]))
		_exit(EXIT_SETUP); /* the shim died before we asked to hear of it */
	run_command(c);
}

static void open_streams(struct supervisor *s, int out[2])
{
	static const char *const names[] = {"stdout", "stderr"};
	int ends[2];

	for (int i = 0; i < 2; i++) {
		need(pipe2(ends, O_CLOEXEC), "open", "pipe");
		need(fcntl(ends[0], F_SETFL, O_NONBLOCK), "open", "pipe");
		s->streams[i].fd = ends[0];
		s->streams[i].name = names[i];
		out[i] = ends[1];
	}
}

/* Start the command; the answer is why it could not start, or "" when it did. */
static void start(struct supervisor *s, const struct container *c, char *why,
		  size_t size)
{
	int out[2], errors[2];
	ssize_t got;

	need(pipe2(s->alive, O_CLOEXEC), "open", "pipe");
	need(unshare(CLONE_NEWPID), "unshare", "processes");
	s->init = start_init(s->alive);
	need(s->init, "fork", "init");
	open_streams(s, out);
	need(pipe2(errors, O_CLOEXEC), "open", "pipe");
	s->main = fork_into(c->cgroup);
	if (s->main == 0) {
		report_fd = errors[1];
		container(c, s->alive, out);
	}
	close(out[0]);
	close(out[1]);
	close(errors[1]);
	close(s->alive[1]);
	publish("pid", "%d %llu\n", s->main, start_time(s->main));
	do {
		got = read(errors[0], why, size - 1);
	} while (got < 0 && errno == EINTR);
	why[got > 0 ? got : 0] = '\0';
	close(errors[0]);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Whoever is our child; remember how the first process of the container ended. */
static void reap(struct supervisor *s)
{
	struct signalfd_siginfo signal;
	int status;
	pid_t pid;

	while (read(s->signals, &signal, sizeof(signal)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->main) {
			s->ended = 1;
			s->wait_status = status;
		}
	}
}

/* One turn; how many descriptors were ready. */
static int turn(struct supervisor *s, int timeout_ms)
{
	struct pollfd ready[] = {
	    {.fd = s->streams[0].fd, .events = POLLIN},
	    {.fd = s->streams[1].fd, .events = POLLIN},
	    {.fd = s->signals, .events = POLLIN},
	};
	int count = poll(ready, 3, timeout_ms);

	if (count <= 0)
		return count < 0 && errno == EINTR ? 1 : count;
	for (int i = 0; i < 2; i++)
		if (ready[i].revents)
			stream_read(&s->streams[i], &s->log);
	if (ready[2].revents)
		reap(s);
	return count;
}

static void supervise(struct supervisor *s, const struct container *c)
{
	double deadline;

	while (!s->ended)
		if (turn(s, -1) < 0)
			break;
	/* The container ends with its first process: nothing it left behind stays. */
	control(c->cgroup, "cgroup.kill", "1");
	deadline = now() + DRAIN_MS / 1e3;
	while ((s->streams[0].fd >= 0 || s->streams[1].fd >= 0) && now() < deadline)
		turn(s, 50);
	kill(s->init, SIGKILL);
	waitpid(s->init, NULL, 0);
}

static void publish_status(const struct supervisor *s, const char *why)
{
	int code = WIFEXITED(s->wait_status) ? WEXITSTATUS(s->wait_status) : 0;
	int signal = WIFSIGNALED(s->wait_status) ? WTERMSIG(s->wait_status) : 0;
	int error = 0, skip = 0;

	if (*why && sscanf(why, "%d %d %n", &code, &error, &skip) < 2)
		code = EXIT_SETUP;
	publish("status", "%d %d %d %.9f %s\n", code, signal, error, now(), why + skip);
}

static void detach(int ready)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	need(null, "open", "/dev/null");
	for (int fd = 0; fd < 3; fd++)
		need(dup2(null, fd), "close", "terminal");
	close(null);
	/* Nobody listens when the starter was killed; the container goes on. */
	if (write(ready, ".", 1) < 0)
		errno = 0;
	close(ready);
}

/* An agent that saw us start and not yet arrive may have given us up and taken the
 * name: then another attempt is under way, and we must not be the second.
 */
static void claim(void)
{
	publish(".claim", "%d %llu\n", getpid(), start_time(getpid()));
	need(link(".claim", "shim"), "claim", "shim");
	need(unlink(".claim"), "claim", "shim");
}

static void prepare(struct supervisor *s, const struct container *c)
{
	sigset_t blocked;

	need(setsid(), "start", "session");
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	need(sigprocmask(SIG_SETMASK, &blocked, NULL), "block", "signals");
	s->signals = signalfd(-1, &blocked, SFD_NONBLOCK | SFD_CLOEXEC);
	need(s->signals, "open", "signalfd");
	/* Only SIGKILL ends a shim, and with it its container. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	need(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become", "subreaper");
	need(chdir(c->state), "change directory to", c->state);
	s->log.path = c->log;
	need(log_open(&s->log), "open", c->log);
	claim();
}

static _Noreturn void shim(const struct container *c, int ready)
{
	struct supervisor *s = &supervisor;
	char why[512];

	prepare(s, c);
	start(s, c, why, sizeof(why));
	if (!*why)
		publish("started", "%.9f\n", now());
	detach(ready);
	supervise(s, c);
	publish_status(s, why);
	_exit(0);
}

/* Fork the shim and stay until it says that the command runs, or could not. */
static int run(const struct container *c)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (!c->state || !c->log || !c->shims || !c->netns || !c->workdir)
		usage("run needs --state, --log, --shims, --netns and --workdir");
	need(pipe2(ready, O_CLOEXEC), "open", "pipe");
	pid = fork_into(c->shims);
	if (pid == 0) {
		close(ready[0]);
		shim(c, ready[1]);
	}
	close(ready[1]);
	return read(ready[0], &byte, 1) == 1 ? 0 : EXIT_SETUP;
}

static _Noreturn void enter(const struct container *c)
{
	int foreground = in_foreground();
	pid_t child;

	if (!c->pid || !c->workdir)
		usage("enter needs --pid and --workdir");
	need(control(c->cgroup, "cgroup.procs", "0"), "join cgroup", c->cgroup);
	join_namespaces(c);
	child = fork(); /* only children get the container's numbers */
	need(child, "fork", "command");
	if (child != 0)
		stand_for(child, foreground);
	if (foreground)
		take_terminal();
	need(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "hide", "the shim's file");
	default_signals();
	become_user(c);
	need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "set", "death signal");
	run_command(c);
}

int main(int argc, char **argv)
{
	struct container c = {0};

	if (argc < 2)
		usage("shim run|enter; see shim/shim.c");
	parse(&c, argc - 1, argv + 1);
	if (strcmp(argv[1], "run") == 0)
		return run(&c);
	if (strcmp(argv[1], "enter") == 0)
		enter(&c);
	usage(argv[1]);
}
