/*
 * A wall clock that a test sets, in place of the kernel, which cancels a timer of
 * timerfd_create(2) when the clock is set (TFD_TIMER_CANCEL_ON_SET). A byte in the FIFO
 * CLOCK_SET reports that. Loaded into the agent beside libfaketime.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int timer = -1;

int timerfd_create(int clock, int flags)
{
	(void)clock;
	(void)flags;
	timer = open(getenv("CLOCK_SET"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return timer;
}

int timerfd_settime(int fd, int flags, const void *to, void *was)
{
	(void)fd;
	(void)flags;
	(void)to;
	(void)was;
	return 0;
}

ssize_t read(int fd, void *buffer, size_t size)
{
	ssize_t got = syscall(SYS_read, fd, buffer, size);

	if (got > 0 && fd >= 0 && fd == timer) {
		errno = ECANCELED;
		return -1;
	}
	return got;
}
