/* Descriptors: pinned, opened again, copied, taken from another process, closed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf.h"
#include "shim.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

int weft_pin(int fd, const char *path)
{
	union bpf_attr a = {};

	a.bpf_fd = fd;
	a.pathname = pointer(path);
	return bpf(BPF_OBJ_PIN, &a);
}

int weft_open_pin(const char *path)
{
	union bpf_attr a = {};

	a.pathname = pointer(path);
	return bpf(BPF_OBJ_GET, &a);
}

int weft_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

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

int weft_close(int fd)
{
	return close(fd) ? -errno : 0;
}
