/* A kernel with the state of the clock in the variable CLOCK: `set` by a time daemon, or not. For LD_PRELOAD. */
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

int adjtimex(struct timex *timex)
{
	const char *clock = getenv("CLOCK");
	int is_set = clock && strcmp(clock, "set") == 0;

	timex->status = is_set ? STA_PLL : STA_UNSYNC;
	return is_set ? TIME_OK : TIME_ERROR;
}
