/* late COUNT RATE [PORT]: sends COUNT datagrams to itself over lo at RATE a second,
 * many under way, each with its time, and prints how long they took in microseconds:
 * least p50 p99 most lost. Ends 3 s after the last one that came. */
#include "nl.h"
#include <netinet/in.h>
#include <pthread.h>
static int n, r;
static double *w;
static int got;
static int cmp(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return (d > 0) - (d < 0); }
static void *receive(void *x)
{
	char b[64]; double t; (void)x;
	while (got < n && recv(r, b, sizeof b, 0) == sizeof b) {
		memcpy(&t, b, sizeof t);
		w[got++] = (now() - t) * 1e6;
	}
	return 0;
}
int main(int c, char **v)
{
	double rate, t0; int i, size = 64 << 20; char b[64] = { 0 }; pthread_t th; struct timeval tv = { 3, 0 };
	if (c < 3) return 2;
	n = atoi(v[1]); rate = atof(v[2]); w = calloc(n, sizeof *w);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(c > 3 ? atoi(v[3]) : 9998), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	r = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(r, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	if (bind(r, (void *)&a, sizeof a) || connect(s, (void *)&a, sizeof a)) die("bind");
	pthread_create(&th, 0, receive, 0);
	t0 = now();
	for (i = 0; i < n; i++) {
		double d = t0 + i / rate - now(), t;
		if (d > 0) { struct timespec q = { 0, d * 1e9 }; nanosleep(&q, 0); }
		t = now();
		memcpy(b, &t, sizeof t);
		while (send(s, b, sizeof b, 0) < 0) usleep(100);
	}
	pthread_join(th, 0);
	if (!got) { printf("- - - - %d\n", n); return 0; }
	qsort(w, got, sizeof *w, cmp);
	printf("%.1f %.1f %.1f %.1f %d\n", w[0], w[got / 2], w[(long)got * 99 / 100], w[got - 1], n - got);
	return 0;
}
