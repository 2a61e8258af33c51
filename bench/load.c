// SPDX-License-Identifier: Apache-2.0
/* Load generator of `make bench`: one stream, request/response, connect/request/response.
 *
 *   load server PORT                     echo single bytes, swallow streams; until killed
 *   load rr|crr HOST PORT SECONDS        print one figure: transactions per second
 *   load dials HOST PORT SECONDS         as crr, 32 at a time
 *   load stream|bulk HOST PORT SECONDS   bits per second; bulk: a megabyte, then its answer
 *   load udp HOST PORT SECONDS           datagrams of 32 bytes per second, no answers
 *   load http HOST PORT SECONDS          requests of HTTP/1.1 per second, 32 connections
 *   load p50|p99 HOST PORT SECONDS       2,000 such requests a second: latency in microseconds
 *   load rotate METRIC SECONDS ROUNDS SEED (NETNS HOST PORT)...
 *                                        print a line per round: everybody's figure, in turn
 *
 * A byte that comes alone is echoed, unless it is 'S'; so is 'E' behind other bytes. 'G' asks
 * for a page of 64 bytes. Bounded by SECONDS
 * (and ROUNDS), a server by its parent (PR_SET_PDEATHSIG). Not part of the product.
 *
 * In a rotation everybody has a process in its namespace and a connection that stays; they
 * take short turns, in another random order each round. So what makes the machine slow for
 * a while, a neighbour or its clock, is the same for all who are compared.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

/* The same in every namespace, whatever the host's default; accepted sockets inherit it. */
static void use_cubic(int fd)
{
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
}

static int dial(const char *host, const char *port, int type)
{
	struct addrinfo hints = {.ai_socktype = type}, *found;
	int fd, one = 1;

	if (getaddrinfo(host, port, &hints, &found))
		die(host);
	fd = socket(found->ai_family, type, 0);
	if (type == SOCK_STREAM)
		use_cubic(fd);
	if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen))
		die("connect");
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	freeaddrinfo(found);
	return fd;
}

static int listen_on(int port)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), one = 1;

	use_cubic(fd);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)&any, sizeof(any)) || listen(fd, 1024))
		die("listen");
	return fd;
}

#define REQUEST "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
#define EIGHT	"pppppppp"
#define END	'!' /* the last byte of an answer, and of nothing else */
#define ANSWER                                                                                     \
	"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n" EIGHT EIGHT     \
		EIGHT EIGHT EIGHT EIGHT EIGHT "ppppppp!"

/* Returns 0 when the peer is done. */
static int serve_one(int fd)
{
	static char buffer[1 << 18];
	ssize_t got = recv(fd, buffer, sizeof(buffer), 0);

	if (got <= 0)
		return 0;
	if (got > 1 && buffer[0] == 'G')
		return send(fd, ANSWER, strlen(ANSWER), MSG_NOSIGNAL) > 0;
	if (got == 1 ? buffer[0] != 'S' : buffer[got - 1] == 'E')
		return send(fd, buffer, 1, MSG_NOSIGNAL) == 1;
	return 1;
}

static void serve(int port)
{
	struct epoll_event event = {.events = EPOLLIN}, ready[64];
	int listener = listen_on(port), epoll = epoll_create1(0), one = 1;
	int datagrams = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	/* Bound and never read: a full buffer costs the sender nothing. */
	bind(datagrams, (void *)&any, sizeof(any));
	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int count = epoll_wait(epoll, ready, 64, -1);

		for (int i = 0; i < count; i++) {
			int fd = ready[i].data.fd;

			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				event.data.fd = fd;
				epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
			} else if (!serve_one(fd)) {
				close(fd);
			}
		}
	}
}

/* Where to, and the connection that is kept; -1 before the first turn. */
struct target {
	const char *host, *port;
	int fd;
};

static int connection(struct target *to)
{
	if (to->fd < 0)
		to->fd = dial(to->host, to->port, SOCK_STREAM);
	return to->fd;
}

static double round_trips(struct target *to, double seconds)
{
	int fd = connection(to);
	double start = now_s(), end = start + seconds;
	long count = 0;
	char byte = 'r';

	for (; now_s() < end; count++)
		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			die("round trip");
	return count / (now_s() - start);
}

static int asked_anew(struct target *to)
{
	int fd = dial(to->host, to->port, SOCK_STREAM);

	if (send(fd, "c", 1, 0) != 1)
		die("connection");
	return fd;
}

/* RST on close: no TIME_WAIT, so that ports do not run out. */
static void answered_once(int fd)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};
	char byte;

	if (recv(fd, &byte, 1, 0) != 1)
		die("connection");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(fd);
}

static double connects(struct target *to, double seconds)
{
	double start = now_s(), end = start + seconds;
	long count = 0;

	for (; now_s() < end; count++)
		answered_once(asked_anew(to));
	return count / (now_s() - start);
}

static void answered(int fd)
{
	char byte = 'E';

	if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
		die("answer");
}

/* Until all of it is read: nothing is left to be carried in somebody else's turn. */
static double stream(struct target *to, double seconds, double bulk)
{
	static char buffer[1 << 17];
	int fd = connection(to);
	double start = now_s(), end = start + seconds;
	double bits = 0, due = bulk;

	memset(buffer, 'S', sizeof(buffer));
	while (now_s() < end) {
		ssize_t sent = send(fd, buffer, sizeof(buffer), 0);

		if (sent <= 0)
			die("stream");
		bits += 8.0 * sent;
		if (bulk && bits >= due) {
			answered(fd);
			due = bits + bulk;
		}
	}
	answered(fd);
	return bits / (now_s() - start);
}

static double datagrams(struct target *to, double seconds)
{
	double start = now_s(), end = start + seconds;
	int fd = dial(to->host, to->port, SOCK_DGRAM);
	char payload[32] = {0};
	long count = 0;

	for (; now_s() < end; count++)
		send(fd, payload, sizeof(payload), 0);
	close(fd);
	return count / (now_s() - start);
}

#define CROWD	  32
#define PACE_HZ	  2000
#define QUEUE_MAX (1 << 16)

/* Many connections to one place: which are free, which requests wait for one. */
struct crowd {
	int epoll, timer, fd[CROWD];
	int idle[CROWD], idle_count;
	double due[CROWD]; /* when the request under way was to be sent */
};

static struct crowd *crowd_of(struct target *to)
{
	static struct crowd all;
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = CROWD};

	if (all.epoll)
		return &all;
	all.epoll = epoll_create1(0);
	all.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	epoll_ctl(all.epoll, EPOLL_CTL_ADD, all.timer, &event);
	for (int i = 0; i < CROWD; i++) {
		all.fd[i] = dial(to->host, to->port, SOCK_STREAM);
		event.data.u32 = i;
		epoll_ctl(all.epoll, EPOLL_CTL_ADD, all.fd[i], &event);
		all.idle[all.idle_count++] = i;
	}
	return &all;
}

static void ask(struct crowd *all, double due_s)
{
	int i = all->idle[--all->idle_count];

	all->due[i] = due_s;
	if (send(all->fd[i], REQUEST, strlen(REQUEST), 0) != strlen(REQUEST))
		die("request");
}

/* Whether an answer is complete; its connection is free then. */
static int answer_of(struct crowd *all, int i)
{
	char buffer[4096];
	ssize_t got = recv(all->fd[i], buffer, sizeof(buffer), 0);

	if (got <= 0)
		die("answer");
	if (buffer[got - 1] != END)
		return 0;
	all->idle[all->idle_count++] = i;
	return 1;
}

static double requests(struct target *to, double seconds)
{
	struct crowd *all = crowd_of(to);
	struct epoll_event ready[CROWD];
	double start = now_s(), end = start + seconds;
	long count = 0;

	while (all->idle_count)
		ask(all, start);
	while (all->idle_count < CROWD) {
		int found = epoll_wait(all->epoll, ready, CROWD, 5000);

		if (found <= 0)
			die("no answer");
		for (int i = 0; i < found; i++) {
			count += answer_of(all, ready[i].data.u32);
			if (all->idle_count && now_s() < end)
				ask(all, start);
		}
	}
	return count / (now_s() - start);
}

/* As connects, so many at a time. */
static double dials(struct target *to, double seconds)
{
	struct epoll_event event = {.events = EPOLLIN}, ready[CROWD];
	double start = now_s(), end = start + seconds;
	int epoll = epoll_create1(0), open = 0;
	long count = 0;

	for (;;) {
		for (; open < CROWD && now_s() < end; open++) {
			event.data.fd = asked_anew(to);
			epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
		}
		if (!open)
			break;
		int found = epoll_wait(epoll, ready, CROWD, 5000);

		if (found <= 0)
			die("no answer");
		for (int i = 0; i < found; i++)
			answered_once(ready[i].data.fd);
		count += found;
		open -= found;
	}
	close(epoll);
	return count / (now_s() - start);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sent when it is time, whatever became of those before; a wait for a connection counts. */
static double latency_us(struct target *to, double seconds, double share)
{
	static double took[QUEUE_MAX];
	struct crowd *all = crowd_of(to);
	struct itimerspec every = {.it_interval = {0, 1000000000 / PACE_HZ},
				   .it_value = {0, 1000000000 / PACE_HZ}};
	struct epoll_event ready[CROWD + 1];
	long total = seconds * PACE_HZ, due = 0, sent = 0, done = 0;
	double start = now_s();
	__UINT64_TYPE__ ticks;

	if (total > QUEUE_MAX)
		total = QUEUE_MAX;
	timerfd_settime(all->timer, 0, &every, NULL);
	while (done < total) {
		int found = epoll_wait(all->epoll, ready, CROWD + 1, 5000);

		if (found <= 0)
			die("no answer");
		for (int i = 0; i < found; i++) {
			int which = ready[i].data.u32;

			if (which == CROWD && read(all->timer, &ticks, sizeof(ticks)) > 0)
				due += ticks;
			else if (which != CROWD && answer_of(all, which))
				took[done++] = (now_s() - all->due[which]) * 1e6;
		}
		for (; sent < due && sent < total && all->idle_count; sent++)
			ask(all, start + (sent + 1.0) / PACE_HZ);
	}
	memset(&every, 0, sizeof(every));
	timerfd_settime(all->timer, 0, &every, NULL);
	qsort(took, total, sizeof(*took), by_value);
	return took[(long)(share * (total - 1))];
}

static double measure(const char *metric, struct target *to, double seconds)
{
	if (!strcmp(metric, "rr"))
		return round_trips(to, seconds);
	if (!strcmp(metric, "crr"))
		return connects(to, seconds);
	if (!strcmp(metric, "dials"))
		return dials(to, seconds);
	if (!strcmp(metric, "stream"))
		return stream(to, seconds, 0);
	if (!strcmp(metric, "bulk"))
		return stream(to, seconds, 8.0 * (1 << 20));
	if (!strcmp(metric, "http"))
		return requests(to, seconds);
	if (!strcmp(metric, "p50"))
		return latency_us(to, seconds, 0.5);
	if (!strcmp(metric, "p99"))
		return latency_us(to, seconds, 0.99);
	return datagrams(to, seconds);
}

#define CONTESTANTS_MAX 64
#define PAUSE_US	1000 /* the last one's server reads what is left */

struct contestant {
	int turn, figure; /* pipes: a byte says go, a double comes back */
};

static void contend(const char *metric, const char *netns, struct target *to, double seconds,
		    const struct contestant *self)
{
	int fd = open(netns, O_RDONLY | O_CLOEXEC);
	double figure;
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die(netns);
	while (read(self->turn, &go, 1) == 1) {
		figure = measure(metric, to, seconds);
		if (write(self->figure, &figure, sizeof(figure)) != sizeof(figure))
			die("report");
	}
	exit(0);
}

static struct contestant start(const char *metric, char **place, double seconds)
{
	struct target to = {.host = place[1], .port = place[2], .fd = -1};
	int turn[2], figure[2];

	if (pipe2(turn, O_CLOEXEC) || pipe2(figure, O_CLOEXEC))
		die("pipe");
	switch (fork()) {
	case -1:
		die("fork");
	case 0:
		close(turn[1]);
		contend(metric, place[0], &to, seconds,
			&(struct contestant){turn[0], figure[1]});
	}
	close(turn[0]);
	close(figure[1]);
	return (struct contestant){turn[1], figure[0]};
}

static double take_turn(const struct contestant *one)
{
	double figure;

	if (write(one->turn, "", 1) != 1 ||
	    read(one->figure, &figure, sizeof(figure)) != sizeof(figure)) {
		fprintf(stderr, "a contestant is gone\n");
		exit(1);
	}
	usleep(PAUSE_US);
	return figure;
}

static void rotate(const char *metric, double seconds, int rounds, char **places, int count)
{
	struct contestant all[CONTESTANTS_MAX];
	double figures[CONTESTANTS_MAX];
	int order[CONTESTANTS_MAX];

	for (int i = 0; i < count; i++) {
		all[i] = start(metric, places + 3 * i, seconds);
		order[i] = i;
		take_turn(&all[i]); /* connect, warm up */
	}
	for (int round = 0; round < rounds; round++) {
		for (int i = count - 1; i > 0; i--) {
			int j = random() % (i + 1), other = order[j];

			order[j] = order[i];
			order[i] = other;
		}
		for (int i = 0; i < count; i++)
			figures[order[i]] = take_turn(&all[order[i]]);
		for (int i = 0; i < count; i++)
			printf("%.1f%c", figures[i], i + 1 < count ? ' ' : '\n');
	}
}

int main(int argc, char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "server"))
		serve(atoi(argv[2]));
	if (argc >= 9 && argc % 3 == 0 && argc <= 6 + 3 * CONTESTANTS_MAX &&
	    !strcmp(argv[1], "rotate")) {
		srandom(atoi(argv[5]));
		rotate(argv[2], atof(argv[3]), atoi(argv[4]), argv + 6, argc / 3 - 2);
		return 0;
	}
	if (argc != 5) {
		fprintf(stderr, "usage: see the head of load.c\n");
		return 2;
	}
	printf("%.1f\n", measure(argv[1], &(struct target){argv[2], argv[3], -1}, atof(argv[4])));
	return 0;
}
