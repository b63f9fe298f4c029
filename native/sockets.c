/* Sockets that talk to somebody who is gone are ended, by sock_diag(7): their owners hear of it at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim.h"

/* linux/sock_diag.h has it since Linux 4.9. */
#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif

/* TIME_WAIT has no socket any more, LISTEN no peer. */
#define STATES (~((1u << 6) | (1u << 10)) & 0xfff)

/* One place: address (IPv4 as ::ffff:a.b.c.d), port, both in network order. */
#define TARGET_SIZE 18

struct question {
	struct nlmsghdr header;
	struct inet_diag_req_v2 request;
};

struct found {
	struct inet_diag_sockid *ids;
	uint32_t count;
	uint32_t room;
};

static int matches(const struct inet_diag_msg *m, const uint8_t *targets, uint32_t count)
{
	uint8_t place[TARGET_SIZE] = {};
	uint32_t i;

	if (m->idiag_family == AF_INET) {
		place[10] = place[11] = 0xff;
		memcpy(place + 12, m->id.idiag_dst, 4);
	} else {
		memcpy(place, m->id.idiag_dst, 16);
	}
	memcpy(place + 16, &m->id.idiag_dport, 2);
	for (i = 0; i < count; i++)
		if (!memcmp(place, targets + i * TARGET_SIZE, TARGET_SIZE))
			return 1;
	return 0;
}

static int keep(struct found *found, const struct inet_diag_sockid *id)
{
	if (found->count == found->room) {
		uint32_t room = found->room ? found->room * 2 : 64;
		void *ids = realloc(found->ids, room * sizeof(*id));

		if (!ids)
			return -ENOMEM;
		found->ids = ids;
		found->room = room;
	}
	found->ids[found->count++] = *id;
	return 0;
}

static int ask(int fd, struct question *q)
{
	return send(fd, q, sizeof(*q), 0) < 0 ? -errno : 0;
}

/* Reads a dump to its end. */
static int collect(int fd, const uint8_t *targets, uint32_t count, struct found *found)
{
	char buffer[32768] __attribute__((aligned(8)));
	int error;

	for (;;) {
		ssize_t length = recv(fd, buffer, sizeof(buffer), 0);
		struct nlmsghdr *h = (struct nlmsghdr *)buffer;

		if (length < 0)
			return -errno;
		for (; NLMSG_OK(h, (unsigned int)length); h = NLMSG_NEXT(h, length)) {
			const struct inet_diag_msg *m = NLMSG_DATA(h);

			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || !matches(m, targets, count))
				continue;
			error = keep(found, &m->id);
			if (error)
				return error;
		}
	}
}

/* The acknowledgement of one request. */
static int acknowledged(int fd)
{
	char buffer[4096] __attribute__((aligned(8)));
	ssize_t length = recv(fd, buffer, sizeof(buffer), 0);
	struct nlmsghdr *h = (struct nlmsghdr *)buffer;

	if (length < 0)
		return -errno;
	if (!NLMSG_OK(h, (unsigned int)length) || h->nlmsg_type != NLMSG_ERROR)
		return -EBADMSG;
	return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
}

static int destroy_family(int fd, int family, int protocol, const uint8_t *targets, uint32_t count)
{
	struct question q = {
		.header = { .nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_family = family, .sdiag_protocol = protocol, .idiag_states = STATES },
	};
	struct found found = {};
	int error = ask(fd, &q), destroyed = 0;
	uint32_t i;

	if (!error)
		error = collect(fd, targets, count, &found);
	for (i = 0; !error && i < found.count; i++) {
		q.header.nlmsg_type = SOCK_DESTROY;
		q.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
		q.request.id = found.ids[i];
		error = ask(fd, &q);
		if (!error)
			error = acknowledged(fd);
		/* It ended by itself meanwhile. */
		if (error == -ENOENT)
			error = 0;
		else if (!error)
			destroyed++;
	}
	free(found.ids);
	return error ? error : destroyed;
}

int weft_destroy_sockets(int netns, int protocol, const void *targets, uint32_t count)
{
	int fd = weft_socket(netns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG), v4, v6;

	if (fd < 0)
		return fd;
	v4 = destroy_family(fd, AF_INET, protocol, targets, count);
	v6 = v4 < 0 ? v4 : destroy_family(fd, AF_INET6, protocol, targets, count);
	close(fd);
	return v6 < 0 ? v6 : v4 + v6;
}
