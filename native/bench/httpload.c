/*
 * HTTP/1.1 for test/bench/gateway.ts: a server that answers everything with the same few bytes, and clients on kept
 * connections, both in as few instructions a request as can be, so that what is measured is what stands between them.
 *
 *   httpload [--netns PATH] [--cgroup DIR] [--cpu N] server ADDRESS PORT BODY
 *   httpload [--netns PATH] [--cgroup DIR] [--cpu N] load ADDRESS PORT CONNECTIONS MILLISECONDS HOST PATH ROUTES
 *
 * The server says "ready", then serves until its standard input ends. A client asks for PATH, in which %d is a number below
 * ROUTES that changes with each request, and prints: requests a second, p50 and p99 in microseconds, requests that failed.
 * Anything but 200 is a failure.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>

#include "load.h"

enum { connections_max = 4096, buffer_size = 16384, buckets = 65536 };

struct connection {
	int fd;
	size_t held;
	uint64_t sent_at;
	char buffer[buffer_size];
};

static int epoll_fd;
/* Latencies by microsecond; the last bucket has the rest. */
static uint32_t histogram[buckets];

static void watch(struct connection *c)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	int one = 1;

	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e))
		die("epoll_ctl");
}

static int accept_one(int listener)
{
	struct connection *c = calloc(1, sizeof(*c));

	c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (c->fd < 0) {
		free(c);
		return -1;
	}
	watch(c);
	return 0;
}

static void serve_one(struct connection *c, const char *answer, size_t answer_size)
{
	ssize_t n = read(c->fd, c->buffer + c->held, buffer_size - c->held - 1);
	char *end;

	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			return;
		close(c->fd);
		free(c);
		return;
	}
	c->held += n;
	c->buffer[c->held] = 0;
	while ((end = strstr(c->buffer, "\r\n\r\n"))) {
		size_t used = end + 4 - c->buffer;

		if (write(c->fd, answer, answer_size) != (ssize_t)answer_size) {
			close(c->fd);
			free(c);
			return;
		}
		memmove(c->buffer, c->buffer + used, c->held - used + 1);
		c->held -= used;
	}
}

static void serve(const char *body)
{
	struct epoll_event events[256];
	struct epoll_event input = { .events = EPOLLIN, .data.ptr = &epoll_fd };
	char answer[1024];
	size_t size = snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	int one = 1, listener = socket(peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&peer, peer_size) || listen(listener, 1024))
		die("listen");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e) || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input))
		die("epoll_ctl");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int i, n = epoll_wait(epoll_fd, events, 256, -1);

		for (i = 0; i < n; i++) {
			char drain[64];

			if (events[i].data.ptr == &epoll_fd) {
				if (read(0, drain, sizeof(drain)) <= 0)
					exit(0);
			} else if (events[i].data.ptr) {
				serve_one(events[i].data.ptr, answer, size);
			} else {
				while (!accept_one(listener))
					;
			}
		}
	}
}

struct work {
	const char *host;
	const char *path;
	uint32_t routes;
	uint32_t seed;
	uint64_t done;
	uint64_t failed;
};

static void ask(struct connection *c, struct work *w)
{
	char path[512], text[1024];
	int size;

	w->seed = w->seed * 1664525u + 1013904223u;
	snprintf(path, sizeof(path), w->path, (w->seed >> 8) % w->routes);
	size = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: httpload\r\n\r\n", path, w->host);
	c->sent_at = now_ns();
	if (write(c->fd, text, size) != size)
		w->failed++;
}

static void reconnect(struct connection *c)
{
	if (c->fd > 0)
		close(c->fd);
	c->held = 0;
	c->fd = socket(peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(c->fd, (struct sockaddr *)&peer, peer_size))
		die("connect");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	watch(c);
}

/* 1: a whole answer is there and has been taken. */
static int take(struct connection *c, struct work *w, int *closing)
{
	char *end, *length;
	size_t whole;

	end = strstr(c->buffer, "\r\n\r\n");
	if (!end)
		return 0;
	length = strcasestr(c->buffer, "content-length:");
	whole = end + 4 - c->buffer + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
	if (c->held < whole)
		return 0;
	if (strncmp(c->buffer, "HTTP/1.1 200", 12))
		w->failed++;
	*closing = strcasestr(c->buffer, "connection: close") != NULL;
	c->held = 0;
	return 1;
}

static uint32_t percentile(uint64_t total, double share)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < buckets; i++) {
		sum += histogram[i];
		if (sum >= total * share)
			return i;
	}
	return buckets;
}

static void run_load(int count, int milliseconds, struct work *w)
{
	static struct connection *all[connections_max];
	struct epoll_event events[256];
	uint64_t start, end;
	int i;

	for (i = 0; i < count; i++) {
		all[i] = calloc(1, sizeof(*all[i]));
		reconnect(all[i]);
	}
	start = now_ns();
	end = start + milliseconds * 1000000ull;
	for (i = 0; i < count; i++)
		ask(all[i], w);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, 256, 100);
		uint64_t now = now_ns();

		if (now >= end)
			break;
		for (i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			ssize_t got = read(c->fd, c->buffer + c->held, buffer_size - c->held - 1);
			int closing = 0;
			uint64_t us;

			if (got <= 0) {
				if (got < 0 && errno == EAGAIN)
					continue;
				w->failed++;
				reconnect(c);
				ask(c, w);
				continue;
			}
			c->held += got;
			c->buffer[c->held] = 0;
			if (!take(c, w, &closing))
				continue;
			us = (now_ns() - c->sent_at) / 1000;
			histogram[us < buckets ? us : buckets - 1]++;
			w->done++;
			if (closing)
				reconnect(c);
			ask(c, w);
		}
	}
	printf("%.0f %u %u %lu\n", w->done * 1e9 / (now_ns() - start), percentile(w->done, 0.5), percentile(w->done, 0.99),
	       (unsigned long)w->failed);
}

int main(int argc, char **argv)
{
	int i = options(argc, argv);

	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (argc - i == 4 && !strcmp(argv[i], "server")) {
		set_peer(argv[i + 1], atoi(argv[i + 2]));
		serve(argv[i + 3]);
	}
	if (argc - i == 8 && !strcmp(argv[i], "load")) {
		struct work w = { argv[i + 5], argv[i + 6], atoi(argv[i + 7]), 1, 0, 0 };

		set_peer(argv[i + 1], atoi(argv[i + 2]));
		if (atoi(argv[i + 3]) > connections_max || w.routes == 0) {
			errno = EINVAL;
			die("arguments");
		}
		run_load(atoi(argv[i + 3]), atoi(argv[i + 4]), &w);
		return 0;
	}
	fprintf(stderr, "usage: see the head of native/bench/httpload.c\n");
	return 1;
}
