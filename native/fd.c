/* Descriptors: pinned, opened again, copied, closed. */
#define _GNU_SOURCE
#include <fcntl.h>

#include "bpf.h"
#include "shim.h"

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

int weft_close(int fd)
{
	return close(fd) ? -errno : 0;
}
