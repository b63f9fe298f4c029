/* BPF ring buffers: records of one size, copied out without waiting. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shim.h"

/* A record's header (linux/bpf.h): its length, with the two high bits saying "still being written" and "take no notice". */
#define RING_BUSY (1U << 31)
#define RING_DISCARD (1U << 30)
#define RING_HEADER 8

struct weft_ring {
	unsigned long *consumer; /* a page: how far we have read; the kernel looks at it before it overwrites */
	unsigned long *producer; /* a page: how far there is something; then the data, twice, so that no record is cut */
	size_t size;
};

int weft_ring_open(int fd, uint32_t size, weft_ring **out)
{
	size_t page = sysconf(_SC_PAGESIZE);
	weft_ring *ring = malloc(sizeof(*ring));
	int error;

	if (!ring)
		return -ENOMEM;
	ring->size = size;
	ring->consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring->consumer == MAP_FAILED)
		goto refused;
	ring->producer = mmap(NULL, page + 2 * ring->size, PROT_READ, MAP_SHARED, fd, page);
	if (ring->producer == MAP_FAILED) {
		error = -errno;
		munmap(ring->consumer, page);
		free(ring);
		return error;
	}
	*out = ring;
	return 0;
refused:
	error = -errno;
	free(ring);
	return error;
}

int weft_ring_drain(weft_ring *ring, uint32_t record_size, void *records, uint32_t room)
{
	const char *data = (const char *)ring->producer + sysconf(_SC_PAGESIZE);
	unsigned long produced = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	unsigned long consumed = *ring->consumer;
	uint32_t count = 0;

	while (consumed < produced && count < room) {
		const char *record = data + (consumed & (ring->size - 1));
		uint32_t length = __atomic_load_n((const uint32_t *)record, __ATOMIC_ACQUIRE);

		if (length & RING_BUSY)
			break;
		if (!(length & RING_DISCARD)) {
			if ((length & ~RING_DISCARD) != record_size)
				return -EBADMSG;
			memcpy((char *)records + (size_t)count * record_size, record + RING_HEADER, record_size);
			count++;
		}
		consumed += ((length & ~RING_DISCARD) + RING_HEADER + 7) & ~7UL;
	}
	__atomic_store_n(ring->consumer, consumed, __ATOMIC_RELEASE);
	return count;
}

void weft_ring_close(weft_ring *ring)
{
	size_t page = sysconf(_SC_PAGESIZE);

	munmap(ring->consumer, page);
	munmap(ring->producer, page + 2 * ring->size);
	free(ring);
}
