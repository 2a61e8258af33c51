/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* questions ADDRESS SECONDS TURN < messages: DNS queries in hexadecimal, one a line; asked
 * again and again in turns of so many. Prints how many were answered, and the seconds that it
 * took. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define TURN_MAX 64
#define QUESTIONS_MAX 4096
#define LENGTH_MAX 512

static unsigned char questions[QUESTIONS_MAX][LENGTH_MAX];
static unsigned char replies[TURN_MAX][2048];
static size_t lengths[QUESTIONS_MAX];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int read_questions(void)
{
	char line[2 * LENGTH_MAX + 2];
	int count = 0;

	while (count < QUESTIONS_MAX && fgets(line, sizeof(line), stdin)) {
		size_t length = strcspn(line, "\n") / 2;
		unsigned int byte;

		for (size_t i = 0; i < length; i++) {
			if (sscanf(line + 2 * i, "%2x", &byte) != 1)
				return 0;
			questions[count][i] = byte;
		}
		lengths[count++] = length;
	}
	return count;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
	struct timeval patience = {.tv_usec = 200000};
	struct mmsghdr out[TURN_MAX] = {0}, in[TURN_MAX] = {0};
	struct iovec asked[TURN_MAX], got[TURN_MAX];
	int sock = socket(AF_INET, SOCK_DGRAM, 0), count = read_questions(), next = 0;
	int turn = argc == 4 ? atoi(argv[3]) : 0;
	double seconds, start;
	long answered = 0;

	if (turn < 1 || turn > TURN_MAX || !count || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 ||
	    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    connect(sock, (struct sockaddr *)&to, sizeof(to)))
		return 2;
	seconds = atof(argv[2]);
	start = now();
	do {
		int sent, received = 0, part;

		for (int i = 0; i < turn; i++, next = (next + 1) % count) {
			asked[i] = (struct iovec){questions[next], lengths[next]};
			got[i] = (struct iovec){replies[i], sizeof(replies[i])};
			out[i].msg_hdr = (struct msghdr){.msg_iov = asked + i, .msg_iovlen = 1};
			in[i].msg_hdr = (struct msghdr){.msg_iov = got + i, .msg_iovlen = 1};
		}
		sent = sendmmsg(sock, out, turn, 0);
		while (received < sent) {
			part = recvmmsg(sock, in, sent - received, MSG_WAITFORONE, NULL);
			if (part <= 0)
				break;
			received += part;
		}
		answered += received;
	} while (now() - start < seconds);
	printf("%ld %.6f\n", answered, now() - start);
	return 0;
}
