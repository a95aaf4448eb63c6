/* getent ahosts for a C library without getent: the addresses of a name, a line each. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;

	if (count != 2)
		return 1;
	if (getaddrinfo(words[1], NULL, &hints, &found) != 0)
		return 2;
	for (; found; found = found->ai_next) {
		char text[128];

		if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
			puts(text);
	}
	return 0;
}
