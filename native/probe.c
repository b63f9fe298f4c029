/* What this kernel can do, found by trying it in a namespace that is gone when the call returns. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf.h"
#include "netns.h"
#include "shim.h"

enum { loopback_index = 1, tcx_ingress = 46 };

static int go_to_new_namespace(void)
{
	int home = weft_netns_open("/proc/thread-self/ns/net");
	int error;

	if (home < 0)
		return home;
	if (unshare(CLONE_NEWNET)) {
		error = -errno;
		close(home);
		return error;
	}
	return home;
}

/* r0 = 0; exit */
static int load_nothing(uint32_t type)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr a = {};

	a.prog_type = type;
	a.insns = pointer(code);
	a.insn_cnt = 2;
	a.license = pointer("GPL");
	return bpf(BPF_PROG_LOAD, &a);
}

int weft_probe_tcx(void)
{
	int program = load_nothing(BPF_PROG_TYPE_SCHED_CLS), home, link;

	if (program < 0)
		return program;
	home = go_to_new_namespace();
	if (home < 0) {
		close(program);
		return home;
	}
	link = weft_attach_device(-1, loopback_index, program, tcx_ingress);
	netns_come_back(home);
	close(program);
	if (link < 0)
		return link;
	close(link);
	return 0;
}

int weft_probe_device(const char *kind)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
		char attributes[64];
	} request = {
		.header = { .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL },
	};
	size_t length = strlen(kind) + 1;
	struct rtattr *info = (struct rtattr *)request.attributes;
	struct rtattr *name = RTA_DATA(info);
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[512];
	} answer = {};
	int home, fd, result;

	if (length > 32)
		return -EINVAL;
	name->rta_type = IFLA_INFO_KIND;
	name->rta_len = RTA_LENGTH(length);
	memcpy(RTA_DATA(name), kind, length);
	info->rta_type = IFLA_LINKINFO;
	info->rta_len = RTA_LENGTH(RTA_ALIGN(name->rta_len));
	request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.link)) + RTA_ALIGN(info->rta_len);
	home = go_to_new_namespace();
	if (home < 0)
		return home;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0 || send(fd, &request, request.header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		result = -errno;
	else
		result = answer.error.error;
	if (fd >= 0)
		close(fd);
	netns_come_back(home);
	/* EINVAL: the kind is known and wants to be told more. */
	return result == -EINVAL ? 0 : result;
}

int weft_probe_map(uint32_t type)
{
	int ring = type == BPF_MAP_TYPE_RINGBUF;
	int fd = weft_map_create(type, "probe", ring ? 0 : 4, ring ? 0 : 4, ring ? sysconf(_SC_PAGESIZE) : 1, 0);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}
