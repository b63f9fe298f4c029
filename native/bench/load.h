/* What the load programs have in common: where they run, whom they talk to, and how they end when something fails. */
#ifndef WEFT_LOAD_H
#define WEFT_LOAD_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Set by set_peer. */
static struct sockaddr_storage peer;
static socklen_t peer_size;

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerrorname_np(errno));
	exit(1);
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Seconds. */
static inline double now(void)
{
	return now_ns() * 1e-9;
}

static inline void set_peer(const char *address, int port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&peer;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&peer;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		peer_size = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		peer_size = sizeof(*v6);
	} else {
		errno = EINVAL;
		die(address);
	}
}

static inline void enter_namespace(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die(path);
	close(fd);
}

static inline void enter_cgroup(const char *dir)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		die(path);
	close(fd);
}

static inline void pin_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

/* `--netns PATH`, `--cgroup DIR`, `--cpu N`: goes there at once. Returns where the arguments begin. */
static inline int options(int argc, char **argv)
{
	int i = 1;

	for (; i + 1 < argc && !strncmp(argv[i], "--", 2); i += 2) {
		if (!strcmp(argv[i], "--netns")) {
			enter_namespace(argv[i + 1]);
		} else if (!strcmp(argv[i], "--cgroup")) {
			enter_cgroup(argv[i + 1]);
		} else if (!strcmp(argv[i], "--cpu")) {
			pin_cpu(atoi(argv[i + 1]));
		} else {
			errno = EINVAL;
			die(argv[i]);
		}
	}
	return i;
}

#endif
