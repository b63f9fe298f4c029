/* Threads that answer over UDP, and the questions that they leave to the owner. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "names.h"

/* Returns 0 where there is no room. */
static int put_ask(struct weft_names *names, const struct server *server, const uint8_t *query, uint32_t size,
		   const struct mmsghdr *message)
{
	int put = 0;

	if (!__atomic_load_n(&names->has_owner, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&names->queue_lock);
	if (names->waiting < asks_max) {
		struct ask *ask = &names->asks[(names->first + names->waiting++) % asks_max];

		ask->socket = server->number;
		ask->size = size;
		ask->address_size = message->msg_hdr.msg_namelen;
		memcpy(&ask->address, message->msg_hdr.msg_name, message->msg_hdr.msg_namelen);
		memcpy(ask->query, query, size);
		put = 1;
	}
	pthread_mutex_unlock(&names->queue_lock);
	/* A bell that is full rings already. */
	if (put && send(names->bell[1], "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		put = errno == EAGAIN;
	return put;
}

static uint32_t answer_batch(struct weft_names *names, struct server *server, uint32_t n)
{
	uint32_t out = 0;

	pthread_rwlock_rdlock(&names->lock);
	for (uint32_t i = 0; i < n; i++) {
		const struct mmsghdr *in = &server->in[i];
		int size;

		if (in->msg_hdr.msg_flags & MSG_TRUNC) {
			count(names, count_queries);
			count(names, count_dropped);
			continue;
		}
		size = weft_names_answer_locked(names, server->queries[i], in->msg_len, 0, server->answers[out]);
		if (size == 0 && !put_ask(names, server, server->queries[i], in->msg_len, in)) {
			struct question q = {};

			count(names, count_overload);
			weft_names_parse(server->queries[i], in->msg_len, &q);
			size = weft_names_refuse(server->answers[out], server->queries[i], &q, servfail);
		}
		if (size <= 0)
			continue;
		server->out_data[out] = (struct iovec){ server->answers[out], size };
		server->out[out].msg_hdr = (struct msghdr){
			.msg_name = in->msg_hdr.msg_name,
			.msg_namelen = in->msg_hdr.msg_namelen,
			.msg_iov = &server->out_data[out],
			.msg_iovlen = 1,
		};
		out++;
	}
	pthread_rwlock_unlock(&names->lock);
	return out;
}

static void *serve(void *argument)
{
	struct server *server = argument;
	struct weft_names *names = server->names;

	while (!__atomic_load_n(&names->stopping, __ATOMIC_ACQUIRE)) {
		int n;

		for (int i = 0; i < batch; i++) {
			server->in_data[i] = (struct iovec){ server->queries[i], query_max };
			server->in[i].msg_hdr = (struct msghdr){
				.msg_name = &server->from[i],
				.msg_namelen = sizeof(server->from[i]),
				.msg_iov = &server->in_data[i],
				.msg_iovlen = 1,
			};
		}
		/* Waits for one, takes what else is there. Errors are those of earlier answers (ICMP); the end is `stopping`. */
		n = recvmmsg(server->fd, server->in, batch, MSG_WAITFORONE, NULL);
		if (n <= 0 || __atomic_load_n(&names->stopping, __ATOMIC_ACQUIRE))
			continue;
		n = answer_batch(names, server, n);
		for (int sent = 0; sent < n;) {
			int done = sendmmsg(server->fd, server->out + sent, n - sent, MSG_NOSIGNAL);

			/* One that cannot be sent is not waited for. */
			sent += done > 0 ? done : 1;
			if (done <= 0)
				count(names, count_dropped);
		}
	}
	return NULL;
}

int weft_names_serve(struct weft_names *names, int fd)
{
	struct server *server;
	sigset_t all, before;
	int flags = fcntl(fd, F_GETFL), room = 4 << 20, error;

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK))
		return -errno;
	if (names->server_count == sockets_max)
		return -ENOSPC;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	/* A burst waits here while the thread is not on a CPU. Beyond rmem_max only with the privilege. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	server->names = names;
	server->fd = fd;
	server->number = names->server_count;
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&server->thread, NULL, serve, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		free(server);
		return -error;
	}
	names->servers[names->server_count++] = server;
	return server->number;
}

int weft_names_bell(struct weft_names *names)
{
	int fd = fcntl(names->bell[0], F_DUPFD_CLOEXEC, 0);

	weft_names_own(names, 1);
	return fd < 0 ? -errno : fd;
}

/* socket u32, address size u32, address, then the query. Returns the size of the whole, or 0. */
int weft_names_take(struct weft_names *names, void *out, uint32_t room)
{
	uint8_t *to = out;
	uint32_t size = 0;

	if (room < 8 + sizeof(struct sockaddr_in6) + query_max)
		return -EINVAL;
	pthread_mutex_lock(&names->queue_lock);
	if (names->waiting > 0) {
		const struct ask *ask = &names->asks[names->first];

		memcpy(to, &ask->socket, 4);
		memcpy(to + 4, &ask->address_size, 4);
		memcpy(to + 8, &ask->address, ask->address_size);
		memcpy(to + 8 + ask->address_size, ask->query, ask->size);
		size = 8 + ask->address_size + ask->size;
		names->first = (names->first + 1) % asks_max;
		names->waiting--;
	}
	pthread_mutex_unlock(&names->queue_lock);
	return size;
}

int weft_names_send(struct weft_names *names, uint32_t socket, const void *address, uint32_t address_size,
		    const void *data, uint32_t size)
{
	if (socket >= names->server_count || address_size > sizeof(struct sockaddr_in6))
		return -EINVAL;
	if (sendto(names->servers[socket]->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, address, address_size) < 0)
		return -errno;
	return 0;
}
