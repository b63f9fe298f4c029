/* Network namespaces: whatever must happen inside one, in one call that has left it again when it returns. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netns.h"
#include "shim.h"

static const char here[] = "/proc/thread-self/ns/net";

int weft_netns_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int weft_netns_enter(int netns)
{
	return setns(netns, CLONE_NEWNET) ? -errno : 0;
}

int weft_netns_id(int netns, uint64_t out[2])
{
	struct stat s;

	if (fstat(netns, &s))
		return -errno;
	out[0] = s.st_ino;
	out[1] = s.st_dev;
	return 0;
}

int netns_go_in(int netns, int *home)
{
	int error;

	*home = -1;
	if (netns < 0)
		return 0;
	*home = weft_netns_open(here);
	if (*home < 0)
		return *home;
	error = weft_netns_enter(netns);
	if (error)
		close(*home);
	return error;
}

void netns_come_back(int home)
{
	if (home < 0)
		return;
	if (weft_netns_enter(home))
		abort();
	close(home);
}

/* Namespaces are seen in every mount namespace only below a shared mount: the same that ip-netns(8) makes. */
static int share_directory(const char *path)
{
	char dir[512];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash)
		return -EINVAL;
	*slash = 0;
	if (mkdir(dir, 0755) && errno != EEXIST)
		return -errno;
	if (!mount("", dir, "none", MS_SHARED | MS_REC, NULL))
		return 0;
	if (errno != EINVAL)
		return -errno;
	if (mount(dir, dir, "none", MS_BIND | MS_REC, NULL))
		return -errno;
	return mount("", dir, "none", MS_SHARED | MS_REC, NULL) ? -errno : 0;
}

int weft_netns_create(const char *path)
{
	int home, file, error;

	error = share_directory(path);
	if (error)
		return error;
	file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (file < 0)
		return -errno;
	close(file);
	home = weft_netns_open(here);
	if (home < 0) {
		unlink(path);
		return home;
	}
	if (unshare(CLONE_NEWNET)) {
		error = -errno;
	} else {
		if (mount(here, path, "none", MS_BIND, NULL))
			error = -errno;
		if (weft_netns_enter(home))
			abort();
	}
	close(home);
	if (error)
		unlink(path);
	return error;
}

int weft_netns_delete(const char *path)
{
	if (umount2(path, MNT_DETACH) && errno != EINVAL && errno != ENOENT)
		return -errno;
	return unlink(path) ? -errno : 0;
}

int weft_socket(int netns, int domain, int type, int protocol)
{
	int home, fd, error = netns_go_in(netns, &home);

	if (error)
		return error;
	fd = socket(domain, type | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		fd = -errno;
	netns_come_back(home);
	return fd;
}

int weft_listen(int netns, const void *address, uint32_t address_size, uint16_t port, int type, int backlog)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr *name = address_size == 4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	socklen_t size = address_size == 4 ? sizeof(v4) : sizeof(v6);
	int fd, one = 1;

	if (address_size == 4)
		memcpy(&v4.sin_addr, address, 4);
	else if (address_size == 16)
		memcpy(&v6.sin6_addr, address, 16);
	else
		return -EINVAL;
	fd = weft_socket(netns, name->sa_family, type | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (address_size == 16 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) ||
	    bind(fd, name, size) || (type == SOCK_STREAM && listen(fd, backlog))) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

/*
 * /proc/sys/net shows the namespace of the thread that opens it. In a container /proc/sys cannot be written; the chart mounts
 * the host's beside it.
 */
static const char *const sysctl_roots[] = { "/proc/sys/", "/host/proc/sys/" };

static int open_sysctl(int netns, const char *path, int flags)
{
	char full[512];
	int home, fd = -EROFS, error;

	error = netns_go_in(netns, &home);
	if (error)
		return error;
	for (size_t i = 0; i < sizeof(sysctl_roots) / sizeof(*sysctl_roots) && fd == -EROFS; i++) {
		if (snprintf(full, sizeof(full), "%s%s", sysctl_roots[i], path) >= (int)sizeof(full)) {
			fd = -ENAMETOOLONG;
			break;
		}
		fd = open(full, flags | O_CLOEXEC);
		if (fd < 0)
			fd = i > 0 && errno == ENOENT ? -EROFS : -errno;
	}
	netns_come_back(home);
	return fd;
}

int weft_sysctl_write(int netns, const char *path, const char *value)
{
	int fd = open_sysctl(netns, path, O_WRONLY);
	int error = 0;

	if (fd < 0)
		return fd;
	if (write(fd, value, strlen(value)) < 0)
		error = -errno;
	close(fd);
	return error;
}

int weft_sysctl_read(int netns, const char *path, char *out, uint32_t size)
{
	int fd = open_sysctl(netns, path, O_RDONLY);
	ssize_t length;

	if (fd < 0)
		return fd;
	length = read(fd, out, size - 1);
	if (length < 0)
		length = -errno;
	else
		out[length] = 0;
	close(fd);
	return length;
}

int weft_ifindex(int netns, const char *name)
{
	int home, index, error = netns_go_in(netns, &home);

	if (error)
		return error;
	index = if_nametoindex(name);
	if (index == 0)
		index = -errno;
	netns_come_back(home);
	return index;
}

int weft_send_frame(int netns, uint32_t ifindex, const void *frame, uint32_t size)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = ifindex };
	int fd = weft_socket(netns, AF_PACKET, SOCK_RAW, 0), error = 0;

	if (fd < 0)
		return fd;
	if (sendto(fd, frame, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		error = -errno;
	close(fd);
	return error;
}

int weft_netns_cookie(int netns, uint64_t out[1])
{
	socklen_t size = sizeof(*out);
	int fd = weft_socket(netns, AF_INET, SOCK_DGRAM, 0), error = 0;

	if (fd < 0)
		return fd;
	/* SO_NETNS_COOKIE, Linux 5.14 */
	if (getsockopt(fd, SOL_SOCKET, 71, out, &size))
		error = -errno;
	close(fd);
	return error;
}

int weft_offloads(int netns, const char *device, int on)
{
	static const uint32_t commands[] = { ETHTOOL_STXCSUM, ETHTOOL_SRXCSUM, ETHTOOL_SSG, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO };
	struct ethtool_value value = { .data = on };
	struct ifreq request = {};
	int fd, error = 0;
	size_t i;

	if (strlen(device) >= sizeof(request.ifr_name))
		return -EINVAL;
	fd = weft_socket(netns, AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return fd;
	strcpy(request.ifr_name, device);
	request.ifr_data = (char *)&value;
	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		value.cmd = commands[i];
		if (ioctl(fd, SIOCETHTOOL, &request) && errno != EOPNOTSUPP)
			error = -errno;
	}
	close(fd);
	return error;
}
