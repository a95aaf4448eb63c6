/* A file system that does not answer: a read of the file named in HUNG blocks for ever once the file named in HANG exists, and
 * reports that before. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t read(int descriptor, void *bytes, size_t count)
{
	static ssize_t (*real)(int, void *, size_t);
	static const char said[] = "read: does not come back\n";
	const char *hang = getenv("HANG"), *hung = getenv("HUNG");
	char link[64], path[PATH_MAX] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
	if (hang && hung && access(hang, F_OK) == 0 &&
	    readlink(link, path, sizeof(path) - 1) > 0 && strcmp(path, hung) == 0) {
		if (write(2, said, sizeof(said) - 1) < 0)
			_exit(99);
		for (;;)
			pause();
	}
	if (!real)
		real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
	return real(descriptor, bytes, count);
}
