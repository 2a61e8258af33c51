// SPDX-License-Identifier: Apache-2.0
/* Load generator of `make bench`: one stream, request/response, connect/request/response.
 *
 *   load server PORT                     echo single bytes, swallow streams; until killed
 *   load rr|crr|stream HOST PORT SECONDS print one figure: transactions or bits per second
 *   load udp HOST PORT SECONDS           datagrams of 32 bytes per second, no answers
 *
 * A connection that starts with 'S' is a stream, any other byte is echoed. Bounded by SECONDS
 * and, for a server, by its parent (PR_SET_PDEATHSIG). Not part of the product.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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

/* Returns 0 when the peer is done. */
static int serve_one(int fd)
{
	static char buffer[1 << 18];
	ssize_t got = recv(fd, buffer, sizeof(buffer), 0);

	if (got <= 0)
		return 0;
	if (got == 1 && buffer[0] != 'S')
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

static double round_trips(const char *host, const char *port, double seconds)
{
	double start = now_s(), end = start + seconds;
	int fd = dial(host, port, SOCK_STREAM);
	long count = 0;
	char byte = 'r';

	for (; now_s() < end; count++)
		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			die("round trip");
	return count / (now_s() - start);
}

/* RST on close: no TIME_WAIT, so that ports do not run out. */
static double connects(const char *host, const char *port, double seconds)
{
	double start = now_s(), end = start + seconds;
	struct linger hard = {.l_onoff = 1, .l_linger = 0};
	long count = 0;
	char byte = 'c';

	for (; now_s() < end; count++) {
		int fd = dial(host, port, SOCK_STREAM);

		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			die("connection");
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
	}
	return count / (now_s() - start);
}

static double stream(const char *host, const char *port, double seconds)
{
	static char buffer[1 << 17];
	double start, end;
	int fd = dial(host, port, SOCK_STREAM);
	double bits = 0;

	memset(buffer, 'S', sizeof(buffer));
	start = now_s();
	end = start + seconds;
	while (now_s() < end) {
		ssize_t sent = send(fd, buffer, sizeof(buffer), 0);

		if (sent <= 0)
			die("stream");
		bits += 8.0 * sent;
	}
	return bits / (now_s() - start);
}

static double datagrams(const char *host, const char *port, double seconds)
{
	double start = now_s(), end = start + seconds;
	int fd = dial(host, port, SOCK_DGRAM);
	char payload[32] = {0};
	long count = 0;

	for (; now_s() < end; count++)
		send(fd, payload, sizeof(payload), 0);
	return count / (now_s() - start);
}

int main(int argc, char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "server"))
		serve(atoi(argv[2]));
	if (argc != 5) {
		fprintf(stderr, "usage: see the head of load.c\n");
		return 2;
	}
	double seconds = atof(argv[4]), figure;

	if (!strcmp(argv[1], "rr"))
		figure = round_trips(argv[2], argv[3], seconds);
	else if (!strcmp(argv[1], "crr"))
		figure = connects(argv[2], argv[3], seconds);
	else if (!strcmp(argv[1], "stream"))
		figure = stream(argv[2], argv[3], seconds);
	else
		figure = datagrams(argv[2], argv[3], seconds);
	printf("%.1f\n", figure);
	return 0;
}
