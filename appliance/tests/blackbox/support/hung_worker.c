/* A worker that hangs: the thread `worker 0` waits for ever once the file that HANG names is there. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

static void hang(void)
{
	const char *file = getenv("HANG");
	char name[16] = "";

	prctl(PR_GET_NAME, name);
	while (strcmp(name, "worker 0") == 0 && file && access(file, F_OK) == 0)
		pause();
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
