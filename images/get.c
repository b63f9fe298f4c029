/*
 * get [-t SECONDS] URL: fetches http://HOST[:PORT][/PATH] and prints the body, or sends PATH as one datagram to
 * udp://HOST:PORT/PATH and prints the answer. The distribution's static busybox has a wget, but it ends with a
 * segmentation fault in getaddrinfo; this program is linked to the C library that is put beside it.
 * Ends with 0 for a 2xx answer or a datagram, 1 when the server answered otherwise, 2 when there was no answer, and says
 * why. A datagram counts only when it comes from the address that was asked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define HEAD_MAX 16384 /* bytes of an answer's head */

static int fail(const char *url, const char *why)
{
	fprintf(stderr, "get: %s: %s\n", url, why);
	return 2;
}

/* Connects within the time, or sets errno. */
static int connect_within(const struct addrinfo *to, int seconds)
{
	struct timeval limit = { .tv_sec = seconds };
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
	socklen_t size = sizeof(error);

	if (fd < 0)
		return -1;
	if (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS)
		goto failed;
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
	switch (poll(&ready, 1, seconds * 1000)) {
	case 0:
		errno = ETIMEDOUT;
		goto failed;
	case 1:
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (!error)
			break;
		errno = error;
		/* fall through */
	default:
		goto failed;
	}
	fcntl(fd, F_SETFL, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
failed:
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Reads the answer, prints its body, returns its status or -1. */
static int receive(int fd)
{
	static char head[HEAD_MAX + 1];
	size_t held = 0;
	char *body = NULL;
	int status = 0;

	while (!body) {
		ssize_t got = recv(fd, head + held, HEAD_MAX - held, 0);

		if (got <= 0) {
			if (got == 0)
				errno = ECONNRESET;
			return -1;
		}
		held += got;
		head[held] = 0;
		body = strstr(head, "\r\n\r\n");
		if (!body && held == HEAD_MAX) {
			errno = EMSGSIZE;
			return -1;
		}
	}
	sscanf(head, "HTTP/%*s %d", &status);
	body += 4;
	fwrite(body, 1, head + held - body, stdout);
	for (;;) {
		ssize_t got = recv(fd, head, HEAD_MAX, 0);

		if (got == 0)
			return status;
		if (got < 0)
			return -1;
		fwrite(head, 1, got, stdout);
	}
}

/* The socket is not connected, so nothing but this comparison says where the answer comes from. */
static int ask(const char *url, const struct addrinfo *to, const char *text, int seconds)
{
	struct timeval limit = { .tv_sec = seconds };
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);
	char answer[65536];
	int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t got;

	if (fd < 0)
		return fail(url, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (sendto(fd, text, strlen(text), 0, to->ai_addr, to->ai_addrlen) < 0)
		return fail(url, strerror(errno));
	got = recvfrom(fd, answer, sizeof(answer), 0, (struct sockaddr *)&from, &size);
	if (got < 0)
		return fail(url, strerror(errno == EAGAIN ? ETIMEDOUT : errno));
	if (size != to->ai_addrlen || memcmp(&from, to->ai_addr, to->ai_family == AF_INET ? 8 : 24))
		return fail(url, "the answer came from another address");
	fwrite(answer, 1, got, stdout);
	putchar('\n');
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	char host[256] = "", port[8] = "80", request[2048];
	const char *url, *rest, *path;
	int seconds = 5, fd = -1, option, datagram;

	while ((option = getopt(argc, argv, "t:")) != -1) {
		if (option != 't')
			return 2;
		seconds = atoi(optarg);
	}
	url = argv[optind];
	datagram = url && !strncmp(url, "udp://", 6);
	if (!url || (!datagram && strncmp(url, "http://", 7)) || seconds < 1) {
		fprintf(stderr, "usage: get [-t SECONDS] http://HOST[:PORT][/PATH] | udp://HOST:PORT/TEXT\n");
		return 2;
	}
	rest = url + (datagram ? 6 : 7);
	if (datagram)
		hints.ai_socktype = SOCK_DGRAM;
	path = strchr(rest, '/');
	if (rest[0] == '[' ? sscanf(rest, "[%255[^]]]:%7[0-9]", host, port) < 1 : sscanf(rest, "%255[^:/]:%7[0-9]", host, port) < 1)
		return fail(url, "no host");
	option = getaddrinfo(host, port, &hints, &found);
	if (option)
		return fail(url, gai_strerror(option));
	if (datagram)
		return ask(url, found, path ? path + 1 : "", seconds);
	for (struct addrinfo *each = found; each && fd < 0; each = each->ai_next)
		fd = connect_within(each, seconds);
	if (fd < 0)
		return fail(url, strerror(errno));
	option = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\n\r\n", path ? path : "/",
			  (int)(path ? path - rest : (long)strlen(rest)), rest);
	if (option >= (int)sizeof(request))
		return fail(url, "too long");
	if (send(fd, request, option, MSG_NOSIGNAL) != option)
		return fail(url, strerror(errno));
	option = receive(fd);
	if (option < 0)
		return fail(url, strerror(errno == EAGAIN ? ETIMEDOUT : errno));
	fflush(stdout);
	if (option / 100 == 2)
		return 0;
	fprintf(stderr, "get: %s: the server answered %d\n", url, option);
	return 1;
}
