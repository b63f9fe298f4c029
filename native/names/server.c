/*
 * weft-names: the node's resolver over UDP as a process of its own, so that names are answered while the agent is away.
 * The agent starts it, connects to its socket, and tells it the table; when the agent goes, the table stays, and what is
 * not in it is told SERVFAIL.
 *
 *   weft-names SOCKET COUNTS ADDRESS...       (port 53 of each address, which is on the node already)
 *
 * Both ways: size u32 (of what follows), kind u8, then the content. One agent at a time; a newer one takes over.
 *   to us:   1 change   2 replace (see table.c for rows)   3 an answer: socket u32, address size u32, address, message
 *            4 end
 *   from us: 1 a question, as weft_names_take gives it   2 hello: version u32, our pid u32, an error of bind(2) for each
 *            address u32
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../shim.h"

enum {
	/* Of this protocol and of the rows: an agent of another version ends us and starts its own. */
	version = 3,
	port = 53,
	frame_max = 512 << 20,
	addresses_max = 4,
	send_seconds = 1,
	question_max = 2048,
};

static struct weft_names *names;
static int client = -1;
static uint8_t *frames;
static size_t frames_used, frames_room;
static int sockets[addresses_max];
static uint32_t bind_errors[addresses_max];
static uint32_t address_count;
static int serving;

static void die(const char *what)
{
	fprintf(stderr, "weft-names: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void drop_client(void)
{
	weft_names_own(names, 0);
	close(client);
	client = -1;
	frames_used = 0;
}

/* The agent may be busy for a moment; one that does not read at all is let go. */
static void tell(uint8_t kind, const void *data, uint32_t size)
{
	uint8_t head[5];
	uint32_t length = size + 1;
	struct iovec parts[] = { { head, 5 }, { (void *)data, size } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	memcpy(head, &length, 4);
	head[4] = kind;
	if (client >= 0 && sendmsg(client, &message, MSG_NOSIGNAL) != (ssize_t)size + 5)
		drop_client();
}

static void accept_client(int listener)
{
	struct timeval patience = { .tv_sec = send_seconds };
	uint32_t hello[2 + addresses_max] = { version, getpid() };
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (client >= 0)
		drop_client();
	client = fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	memcpy(hello + 2, bind_errors, sizeof(bind_errors));
	tell(2, hello, 8 + 4 * address_count);
	weft_names_own(names, 1);
}

/* Without a table every name would be unknown: what is asked before the first agent has told it waits in the sockets. */
static void start_serving(void)
{
	for (uint32_t i = 0; !serving && i < address_count; i++)
		if (sockets[i] >= 0 && weft_names_serve(names, sockets[i]) < 0)
			die("cannot start a thread");
	serving = 1;
}

/* Returns 0 where the frame makes no sense: then the agent is let go. */
static int obey(uint8_t kind, const uint8_t *data, uint32_t size)
{
	uint32_t socket, address_size;

	switch (kind) {
	case 1:
		return weft_names_change(names, data, size) >= 0;
	case 2:
		if (weft_names_replace(names, data, size) < 0)
			return 0;
		start_serving();
		return 1;
	case 3:
		if (size < 8)
			return 0;
		memcpy(&socket, data, 4);
		memcpy(&address_size, data + 4, 4);
		if (address_size > sizeof(struct sockaddr_in6) || size < 8 + address_size)
			return 0;
		/* An asker that is gone is no fault of the agent's. */
		weft_names_send(names, socket, data + 8, address_size, data + 8 + address_size, size - 8 - address_size);
		return 1;
	case 4:
		exit(0);
	default:
		return 0;
	}
}

static void read_client(void)
{
	size_t at = 0;
	ssize_t n;

	if (frames_room - frames_used < 65536) {
		size_t room = frames_room * 2 + 131072;
		uint8_t *more = realloc(frames, room);

		if (!more)
			die("realloc");
		frames = more;
		frames_room = room;
	}
	n = recv(client, frames + frames_used, frames_room - frames_used, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop_client();
		return;
	}
	frames_used += n;
	while (frames_used - at >= 5) {
		uint32_t length;

		memcpy(&length, frames + at, 4);
		if (length < 1 || length > frame_max) {
			drop_client();
			return;
		}
		if (frames_used - at - 4 < length)
			break;
		if (!obey(frames[at + 4], frames + at + 5, length - 1)) {
			drop_client();
			return;
		}
		at += 4 + length;
	}
	memmove(frames, frames + at, frames_used - at);
	frames_used -= at;
}

static void pass_questions(int bell)
{
	uint8_t data[question_max];
	char rings[256];
	int size;

	while (read(bell, rings, sizeof(rings)) > 0)
		;
	while ((size = weft_names_take(names, data, sizeof(data))) > 0)
		if (client >= 0)
			tell(1, data, size);
}

static int listen_at(const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(name.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(name.sun_path, path);
	unlink(path);
	umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof(name)) || listen(fd, 4))
		die(path);
	return fd;
}

static void bind_address(uint32_t i, const char *text)
{
	uint8_t address[16];
	int size = inet_pton(AF_INET, text, address) == 1 ? 4 : inet_pton(AF_INET6, text, address) == 1 ? 16 : 0;

	if (size == 0) {
		errno = EINVAL;
		die(text);
	}
	sockets[i] = weft_listen(-1, address, size, port, SOCK_DGRAM, 0);
	bind_errors[i] = sockets[i] < 0 ? -sockets[i] : 0;
}

int main(int argc, char **argv)
{
	int listener, counts, bell;

	if (argc < 4 || argc - 3 > addresses_max) {
		fprintf(stderr, "usage: weft-names SOCKET COUNTS ADDRESS...\n");
		return 2;
	}
	/* A terminal that ends, an agent that is told to end: neither is meant for us. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	names = weft_names_new();
	if (!names)
		die("no memory");
	counts = open(argv[2], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (counts < 0 || weft_names_share(names, counts))
		die(argv[2]);
	bell = weft_names_bell(names);
	if (bell < 0)
		die("no bell");
	weft_names_own(names, 0);
	listener = listen_at(argv[1]);
	address_count = argc - 3;
	for (uint32_t i = 0; i < address_count; i++)
		bind_address(i, argv[3 + i]);
	for (;;) {
		struct pollfd fds[] = { { listener, POLLIN }, { bell, POLLIN }, { client, POLLIN } };

		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[2].revents && fds[2].fd == client)
			read_client();
		if (fds[1].revents)
			pass_questions(bell);
		if (fds[0].revents)
			accept_client(listener);
	}
}
