/* Sockets of other processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

int weft_take_fd(int pid, int fd)
{
	int result, pidfd = syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	result = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (result < 0)
		result = -errno;
	close(pidfd);
	return result;
}
