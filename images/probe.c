/*
 * Many small questions at once: may this pod reach that address? One process for a whole test, in a pod's network.
 *   probe [-s PORT]...        answers on these ports: TCP (accepts), UDP (echoes), SCTP (INIT with INIT-ACK; raw, so that the
 *                             kernel needs no SCTP)
 * Questions on stdin, one a line: ID PROTOCOL ADDRESS PORT MILLISECONDS; PROTOCOL is tcp, udp, sctp, or hold: a TCP connection
 * that says something every 10 ms until it is cut or the time is over. Answers on stdout, in the order in which they come:
 * ID open | ID refused | ID unreachable | ID prohibited | ID cut | ID silent | ID error WORDS; of hold also ID held.
 * `ID heard - 0 0` is answered with how often accepted connections said something, and how many of them were reset.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUESTIONS_MAX 8192
#define LINE_MAX_BYTES 128
#define PORTS_MAX 64
#define OWN_PORT_FIRST 20000
/* More than there are questions: a free one is always found. */
#define OWN_PORTS 10000
#define SCTP_INIT 1
#define SCTP_INIT_ACK 2
#define SCTP_ABORT 6

enum kind { STDIN, ACCEPT, ACCEPTED, ECHO, ANSWER4, ANSWER6, TCP, UDP, SCTP, HOLD };

struct sctp_packet {
	uint16_t source, destination;
	uint32_t tag, checksum;
	uint8_t type, flags;
	uint16_t length;
	uint32_t init_tag, window;
	uint16_t out_streams, in_streams;
	uint32_t tsn;
} __attribute__((packed));

struct watched {
	enum kind kind;
	int fd;
	int active;
	int family;
	int connecting;
	uint64_t until;
	uint16_t port, own_port;
	uint32_t tag;
	char id[32];
};

static int epoll_fd;
static struct watched questions[QUESTIONS_MAX];
static uint8_t own_port_taken[2][OWN_PORTS];
static uint16_t ports[PORTS_MAX];
static int ports_count;
static int asked;
static unsigned long heard, resets;

static void die(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* CRC-32C (RFC 9260, appendix A), a bit at a time: packets are 32 bytes. */
static uint32_t crc32c(const uint8_t *data, size_t length)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < length; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void sctp_fill(struct sctp_packet *p, uint8_t type, uint16_t source, uint16_t destination, uint32_t tag, uint32_t own)
{
	*p = (struct sctp_packet){
		.source = htons(source),
		.destination = htons(destination),
		.tag = tag,
		.type = type,
		.length = htons(20),
		.init_tag = own,
		.window = htonl(65536),
		.out_streams = htons(1),
		.in_streams = htons(1),
		.tsn = htonl(1),
	};
	p->checksum = crc32c((const uint8_t *)p, sizeof(*p));
}

static void watch(int fd, uint32_t events, struct watched *w)
{
	struct epoll_event event = { .events = events, .data.ptr = w };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("cannot watch a socket");
}

static struct watched *service(int fd, enum kind kind)
{
	struct watched *w = calloc(1, sizeof(*w));

	if (!w)
		die("no memory");
	w->fd = fd;
	w->kind = kind;
	watch(fd, EPOLLIN, w);
	return w;
}

static void serve(uint16_t port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int one = 1;
	int tcp = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int udp = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	if (tcp < 0 || udp < 0)
		die("cannot open a socket");
	setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(tcp, (struct sockaddr *)&any, sizeof(any)) || listen(tcp, 4096))
		die("cannot listen");
	if (bind(udp, (struct sockaddr *)&any, sizeof(any)))
		die("cannot bind");
	service(tcp, ACCEPT);
	service(udp, ECHO);
}

static void answer(struct watched *w, const char *word)
{
	printf("%s %s\n", w->id, word);
	close(w->fd);
	w->active = 0;
	if (w->own_port)
		own_port_taken[w->kind == SCTP][w->own_port - OWN_PORT_FIRST] = 0;
	asked--;
}

static void answer_error(struct watched *w, int error)
{
	char words[64];

	switch (error) {
	case ECONNREFUSED:
		return answer(w, "refused");
	case EHOSTUNREACH:
	case ENETUNREACH:
		return answer(w, "unreachable");
	case EACCES:
	case EPERM:
		return answer(w, "prohibited");
	/* It was open, and no longer is. */
	case ECONNRESET:
		return answer(w, "cut");
	default:
		snprintf(words, sizeof(words), "error %s", strerror(error));
		return answer(w, words);
	}
}

static socklen_t address_of(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	return 0;
}

/*
 * The same for the same question: asked a thousand times it is one flow, not a thousand that wait for their end. While an
 * answer is awaited its port is nobody else's: of two sockets with one pair of addresses the kernel gives all answers to one.
 */
static uint16_t take_own_port(enum kind kind, const char *address, uint16_t port)
{
	uint32_t sum = 2166136261u ^ port;

	for (; *address; address++)
		sum = (sum ^ (uint8_t)*address) * 16777619u;
	while (own_port_taken[kind == SCTP][sum % OWN_PORTS])
		sum++;
	own_port_taken[kind == SCTP][sum % OWN_PORTS] = 1;
	return (uint16_t)(OWN_PORT_FIRST + sum % OWN_PORTS);
}

static int bind_own(struct watched *w)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(w->own_port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(w->own_port) };

	return w->family == AF_INET ? bind(w->fd, (struct sockaddr *)&v4, sizeof(v4))
				    : bind(w->fd, (struct sockaddr *)&v6, sizeof(v6));
}

/* A raw socket hears errors about every packet to its address: with the packet in question, ours can be told from others'. */
static void want_errors(const struct watched *w)
{
	int one = 1;

	if (w->family == AF_INET)
		setsockopt(w->fd, SOL_IP, IP_RECVERR, &one, sizeof(one));
	else
		setsockopt(w->fd, SOL_IPV6, IPV6_RECVERR, &one, sizeof(one));
}

/* The error that a packet of this question met; 0: none. */
static int own_error(const struct watched *w)
{
	uint8_t bytes[512], control[512];
	struct iovec part = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	int found = 0, error;
	socklen_t size = sizeof(error);

	for (;;) {
		struct msghdr message = {
			.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
		};
		const struct sctp_packet *p = (const void *)bytes;

		if (recvmsg(w->fd, &message, MSG_ERRQUEUE) < 4)
			break;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
			const struct sock_extended_err *e = (const void *)CMSG_DATA(c);

			if (ntohs(p->source) == w->own_port && ntohs(p->destination) == w->port)
				found = (int)e->ee_errno;
		}
	}
	getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return found;
}

static void ask(const char *line)
{
	static int at;
	struct watched *w = NULL;
	struct sockaddr_storage address;
	char id[32], protocol[8], text[64];
	unsigned int port, ms;
	socklen_t length;

	if (sscanf(line, "%31s %7s %63s %u %u", id, protocol, text, &port, &ms) != 5) {
		fprintf(stderr, "probe: cannot read: %s\n", line);
		return;
	}
	if (!strcmp(protocol, "heard")) {
		printf("%s %lu %lu\n", id, heard, resets);
		return;
	}
	for (int tried = 0; tried < QUESTIONS_MAX && !w; tried++) {
		at = (at + 1) % QUESTIONS_MAX;
		if (!questions[at].active)
			w = &questions[at];
	}
	length = address_of(text, (uint16_t)port, &address);
	if (!w || !length) {
		printf("%s error %s\n", id, w ? "no address" : "too many questions");
		return;
	}
	memset(w, 0, sizeof(*w));
	strcpy(w->id, id);
	w->active = 1;
	w->family = address.ss_family;
	w->port = (uint16_t)port;
	w->until = now_ms() + ms;
	asked++;
	if (!strcmp(protocol, "tcp") || !strcmp(protocol, "hold")) {
		w->kind = *protocol == 't' ? TCP : HOLD;
		w->fd = socket(w->family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	} else if (!strcmp(protocol, "udp")) {
		w->kind = UDP;
		w->fd = socket(w->family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	} else {
		w->kind = SCTP;
		w->fd = socket(w->family, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP);
		/* A raw socket's address has no port. */
		if (w->family == AF_INET6)
			((struct sockaddr_in6 *)&address)->sin6_port = 0;
		w->tag = (uint32_t)random() | 1;
		if (w->fd >= 0)
			want_errors(w);
	}
	if (w->fd < 0)
		return answer_error(w, errno);
	if (w->kind == UDP || w->kind == SCTP)
		w->own_port = take_own_port(w->kind, text, w->port);
	if (w->kind == UDP && bind_own(w))
		return answer_error(w, errno);
	if (connect(w->fd, (struct sockaddr *)&address, length) && errno != EINPROGRESS)
		return answer_error(w, errno);
	if (w->kind == UDP && send(w->fd, "?", 1, 0) < 0)
		return answer_error(w, errno);
	if (w->kind == SCTP) {
		struct sctp_packet init;

		sctp_fill(&init, SCTP_INIT, w->own_port, w->port, 0, w->tag);
		if (send(w->fd, &init, sizeof(init), 0) < 0)
			return answer_error(w, errno);
	}
	watch(w->fd, w->kind == TCP ? EPOLLOUT : EPOLLIN, w);
	w->connecting = w->kind == HOLD;
}

/* One SCTP packet; of IPv4 with its header before it. */
static const struct sctp_packet *sctp_in(const uint8_t *bytes, ssize_t length, int family)
{
	size_t header = family == AF_INET ? (size_t)(bytes[0] & 15) * 4 : 0;

	return length < (ssize_t)(header + sizeof(struct sctp_packet)) ? NULL : (const void *)(bytes + header);
}

static void hear(struct watched *w)
{
	uint8_t bytes[512];
	int error = 0;
	socklen_t size = sizeof(error);
	ssize_t got;

	if (w->kind == TCP) {
		struct linger now = { .l_onoff = 1, .l_linger = 0 };

		getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error)
			return answer_error(w, error);
		/* Thousands of connections: none of them is to wait for its end. */
		setsockopt(w->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		return answer(w, "open");
	}
	while ((got = recv(w->fd, bytes, sizeof(bytes), 0)) >= 0) {
		const struct sctp_packet *p;

		if (w->kind == HOLD) {
			w->connecting = 0;
			if (got == 0)
				return answer(w, "closed");
			continue;
		}
		if (w->kind == UDP)
			return answer(w, "open");
		p = sctp_in(bytes, got, w->family);
		if (p && p->type == SCTP_INIT_ACK && p->tag == w->tag && ntohs(p->destination) == w->own_port) {
			struct sctp_packet abort;

			/* A chunk of 4 bytes: the rest of the packet is not sent. */
			sctp_fill(&abort, SCTP_ABORT, w->own_port, w->port, p->init_tag, 0);
			abort.length = htons(4);
			abort.checksum = 0;
			abort.checksum = crc32c((const uint8_t *)&abort, 16);
			send(w->fd, &abort, 16, 0);
			return answer(w, "open");
		}
	}
	if (errno == EAGAIN && w->kind != SCTP)
		return;
	if (w->kind == SCTP) {
		error = own_error(w);
		if (error)
			answer_error(w, error);
		return;
	}
	if (w->kind == HOLD && (errno == ECONNRESET || errno == EPIPE))
		return answer(w, "cut");
	answer_error(w, errno);
}

/* A connection that came in: what it says goes back. */
static void talk(struct watched *w)
{
	char bytes[512];
	ssize_t got;

	while ((got = recv(w->fd, bytes, sizeof(bytes), 0)) > 0) {
		heard++;
		send(w->fd, bytes, (size_t)got, MSG_NOSIGNAL);
	}
	if (got < 0 && errno == EAGAIN)
		return;
	if (got < 0 && errno == ECONNRESET)
		resets++;
	close(w->fd);
	free(w);
}

static void echo(int fd)
{
	char bytes[512];
	struct sockaddr_in6 from;
	socklen_t length = sizeof(from);
	ssize_t got;

	while ((got = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length)) >= 0)
		sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, length);
}

static void answer_init(int fd, int family)
{
	uint8_t bytes[512];
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	ssize_t got;

	while ((got = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length)) >= 0) {
		const struct sctp_packet *p = sctp_in(bytes, got, family);
		struct sctp_packet ack;
		int served = 0;

		for (int i = 0; p && i < ports_count; i++)
			served |= ports[i] == ntohs(p->destination);
		if (served && p->type == SCTP_INIT) {
			sctp_fill(&ack, SCTP_INIT_ACK, ntohs(p->destination), ntohs(p->source), p->init_tag, 1);
			if (family == AF_INET6)
				((struct sockaddr_in6 *)&from)->sin6_port = 0;
			sendto(fd, &ack, sizeof(ack), 0, (struct sockaddr *)&from, length);
		}
		length = sizeof(from);
	}
}

static void read_questions(void)
{
	static char held[1 << 16];
	static size_t have;
	ssize_t got = read(0, held + have, sizeof(held) - have - 1);
	char *line = held, *end;

	if (got <= 0)
		exit(0);
	have += (size_t)got;
	held[have] = 0;
	while ((end = strchr(line, '\n'))) {
		*end = 0;
		ask(line);
		line = end + 1;
	}
	have -= (size_t)(line - held);
	memmove(held, line, have);
}

static void expire(void)
{
	uint64_t now = now_ms();

	for (int i = 0; i < QUESTIONS_MAX; i++) {
		struct watched *w = &questions[i];

		if (!w->active)
			continue;
		if (w->kind == HOLD && send(w->fd, ".", 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN && errno != ENOTCONN)
			hear(w);
		if (w->active && w->until <= now)
			answer(w, w->kind == HOLD && !w->connecting ? "held" : "silent");
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	struct epoll_event events[256];
	uint64_t checked = 0;
	int option;

	setrlimit(RLIMIT_NOFILE, &files);
	srandom((unsigned int)(time(NULL) ^ getpid()));
	epoll_fd = epoll_create1(0);
	while ((option = getopt(argc, argv, "s:")) != -1) {
		if (option != 's' || ports_count == PORTS_MAX)
			return 2;
		ports[ports_count++] = (uint16_t)atoi(optarg);
	}
	for (int i = 0; i < ports_count; i++)
		serve(ports[i]);
	if (ports_count > 0) {
		int v4 = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP);
		int v6 = socket(AF_INET6, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP);

		if (v4 < 0 || v6 < 0)
			die("cannot open a raw socket");
		service(v4, ANSWER4);
		service(v6, ANSWER6);
	}
	service(0, STDIN);
	printf("ready\n");
	for (;;) {
		int count;

		fflush(stdout);
		count = epoll_wait(epoll_fd, events, 256, asked ? 10 : -1);
		for (int i = 0; i < count; i++) {
			struct watched *w = events[i].data.ptr;
			int fd;

			switch (w->kind) {
			case STDIN:
				read_questions();
				break;
			case ACCEPT:
				while ((fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0)
					service(fd, ACCEPTED);
				break;
			case ACCEPTED:
				talk(w);
				break;
			case ECHO:
				echo(w->fd);
				break;
			case ANSWER4:
				answer_init(w->fd, AF_INET);
				break;
			case ANSWER6:
				answer_init(w->fd, AF_INET6);
				break;
			default:
				if (w->active)
					hear(w);
			}
		}
		if (asked && now_ms() - checked >= 10) {
			checked = now_ms();
			expire();
		}
	}
}
