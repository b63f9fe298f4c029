/*
 * weft-cni: what the container runtime executes for each sandbox. It hands the call to the agent and prints the answer;
 * everything that is decided is decided there. One CNI call is one connection (src/cni/protocol.ts is the other end):
 *   to the agent:   NAME=value NUL for each CNI_ variable, NUL, then the configuration from standard input; then half-close
 *   from the agent: exit code in decimal, newline, what standard output gets
 * Called as `loopback` (the runtime also wants a plug-in of that name) it brings lo up in the sandbox instead.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { config_max = 1 << 20, answer_seconds_max = 90 };

/* CNI specification 1.1, section 5: 11 = try again later, 4 = wrong environment, 5 = I/O failure, 6 = bad configuration. */
enum { error_environment = 4, error_io = 5, error_config = 6, error_later = 11 };

static char config[config_max];
static char version[16] = "1.0.0";

static int fail(int code, const char *message, const char *format, ...)
{
	char details[512];
	va_list args;
	char *c;

	va_start(args, format);
	vsnprintf(details, sizeof(details), format, args);
	va_end(args);
	for (c = details; *c; c++)
		if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
			*c = '\'';
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n", version, code, message, details);
	return 1;
}

static int read_config(void)
{
	size_t length = 0;
	ssize_t n;

	while ((n = read(0, config + length, sizeof(config) - 1 - length)) > 0)
		length += n;
	if (n < 0 || length == sizeof(config) - 1)
		return -1;
	config[length] = 0;
	return length;
}

/* The text of a top-level string member; members of inner objects do not count. Escapes are left as they are. */
static int find_string(const char *json, const char *name, char *out, size_t size)
{
	const char *start;
	int depth = 0, key = 0;
	size_t length;

	for (; *json; json++) {
		if (*json == '{' || *json == '[')
			depth++;
		else if (*json == '}' || *json == ']')
			depth--;
		if (*json != '"')
			continue;
		start = ++json;
		for (; *json && *json != '"'; json++)
			if (*json == '\\' && json[1])
				json++;
		if (!*json)
			return 0;
		length = json - start;
		if (key) {
			if (length >= size)
				return 0;
			memcpy(out, start, length);
			out[length] = 0;
			return 1;
		}
		if (depth == 1 && length == strlen(name) && !memcmp(start, name, length)) {
			const char *next = json + 1 + strspn(json + 1, " \t\r\n");

			if (*next != ':')
				continue;
			next += 1 + strspn(next + 1, " \t\r\n");
			if (*next != '"')
				return 0;
			key = 1;
			json = next - 1;
		}
	}
	return 0;
}

static int print_version(void)
{
	printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
	return 0;
}

static int bring_lo_up(const char *command, const char *netns)
{
	struct ifreq request = { .ifr_name = "lo" };
	/* Results before 1.0 name the family of each address. */
	int old = version[0] == '0';
	int fd;

	if (strcmp(command, "ADD") && strcmp(command, "CHECK"))
		return 0;
	if (!netns)
		return fail(error_environment, "CNI_NETNS is not set", "loopback %s", command);
	fd = open(netns, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		return fail(error_io, "Cannot enter the sandbox's network namespace", "%s: %s", netns, strerror(errno));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
		return fail(error_io, "Cannot read the flags of lo", "%s", strerror(errno));
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		return fail(error_io, "Cannot bring lo up", "%s", strerror(errno));
	printf("{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"sandbox\":\"%s\"}],"
	       "\"ips\":[{%s\"address\":\"127.0.0.1/8\",\"interface\":0},{%s\"address\":\"::1/128\",\"interface\":0}]}\n",
	       version, netns, old ? "\"version\":\"4\"," : "", old ? "\"version\":\"6\"," : "");
	return 0;
}

static int send_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		if (n < 0)
			return -1;
		p += n;
		size -= n;
	}
	return 0;
}

extern char **environ;

static int ask_agent(const char *path, int length)
{
	struct timeval limit = { .tv_sec = answer_seconds_max };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	static char answer[1 << 20];
	size_t size = 0;
	char **variable, *body;
	ssize_t n;
	int fd;

	if (strlen(path) >= sizeof(name.sun_path))
		return fail(error_config, "The agent's socket has too long a path", "%s", path);
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(error_io, "Cannot open a socket", "%s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&name, sizeof(name)))
		return fail(error_later, "The Weft agent of this node does not answer; the call is tried again",
			    "%s: %s", path, strerror(errno));
	for (variable = environ; *variable; variable++)
		if (!strncmp(*variable, "CNI_", 4) && send_all(fd, *variable, strlen(*variable) + 1))
			return fail(error_later, "The Weft agent went away", "%s", strerror(errno));
	if (send_all(fd, "", 1) || send_all(fd, config, length) || shutdown(fd, SHUT_WR))
		return fail(error_later, "The Weft agent went away", "%s", strerror(errno));
	while ((n = recv(fd, answer + size, sizeof(answer) - 1 - size, 0)) > 0)
		size += n;
	if (n < 0)
		return fail(error_later, "The Weft agent gave no answer", "%s", strerror(errno));
	answer[size] = 0;
	body = strchr(answer, '\n');
	if (!body)
		return fail(error_later, "The Weft agent went away before it answered", "%zu bytes", size);
	*body++ = 0;
	fputs(body, stdout);
	return atoi(answer);
}

int main(int argc, char **argv)
{
	const char *command = getenv("CNI_COMMAND");
	const char *name = argc > 0 && strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	char socket_path[256];
	int length;

	if (!command)
		return fail(error_environment, "CNI_COMMAND is not set", "this program is started by a container runtime");
	length = read_config();
	if (length < 0)
		return fail(error_config, "Cannot read the network configuration", "at most %d bytes", config_max);
	find_string(config, "cniVersion", version, sizeof(version));
	if (!strcmp(command, "VERSION"))
		return print_version();
	if (!strcmp(name, "loopback"))
		return bring_lo_up(command, getenv("CNI_NETNS"));
	if (!find_string(config, "weftSocket", socket_path, sizeof(socket_path)))
		return fail(error_config, "The network configuration names no agent", "\"weftSocket\" is missing");
	return ask_agent(socket_path, length);
}
