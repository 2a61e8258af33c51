/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* lookup NAME COUNT: getaddrinfo(NAME), again and again; prints the median and the 99th
 * percentile, in ns. */
#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static int by_size(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	int count = argc == 3 ? atoi(argv[2]) : 0;
	long long *took = calloc(count > 0 ? count : 1, sizeof(*took)), start;

	if (count < 1 || !took)
		return 2;
	for (int i = -10; i < count; i++) {
		start = now();
		if (getaddrinfo(argv[1], NULL, &hints, &found))
			return 1;
		if (i >= 0)
			took[i] = now() - start;
		freeaddrinfo(found);
	}
	qsort(took, count, sizeof(*took), by_size);
	printf("%lld %lld\n", took[count / 2], took[count * 99 / 100]);
	return 0;
}
