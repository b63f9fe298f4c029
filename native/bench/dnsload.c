/*
 * Questions for test/bench/dns.ts: one socket, a window of questions under way, each answered one replaced by the next.
 *
 *   dnsload [--cpu N] ADDRESS PORT MILLISECONDS WINDOW NAMES
 *
 * NAMES is a file with a name on each line; all are asked for in turn, type A. Prints: answers a second, the median time
 * of one in microseconds, and how many were lost or not NOERROR with an answer. Ends with 1 where nothing is answered.
 */
#define _GNU_SOURCE
#include <sys/time.h>

#include "load.h"

enum { window_max = 256, names_max = 20000, query_max = 300, answer_max = 1500, silence_ms = 200, histogram_us = 20000 };

static struct {
	int size;
	unsigned char bytes[query_max];
} queries[names_max];
static int name_count;
static unsigned long histogram[histogram_us + 1];
static double sent_at[65536];

static void read_names(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256];

	if (!file)
		die(path);
	while (name_count < names_max && fgets(line, sizeof(line), file)) {
		unsigned char *q = queries[name_count].bytes;
		int at = 12;

		memcpy(q, (unsigned char[12]){ 0, 0, 1, 0, 0, 1 }, 12);
		line[strcspn(line, "\n")] = 0;
		for (char *label = strtok(line, "."); label; label = strtok(NULL, ".")) {
			q[at++] = strlen(label);
			memcpy(q + at, label, strlen(label));
			at += strlen(label);
		}
		memcpy(q + at, (unsigned char[5]){ 0, 0, 1, 0, 1 }, 5);
		queries[name_count++].size = at + 5;
	}
	fclose(file);
}

int main(int argc, char **argv)
{
	struct timeval silence = { .tv_usec = silence_ms * 1000 };
	static struct mmsghdr in[window_max], out[window_max];
	static struct iovec in_data[window_max], out_data[window_max];
	static unsigned char answers[window_max][answer_max];
	static unsigned char asked[window_max][query_max];
	unsigned long good = 0, bad = 0, seen = 0;
	unsigned short id = 0;
	int fd, window, room = 4 << 20, to_send, i = options(argc, argv);
	double start, end, t;

	if (argc - i != 5) {
		fprintf(stderr, "usage: dnsload [--cpu N] ADDRESS PORT MILLISECONDS WINDOW NAMES\n");
		return 2;
	}
	set_peer(argv[i], atoi(argv[i + 1]));
	window = atoi(argv[i + 3]) < window_max ? atoi(argv[i + 3]) : window_max;
	read_names(argv[i + 4]);
	fd = socket(peer.ss_family, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&peer, peer_size))
		die("connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));

	to_send = window;
	start = now();
	end = start + atoi(argv[i + 2]) / 1000.0;
	for (t = start; t < end; t = now()) {
		int n;

		for (int k = 0; k < to_send; k++, id++) {
			int name = seen++ % name_count;

			memcpy(asked[k], queries[name].bytes, queries[name].size);
			asked[k][0] = id >> 8;
			asked[k][1] = id;
			sent_at[id] = t;
			out_data[k] = (struct iovec){ asked[k], queries[name].size };
			out[k].msg_hdr = (struct msghdr){ .msg_iov = &out_data[k], .msg_iovlen = 1 };
		}
		for (int done = 0; done < to_send;) {
			n = sendmmsg(fd, out + done, to_send - done, 0);
			if (n < 0)
				die("send");
			done += n;
		}
		for (int k = 0; k < window; k++) {
			in_data[k] = (struct iovec){ answers[k], answer_max };
			in[k].msg_hdr = (struct msghdr){ .msg_iov = &in_data[k], .msg_iovlen = 1 };
		}
		n = recvmmsg(fd, in, window, MSG_WAITFORONE, NULL);
		if (n < 0) {
			/* All that was under way is lost. */
			if (errno != EAGAIN)
				die("receive");
			bad += window;
			to_send = window;
			continue;
		}
		t = now();
		for (int k = 0; k < n; k++) {
			const unsigned char *a = answers[k];
			double us = (t - sent_at[a[0] << 8 | a[1]]) * 1e6;

			if (in[k].msg_len < 12 || (a[3] & 15) != 0 || (a[6] << 8 | a[7]) == 0)
				bad++;
			else
				good++;
			histogram[us > histogram_us ? histogram_us : us < 0 ? 0 : (int)us]++;
		}
		to_send = n;
	}
	if (good == 0) {
		fprintf(stderr, "dnsload: nothing was answered\n");
		return 1;
	}
	unsigned long half = 0;
	int us = 0;

	while (us < histogram_us && (half += histogram[us]) * 2 < good + bad)
		us++;
	printf("%.0f %d %lu\n", good / (t - start), us, bad);
	return 0;
}
