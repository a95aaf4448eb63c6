/* A worker that hangs: the thread named in the file at HANG waits for as long as that file exists, before it polls for events.
 * It reports that by a file of the same name with ".held". For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

static int is_meant(const char *file)
{
	char name[16] = "", meant[16] = "";
	int descriptor = open(file, O_RDONLY | O_CLOEXEC);

	if (descriptor < 0)
		return 0;
	if (read(descriptor, meant, sizeof(meant) - 1) < 0)
		meant[0] = 0;
	close(descriptor);
	prctl(PR_GET_NAME, name);
	return strcmp(name, meant) == 0;
}

static void hang(void)
{
	const char *file = getenv("HANG");
	char held[256];

	if (!file || !is_meant(file))
		return;
	snprintf(held, sizeof(held), "%s.held", file);
	close(open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	while (access(file, F_OK) == 0)
		usleep(10000);
}

int epoll_wait(int descriptor, struct epoll_event *events, int count, int timeout)
{
	static int (*real)(int, struct epoll_event *, int, int);

	hang();
	if (!real)
		real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
	return real(descriptor, events, count, timeout);
}

int poll(struct pollfd *descriptors, nfds_t count, int timeout)
{
	static int (*real)(struct pollfd *, nfds_t, int);

	hang();
	if (!real)
		real = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
	return real(descriptors, count, timeout);
}
