/* What the files around bpf(2) share. Nothing of it leaves the library. */
#ifndef WEFT_BPF_H
#define WEFT_BPF_H

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>

static inline int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	int result = syscall(__NR_bpf, command, attributes, sizeof(*attributes));

	return result < 0 ? -errno : result;
}

static inline uint64_t pointer(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* BPF_OBJ_GET_INFO_BY_FD: `out` is of the kind that the descriptor is of. */
static inline int bpf_info(int fd, void *out, uint32_t size)
{
	union bpf_attr a = {};

	a.info.bpf_fd = fd;
	a.info.info = pointer(out);
	a.info.info_len = size;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
}

#endif
