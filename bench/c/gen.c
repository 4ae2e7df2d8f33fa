/* gen COUNT SIZE WINDOW [EVERY]: sends COUNT UDP datagrams of SIZE payload bytes
 * to 127.0.0.1:9999 with sendmmsg; with EVERY, each EVERYth to port 9998.
 * WINDOW > 0 bounds the packets under way by the socket's send buffer (works
 * where the queue holds packets before lo takes them from their socket: the
 * OUTPUT hook), so nothing is lost and the time is that of the queue. WINDOW 0
 * sends as fast as it can. WINDOW < 0: at -WINDOW packets a second. Waits until
 * all are out. Prints: elapsed_s sent */
#include "nl.h"
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
int main(int c, char **v)
{
	long n = atol(v[1]), done = 0; int size = atoi(v[2]), win = atoi(v[3]), every = c > 4 ? atoi(v[4]) : 0, out, i, pack = 32;
	static char data[65536] = "PING"; struct mmsghdr m[64]; struct iovec io = { data, size };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9999), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in other = to;
	other.sin_port = htons(9998);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (win > 0) { /* what one packet holds of the send buffer: see README */
		int true_size = size < 200 ? 768 : size < 700 ? 1280 : 2304, b = win * true_size / 2;
		setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &b, sizeof b);
		if (win < pack) pack = win;
	}
	if (connect(fd, (void *)&to, sizeof to)) die("connect");
	memset(m, 0, sizeof m);
	for (i = 0; i < 64; i++) { m[i].msg_hdr.msg_iov = &io; m[i].msg_hdr.msg_iovlen = 1; }
	double t = now();
	while (done < n) {
		int k = n - done < pack ? n - done : pack;
		if (win < 0) {
			k = 1;
			double at = t + done / (double)-win, d = at - now();
			if (d > 0) { struct timespec s = { 0, d * 1e9 }; nanosleep(&s, 0); }
		}
		if (every) for (i = 0; i < k; i++) {
			int o = (done + i) % every == 0;
			m[i].msg_hdr.msg_name = o ? &other : NULL;
			m[i].msg_hdr.msg_namelen = o ? sizeof other : 0;
		}
		k = sendmmsg(fd, m, k, 0);
		if (k < 0) { if (errno == ENOBUFS || errno == EPERM || errno == ECONNREFUSED) continue; die("sendmmsg"); }
		done += k;
	}
	do { if (ioctl(fd, SIOCOUTQ, &out)) die("SIOCOUTQ"); if (out) usleep(100); } while (out && now() - t < 60);
	printf("%.6f %ld\n", now() - t, done);
	return 0;
}
