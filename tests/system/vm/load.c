/* Visitors and upstreams for a machine with little memory: one process for any number of
 * connections.
 *
 *   load serve PORT echo     echoes
 *   load serve PORT deaf     reads four bytes: after "hold" nothing further, after "pour" it
 *                            sends without end, after others it responds "heard"
 *   load serve PORT http     responds to a request; to /held after two seconds without a new
 *                            one, and then to all of them at once; to /both without end
 *                            and without reading further bytes
 *
 *   load visit PORT N KIND HOST PID
 *     echo    each has 64 KiB in flight until 512 KiB were echoed
 *     get     a request for /held, and its complete response
 *     both    an endless request for /both, whose response is not read
 *     deaf    "hold" and bytes without end, or (every third) "pour" and deaf
 *   load ask PORT HOST       prints the response to a request for /
 *
 *   A visit waits until everything is done or nothing has moved for a while. It prints one
 *   line: responses by status, and in KiB the peak memory of PID and the lowest free memory
 *   of the machine.
 *
 * Everything is on 127.0.0.1 (BusyBox's own wget, as Debian links it, loads libraries to
 * resolve an address, which crashes on some machines). Built by run.sh with the compiler of
 * the cross builds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 512, CHUNK = 16384, AHEAD = 65536, EACH = 512 * 1024, ANSWER = 40000 };

struct conn {
	long long moved;  /* bytes read */
	long long sent;   /* bytes written */
	long long owed;   /* bytes to write; ENDLESS */
	int reads;        /* whether it wants to read */
	int status;       /* of the response */
	int held;
	int ended;
	unsigned had;     /* bytes in head */
	char head[1024];  /* the first received bytes */
};
static const long long ENDLESS = 1LL << 60;

static struct conn conns[MOST];
static struct pollfd polls[MOST + 1];
static int count;
static char chunk[CHUNK];

static void fail(const char *what) {
	printf("load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct sockaddr_in local(int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

/* A connection at the end of the list. */
static struct conn *add(int fd) {
	struct conn *c = &conns[count];
	memset(c, 0, sizeof *c);
	c->reads = 1;
	polls[count].fd = fd;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	count++;
	return c;
}

/* Writes due bytes as far as possible: -1 if the connection has ended. */
static int push(int i) {
	struct conn *c = &conns[i];
	while (c->owed > 0) {
		size_t n = c->owed < CHUNK ? c->owed : CHUNK;
		ssize_t done = send(polls[i].fd, chunk, n, MSG_NOSIGNAL);
		if (done < 0)
			return errno == EAGAIN ? 0 : -1;
		c->sent += done;
		if (c->owed != ENDLESS)
			c->owed -= done;
		if ((size_t)done < n)
			return 0;
	}
	return 0;
}

static void say(int i, const char *words) {
	/* A few bytes always fit. */
	if (send(polls[i].fd, words, strlen(words), MSG_NOSIGNAL) < 0)
		conns[i].ended = 1;
}

/* Reads once: the number of bytes, 0 at the end, -1 if there are none yet. */
static ssize_t pull(int i, char *to, size_t room) {
	struct conn *c = &conns[i];
	ssize_t n = recv(polls[i].fd, to, room, 0);
	if (n < 0)
		return errno == EAGAIN ? -1 : 0;
	c->moved += n;
	for (ssize_t k = 0; k < n && c->had < sizeof c->head - 1; k++)
		c->head[c->had++] = to[k];
	return n;
}

static void answer(int i) {
	struct conn *c = &conns[i];
	char words[128];
	snprintf(words, sizeof words, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", ANSWER);
	c->held = 0;
	c->had = 0;
	say(i, words);
	c->owed = ANSWER;
}

static int serve(int port, const char *kind) {
	static char room[CHUNK];
	int echo = !strcmp(kind, "echo"), deaf = !strcmp(kind, "deaf");
	int one = 1, small = 4096;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = local(port);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* The rest waits in the agent, whose memory is measured. */
	if (deaf)
		setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 256))
		fail("listen");
	long long last = now();
	for (;;) {
		for (int i = 0; i < count; i++) {
			struct conn *c = &conns[i];
			polls[i].events = (c->reads ? POLLIN : 0) | (c->owed ? POLLOUT : 0);
		}
		polls[count].fd = listener;
		polls[count].events = count < MOST ? POLLIN : 0;
		poll(polls, count + 1, 250);
		int listening = polls[count].revents;
		for (int i = 0; i < count; i++) {
			struct conn *c = &conns[i];
			int ready = polls[i].revents;
			if (ready & POLLOUT && push(i))
				c->ended = 1;
			if (ready & (POLLERR | POLLHUP) && !c->reads)
				c->ended = 1;
			if (!c->reads || !(ready & (POLLIN | POLLERR | POLLHUP)))
				continue;
			ssize_t n = pull(i, room, deaf && c->had < 4 ? 4 - c->had : sizeof room);
			if (n == 0)
				c->ended = 1;
			if (n <= 0)
				continue;
			c->head[c->had] = 0;
			if (echo) {
				/* Zeros are received and sent. */
				c->owed += n;
				if (push(i))
					c->ended = 1;
			} else if (deaf) {
				if (c->had < 4)
					continue;
				if (!strncmp(c->head, "hold", 4)) {
					c->reads = 0;
				} else if (!strncmp(c->head, "pour", 4)) {
					c->owed = ENDLESS;
				} else {
					say(i, "heard");
				}
			} else if (strstr(c->head, "\r\n\r\n")) {
				if (strstr(c->head, " /held ")) {
					c->held = 1;
					last = now();
				} else if (strstr(c->head, " /both ")) {
					say(i, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
					c->reads = 0;
					c->owed = ENDLESS;
				} else {
					answer(i);
				}
			}
		}
		if (now() - last > 2000)
			for (int i = 0; i < count; i++)
				if (conns[i].held)
					answer(i);
		for (int i = 0; i < count;) {
			if (!conns[i].ended) {
				i++;
				continue;
			}
			close(polls[i].fd);
			count--;
			conns[i] = conns[count];
			polls[i] = polls[count];
		}
		if (listening & POLLIN) {
			int fd = accept(listener, NULL, NULL);
			if (fd >= 0)
				add(fd);
		}
	}
}

/* A line of a file in /proc that is a name and a number. */
static long field(const char *path, const char *format) {
	char line[128];
	long value = 0;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, format, &value) == 1)
			break;
	if (file)
		fclose(file);
	return value;
}

/* The resident memory of a process in KiB, counted by pages. */
static long resident(const char *pid) {
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pid);
	return field(path, "Rss: %ld");
}

/* Returns whether a visitor has finished. */
static int content(struct conn *c, const char *kind) {
	return c->ended || (!strcmp(kind, "echo") && c->moved >= EACH);
}

static int visit(int port, int n, const char *kind, const char *host, const char *pid) {
	static char room[CHUNK];
	int echo = !strcmp(kind, "echo"), deaf = !strcmp(kind, "deaf"), both = !strcmp(kind, "both");
	/* Full buffers are detected when nothing moves; responses may need more time. */
	int patience = deaf || both ? 4000 : 30000, most_time = deaf || both ? 30000 : 90000;
	struct sockaddr_in a = local(port);
	long most = 0, free_least = 0, threads = 0;
	char words[256], status[64];
	snprintf(status, sizeof status, "/proc/%s/status", pid);
	for (int i = 0; i < n; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		/* A visitor over a limit may be reset before connect() returns. */
		int refused = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a);
		if (fd < 0 || (refused && errno != ECONNRESET))
			fail("connect");
		struct conn *c = add(fd);
		c->ended = refused;
		if (refused) {
			c->reads = 0;
		} else if (echo) {
			c->owed = AHEAD;
		} else if (deaf) {
			int pour = i % 3 == 0;
			say(i, pour ? "pour" : "hold");
			c->reads = 0;
			c->owed = pour ? 0 : ENDLESS;
		} else {
			snprintf(words, sizeof words, "%s /%s HTTP/1.1\r\nHost: %s\r\n%s\r\n",
				 both ? "POST" : "GET", both ? "both" : "held", host,
				 both ? "Content-Length: 1000000000\r\n" : "Connection: close\r\n");
			say(i, words);
			c->reads = !both;
			c->owed = both ? ENDLESS : 0;
		}
	}
	long long stirred = now(), looked = 0, begun = now();
	for (;;) {
		int left = 0;
		for (int i = 0; i < count; i++) {
			struct conn *c = &conns[i];
			int done = c->ended;
			polls[i].fd = done && polls[i].fd >= 0 ? -1 - polls[i].fd : polls[i].fd;
			polls[i].events = (c->reads ? POLLIN : 0) | (c->owed ? POLLOUT : 0);
			left += !content(c, kind);
		}
		if (!left || now() - stirred > patience || now() - begun > most_time)
			break;
		poll(polls, count, 100);
		for (int i = 0; i < count; i++) {
			struct conn *c = &conns[i];
			int ready = polls[i].revents;
			if (!ready || polls[i].fd < 0)
				continue;
			if (ready & (POLLERR | POLLHUP) && !c->reads)
				c->ended = 1;
			if (ready & POLLOUT) {
				long long before = c->sent;
				if (push(i))
					c->ended = 1;
				if (c->sent > before)
					stirred = now();
			}
			if (c->reads && ready & (POLLIN | POLLERR | POLLHUP)) {
				ssize_t got = pull(i, room, sizeof room);
				if (got == 0)
					c->ended = 1;
				if (got >= 0)
					stirred = now();
				if (got > 0 && echo)
					c->owed += got;
				c->head[c->had] = 0;
				if (!c->status && !echo && strchr(c->head, '\n') &&
				    sscanf(c->head, "HTTP/1.%*d %d", &c->status) != 1)
					c->status = -1;
			}
		}
		if (now() - looked > 100) {
			long rss = resident(pid), left = field("/proc/meminfo", "MemFree: %ld");
			long running = field(status, "Threads: %ld");
			looked = now();
			if (running > threads)
				threads = running;
			if (rss > most)
				most = rss;
			if (!free_least || left < free_least)
				free_least = left;
		}
	}
	int good = 0, refused = 0, bad = 0, other = 0, silent = 0, open = 0;
	long long moved = 0, sent = 0;
	for (int i = 0; i < count; i++) {
		struct conn *c = &conns[i];
		moved += c->moved;
		sent += c->sent;
		open += !c->ended;
		if (echo)
			c->status = c->moved >= EACH ? 200 : 0;
		switch (c->status) {
		case 200: good++; break;
		case 502: bad++; break;
		case 503: refused++; break;
		case 0: silent++; break;
		default: other++;
		}
	}
	printf("ok=%d busy=%d bad=%d other=%d none=%d open=%d read=%lld sent=%lld "
	       "rss=%ld threads=%ld free_least=%ld seconds=%lld\n",
	       good, refused, bad, other, silent, open, moved, sent, most,
	       threads, free_least, (now() - begun) / 1000);
	return 0;
}

static int ask(int port, const char *host) {
	struct sockaddr_in a = local(port);
	struct timeval patience = {.tv_sec = 20};
	char words[256];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		fail("connect");
	snprintf(words, sizeof words, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
	send(fd, words, strlen(words), MSG_NOSIGNAL);
	for (;;) {
		ssize_t n = recv(fd, chunk, sizeof chunk, 0);
		if (n < 0)
			fail("receive");
		if (n == 0)
			return 0;
		fwrite(chunk, 1, n, stdout);
	}
}

int main(int argc, char **argv) {
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argv[3]);
	if (argc == 4 && !strcmp(argv[1], "ask"))
		return ask(atoi(argv[2]), argv[3]);
	if (argc == 7 && !strcmp(argv[1], "visit") && atoi(argv[3]) <= MOST)
		return visit(atoi(argv[2]), atoi(argv[3]), argv[4], argv[5], argv[6]);
	fprintf(stderr, "usage: load serve PORT KIND | load ask PORT HOST | load visit PORT N KIND HOST PID\n");
	return 2;
}
