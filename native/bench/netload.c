/*
 * Traffic for test/bench/net.ts and test/packets: a server and a client, each in a namespace and cgroup of its own and
 * on a CPU of its own, in as few instructions a transaction as can be, so that what is measured is the path between.
 *
 *   netload [--netns PATH] [--cgroup DIR] [--cpu N] server ADDRESS PORT
 *   netload [--netns PATH] [--cgroup DIR] [--cpu N] rr|crr|urr|ugso|stream|peer ADDRESS PORT MILLISECONDS
 *
 * The server says "ready", then serves until its standard input ends. A client prints one number: transactions a second
 * (rr: one byte each way on one connection; crr: a connection each; urr: datagrams; ugso: several datagrams handed over as one,
 * each of which has to come back as it was), or bytes a second (stream).
 * `peer` opens one TCP and one UDP exchange and prints what the sockets say of their peer.
 * Ends with 1 and a sentence where anything fails.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "load.h"

enum { stream_chunk = 256 * 1024, answer_seconds_max = 3 };

static int open_socket(int type)
{
	int fd = socket(peer.ss_family, type, 0), one = 1;

	if (fd < 0)
		die("socket");
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int dial(int type)
{
	int fd = open_socket(type);

	if (connect(fd, (struct sockaddr *)&peer, peer_size))
		die("connect");
	return fd;
}

/* The first byte says what the connection is for. */
static void serve_connection(int fd)
{
	static char chunk[stream_chunk];
	int one = 1;
	char byte;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (recv(fd, &byte, 1, 0) != 1)
		return;
	if (byte == 's') {
		while (recv(fd, chunk, sizeof(chunk), 0) > 0)
			;
		return;
	}
	do {
		if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || byte == 'c')
			return;
	} while (recv(fd, &byte, 1, 0) == 1);
}

static void serve_tcp(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve_connection(fd);
		close(fd);
	}
}

static void serve_udp(int fd)
{
	struct sockaddr_storage from;
	char data[2048];

	for (;;) {
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &size);

		if (n >= 0)
			sendto(fd, data, n, 0, (struct sockaddr *)&from, size);
	}
}

static int bound(int type)
{
	int fd = socket(peer.ss_family, type, 0), one = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&peer, peer_size))
		die("bind");
	if (type == SOCK_STREAM && listen(fd, 4096))
		die("listen");
	return fd;
}

static void child(void (*serve)(int), int fd)
{
	pid_t parent = getpid();

	if (fork() != 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		serve(fd);
	exit(0);
}

static void server(void)
{
	char byte;

	child(serve_tcp, bound(SOCK_STREAM));
	child(serve_udp, bound(SOCK_DGRAM));
	printf("ready\n");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	kill(0, SIGTERM);
}

static void exchange(int fd, char byte)
{
	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
		die("send");
	if (recv(fd, &byte, 1, 0) != 1)
		die("receive");
}

/* The kernel, or a device, makes datagrams of what is sent as one (UDP_SEGMENT): the last one is shorter. */
static void exchange_segments(int fd)
{
	enum { segment = 1000, segments = 8, last = 137 };
	static char out[segment * segments + last];
	char in[segment + 1];
	int size = segment, missing = (1 << (segments + 1)) - 1, i;

	for (i = 0; i < (int)sizeof(out); i++)
		out[i] = i / segment + i * 7;
	if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size)))
		die("UDP_SEGMENT");
	if (send(fd, out, sizeof(out), 0) != sizeof(out))
		die("send");
	/* In any order: a server that goes on on another processor sends by another queue. */
	for (i = 0; i <= segments; i++) {
		ssize_t received = recv(fd, in, sizeof(in), 0);
		int which = 0;

		for (; which <= segments; which++)
			if ((missing & 1 << which) && received == (which < segments ? segment : last) &&
			    !memcmp(in, out + which * segment, received))
				break;
		if (received >= 0)
			errno = EBADMSG;
		if (which > segments)
			die("receive");
		missing &= ~(1 << which);
	}
}

static void client(const char *mode, double seconds)
{
	static char chunk[stream_chunk];
	double start, end;
	unsigned long count = 0;

	if (!strcmp(mode, "rr") || !strcmp(mode, "urr")) {
		int fd = dial(mode[0] == 'u' ? SOCK_DGRAM : SOCK_STREAM);

		exchange(fd, 'r');
		start = now();
		do {
			exchange(fd, 'r');
			count++;
			end = now();
		} while (end - start < seconds);
	} else if (!strcmp(mode, "ugso")) {
		int fd = dial(SOCK_DGRAM);

		start = now();
		do {
			exchange_segments(fd);
			count++;
			end = now();
		} while (end - start < seconds);
	} else if (!strcmp(mode, "crr")) {
		start = now();
		do {
			int fd = dial(SOCK_STREAM);

			exchange(fd, 'c');
			close(fd);
			count++;
			end = now();
		} while (end - start < seconds);
	} else if (!strcmp(mode, "stream")) {
		int fd = dial(SOCK_STREAM);

		if (send(fd, "s", 1, 0) != 1)
			die("send");
		start = now();
		do {
			ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);

			if (n < 0)
				die("send");
			count += n;
			end = now();
		} while (end - start < seconds);
	} else {
		errno = EINVAL;
		die(mode);
	}
	printf("%.1f\n", count / (end - start));
}

static void print_name(const char *what, const struct sockaddr_storage *name)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)name;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)name;
	char text[INET6_ADDRSTRLEN];

	if (name->ss_family == AF_INET)
		printf("%s %s %d\n", what, inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text)), ntohs(v4->sin_port));
	else
		printf("%s %s %d\n", what, inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text)), ntohs(v6->sin6_port));
}

static void show_peer(void)
{
	struct sockaddr_storage name;
	socklen_t size = sizeof(name);
	char byte = 'r';
	int fd = dial(SOCK_STREAM);

	exchange(fd, 'r');
	if (getpeername(fd, (struct sockaddr *)&name, &size))
		die("getpeername");
	print_name("tcp", &name);

	fd = open_socket(SOCK_DGRAM);
	if (sendto(fd, &byte, 1, 0, (struct sockaddr *)&peer, peer_size) != 1)
		die("sendto");
	size = sizeof(name);
	if (recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&name, &size) != 1)
		die("recvfrom");
	print_name("udp", &name);

	fd = dial(SOCK_DGRAM);
	exchange(fd, 'r');
	size = sizeof(name);
	if (getpeername(fd, (struct sockaddr *)&name, &size))
		die("getpeername");
	print_name("connected-udp", &name);
}

static void late(int signal)
{
	static const char words[] = "netload: no answer: ETIMEDOUT\n";

	if (write(2, words, sizeof(words) - 1) < 0)
		_exit(2);
	_exit(1);
}

/* One timer for the whole run: a time-out on the socket would start one for every receive. */
static void limit_time(int milliseconds)
{
	signal(SIGALRM, late);
	alarm(milliseconds / 1000 + answer_seconds_max);
}

int main(int argc, char **argv)
{
	int i = options(argc, argv);

	if (argc - i < 3) {
		fprintf(stderr, "usage: netload [--netns PATH] [--cgroup DIR] [--cpu N] MODE ADDRESS PORT [MILLISECONDS]\n");
		return 2;
	}
	set_peer(argv[i + 1], atoi(argv[i + 2]));
	if (!strcmp(argv[i], "server")) {
		setpgid(0, 0);
		server();
	} else if (!strcmp(argv[i], "peer")) {
		limit_time(0);
		show_peer();
	} else {
		int milliseconds = argc - i > 3 ? atoi(argv[i + 3]) : 1000;

		limit_time(milliseconds);
		client(argv[i], milliseconds / 1000.0);
	}
	return 0;
}
