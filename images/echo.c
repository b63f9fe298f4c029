/*
 * The demo's server: one process, one thread, no library beyond libc. It answers
 *   HTTP/1.1 on --http PORT   who answered (pod, node, addresses of both ends) and what was asked, as JSON
 *   TCP      on --tcp PORT    every byte back
 *   UDP      on --udp PORT    every datagram back
 * on IPv4 and IPv6. A connection past the limit is closed at once rather than queued.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define REQUEST_MAX 16384 /* bytes of a request's head; longer is answered 431 */

enum kind { LISTEN_HTTP, LISTEN_TCP, UDP_ECHO, HTTP, TCP_ECHO };

struct connection {
	int fd;
	enum kind kind;
	size_t held;
	char buffer[REQUEST_MAX + 1];
};

static int epoll_fd;
static int connections;

static void stop(int signal)
{
	(void)signal;
	_exit(0);
}

static void die(const char *what)
{
	fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, enum kind kind)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct epoll_event event = { .events = EPOLLIN };

	if (!c)
		die("cannot allocate a connection");
	c->fd = fd;
	c->kind = kind;
	event.data.ptr = c;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("cannot watch a socket");
}

static void drop(struct connection *c)
{
	close(c->fd);
	free(c);
	connections--;
}

static void open_port(const char *text, int type, enum kind kind)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(text)) };
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), on = 1, off = 0;

	if (fd < 0)
		die("cannot open a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (kind == UDP_ECHO) {
		/* The answer must leave from the address that was asked, not from the first of the device. */
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	}
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		die("cannot bind the port");
	if (type == SOCK_STREAM && listen(fd, 1024))
		die("cannot listen");
	watch(fd, kind);
}

static void take(struct connection *listener)
{
	int on = 1, fd = accept4(listener->fd, 0, 0, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (connections >= CONNECTIONS_MAX) {
		close(fd);
		return;
	}
	connections++;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	watch(fd, listener->kind == LISTEN_HTTP ? HTTP : TCP_ECHO);
}

static void echo_datagram(struct connection *c)
{
	char data[65536], control[256];
	struct sockaddr_in6 peer;
	struct iovec part = { data, sizeof(data) };
	struct msghdr message = { &peer, sizeof(peer), &part, 1, control, sizeof(control), 0 };
	ssize_t size = recvmsg(c->fd, &message, 0);

	if (size < 0)
		return;
	part.iov_len = size;
	sendmsg(c->fd, &message, 0);
}

static int send_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);

		if (sent <= 0)
			return -1;
		data += sent;
		size -= sent;
	}
	return 0;
}

static void name_of(struct sockaddr_in6 *address, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof(text));
	snprintf(out, size, "%s", strncmp(text, "::ffff:", 7) == 0 ? text + 7 : text);
}

/* Only what is safe inside a JSON string is shown; the rest becomes '?'. */
static void plain(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\')
			*text = '?';
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static int answer(struct connection *c, int keep)
{
	struct sockaddr_in6 near = { 0 }, far = { 0 };
	socklen_t size = sizeof(near);
	char method[16] = "", path[1024] = "", from[64], to[64], host[256] = "", body[2048], head[256];
	int length, bytes;

	getsockname(c->fd, (struct sockaddr *)&near, &size);
	size = sizeof(far);
	getpeername(c->fd, (struct sockaddr *)&far, &size);
	name_of(&near, to, sizeof(to));
	name_of(&far, from, sizeof(from));
	gethostname(host, sizeof(host) - 1);
	sscanf(c->buffer, "%15s %1023s", method, path);
	plain(method);
	plain(path);
	length = snprintf(body, sizeof(body),
			  "{\"pod\":\"%s\",\"namespace\":\"%s\",\"node\":\"%s\",\"version\":\"%s\",\"method\":\"%s\",\"path\":\"%s\",\"from\":\"%s\",\"to\":\"%s\"}\n",
			  getenv("POD_NAME") ? getenv("POD_NAME") : host, or_empty(getenv("POD_NAMESPACE")),
			  or_empty(getenv("NODE_NAME")), or_empty(getenv("VERSION")), method, path, from, to);
	bytes = snprintf(head, sizeof(head),
			 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n", length,
			 keep ? "keep-alive" : "close");
	return send_all(c->fd, head, bytes) || send_all(c->fd, body, length);
}

/* Bodies are not read: a request with one is answered and its connection closed. */
static int serve(struct connection *c)
{
	ssize_t got = recv(c->fd, c->buffer + c->held, REQUEST_MAX - c->held, 0);
	char *end;

	if (got <= 0)
		return -1;
	c->held += got;
	c->buffer[c->held] = 0;
	while ((end = strstr(c->buffer, "\r\n\r\n"))) {
		int keep = !strcasestr(c->buffer, "connection: close") && !strcasestr(c->buffer, "content-length:") &&
			   !strcasestr(c->buffer, "transfer-encoding:") && !strstr(c->buffer, "HTTP/1.0");
		size_t used = end + 4 - c->buffer;

		if (answer(c, keep) || !keep)
			return -1;
		memmove(c->buffer, c->buffer + used, c->held - used + 1);
		c->held -= used;
	}
	if (c->held == REQUEST_MAX) {
		static const char refusal[] = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

		send_all(c->fd, refusal, sizeof(refusal) - 1);
		return -1;
	}
	return 0;
}

static int echo_stream(struct connection *c)
{
	ssize_t got = recv(c->fd, c->buffer, REQUEST_MAX, 0);

	return got <= 0 ? -1 : send_all(c->fd, c->buffer, got);
}

int main(int argc, char **argv)
{
	struct sigaction on_end = { .sa_handler = stop };

	sigaction(SIGTERM, &on_end, 0);
	sigaction(SIGINT, &on_end, 0);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("cannot create the epoll set");
	if (argc < 3 || argc % 2 == 0) {
		fprintf(stderr, "usage: echo [--http PORT] [--tcp PORT] [--udp PORT] ...\n");
		return 2;
	}
	for (int i = 1; i < argc; i += 2) {
		if (!strcmp(argv[i], "--http"))
			open_port(argv[i + 1], SOCK_STREAM, LISTEN_HTTP);
		else if (!strcmp(argv[i], "--tcp"))
			open_port(argv[i + 1], SOCK_STREAM, LISTEN_TCP);
		else if (!strcmp(argv[i], "--udp"))
			open_port(argv[i + 1], SOCK_DGRAM, UDP_ECHO);
		else {
			fprintf(stderr, "echo: unknown option %s\n", argv[i]);
			return 2;
		}
	}
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(epoll_fd, events, 64, -1);

		for (int i = 0; i < count; i++) {
			struct connection *c = events[i].data.ptr;

			switch (c->kind) {
			case LISTEN_HTTP:
			case LISTEN_TCP:
				take(c);
				break;
			case UDP_ECHO:
				echo_datagram(c);
				break;
			case HTTP:
				if (serve(c))
					drop(c);
				break;
			case TCP_ECHO:
				if (echo_stream(c))
					drop(c);
				break;
			}
		}
	}
}
