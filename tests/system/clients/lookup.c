/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* lookup NAME…: the addresses that getaddrinfo() finds, a line a name; of the libc that this was
 * linked with. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *one;
	char text[64];

	for (int i = 1; i < argc; i++) {
		int failed = getaddrinfo(argv[i], NULL, &hints, &found);

		if (failed) {
			puts(failed == EAI_NONAME ? "none" : gai_strerror(failed));
			continue;
		}
		for (one = found; one; one = one->ai_next) {
			getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), NULL, 0,
				    NI_NUMERICHOST);
			printf("%s ", text);
		}
		puts("");
		freeaddrinfo(found);
	}
	return 0;
}
